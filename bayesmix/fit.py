"""Sampling a swarm's model: the fit, its diagnostics, saving and loading."""

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import arviz as az
import numpy as np
import nutpie
import pandas as pd
import pymc as pm
import xarray as xr

from bayesmix import law as laws
from bayesmix import priors as prior_module
from bayesmix._files import atomic_path
from bayesmix.model import (
    MODEL_VERSION,
    build_model,
    components,
    kept_variables,
    law_draws,
    observed_log_loss,
    reference,
)
from bayesmix.priors import Prior, default_priors, replace_priors
from bayesmix.runs import Runs, runs_from_frame

if TYPE_CHECKING:
    from bayesmix.predict import Prediction

_PACKAGES = ("bayesmix", "pymc", "pytensor", "nutpie", "arviz", "numba", "numpy")
_FORMAT = "bayesmix fit"
# held to R-hat <= 1.01 and ESS >= 400; the rest to R-hat <= 1.02
_STRICT = ("level", "share_", "a", "b", "g", "q", "dof", "rho")
_STRICT_ENDS = ("_mean", "_spread", "_kin")


class FitFileError(ValueError):
    """A file that is not a fit, or a fit of another model version."""


@dataclass(frozen=True)
class Diagnosis:
    """Whether the chains can be trusted.

    Attributes
    ----------
    passed : bool
        True when R-hat <= 1.01 and bulk and tail ESS >= 400 for levels, shares, exponents,
        hyper-parameters and the predictions at the data, R-hat <= 1.02 for the rest, and
        divergences are at most 0.1% of the draws.
    table : DataFrame
        One row a variable: worst ``r_hat``, ``ess_bulk``, ``ess_tail``, where, and ``ok``.
    text : str
        The same in plain words.
    """

    passed: bool
    table: pd.DataFrame
    text: str

    def __repr__(self) -> str:
        return self.text


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
    """

    posterior: xr.DataTree
    runs: Runs
    law: str
    priors: dict[str, Prior]

    @property
    def components(self) -> tuple[str, ...]:
        """What has a loss: the domains, then ``target:<name>``."""
        return components(self.runs)

    @property
    def observed_components(self) -> tuple[str, ...]:
        """The domains with observed losses, over which ``mean`` is taken."""
        seen = np.isfinite(self.runs.losses.values).any(axis=0)
        return tuple(d for d, s in zip(self.runs.domains, seen, strict=True) if s)

    def diagnose(self) -> Diagnosis:
        """Check that the chains agree; see `Diagnosis`."""
        return diagnose(self)

    def predict(self, weights, n_params=None, n_tokens=None, **options) -> "Prediction":
        """Losses at any mixture, N and D: see `bayesmix.predict.predict`."""
        # the one arrow that points up the map, so that users find predict on the fit
        from bayesmix.predict import predict

        return predict(self, weights, n_params, n_tokens, **options)

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
            "runs_hash": self.runs.hash,
            "weight_resolution": self.runs.weight_resolution,
            "runs_source": self.runs.source,
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
            f"{size['chain']} chains x {size['draw']} draws. {self.diagnose().text}"
        )

    def _repr_html_(self) -> str:
        table = self.diagnose().table.to_html(float_format="{:.3g}".format)
        first, *rest = repr(self).splitlines()
        return f"<b>{first}</b><br>{'<br>'.join(rest)}<details><summary>diagnostics</summary>{table}</details>"


def fit(
    runs: Runs,
    law: str = "transfer",
    *,
    priors: Mapping[str, Prior] | None = None,
    checkpoints: Literal["late", "last", "all"] = "late",
    draws: int = 1000,
    tune: int = 1000,
    chains: int = 4,
    seed: int = 0,
    cores: int | None = None,
    sampler: Literal["nutpie", "pymc"] = "nutpie",
    progressbar: bool = True,
) -> Fit:
    """Sample the posterior of a law, given a swarm.

    Parameters
    ----------
    runs : Runs
        The swarm.
    law : str
        ``transfer`` (default), ``regression`` or ``quantization``; see `bayesmix.law.LAWS`.
    priors : mapping, optional
        Replacements for `default_priors`, by name.
    checkpoints : str
        ``late``: at most four a run, over the last 75% of its tokens; ``last``; ``all``.
    draws, tune, chains : int
        Draws kept and warm-up draws of each chain, and the number of chains.
    seed : int
        The same seed gives the same posterior.
    cores : int, optional
        Chains run at once; all cores by default.
    sampler : str
        ``nutpie``, or PyMC's own NUTS.
    progressbar : bool
        Show one.

    Returns
    -------
    Fit

    Raises
    ------
    ValueError
        If the law, a prior's name or the choice of checkpoints is unknown.
    """
    for name, value in {"draws": draws, "tune": tune, "chains": chains}.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    runs = runs.checkpoints(checkpoints)
    model = build_model(runs, law, priors)
    ref = reference(runs)
    used = replace_priors(default_priors(ref.n_params, ref.n_tokens), priors)
    cores = min(cores or os.cpu_count() or 1, chains)
    tree = _sample(model, draws, tune, chains, seed, cores, sampler, progressbar)
    return Fit(_with_observed(tree, runs), runs, law, used)


def _sample(model, draws, tune, chains, seed, cores, sampler, progressbar) -> xr.DataTree:
    """Posterior and sample stats, variables in natural units only."""
    if sampler == "pymc":
        with model:
            tree = pm.sample(
                draws,
                tune=tune,
                chains=chains,
                cores=cores,
                random_seed=seed,
                progressbar=progressbar,
                compute_convergence_checks=False,
                var_names=kept_variables(model),
            )
    elif sampler == "nutpie":
        compiled = nutpie.compile_pymc_model(model, var_names=kept_variables(model))
        tree = nutpie.sample(
            compiled,
            draws=draws,
            tune=tune,
            chains=chains,
            cores=cores,
            seed=seed,
            progress_bar=progressbar,
            save_warmup=False,
        )
    else:
        raise ValueError(f"unknown sampler {sampler!r}; valid names: nutpie, pymc")
    stats = tree["sample_stats"].to_dataset()
    keep = [n for n in ("diverging", "n_steps", "tree_depth", "depth", "step_size", "logp", "lp")]
    posterior = tree["posterior"].to_dataset()
    return xr.DataTree.from_dict(
        {
            "posterior": posterior,
            "sample_stats": stats[[n for n in keep if n in stats]],
        }
    )


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
    """The law's losses at the fitted rows, for every draw.

    Returns
    -------
    DataArray, dims (chain, draw, row, component)
        Nats per token.
    """
    posterior = fit.posterior["posterior"].to_dataset()
    runs, variant = fit.runs, laws.LAWS[fit.law]
    at = laws.points(runs.effective_weights().values, runs.n_params.values, runs.n_tokens.values)
    draws = law_draws(posterior, fit.law)
    values = laws.evaluate_draws(
        *(draws[name] for name in laws.PARAMETERS), *at.arrays, variant.noise, variant.head
    )
    shape = (posterior.sizes["chain"], posterior.sizes["draw"], *values.shape[1:])
    return xr.DataArray(
        values.reshape(shape),
        dims=("chain", "draw", "row", "component"),
        coords={"component": list(fit.components)},
        attrs={"units": "nats per token"},
    )


def diagnose(fit: Fit) -> Diagnosis:
    """R-hat, effective sample sizes, divergences and disagreeing chains, in plain words."""
    posterior = fit.posterior["posterior"].to_dataset()
    checked = posterior.assign({"predictions at the data": fitted_losses(fit)})
    table = pd.DataFrame([_worst(checked[name]) for name in checked.data_vars]).set_index(
        "variable"
    )
    stats = fit.posterior["sample_stats"]
    diverging = float(stats["diverging"].mean())
    n_draws = posterior.sizes["chain"] * posterior.sizes["draw"]
    passed = bool(table["ok"].all() and diverging <= 0.001)
    if passed:
        text = (
            f"The chains agree: worst R-hat {table['r_hat'].max():.3f}, "
            f"least ESS {table[['ess_bulk', 'ess_tail']].min().min():.0f}, "
            f"{diverging * n_draws:.0f} divergences in {n_draws} draws."
        )
    else:
        text = " ".join(_troubles(checked, table, diverging, n_draws))
    return Diagnosis(passed, table, text)


def _worst(values: xr.DataArray) -> dict:
    """The worst diagnostics over a variable's entries; constant entries need none."""
    name = str(values.name)
    varies = values.std(("chain", "draw")) > 0
    strict = name == "predictions at the data" or (
        name in _STRICT or name.startswith("share_") or name.endswith(_STRICT_ENDS)
    )
    single = values.sizes["chain"] < 2
    r_hat = xr.full_like(varies, np.nan, dtype=float) if single else _quietly(az.rhat, values)
    bulk = _quietly(az.ess, values, method="bulk").where(varies)
    tail = _quietly(az.ess, values, method="tail").where(varies)
    r_hat = r_hat.where(varies)
    worst, least_bulk, least_tail = float(r_hat.max()), float(bulk.min()), float(tail.min())
    if not varies.any():
        ok = True
    elif strict:
        ok = worst <= 1.01 and least_bulk >= 400 and least_tail >= 400
    else:
        ok = worst <= 1.02
    where = ""
    if r_hat.ndim and bool(r_hat.notnull().any()):
        where = ", ".join(str(r_hat[dim].values[i]) for dim, i in _argmax(r_hat).items())
    return {
        "variable": name,
        "r_hat": worst,
        "ess_bulk": least_bulk,
        "ess_tail": least_tail,
        "where": where,
        "strict": strict,
        "ok": ok,
    }


def _quietly(function, values: xr.DataArray, **options) -> xr.DataArray:
    """ArviZ divides zero by zero on the entries that are constant, such as tau_ii = 1."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return function(values, **options)


def _argmax(values: xr.DataArray) -> dict:
    return {dim: int(i) for dim, i in values.argmax(values.dims).items()}


def _troubles(checked, table, diverging, n_draws) -> list[str]:
    """One sentence for each way in which the sampler struggled."""
    said = []
    failing = table[~table["ok"]].sort_values("r_hat", ascending=False)
    if len(failing):
        name, row = failing.index[0], failing.iloc[0]
        place = f"{name} [{row['where']}]" if row["where"] else name
        said.append(
            f"The chains have not converged: {place} has R-hat {row['r_hat']:.3f} and "
            f"{row['ess_bulk']:.0f} effective draws ({len(failing)} of {len(table)} quantities "
            "miss their bound). Sample longer (more tune and draws)."
        )
        split = _split_chains(checked, failing)
        if split:
            said.append(split)
    if diverging > 0.001:
        said.append(
            f"{diverging * n_draws:.0f} of {n_draws} draws diverged: the posterior has places "
            "that the sampler could not follow; look for outliers in the losses."
        )
    return said


def _split_chains(checked, failing) -> str:
    """Name the chains that sit elsewhere, if chains are apart rather than slow."""
    worst = failing[failing["r_hat"] > 1.2]
    for name in worst.index:
        values = checked[name]
        spread = values.std("draw").mean("chain")
        means = values.mean("draw")
        apart = abs(means - means.median("chain")) / spread.where(spread > 0)
        flags = apart.max([d for d in apart.dims if d != "chain"]) > 3
        chains = [int(c) for c in flags["chain"].values[flags.values]]
        if chains:
            listed = ", ".join(map(str, chains))
            return (
                f"The posterior looks multimodal: chain {listed} settled elsewhere for {name}; "
                "do not average over the chains."
            )
    return ""


def load(path: str | os.PathLike) -> Fit:
    """Read a fit that `Fit.save` wrote.

    Raises
    ------
    FitFileError
        If the file is absent, not a fit, or of another model version.
    """
    path = Path(path)
    if not path.is_file():
        raise FitFileError(f"{path}: no such file")
    try:
        with xr.open_datatree(path, engine="h5netcdf") as opened:
            tree = opened.load()
    except (OSError, ValueError, KeyError) as error:
        raise FitFileError(f"{path}: not a NetCDF file ({error})") from error
    if tree.attrs.get("format") != _FORMAT:
        raise FitFileError(f"{path}: a NetCDF file, but not a fit of bayesmix")
    found = int(tree.attrs["model_version"])
    if found != MODEL_VERSION:
        raise FitFileError(
            f"{path}: a fit of model version {found}; this bayesmix reads version "
            f"{MODEL_VERSION}: fit again"
        )
    frame = pd.read_csv(StringIO(str(tree["runs"]["csv"].item())), dtype={"run_id": str})
    runs = runs_from_frame(
        frame,
        source=tree.attrs["runs_source"],
        weight_resolution=float(tree.attrs["weight_resolution"]),
    )
    if runs.hash != tree.attrs["runs_hash"]:
        raise FitFileError(f"{path}: the runs in it do not match their hash; the file is damaged")
    priors = {
        name: getattr(prior_module, entry.pop("kind"))(**entry)
        for name, entry in json.loads(tree.attrs["priors"]).items()
    }
    law = tree.attrs["law"]
    del tree["runs"]
    tree.attrs = {}
    return Fit(tree, runs, law, priors)
