"""What a design knows: the value of every run that could be trained, and the batch to train."""

import html
import json
import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesmix._files import atomic_path
from bayesmix.information import LEAST_ESS, MOST_PARETO_K
from bayesmix.runs import _count

_SHOWN = 15  # lines that are printed
_UNIT = 1e18  # FLOPs, of values per cost


@dataclass(frozen=True, repr=False)
class Design:
    """Which runs to train next, for a decision at N parameters and D tokens.

    Attributes
    ----------
    table : DataFrame
        One line a candidate, its own columns first; then ``flops``; ``value``, by how many nats
        the run alone is expected to lower the objective of the mixture that is chosen, and its
        ``standard_error``; ``value_per_flop``, nats per 1e18 FLOPs; ``ess`` and ``pareto_k`` of
        the weights, and whether the value is ``trusted``; ``bought``, the place in the batch,
        blank outside.
    batch : DataFrame
        One line a run that is bought, in order: ``candidate``, the zero-based line of `table`;
        ``run_id`` if there is one; ``n_params``; ``n_tokens``; ``flops``; and of it and all
        before it together ``value``, ``standard_error``, ``ess``, ``pareto_k``, ``trusted``.
    choices : DataArray, dims (choice, domain)
        The mixtures among which is chosen; the first is the best by what is known now.
    regret : float
        By how much that one is expected to miss what is best, nats: no runs could save more.
    objective : dict
        {domain or ``target:<name>``: weight}.
    worst : bool
        Whether the objective is the greatest of the weighted losses, not their sum.
    warnings : tuple of str
        Sentences that the reader should see.
    provenance : dict
        N, D, law, seed, number of draws, hash of the runs.

    Examples
    --------
    What `design` returns; with the priors' draws for a fit:

    >>> from bayesmix import design, load_dataset
    >>> from bayesmix.prior_predictive import prior_fit
    >>> runs = load_dataset("simulated")
    >>> made = design(prior_fit(runs), runs.frame.head(3), 4e9, 8e10, batch=1)
    >>> made.choices.dims, made.regret > 0
    (('choice', 'domain'), True)
    >>> list(made.table[["value", "standard_error", "value_per_flop", "bought"]].dtypes.astype(str))
    ['float64', 'float64', 'float64', 'Int64']
    """

    table: pd.DataFrame
    batch: pd.DataFrame
    choices: xr.DataArray
    regret: float
    objective: dict[str, float]
    worst: bool
    warnings: tuple[str, ...]
    provenance: dict[str, Any]

    @property
    def stopping(self) -> str:
        """What the batch is expected to save, in a sentence: train it, or stop here."""
        at_most = f"what is not known costs {self.regret:.2g} nats"
        if self.batch.empty:
            return f"None of these runs is expected to save anything, though {at_most}."
        last = self.batch.iloc[-1]
        sizes = self.batch.groupby("n_params").size()
        where = [f"{count} at {_count(float(str(n)))}" for n, count in sizes.items()]
        count = len(self.batch)
        said = f"another run at {_count(last['n_params'])} is"
        if count > 1:
            said = f"another {count} runs ({', '.join(where)}) are"
            if len(where) == 1:
                said = f"another {count} runs at {_count(last['n_params'])} are"
        return (
            f"{said[0].upper()}{said[1:]} expected to save {max(last['value'], 0.0):.2g} nats "
            f"(standard error {last['standard_error']:.1g}) for {self.batch['flops'].sum():.2g} "
            f"FLOPs; {at_most}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything in plain types."""
        names = [str(name) for name in self.choices["domain"].values]
        return {
            "stopping": self.stopping,
            "regret": self.regret,
            "batch": _records(self.batch),
            "candidates": _records(self.table),
            "present": dict(zip(names, self.choices.values[0].tolist(), strict=True)),
            "objective": dict(self.objective),
            "worst_domain": self.worst,
            "warnings": list(self.warnings),
            "provenance": self.provenance,
        }

    def to_json(self, path: str | os.PathLike) -> None:
        """Write `to_dict` as JSON, whole or not at all.

        Parameters
        ----------
        path : path
            Replaced if it exists.
        """
        text = json.dumps(self.to_dict(), indent=2, allow_nan=False)
        with atomic_path(path) as temporary:
            temporary.write_text(text + "\n")

    def _ranked(self) -> pd.DataFrame:
        """The best candidates, what is bought first, without their mixtures."""
        table = self.table.sort_values(["bought", "value_per_flop"], ascending=[True, False])
        return table[[name for name in table if not str(name).startswith("weight_")]]

    def _title(self) -> str:
        where = self.provenance
        return (
            f"Runs to train next, for a decision at {where['n_params']:.3g} parameters and "
            f"{where['n_tokens']:.3g} tokens; values in nats, per {_UNIT:.0e} FLOPs:"
        )

    def _sentences(self) -> list[str]:
        return [self.stopping, *(f"Warning: {warning}" for warning in self.warnings)]

    def __repr__(self) -> str:
        table = self._ranked().head(_SHOWN).to_string(index=False, float_format="{:.3g}".format)
        return "\n".join([self._title(), table, *self._sentences()])

    def _repr_html_(self) -> str:
        table = self._ranked().to_html(
            index=False, max_rows=_SHOWN, float_format="{:.3g}".format, border=0
        )
        sentences = "<br>".join(html.escape(sentence) for sentence in self._sentences())
        return f"<p>{html.escape(self._title())}</p>{table}<p>{sentences}</p>"


def doubtful(table: pd.DataFrame, batch: pd.DataFrame) -> list[str]:
    """A sentence on values that rest on too few draws, if there are any."""
    alone, trusted = int((~table["trusted"]).sum()), batch["trusted"].to_numpy(bool)
    failed = [f"of {alone} of {len(table)} candidates"] if alone else []
    if not trusted.all():
        failed.append(f"of the batch from run {trusted.argmin() + 1} on")
    if not failed:
        return []
    return [
        f"The weights {' and '.join(failed)} fail (fewer than {LEAST_ESS:g} effective draws, or a "
        f"Pareto k above {MOST_PARETO_K:g}): these values are too low, if anything. `refit_value` "
        "finds them from refits to simulated losses."
    ]


def per_cost(value: pd.Series, flops: pd.Series) -> pd.Series:
    """Nats per 1e18 FLOPs."""
    return value / flops * _UNIT


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Lines in plain types; plain JSON has no NaN, and what it has no type for is text."""

    def plain(value: Any) -> Any:
        value = value.item() if isinstance(value, np.generic) else value
        if value is pd.NA or value is pd.NaT:
            return None
        if isinstance(value, float) and not math.isfinite(value):
            return None
        return value if value is None or isinstance(value, bool | int | float | str) else str(value)

    return [
        {str(name): plain(value) for name, value in row.items()} for row in table.to_dict("records")
    ]
