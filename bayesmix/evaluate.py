"""Laws refitted without some runs, and scored on those: one call, one table."""

import operator
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import joblib
import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bayesmix import _refits
from bayesmix._evaluation import Evaluation
from bayesmix.laplace import is_laplace
from bayesmix.posterior import Fit
from bayesmix.priors import Prior
from bayesmix.reference import replaced_priors
from bayesmix.runs import Runs
from bayesmix.splits import Split

if TYPE_CHECKING:
    from bayesmix.pointfit import PointFit

__all__ = ["Evaluation", "compare", "evaluate"]


def evaluate(
    runs: Runs,
    laws: Sequence[str] | Mapping[str, "str | Fit | PointFit"],
    split: Split,
    *,
    checkpoints: Literal["late", "last", "all"] = "late",
    draws: int = 1000,
    tune: int = 1000,
    chains: int = 4,
    seed: int = 0,
    discrepancy: bool = True,
    bootstrap: int = 0,
    n_jobs: int | None = None,
    cache: str | os.PathLike[str] | None = None,
    progressbar: bool = True,
) -> Evaluation:
    """Refit laws without some runs, and score their predictions of those.

    Refits go through joblib: inside ``joblib.parallel_config(backend="dask")`` a cluster takes
    them. Held-out runs are scored at their last checkpoint.

    Parameters
    ----------
    runs : Runs
        The swarm.
    laws : sequence of str, or mapping
        Names of laws: sampled (``transfer, regression, quantization``), the same by Laplace's
        approximation (``laplace:transfer``), or of point fits. As a mapping, by the label that
        tables call them: names, or fits, of which the law is refitted with the same draws, chains,
        groups and replaced priors.
    split : Split
        `ByMixture`, `ByScale` or `LargestScale`.
    checkpoints : str
        Of the fitted runs: ``late``, ``last`` or ``all``, as in `bayesmix.fit`.
    draws, tune, chains : int
        Of the sampler; Laplace's approximation has `draws` in all.
    seed : int
        The same seed gives the same evaluation, ``seconds`` apart.
    discrepancy : bool
        Whether intervals hold the law's own misfit outside the fitted N and D.
    bootstrap : int
        Refits of every point fit to resampled runs, which give it intervals of a new run; 0 for
        none, and then its CRPS is the absolute error.
    n_jobs : int, optional
        Refits at once, as in `joblib.Parallel`; one by default. Where there is more than one,
        each samples its chains one after the other.
    cache : path-like, optional
        Folder that keeps the result of every refit, so that an evaluation can be resumed; made
        if absent. A result is used again for the same runs, law, options and version.
    progressbar : bool
        Show one, on standard error.

    Returns
    -------
    Evaluation

    Raises
    ------
    RunsError
        If a law is unknown, or the split leaves nothing to fit.

    Examples
    --------
    >>> from bayesmix.datasets import load_dataset
    >>> from bayesmix.splits import LargestScale
    >>> made = evaluate(load_dataset("simulated"), ["mean"], LargestScale(), progressbar=False)
    >>> made.scores[["law", "split", "fold"]].values.tolist()
    [['mean', 'largest-scale', '400M']]
    """
    if isinstance(laws, str):
        laws = [laws]
    named = laws if isinstance(laws, Mapping) else {name: name for name in laws}
    if not named:
        raise ValueError("there is no law to evaluate")
    if bootstrap < 0:
        raise ValueError(f"bootstrap must be 0 or more, got {bootstrap}")
    # numbers of NumPy have no place in JSON, which names a file
    counts = {"draws": draws, "tune": tune, "chains": chains, "seed": seed, "bootstrap": bootstrap}
    options: dict[str, Any] = {name: operator.index(count) for name, count in counts.items()}
    options["discrepancy"] = bool(discrepancy)
    settings = {label: _settings(law, options) for label, law in named.items()}
    seen = np.isfinite(runs.losses.values).any(axis=0)
    domains = tuple(d for d, s in zip(runs.domains, seen, strict=True) if s)
    folds = split.folds(runs)
    names = [fold.name for fold in folds]
    if len(set(names)) < len(names):
        raise ValueError(f"two folds have one name: {', '.join(names)}")
    jobs = {
        (label, split.name, fold.name): _refits.Refit(
            fitted=fold.fitted.checkpoints(checkpoints),
            held_out=fold.held_out.checkpoints("last"),
            domains=domains,
            **given,
        )
        for label, given in settings.items()
        for fold in folds
    }
    folder = None if cache is None else Path(cache)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    results = _run_all(list(jobs.values()), n_jobs, folder, progressbar)
    return _gather(jobs, results)


def compare(
    laws: Mapping[str, "str | Fit | PointFit"],
    runs: Runs | None = None,
    *,
    split: Split,
    **options: Any,
) -> Evaluation:
    """Laws side by side on the same held-out runs: `evaluate`, from fits at hand.

    Parameters
    ----------
    laws : mapping
        By label: fits, whose laws are refitted on every fold, or names of laws.
    runs : Runs, optional
        The swarm; by default what the fits were fitted to, with the same checkpoints.
    split : Split
    **options
        Of `evaluate`.

    Returns
    -------
    Evaluation

    Raises
    ------
    ValueError
        If there are no runs, or the fits are of different ones.

    Examples
    --------
    >>> from bayesmix import LargestScale, load_dataset, point_fit
    >>> linear = point_fit(load_dataset("simulated"), "linear")
    >>> laws = {"linear": linear, "no law": "mean"}
    >>> made = compare(laws, split=LargestScale(), progressbar=False)
    >>> made.summary().sort_values("mre")["law"].tolist()  # the least error first
    ['linear', 'no law']
    """
    if runs is None:
        of_fits = [law.runs for law in laws.values() if not isinstance(law, str)]
        if not of_fits:
            raise ValueError("there is no fit among the laws: give runs")
        runs = of_fits[0]
        if any(other != runs for other in of_fits):
            raise ValueError("the fits are of different runs: give the runs to compare them on")
        # a fit keeps the checkpoints that it was fitted to
        options.setdefault("checkpoints", "all")
    return evaluate(runs, laws, split, **options)


def _settings(law: "str | Fit | PointFit", options: dict[str, Any]) -> dict[str, Any]:
    """Name, priors and options of a law to refit; those of a fit come before the others."""
    name = law if isinstance(law, str) else law.law
    priors: dict[str, Prior] = {}
    if isinstance(law, Fit):
        priors = replaced_priors(law.priors, law.runs, law.law)
        sizes = law.posterior["posterior"].sizes
        options = {**options, "draws": sizes["draw"], "chains": sizes["chain"]}
        name = f"laplace:{name}" if is_laplace(law) else name
    _refits.check_law(name)
    used = {option: options[option] for option in _refits.option_names(name)}
    if isinstance(law, Fit) and law.groups:
        used["groups"] = law.groups
    return {"law": name, "priors": priors, "options": used}


def _run_all(
    jobs: list[_refits.Refit], n_jobs: int | None, folder: Path | None, progressbar: bool
) -> list[_refits.Result]:
    """Results in the order of the jobs; those found in the folder are not run again."""
    paths = [None if folder is None else folder / f"{job.key}.json" for job in jobs]
    done = {i: _refits.read(p) for i, p in enumerate(paths) if p is not None and p.is_file()}
    # refits at once share the cores between them
    cores = None if joblib.effective_n_jobs(n_jobs) == 1 else 1
    parallel = joblib.Parallel(n_jobs=n_jobs, return_as="generator_unordered")
    todo = [joblib.delayed(_numbered)(i, job, cores) for i, job in enumerate(jobs) if i not in done]
    with _progress(len(jobs), len(done), progressbar) as advance:
        for i, result in parallel(todo):
            done[i], path = result, paths[i]
            if path is not None:
                _refits.write(result, path)
            advance()
    return [done[i] for i in range(len(jobs))]


def _numbered(i: int, job: _refits.Refit, cores: int | None) -> tuple[int, _refits.Result]:
    return i, _refits.run(job, cores)


@contextmanager
def _progress(total: int, done: int, shown: bool) -> Iterator[Any]:
    columns = TextColumn("refits"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as bar:
        task = bar.add_task("refits", total=total, completed=done)
        yield lambda: bar.advance(task)


def _gather(
    jobs: Mapping[tuple[str, str, str], _refits.Refit], results: Sequence[_refits.Result]
) -> Evaluation:
    """Put the tables of all refits together, each labelled."""
    keys = [dict(zip(("law", "split", "fold"), key, strict=True)) for key in jobs]

    def labelled(name: str) -> pd.DataFrame:
        tables = [
            getattr(result, name).assign(**key)
            for key, result in zip(keys, results, strict=True)
            if len(getattr(result, name))
        ]
        table = pd.concat(tables or [getattr(results[0], name).assign(**keys[0])])
        first = list(keys[0])
        return table[[*first, *(c for c in table if c not in first)]].reset_index(drop=True)

    facts = [{**key, **result.facts} for key, result in zip(keys, results, strict=True)]
    refits = pd.DataFrame(facts).astype({"r_hat": float, "ess": float})
    return Evaluation(labelled("cells"), labelled("pairs"), refits)
