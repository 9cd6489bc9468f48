"""What a recommendation knows: its draws, and the ways to read, print and write them."""

import html
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesmix._files import atomic_path
from bayesmix.predict import Prediction
from bayesmix.risk import ProbBelow

PROB = 0.9  # of every interval that is printed or written
KIND = "equal-tailed"


@dataclass(frozen=True, repr=False)
class Recommendation:
    """A mixture for a run of N parameters and D tokens, and what is known about it.

    Attributes
    ----------
    weights : DataArray, dim (domain)
        The mixture that minimises the measure of risk; fractions.
    loss : DataArray, dim (draw)
        The objective's expected loss there (law and discrepancy), nats per token times the
        objective's weights.
    losses : Prediction
        Every loss there, of one row.
    optima : DataArray, dims (draw, domain)
        The optimum of every posterior draw, under the same constraints.
    objective : dict
        {domain or ``target:<name>``: weight}.
    worst : bool
        Whether the objective is the greatest of the weighted losses, not their sum.
    risk : str
        The measure, as on the command line.
    risk_value : float
        The measure of the recommendation: nats per token, or a probability.
    bounds : Dataset, dim (domain)
        ``lower``, ``upper``, and ``active``: which of them the recommendation rests on, or "".
    constraints : DataFrame
        One line a constraint that was asked for: ``constraint``; ``binding``; ``price``, by how
        much the measure would fall per unit by which the constraint is loosened (nats per unit
        of weight, per nat of a divergence; under `ProbBelow` what of the chance is lost; under
        `Regret` of the loss alone, with the draws' own optima held, which loosening lowers also).
    baselines : Dataset, dims (baseline, domain, draw)
        ``weights`` of other mixtures, and ``difference``: the recommendation's objective less
        theirs, draw by draw, so that negative is better. ``uniform``; ``best_observed``: of the
        swarm's mixtures the one with the least posterior mean; ``swarm_mean``; those given; and
        with constraints ``unconstrained``, what is best without them. Coords ``run_id``, and
        ``allowed``: whether it meets the constraints.
        Blank where the law has no finite loss for a domain without tokens.
    p_best : dict
        The chance of the recommendation and of each baseline that meets the constraints, but the
        unconstrained one, to be the best among them.
    warnings : tuple of str
        Sentences that the reader should see.
    convergence : dict
        ``residual``: KKT residual of the recommendation (0 at an optimum), per unit of the
        objective's weights; ``violation`` of the constraints; ``gap``: what is left between a tail
        or a worst domain and what was minimised for it; ``starts`` of the search and how many
        ``agreed``; ``draws_residual``: the worst of the draws' optima, ``draws_converged``: the
        share of them below 1e-6, and ``draws_violation``.
    provenance : dict
        N, D, law, seed, number of draws, hash of the runs, versions.

    Examples
    --------
    What `recommend` returns; with the priors' draws for a fit:

    >>> from bayesmix import load_dataset, recommend
    >>> from bayesmix.prior_predictive import prior_fit
    >>> rec = recommend(prior_fit(load_dataset("simulated"), draws=20), 4e9, 8e10)
    >>> list(rec.p_best)
    ['recommended', 'uniform', 'best_observed', 'swarm_mean']
    >>> rec.optima.sizes
    Frozen({'draw': 20, 'domain': 5})
    >>> bool(rec.baselines["difference"].mean("draw").max() < 0)  # better than each, on average
    True
    """

    weights: xr.DataArray
    loss: xr.DataArray
    losses: Prediction
    optima: xr.DataArray
    objective: dict[str, float]
    worst: bool
    risk: str
    risk_value: float
    bounds: xr.Dataset
    constraints: pd.DataFrame
    baselines: xr.Dataset
    p_best: dict[str, float]
    warnings: tuple[str, ...]
    convergence: dict[str, float]
    provenance: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the draws, in plain types; intervals carry ``prob`` and ``interval``."""
        label = {"prob": PROB, "interval": KIND}
        names = [str(name) for name in self.weights["domain"].values]
        optima = {name: self.optima.sel(domain=name) for name in names}
        return {
            "weights": dict(zip(names, self.weights.values.tolist(), strict=True)),
            "objective": dict(self.objective),
            "worst_domain": self.worst,
            "risk": self.risk,
            "loss": {
                "risk": self.risk_value,
                **_moments(self.loss),
                **_interval(self._new_run(), ""),
                **_interval(self.loss, "expected_"),
                **label,
                "domains": {row.pop("domain"): row for row in self._domain_losses()},
            },
            "optima": {
                "domains": {n: {**_moments(x), **_interval(x, "")} for n, x in optima.items()},
                **label,
            },
            "baselines": {
                name: {
                    "weights": dict(zip(names, one["weights"].values.tolist(), strict=True)),
                    **({"run_id": str(one["run_id"].item())} if one["run_id"].item() else {}),
                    "difference": {
                        **_moments(one["difference"]),
                        **_interval(one["difference"], ""),
                        **label,
                    },
                }
                for name, one in self._baselines()
            },
            "constraints": {
                "bounds": {
                    name: {
                        "lower": float(self.bounds["lower"].sel(domain=name)),
                        "upper": float(self.bounds["upper"].sel(domain=name)),
                        "active": str(self.bounds["active"].sel(domain=name).item()) or None,
                    }
                    for name in names
                },
                "asked": [
                    {str(k): v for k, v in row.items()}
                    for row in self.constraints.to_dict("records")
                ],
            },
            "p_best": dict(self.p_best),
            "warnings": list(self.warnings),
            "convergence": dict(self.convergence),
            "provenance": self.provenance,
        }

    def to_json(self, path: str | os.PathLike) -> None:
        """Write `to_dict` as JSON, whole or not at all.

        Parameters
        ----------
        path : path
            Replaced if it exists.
        """
        text = json.dumps(_finite(self.to_dict()), indent=2, allow_nan=False)
        with atomic_path(path) as temporary:
            temporary.write_text(text + "\n")

    def table(self) -> pd.DataFrame:
        """One line a domain: recommended weight, interval of the draws' optima, active bound."""
        low, high = np.quantile(self.optima.values, _tails(), axis=0)
        return pd.DataFrame(
            {
                "domain": self.weights["domain"].values,
                "weight": self.weights.values,
                "optima_lower": low,
                "optima_upper": high,
                "active": self.bounds["active"].values,
            }
        )

    def _baselines(self) -> list[tuple[str, xr.Dataset]]:
        names = self.baselines["baseline"].values
        return [(str(name), self.baselines.sel(baseline=name)) for name in names]

    def _new_run(self) -> xr.DataArray:
        """The objective of a new run, its noise included, draw by draw."""
        losses = self.losses.draws["loss"].isel(row=0, drop=True)
        return weighted(losses, self.objective, worst=self.worst)

    def _domain_losses(self) -> list[dict[str, Any]]:
        summary = self.losses.summary(PROB)
        kept = ["domain", "mean", "sd", "lower", "upper", "expected_lower", "expected_upper"]
        return [{str(k): v for k, v in row.items()} for row in summary[kept].to_dict("records")]

    def sentences(self) -> list[str]:
        """What a reader needs beside the table of weights: losses, baselines, what binds."""
        said = [
            f"Expected loss {_around(self.loss)}; of a new run {_between(self._new_run())} "
            f"(nats per token, {PROB:.0%} {KIND} intervals)."
        ]
        if self.risk != "mean":
            said.append(f"Chosen by {self.risk}, here {self.risk_value:.4f}.")
        for name, one in self._baselines():
            run = f" {one['run_id'].item()}" if one["run_id"].item() else ""
            said.append(
                f"Less that of {name.replace('_', ' ')}{run}: {_around(one['difference'])}."
            )
        chances = [f"{name.replace('_', ' ')} {p:.2f}" for name, p in self.p_best.items()]
        said.append(f"Chance to be the best of these: {', '.join(chances)}.")
        names = self.baselines["baseline"].values[~self.baselines["allowed"].values]
        out = [str(name).replace("_", " ") for name in names]
        if out:
            said.append(f"Left out, since they break the constraints: {', '.join(out)}.")
        unit = "of the chance" if self.risk == str(ProbBelow({})) else "nats"
        held = " of loss (the draws' own optima held)" if self.risk.startswith("regret") else ""
        for row in self.constraints[self.constraints["binding"]].itertuples():
            said.append(f"Binding: {row.constraint}, at {row.price:.4f} {unit} per unit{held}.")
        return said

    def _sentences(self) -> list[str]:
        return [*self.sentences(), *(f"Warning: {warning}" for warning in self.warnings)]

    def __repr__(self) -> str:
        where = self.provenance
        table = self.table().to_string(index=False, float_format="{:.4f}".format)
        return "\n".join(
            [
                f"Recommendation for {where['n_params']:.3g} parameters and "
                f"{where['n_tokens']:.3g} tokens; with the draws' optima, {PROB:.0%} {KIND}:",
                table,
                *self._sentences(),
            ]
        )

    def _repr_html_(self) -> str:
        first = html.escape(repr(self).splitlines()[0])
        table = self.table().to_html(index=False, float_format="{:.4f}".format, border=0)
        sentences = "<br>".join(html.escape(sentence) for sentence in self._sentences())
        return f"<p>{first}</p>{table}<p>{sentences}</p>"


def weighted(
    losses: xr.DataArray, objective: Mapping[str, float], *, worst: bool = False
) -> xr.DataArray:
    """The objective from losses with a dim ``domain``; a blank that it does not count is no matter.

    The sum of the weighted losses, or the worst of them.

    Examples
    --------
    >>> losses = xr.DataArray([3.0, 2.0, np.nan], {"domain": ["web", "code", "books"]}, "domain")
    >>> weighted(losses, {"web": 0.5, "code": 0.5, "books": 0.0}).item()
    2.5
    """
    counted = {name: weight for name, weight in objective.items() if weight > 0}
    weights = xr.DataArray(list(counted.values()), {"domain": list(counted)}, "domain")
    parts = losses.sel(domain=list(counted)) * weights
    return parts.max("domain", skipna=False) if worst else parts.sum("domain", skipna=False)


def _tails() -> list[float]:
    return [(1 - PROB) / 2, (1 + PROB) / 2]


def _moments(draws: xr.DataArray) -> dict[str, float]:
    # values, since a blank among the draws is a blank
    return {"mean": float(draws.values.mean()), "sd": float(draws.values.std())}


def _interval(draws: xr.DataArray, prefix: str) -> dict[str, float]:
    low, high = np.quantile(draws.values, _tails())
    return {f"{prefix}lower": float(low), f"{prefix}upper": float(high)}


def _between(draws: xr.DataArray) -> str:
    low, high = _interval(draws, "").values()
    return f"{low:.4f} to {high:.4f}"


def _around(draws: xr.DataArray) -> str:
    return f"{float(draws.mean()):.4f} ({_between(draws)})"


def _finite(value: Any) -> Any:
    """Plain JSON has no NaN: null in its place."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
