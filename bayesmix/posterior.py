"""A fitted posterior: what it holds, its diagnosis, its losses, saving and loading."""

import html
import json
import os
import platform
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesmix import priors as prior_module
from bayesmix._files import atomic_path
from bayesmix.diagnostics import Diagnosis, diagnose
from bayesmix.discrepancy import evidence
from bayesmix.draws import law_draws, losses_at_rows
from bayesmix.model import MODEL_VERSION, components, observed_domains, observed_log_loss
from bayesmix.noise import at_printed_zeros
from bayesmix.priors import Prior
from bayesmix.runs import Runs, runs_from_frame

if TYPE_CHECKING:
    from bayesmix.predict import Prediction

_PACKAGES = ("bayesmix", "pymc", "pytensor", "nutpie", "arviz", "numba", "numpy")
_FORMAT = "bayesmix fit"


class FitFileError(ValueError):
    """A file that is not a fit, or a fit of another model version."""


@dataclass(frozen=True, repr=False)
class Fit:
    """A sampled posterior, with what it was sampled from.

    Attributes
    ----------
    posterior : DataTree
        Groups ``posterior`` (dims ``chain``, ``draw``, ``component``, ``domain``, ``source``),
        ``sample_stats`` and ``observed_data``. E, level: nats per token; sigma: of log loss.
    runs : Runs
        The rows that were fitted.
    law : str
        The variant.
    priors : dict
        Every prior by name.
    groups : dict
        {domain: group} of what shares tau; empty if each pair of domains has its own.

    Examples
    --------
    >>> from bayesmix import load_dataset
    >>> from bayesmix.prior_predictive import prior_fit
    >>> drawn = prior_fit(load_dataset("simulated"), draws=20)  # any fit; here the prior
    >>> drawn.components
    ('code', 'prose', 'qa', 'wiki', 'papers', 'target:exam')
    >>> drawn.posterior["posterior"]["tau"].sizes
    Frozen({'chain': 1, 'draw': 20, 'component': 6, 'source': 5})
    >>> even = dict.fromkeys(drawn.runs.domains, 0.2)
    >>> drawn.predict(even, n_params=4e9, n_tokens=8e10).draws["loss"].dims
    ('draw', 'row', 'domain')
    """

    posterior: xr.DataTree
    runs: Runs
    law: str
    priors: dict[str, Prior]
    groups: dict[str, str] = field(default_factory=dict)

    @property
    def components(self) -> tuple[str, ...]:
        """What has a loss: the domains, then ``target:<name>``."""
        return components(self.runs)

    @property
    def observed_components(self) -> tuple[str, ...]:
        """The domains with observed losses, over which ``mean`` is taken."""
        return observed_domains(self.runs)

    def diagnose(self) -> Diagnosis:
        """Check that the chains agree; see `Diagnosis`."""
        return self._diagnosis

    @cached_property
    def _diagnosis(self) -> Diagnosis:
        """Computed once, and saved: R-hat and ESS of every prediction take seconds."""
        # given the offsets, which are checked, these are no draws of the sampler's
        checked = (
            self.posterior["posterior"].to_dataset().drop_vars("misfit_scale", errors="ignore")
        )
        checked = checked.assign({"predictions at the data": fitted_losses(self)})
        return diagnose(checked, self.posterior["sample_stats"].to_dataset())

    def predict(self, weights: Any, *args: Any, **options: Any) -> "Prediction":
        """Losses at any mixture, N and D: see `bayesmix.predict.predict`."""
        # the one arrow that points up the map, so that users find predict on the fit
        from bayesmix.predict import predict

        return predict(self, weights, *args, **options)

    def save(self, path: str | os.PathLike) -> None:
        """Write one NetCDF file, whole or not at all.

        Parameters
        ----------
        path : path
            Conventionally ``*.nc``; replaced if it exists.
        """
        tree = self.posterior.copy()
        tree["runs"] = xr.DataTree(xr.Dataset({"csv": ((), self.runs.frame.to_csv(index=False))}))
        tree.attrs = {
            "format": _FORMAT,
            "model_version": MODEL_VERSION,
            "law": self.law,
            "groups": json.dumps(self.groups),
            "runs_hash": self.runs.hash,
            "weight_resolution": self.runs.weight_resolution,
            "runs_source": self.runs.source,
            "diagnosis": self.diagnose().to_json(),
            "priors": json.dumps(
                {n: {"kind": type(p).__name__, **asdict(p)} for n, p in self.priors.items()}
            ),
            "versions": json.dumps(
                {"python": platform.python_version(), **{p: version(p) for p in _PACKAGES}}
            ),
        }
        with atomic_path(path) as temporary:
            tree.to_netcdf(temporary, engine="h5netcdf")

    def __repr__(self) -> str:
        size = self.posterior["posterior"].sizes
        return (
            f"Fit of the {self.law} law to {self.runs!r}\n"
            f"{size['chain']} chains x {size['draw']} draws. {self.diagnose().text} "
            f"{evidence(self.runs)}"
        )

    def _repr_html_(self) -> str:
        table = self.diagnose().table.to_html(float_format="{:.3g}".format)
        first, *rest = repr(self).splitlines()
        details = f"<details><summary>diagnostics</summary>{table}</details>"
        return f"<b>{html.escape(first)}</b><br>{html.escape(' '.join(rest))}{details}"


def with_observed(tree: xr.DataTree, runs: Runs) -> xr.DataTree:
    """The tree with the losses that were fitted, nats per token."""
    observed = xr.DataArray(
        np.exp(observed_log_loss(runs)),
        dims=("row", "component"),
        coords={"run_id": ("row", runs.run_ids.values), "component": list(components(runs))},
        attrs={"units": "nats per token"},
    )
    tree["observed_data"] = xr.DataTree(xr.Dataset({"loss": observed}))
    return tree


def fitted_losses(fit: Fit) -> xr.DataArray:
    """The losses at the fitted rows without discrepancy and noise, for every draw.

    Returns
    -------
    DataArray, dims (chain, draw, row, component)
        Nats per token.
    """
    posterior = fit.posterior["posterior"].to_dataset()
    runs, draws = fit.runs, law_draws(posterior)
    values = losses_at_rows(runs, draws, fit.law)
    values *= at_printed_zeros(draws["zero_shift"], runs.weights.values, runs.weight_resolution)
    shape = (posterior.sizes["chain"], posterior.sizes["draw"], *values.shape[1:])
    return xr.DataArray(
        values.reshape(shape),
        dims=("chain", "draw", "row", "component"),
        coords={"component": list(fit.components)},
        attrs={"units": "nats per token"},
    )


def load(path: str | os.PathLike) -> Fit:
    """Read a fit that `Fit.save` wrote.

    Raises
    ------
    FitFileError
        If the file is absent, not a fit, damaged, or of another model version.

    Examples
    --------
    >>> import tempfile
    >>> from bayesmix import load_dataset
    >>> from bayesmix.prior_predictive import prior_fit
    >>> drawn = prior_fit(load_dataset("simulated"), draws=20)  # any fit; here the prior
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     drawn.save(f"{folder}/fit.nc")
    ...     again = load(f"{folder}/fit.nc")
    >>> again.law, again.runs == drawn.runs
    ('transfer', True)
    """
    path = Path(path)
    if path.is_dir():
        raise FitFileError(f"{path}: a directory, not a file")
    if not path.is_file():
        raise FitFileError(f"{path}: no such file")
    try:
        with xr.open_datatree(path, engine="h5netcdf") as opened:
            tree = opened.load()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise FitFileError(f"{path}: not a NetCDF file, or a damaged one ({error})") from error
    if tree.attrs.get("format") != _FORMAT:
        raise FitFileError(f"{path}: a NetCDF file, but not a fit of bayesmix")
    found = tree.attrs.get("model_version")
    if found != MODEL_VERSION:
        raise FitFileError(
            f"{path}: a fit of model version {found}; this bayesmix reads version "
            f"{MODEL_VERSION}: fit again"
        )
    try:
        return _restored(tree)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise FitFileError(f"{path}: the file is damaged ({error})") from error


def _restored(tree: xr.DataTree) -> Fit:
    """The fit that a file holds."""
    # text, as `read_runs` takes it: a run called NA is no blank, and a group 01 no number
    text = StringIO(str(tree["runs"]["csv"].item()))
    runs = runs_from_frame(
        pd.read_csv(text, dtype=str, keep_default_na=False),
        source=tree.attrs["runs_source"],
        weight_resolution=float(tree.attrs["weight_resolution"]),
    )
    if runs.hash != tree.attrs["runs_hash"]:
        raise ValueError("the runs in it do not match their hash")
    priors = {
        name: getattr(prior_module, entry.pop("kind"))(**entry)
        for name, entry in json.loads(tree.attrs["priors"]).items()
    }
    groups = json.loads(tree.attrs["groups"])
    law, diagnosis = tree.attrs["law"], Diagnosis.from_json(tree.attrs["diagnosis"])
    del tree["runs"]
    tree.attrs = {}
    fit = Fit(tree, runs, law, priors, groups)
    fit.__dict__["_diagnosis"] = diagnosis
    return fit
