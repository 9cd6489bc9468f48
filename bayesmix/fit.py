"""Sampling a swarm's model by NUTS."""

import operator
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import pymc as pm
import xarray as xr
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from bayesmix.compiling import compiled, compiled_jax
from bayesmix.law import variant
from bayesmix.misfit import with_learned_scales
from bayesmix.model import build_model, kept_variables, usable_cells
from bayesmix.natural import in_natural_units
from bayesmix.posterior import Fit, with_observed
from bayesmix.priors import Prior
from bayesmix.reference import swarm_priors
from bayesmix.runs import Runs
from bayesmix.starts import climbed, warmed

# NUTS turns back too early where some directions are much longer than most: trajectories have a
# fixed length, 2^depth - 1 steps, or twice that (docs/sampling.md). Many unknowns without `fade`
# want longer steps; elsewhere chains get stuck at an acceptance below 0.9
_DEPTH, _ACCEPT = 8, 0.9
_MANY, _ACCEPT_MANY = 400, 0.7
# fewer draws do not agree however they are drawn; where R-hat is higher, chains are apart
_ENOUGH, _APART = 2000, 1.1
# all but the last iterations of the warm-up have a quarter of the steps: to come to where draws are
# takes no long trajectories; scales are learned anew after it (docs/sampling.md)
_FULL, _SHALLOWER = 300, 2
_STATS = ("diverging", "n_steps", "tree_depth", "depth", "step_size", "logp", "lp")


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
        Draws kept and warm-up draws of each chain, and the number of chains. Compiled by Numba,
        all but the last 300 of the warm-up have a quarter of the steps, and a progress bar of
        their own; and 2000 draws or more that do not agree, though of one mode, are drawn again by
        trajectories twice as long, where these were short.
    seed : int
        The same seed gives the same draws, but for rounding: code compiled just now and code
        from the caches round unlike, and chains amplify that.
    cores : int, optional
        Chains run at once; all cores by default.
    sampler : str
        ``nutpie``, or PyMC's own NUTS, whose trajectories end where they turn.
    backend : str
        What nutpie compiles the model with: ``numba``, or ``jax`` for accelerators (extra
        ``jax``), by which trajectories end where they turn.
    progressbar : bool
        Show one.

    Returns
    -------
    Fit

    Raises
    ------
    ValueError
        If the law, a prior's name, a domain in a group, the choice of checkpoints, the sampler or
        the backend is unknown, a number of draws or the seed is out of range, groups are given to
        a law without transfer, or the backend is ``jax`` and the sampler not nutpie.
    TypeError
        If `runs` are no `Runs`, or the seed is no whole number.
    ImportError
        If the backend is ``jax`` and JAX is not installed.

    Examples
    --------
    A chain too short for any use, of a few runs, by the backend that compiles fastest:

    >>> from bayesmix import load_dataset
    >>> runs = load_dataset("simulated").checkpoints("last").select(range(4))
    >>> short = fit(runs, draws=10, tune=10, chains=1, backend="jax", progressbar=False)
    >>> short.posterior["posterior"]["tau"].sizes
    Frozen({'chain': 1, 'draw': 10, 'component': 6, 'source': 5})
    >>> short.diagnose().passed
    False
    """
    if backend not in ("numba", "jax"):
        raise ValueError(f"unknown backend {backend!r}; valid names: numba, jax")
    if backend == "jax" and sampler != "nutpie":
        raise ValueError(f"backend 'jax' is nutpie's, not of sampler {sampler!r}")
    for name, value in {"draws": draws, "tune": tune, "chains": chains}.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if not 0 <= operator.index(seed) < 2**63:
        raise ValueError(f"seed is from 0 to 2**63 - 1, got {seed}")
    given: object = runs
    if not isinstance(given, Runs):
        raise TypeError(f"runs are bm.Runs, such as bm.read_runs gives, not {type(given).__name__}")
    runs = runs.checkpoints(checkpoints)
    # labels may be of any kind, such as numbers of clusters; a file holds text
    named = {str(domain): str(group) for domain, group in sorted((groups or {}).items())}
    # by PyMC and JAX trajectories end where they turn: to climb first takes what Numba compiled
    centre = sampler == "nutpie" and backend == "numba"
    model = build_model(runs, law, priors, named, centre=centre)
    used = swarm_priors(runs, law, priors)
    cores = min(cores or os.cpu_count() or 1, chains)

    losses = int(usable_cells(runs, variant(law)).sum())

    def sampled(*, longer: bool) -> Fit:
        run = draws, tune, chains, seed, cores, sampler, backend, progressbar
        tree = _sample(model, losses, longer, *run)
        posterior = with_learned_scales(tree["posterior"].to_dataset(), runs, used, seed)
        tree["posterior"] = xr.DataTree(posterior)
        return Fit(with_observed(tree, runs), runs, law, used, named)

    made = sampled(longer=False)
    if centre and _slow(made, shown=progressbar):
        if progressbar and (console := Console(stderr=True)).is_terminal:
            console.print("chains are slow: once more, by trajectories twice as long")
        made = sampled(longer=True)
    return made


@contextmanager
def _said(doing: str, *, shown: bool) -> Iterator[None]:
    """What is being done, with the seconds that it has taken, on a terminal."""
    columns = SpinnerColumn(), TextColumn(doing), TimeElapsedColumn()
    console = Console(stderr=True, force_jupyter=False)
    with Progress(*columns, console=console, transient=True, disable=not shown) as bar:
        bar.add_task(doing, total=None)
        yield


def _depth_and_acceptance(model: pm.Model, unknowns: int, losses: int) -> tuple[int, float]:
    """Doublings of a trajectory, and the acceptance to aim at."""
    many, with_tau = "fade" not in model and unknowns > _MANY, "tau_spread" in model
    # with several checkpoints what a term of D does and what fades with D are hard to tell apart
    longer = "rho" in model or unknowns > losses or (many and not with_tau)
    return _DEPTH + longer, _ACCEPT_MANY if many and with_tau else _ACCEPT


def _slow(made: Fit, *, shown: bool) -> bool:
    """Whether chains are of one mode and long enough, and do not agree by the shorter steps."""
    draws, steps = made.posterior["posterior"].sizes, made.posterior["sample_stats"]["n_steps"]
    if draws["chain"] * draws["draw"] < _ENOUGH or draws["chain"] < 2 or steps.max() >= 2**_DEPTH:
        return False
    with _said("checking the chains", shown=shown):
        found = made.diagnose().table
    return not found["ok"].all() and found["r_hat"].max() < _APART


def _sample(
    model: pm.Model,
    losses: int,
    longer: bool,
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
    if sampler == "pymc":
        with model:
            tree = pm.sample(
                draws,
                tune=tune,
                chains=chains,
                cores=cores,
                random_seed=seed,
                progressbar=progressbar,
                target_accept=_ACCEPT,
                nuts_sampler="pymc",  # else PyMC takes nutpie, where it is installed
                compute_convergence_checks=False,
            )
    elif sampler == "nutpie":
        # imports ArviZ, which takes longer than all else together
        import nutpie

        with _said("compiling the model", shown=progressbar):
            by_nutpie = compiled_jax(model) if backend == "jax" else compiled(model)
        run: Any = {"chains": chains, "cores": cores, "seed": seed, "progress_bar": progressbar}
        settings = {"target_accept": _ACCEPT}
        if backend == "numba":
            depth, accept = _depth_and_acceptance(model, by_nutpie.n_dim, losses)
            depth += longer
            settings = {"target_accept": accept, "mindepth": depth, "maxdepth": depth}
            by_nutpie = climbed(by_nutpie)
        if backend == "numba" and tune > _FULL:
            if progressbar and (console := Console(stderr=True)).is_terminal:
                console.print("two bars: most of the warm-up, then the rest of it and the draws")
            depth -= _SHALLOWER
            few = {**settings, "mindepth": depth, "maxdepth": depth}
            by_nutpie, tune = warmed(by_nutpie, tune=tune - _FULL, **run, settings=few), _FULL
        tree = nutpie.sample(
            by_nutpie, draws=draws, tune=tune, save_warmup=False, **run, **settings
        )
    else:
        raise ValueError(f"unknown sampler {sampler!r}; valid names: nutpie, pymc")
    stats, posterior = tree["sample_stats"].to_dataset(), tree["posterior"].to_dataset()
    if sampler == "nutpie" and backend == "numba":
        unknowns = {str(name): values.values for name, values in posterior.items()}
        posterior = in_natural_units(model, unknowns)
    else:
        # as text, of which nutpie makes objects
        posterior = posterior[kept_variables(model)].assign_coords(
            {name: list(model.coords[name]) for name in posterior.dims if name in model.coords}
        )
    return xr.DataTree.from_dict(
        {
            "posterior": posterior,
            "sample_stats": stats[[n for n in _STATS if n in stats]],
        }
    )
