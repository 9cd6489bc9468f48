"""What an evaluation found: scores by fold, by law and by domain, and paired differences."""

import html
import json
import os
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from bayesmix._files import atomic_path
from bayesmix.predict import MEAN
from bayesmix.runs import _counted
from bayesmix.scores import LEVELS, aggregate, headline, single

# the columns that scores.json promises, in their order; others follow
_FIRST = [
    "law", "split", "fold", "mre", "mre_pos", "mae", "crps", "coverage", "width",
    "spearman", "regret", "parameters", "seconds",
]  # fmt: skip
_BRIEF = [
    "law", "mre", "mre_pos", "mae", "crps", "coverage", "coverage_mean", "width",
    "spearman", "regret", "parameters", "seconds",
]  # fmt: skip


_PAIRED = ("mre", "mre_pos", "mae", "crps")  # scores that runs have each


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Scores of laws on runs that they were not fitted to.

    Attributes
    ----------
    cells : DataFrame
        Every held-out loss with its prediction: ``law, split, fold`` and the columns of
        `bayesmix.scores.score_runs`; nats per token.
    pairs : DataFrame
        Likewise every difference of two held-out runs' mean losses.
    refits : DataFrame
        One row a law and fold: ``law, split, fold, parameters, seconds, r_hat, ess, converged,
        diagnosis``.

    Examples
    --------
    What `evaluate` returns:

    >>> from bayesmix import LargestScale, evaluate, load_dataset
    >>> laws = ["linear", "mean"]
    >>> made = evaluate(load_dataset("simulated"), laws, LargestScale(), progressbar=False)
    >>> made.by_domain().query("law == 'mean'")["domain"].tolist()
    ['code', 'prose', 'qa', 'wiki', 'papers', 'target:exam', 'mean']
    >>> first = made.differences().loc[0]
    >>> first["score"], bool(first["difference"] < 0), bool(first["tie"])  # linear is better
    ('mre', True, False)
    """

    cells: pd.DataFrame
    pairs: pd.DataFrame
    refits: pd.DataFrame

    @cached_property
    def scores(self) -> pd.DataFrame:
        """One row a law and fold.

        Returns
        -------
        DataFrame
            ``law, split, fold``; ``mre, width`` in percent of loss, ``mae, crps, regret`` in nats
            per token, ``coverage`` of 90% intervals, ``spearman, parameters, seconds``; then the
            other scores of `bayesmix.scores.headline` and the columns of `refits`. ``_pos``:
            over cells with weight > 0. NaN where a law leaves some cell blank.
        """
        by = ["law", "split", "fold"]
        table = self._headlines(by).merge(self.refits.drop(columns="diagnosis"), on=by)
        return table[[*_FIRST, *(name for name in table if name not in _FIRST)]]

    def summary(self) -> pd.DataFrame:
        """One row a law: its scores over the cells of all folds.

        Returns
        -------
        DataFrame
            As `scores`, without ``fold``; ``seconds`` are summed, ``parameters`` and ``r_hat``
            are the largest and ``ess`` the smallest of the folds, ``converged`` says all did.
        """
        facts = self.refits.groupby(["law", "split"], sort=False).agg(
            {
                "parameters": "max",
                "seconds": "sum",
                "r_hat": "max",
                "ess": "min",
                "converged": "all",
            }
        )
        return self._headlines(["law", "split"]).merge(
            facts, left_on=["law", "split"], right_index=True
        )

    def by_domain(self) -> pd.DataFrame:
        """Scores of each domain, of each target and of the mean over domains.

        Returns
        -------
        DataFrame
            One row a law and domain: ``cells``, how many, and the scores of
            `bayesmix.scores.aggregate`.
        """
        rows = [
            {"law": law, "domain": domain, "cells": len(cells), **aggregate(cells)}
            for (law, domain), cells in self.cells.groupby(["law", "domain"], sort=False)
        ]
        return pd.DataFrame(rows)

    def coverage(self) -> pd.DataFrame:
        """Nominal against observed coverage of equal-tailed intervals.

        Returns
        -------
        DataFrame
            ``law``; ``of``: ``domains`` (every cell), ``mean`` (over domains) or ``difference``
            (of two runs' means); ``nominal, observed`` between 0 and 1; ``count``: of intervals,
            cells that a law leaves blank have none.
        """
        rows = []
        for law in self.refits["law"].unique():
            cells = self.cells[self.cells["law"] == law]
            sets = {
                "domains": single(cells),
                "mean": cells[cells["domain"] == MEAN],
                "difference": self.pairs[self.pairs["law"] == law],
            }
            rows += [
                {
                    "law": law,
                    "of": of,
                    "nominal": level / 100,
                    "observed": scored[f"covered_{level}"].mean(),
                    "count": int(scored[f"covered_{level}"].count()),
                }
                for of, scored in sets.items()
                for level in LEVELS
            ]
        return pd.DataFrame(rows)

    def by_run(self) -> pd.DataFrame:
        """Errors of every law at every held-out run.

        Returns
        -------
        DataFrame
            One row a law and run, averages over the run's cells: ``mre, mre_pos`` in percent of
            loss, ``mae, crps`` in nats per token; NaN where a law leaves one of them blank.
        """
        cells = single(self.cells)
        error = abs(cells["predicted"] - cells["loss"])
        relative = 100 * error / cells["loss"]
        scored = cells[["law", "run_id", "crps"]].assign(mre=relative, mae=error)
        positive = scored[cells["weight"] > 0].drop(columns=["mae", "crps"])
        tables = [
            table.groupby(["law", "run_id"], sort=False).mean(skipna=False)
            for table in (scored, positive.rename(columns={"mre": "mre_pos"}))
        ]
        return pd.concat(tables, axis=1)[[*_PAIRED]].reset_index()

    def differences(self) -> pd.DataFrame:
        """Paired differences between laws: which of two is better, and which are a tie.

        Returns
        -------
        DataFrame
            As `paired_differences`.
        """
        return paired_differences(self.by_run())

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write ``{"scores": [...]}``, a line of `scores` each: finite numbers, or null.

        Parameters
        ----------
        path : path-like
            Replaced if it exists; appears whole or not at all.
        """
        lines = [
            {name: _finite(value) for name, value in line.items()}
            for line in self.scores.to_dict("records")
        ]
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps({"scores": lines}, indent=1, allow_nan=False) + "\n")

    def _headlines(self, by: list[str]) -> pd.DataFrame:
        pairs = dict(iter(self.pairs.groupby(by, sort=False)))
        none = self.pairs.iloc[:0]
        return pd.DataFrame(
            [
                {**dict(zip(by, key, strict=True)), **headline(cells, pairs.get(key, none))}
                for key, cells in self.cells.groupby(by, sort=False)
            ]
        )

    def __repr__(self) -> str:
        return f"{self._title}\n{self._brief.to_string(index=False, float_format='{:.4g}'.format)}"

    def _repr_html_(self) -> str:
        table = self._brief.to_html(index=False, border=0, float_format="{:.4g}".format)
        return f"<p>{html.escape(self._title)}</p>{table}"

    @property
    def _title(self) -> str:
        folds = _counted(len(self.refits[["split", "fold"]].drop_duplicates()), "fold")
        runs = _counted(self.cells["run_id"].nunique(), "run")
        return (
            f"Held out by {', '.join(self.refits['split'].unique())}, {folds}, {runs}; mre and "
            "width in % of loss, mae, crps and regret in nats per token, coverage of 90% "
            "equal-tailed intervals"
        )

    @property
    def _brief(self) -> pd.DataFrame:
        return self.summary()[_BRIEF]


def paired_differences(by_run: pd.DataFrame) -> pd.DataFrame:
    """Paired differences between laws, from their errors at the same runs.

    Parameters
    ----------
    by_run : DataFrame
        As `Evaluation.by_run` gives it.

    Returns
    -------
    DataFrame
        One row a pair of laws and score (``mre, mre_pos, mae, crps``): ``difference``, the first
        law's less the other's, negative where the first is better; its standard error ``se`` over
        ``runs`` runs; ``tie``: within two standard errors of 0, or without one. Where scales are
        left out, that is for these scales: a few of them do not say what another would.

    Examples
    --------
    >>> errors = pd.DataFrame({"law": ["a", "a", "b", "b"], "run_id": ["1", "2", "1", "2"]})
    >>> errors[["mre", "mre_pos", "mae", "crps"]] = np.outer([1, 2, 2, 5], np.ones(4))
    >>> found = paired_differences(errors)
    >>> found.loc[0, ["law", "other", "difference", "se", "tie"]].astype(str).tolist()
    ['a', 'b', '-2.0', '1.0', 'True']
    """
    laws = by_run["law"].unique()
    wide = by_run.set_index(["law", "run_id"])[[*_PAIRED]].unstack("law")
    rows = []
    for first, other in combinations(laws, 2):
        for name in _PAIRED:
            # runs without a cell that counts have no error under any law
            counted = np.isfinite(wide[name].to_numpy(float)).any(axis=1)
            gap = (wide[name, first] - wide[name, other])[counted]
            mean, se = gap.mean(skipna=False), gap.sem(skipna=False)
            rows.append(
                {
                    "law": first,
                    "other": other,
                    "score": name,
                    "difference": mean,
                    "se": se,
                    "runs": len(gap),
                    # of one run nothing is decided
                    "tie": not abs(mean) > 2 * se,
                }
            )
    columns = ["law", "other", "score", "difference", "se", "runs", "tie"]
    return pd.DataFrame(rows, columns=columns)


def _finite(value: Any) -> Any:
    """A value as JSON takes it: numbers that are not finite are null."""
    if isinstance(value, float):
        return float(value) if np.isfinite(value) else None
    return value
