"""Sampling a swarm's model: the fit, its diagnostics, saving and loading."""

import gc
import html
import json
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import pymc as pm
import xarray as xr

from bayesmix import priors as prior_module
from bayesmix._files import atomic_path
from bayesmix.diagnostics import Diagnosis, diagnose
from bayesmix.discrepancy import evidence
from bayesmix.draws import law_draws, losses_at_rows
from bayesmix.model import (
    MODEL_VERSION,
    build_model,
    components,
    kept_variables,
    observed_domains,
    observed_log_loss,
    structure,
)
from bayesmix.noise import at_printed_zeros
from bayesmix.priors import Prior, default_priors, replace_priors
from bayesmix.reference import reference
from bayesmix.runs import Runs, runs_from_frame

if TYPE_CHECKING:
    from bayesmix.predict import Prediction

_PACKAGES = ("bayesmix", "pymc", "pytensor", "nutpie", "arviz", "numba", "numpy")
_FORMAT = "bayesmix fit"
# acceptance aimed at, and that where `fade` is sampled: there chains get stuck at 0.8, elsewhere
# shorter steps only make trajectories shorter (docs/sampling.md)
_ACCEPT, _ACCEPT_FADE = 0.8, 0.9
_STATS = ("diverging", "n_steps", "tree_depth", "depth", "step_size", "logp", "lp")


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
        checked = self.posterior["posterior"].to_dataset()
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


def fit(
    runs: Runs,
    law: str = "transfer",
    *,
    priors: Mapping[str, Prior] | None = None,
    groups: Mapping[str, str] | None = None,
    checkpoints: Literal["late", "last", "all"] = "late",
    draws: int = 1000,
    tune: int = 1000,
    chains: int = 4,
    seed: int = 0,
    cores: int | None = None,
    sampler: Literal["nutpie", "pymc"] = "nutpie",
    backend: Literal["numba", "jax"] = "numba",
    progressbar: bool = True,
) -> Fit:
    """Sample the posterior of a law, given a swarm.

    Parameters
    ----------
    runs : Runs
        The swarm.
    law : str
        ``transfer`` (default), ``regression`` or ``quantization``; see README.
    priors : mapping, optional
        Replacements for `default_priors`, by name.
    groups : mapping, optional
        {domain: group}, for many domains: how much a token of one domain is worth to another
        (tau) is then equal for all pairs of the same two groups. A domain that is not named is a
        group of its own.
    checkpoints : str
        ``late``: at most four a run, over the last 75% of its tokens; ``last``; ``all``.
    draws, tune, chains : int
        Draws kept and warm-up draws of each chain, and the number of chains.
    seed : int
        The same seed gives the same draws, but for rounding: code compiled just now and code
        from the caches round unlike, and chains amplify that.
    cores : int, optional
        Chains run at once; all cores by default.
    sampler : str
        ``nutpie``, or PyMC's own NUTS.
    backend : str
        What nutpie compiles the model with: ``numba``, or ``jax`` for accelerators (extra
        ``jax``).
    progressbar : bool
        Show one.

    Returns
    -------
    Fit

    Raises
    ------
    ValueError
        If the law, a prior's name, a domain in a group, the choice of checkpoints, the sampler or
        the backend is unknown, groups are given to a law without transfer, or the backend is
        ``jax`` and the sampler not nutpie.
    ImportError
        If the backend is ``jax`` and JAX is not installed.
    """
    if backend not in ("numba", "jax"):
        raise ValueError(f"unknown backend {backend!r}; valid names: numba, jax")
    if backend == "jax" and sampler != "nutpie":
        raise ValueError(f"backend 'jax' is nutpie's, not of sampler {sampler!r}")
    for name, value in {"draws": draws, "tune": tune, "chains": chains}.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    runs = runs.checkpoints(checkpoints)
    # labels may be of any kind, such as numbers of clusters; a file holds text
    named = {str(domain): str(group) for domain, group in sorted((groups or {}).items())}
    model = build_model(runs, law, priors, named)
    ref = reference(runs)
    used = replace_priors(default_priors(ref.n_params, ref.n_tokens), priors)
    cores = min(cores or os.cpu_count() or 1, chains)
    tree = _sample(model, draws, tune, chains, seed, cores, sampler, backend, progressbar)
    return Fit(_with_observed(tree, runs), runs, law, used, named)


def _sample(
    model: pm.Model,
    draws: int,
    tune: int,
    chains: int,
    seed: int,
    cores: int,
    sampler: str,
    backend: str,
    progressbar: bool,
) -> xr.DataTree:
    """Posterior and sample stats, variables in natural units only."""
    target_accept = _ACCEPT_FADE if "fade" in model else _ACCEPT
    if sampler == "pymc":
        with model:
            tree = pm.sample(
                draws,
                tune=tune,
                chains=chains,
                cores=cores,
                random_seed=seed,
                progressbar=progressbar,
                target_accept=target_accept,
                compute_convergence_checks=False,
            )
    elif sampler == "nutpie":
        # imports ArviZ, which takes longer than all else together
        import nutpie

        by_nutpie = _compiled_jax(model) if backend == "jax" else compiled(model)
        tree = nutpie.sample(
            by_nutpie,
            draws=draws,
            tune=tune,
            chains=chains,
            cores=cores,
            seed=seed,
            progress_bar=progressbar,
            save_warmup=False,
            # NUTS turns back too early where some directions are much longer than most: one
            # doubling more gave 10 times the ESS for 4 times the steps on 17 domains
            extra_doublings=1,
            target_accept=target_accept,
        )
    else:
        raise ValueError(f"unknown sampler {sampler!r}; valid names: nutpie, pymc")
    stats = tree["sample_stats"].to_dataset()
    posterior = tree["posterior"].to_dataset()[kept_variables(model)]
    # a shared model has the names of the swarm that it was compiled for
    posterior = posterior.assign_coords(
        {name: list(model.coords[name]) for name in posterior.dims if name in model.coords}
    )
    return xr.DataTree.from_dict(
        {
            "posterior": posterior,
            "sample_stats": stats[[n for n in _STATS if n in stats]],
        }
    )


# the last model compiled, and what nutpie made of it: refits of swarms of one shape, as in a
# calibration study, share it
_last: dict[tuple, tuple[pm.Model, Any]] = {}


def compiled(model: pm.Model) -> Any:
    """The model compiled for nutpie, or one compiled before with this model's data put in."""
    import nutpie

    key = structure(model)
    if key not in _last:
        _last.clear()
        with _no_collection():
            _last[key] = model, nutpie.compile_pymc_model(model)
    first, shared_model = _last[key]
    # a law without some terms does not use all
    functions = (shared_model.logp_func, shared_model.expand_func)
    used = {data.name for function in functions for data in function.get_shared()}
    values = {data.name: data.get_value() for data in model.data_vars}
    # starts are computed from the first model's own data: without this, draws would depend on
    # what was fitted before
    for name, value in values.items():
        first[name].set_value(value)
    values = {name: value for name, value in values.items() if name in used}
    if not used or values.keys() != used:  # what is sampled would be the swarm before
        raise RuntimeError("nutpie does not name the data as the model does: another version?")
    return shared_model.with_data(**values)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Compilation makes millions of objects that stay: to look for garbage is a tenth of it."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _compiled_jax(model: pm.Model) -> Any:
    """The model compiled by JAX, which takes its gradient too."""
    import nutpie

    try:
        import bayesmix.jax_ops  # noqa: F401  tells PyTensor how
    except ModuleNotFoundError as error:
        message = "backend 'jax' needs JAX: install bayesmix with its extra, bayesmix[jax]"
        raise ImportError(message) from error
    return nutpie.compile_pymc_model(model, backend="jax", gradient_backend="jax")


def _with_observed(tree: xr.DataTree, runs: Runs) -> xr.DataTree:
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
    """
    path = Path(path)
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
