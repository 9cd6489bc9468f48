"""One law refitted on one fold and scored: a plain function, wherever joblib runs it."""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesmix import law as laws
from bayesmix._files import atomic_path
from bayesmix.fit import fit as sample
from bayesmix.laplace import found_mode, laplace
from bayesmix.model import MODEL_VERSION
from bayesmix.posterior import Fit
from bayesmix.predict import predict
from bayesmix.priors import Prior
from bayesmix.runs import Runs, RunsError
from bayesmix.scores import score_runs

_FORMAT = 2  # of what `write` writes, and of the scores in it
LAPLACE = tuple(f"laplace:{law}" for law in laws.LAWS)


@dataclass(frozen=True)
class Refit:
    """What is to be fitted and scored.

    Attributes
    ----------
    law : str
        A name in `law_names`.
    fitted : Runs
        The rows to fit, as they are.
    held_out : Runs
        One row a run.
    domains : tuple of str
        Those that are scored.
    priors : dict
        Replacements, by name; of a sampled law.
    options : dict
        ``seed``; of a posterior ``draws, discrepancy``, if sampled also ``tune, chains`` and, where
        there are any, ``groups``; of a point fit ``bootstrap``.
    """

    law: str
    fitted: Runs
    held_out: Runs
    domains: tuple[str, ...]
    priors: Mapping[str, Prior]
    options: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Names the result: everything that it depends on, the code by its versions."""
        parts = [
            _FORMAT,
            MODEL_VERSION,
            version("bayesmix"),
            self.law,
            self.fitted.hash,
            self.held_out.hash,
            self.domains,
            sorted((name, repr(prior)) for name, prior in self.priors.items()),
            sorted(self.options.items()),
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Result:
    """What came of a refit.

    Attributes
    ----------
    cells, pairs : DataFrame
        As `bayesmix.scores.score_runs` gives them.
    facts : dict
        ``parameters``: how many were fitted; ``seconds``: it took; ``r_hat, ess``: the worst,
        None for a point fit; ``converged``: whether diagnostics passed; ``diagnosis``: the same
        in words.
    """

    cells: pd.DataFrame
    pairs: pd.DataFrame
    facts: dict[str, Any]


def law_names() -> tuple[str, ...]:
    """Laws that can be evaluated: sampled, by Laplace's approximation, then the point fits."""
    return (*laws.LAWS, *LAPLACE, *_point_laws())


def check_law(name: str) -> None:
    """Refuse the name of no law, listing the valid ones.

    Raises
    ------
    RunsError
    """
    # names of sampled laws need no point fits loaded
    if name not in (*laws.LAWS, *LAPLACE) and name not in _point_laws():
        raise RunsError(f"unknown law {name!r}; valid names: {', '.join(law_names())}")


def option_names(law: str) -> tuple[str, ...]:
    """What a refit of a law depends on, beside the runs and the priors."""
    if law in laws.LAWS:
        return "draws", "tune", "chains", "seed", "discrepancy"
    return ("draws", "seed", "discrepancy") if law in LAPLACE else ("seed", "bootstrap")


def run(job: Refit, cores: int | None = None) -> Result:
    """Fit the law to the fitted runs, predict the held-out ones, and score.

    Parameters
    ----------
    job : Refit
    cores : int, optional
        Chains sampled at once; all cores by default.
    """
    refit = _posterior if job.law in (*laws.LAWS, *LAPLACE) else _point
    predicted, draws, facts = refit(job, cores)
    return Result(*score_runs(job.held_out, job.domains, predicted, draws), facts)


def write(result: Result, path: Path) -> None:
    """Write a result as JSON, whole or not at all; floats are read back bit for bit."""
    tables = {name: getattr(result, name).to_dict("list") for name in ("cells", "pairs")}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps({"facts": result.facts, **tables}))


def read(path: Path) -> Result:
    """Read what `write` wrote.

    Raises
    ------
    RunsError
        If the file is damaged.
    """
    try:
        made = json.loads(path.read_text())
        return Result(pd.DataFrame(made["cells"]), pd.DataFrame(made["pairs"]), made["facts"])
    except (ValueError, KeyError, TypeError) as error:
        raise RunsError(
            f"{path}: a damaged refit ({error}); without the file it is made again"
        ) from error


def _posterior(job: Refit, cores: int | None) -> tuple[xr.DataArray, xr.DataArray, dict[str, Any]]:
    options = dict(job.options)
    discrepancy, seed = options.pop("discrepancy"), options["seed"]
    start = time.perf_counter()
    if job.law in LAPLACE:
        law = job.law.partition(":")[2]
        fitted = laplace(job.fitted, law, priors=job.priors, checkpoints="all", **options)
    else:
        fitted = sample(
            job.fitted,
            job.law,
            priors=job.priors,
            checkpoints="all",
            cores=cores,
            progressbar=False,
            **options,
        )
    seconds = time.perf_counter() - start
    prediction = predict(fitted, job.held_out.frame, discrepancy=discrepancy, seed=seed).draws
    diagnosis = fitted.diagnose()
    facts = {
        "parameters": _n_parameters(fitted),
        "seconds": seconds,
        "r_hat": None,
        "ess": None,
        "converged": diagnosis.passed or found_mode(fitted),
        "diagnosis": diagnosis.text,
    }
    if job.law not in LAPLACE:
        facts["r_hat"] = float(diagnosis.table["r_hat"].max())
        facts["ess"] = float(diagnosis.table[["ess_bulk", "ess_tail"]].min().min())
    return prediction["expected"].mean("draw", skipna=False), prediction["loss"], facts


def _point(job: Refit, _: int | None) -> tuple[xr.DataArray, xr.DataArray | None, dict[str, Any]]:
    from bayesmix.pointfit import point_fit

    seed, n_refits = job.options["seed"], job.options["bootstrap"]
    fitted = point_fit(job.fitted, job.law, seed=seed)
    seconds, draws = fitted.seconds, None
    if n_refits:
        resampled = fitted.bootstrap(n_refits, seed)
        seconds += sum(refit.seconds for refit in resampled.refits)
        draws = resampled.predict(job.held_out.frame, seed=seed).draws["loss"]
    facts = {
        "parameters": int(fitted.n_parameters),
        "seconds": float(seconds),
        "r_hat": None,
        "ess": None,
        "converged": bool(fitted.converged),
        "diagnosis": fitted.message,
    }
    return fitted.predict(job.held_out.frame), draws, facts


def _n_parameters(fitted: Fit) -> int:
    """Entries of the law's parameters that vary, which tau_ii = 1 does not."""
    posterior = fitted.posterior["posterior"].to_dataset()
    names = [name for name in laws.PARAMETERS if name in posterior]
    spread = posterior[names].std(("chain", "draw"))
    return sum(int(np.count_nonzero(spread[name])) for name in names)


def _point_laws() -> tuple[str, ...]:
    # slow to import, and only needed where a point fit is asked for
    from bayesmix.pointfit import POINT_LAWS

    return tuple(POINT_LAWS)
