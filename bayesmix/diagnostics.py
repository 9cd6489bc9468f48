"""Do the chains agree? R-hat, effective draws, divergences, and chains that settled apart."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

# held to R-hat <= 1.01 and ESS >= 400; the rest to R-hat <= 1.02
_STRICT = ("level", "a", "b", "g", "q", "fade", "log_H", "dof", "dof_unseen", "rho", "phi")
_STRICT_ENDS = ("_mean", "_spread", "_kin", "_scale", "_correlation")


@dataclass(frozen=True)
class Diagnosis:
    """Whether the chains can be trusted.

    Attributes
    ----------
    passed : bool
        True when R-hat <= 1.01 and bulk and tail ESS >= 400 for levels, shares, exponents,
        hyper-parameters and the predictions at the data, R-hat <= 1.02 for the rest, and
        divergences are at most 0.1% of the draws. Never of one chain, which agrees with itself.
    table : DataFrame
        One row a variable: worst ``r_hat``, ``ess_bulk``, ``ess_tail``, where, whether the
        bounds are the ``strict`` ones, and ``ok``.
    text : str
        The same in plain words.

    Examples
    --------
    >>> from bayesmix import load_dataset
    >>> from bayesmix.prior_predictive import prior_fit
    >>> found = prior_fit(load_dataset("simulated"), draws=20).diagnose()  # 20 draws of the prior
    >>> found
    One chain cannot show that chains agree: sample at least two.
    >>> found.passed
    False
    >>> bool(found.table.loc["level", "ess_bulk"] < 400)
    True
    """

    passed: bool
    table: pd.DataFrame
    text: str

    def __repr__(self) -> str:
        return self.text

    def to_json(self) -> str:
        """As text, for a fit's file."""
        table = self.table.to_dict(orient="split")
        return json.dumps({"passed": self.passed, "table": table, "text": self.text})

    @classmethod
    def from_json(cls, text: str) -> "Diagnosis":
        """What `to_json` wrote."""
        entries = json.loads(text)
        table = pd.DataFrame(**entries["table"]).rename_axis("variable")
        return cls(entries["passed"], table, entries["text"])


def diagnose(checked: xr.Dataset, stats: xr.Dataset) -> Diagnosis:
    """R-hat, effective sample sizes, divergences and disagreeing chains, in plain words.

    Parameters
    ----------
    checked : Dataset
        Draws with dims ``chain`` and ``draw``, ``predictions at the data`` among them.
    stats : Dataset
        The sampler's, with ``diverging``.
    """
    table = pd.DataFrame([_worst(checked[name]) for name in checked.data_vars]).set_index(
        "variable"
    )
    diverging = float(stats["diverging"].mean())
    n_draws = checked.sizes["chain"] * checked.sizes["draw"]
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


def _worst(values: xr.DataArray) -> dict[str, Any]:
    """The worst diagnostics over a variable's entries; constant entries need none."""
    import arviz as az  # takes longer to import than all else together

    name = str(values.name)
    varies = _quietly(xr.DataArray.std, values, dim=("chain", "draw")) > 0
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


def _quietly(
    function: Callable[..., xr.DataArray], values: xr.DataArray, **options: Any
) -> xr.DataArray:
    """ArviZ divides zero by zero on the entries that are constant, such as tau_ii = 1."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return function(values, **options)


def _argmax(values: xr.DataArray) -> dict[Any, int]:
    return {dim: int(i) for dim, i in values.argmax(values.dims).items()}


def _troubles(
    checked: xr.Dataset, table: pd.DataFrame, diverging: float, n_draws: int
) -> list[str]:
    """One sentence for each way in which the sampler struggled."""
    said = []
    failing = table[~table["ok"]].sort_values("r_hat", ascending=False)
    if len(failing):
        name, row = failing.index[0], failing.iloc[0]
        place = f"{name} [{row['where']}]" if row["where"] else name
        least = min(row["ess_bulk"], row["ess_tail"])
        missing = f"{len(failing)} of {len(table)} quantities miss their bound"
        if checked.sizes["chain"] < 2:
            said.append("One chain cannot show that chains agree: sample at least two.")
        else:
            said.append(
                f"The chains have not converged: {place} has R-hat {row['r_hat']:.3f} and "
                f"{least:.0f} effective draws ({missing}). Sample longer (more tune and draws)."
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


def _split_chains(checked: xr.Dataset, failing: pd.DataFrame) -> str:
    """Name the chains that sit elsewhere, if chains are apart rather than slow."""
    worst = failing[failing["r_hat"] > 1.2]
    for name in worst.index:
        values = checked[name]
        spread = values.std("draw").mean("chain")
        means = values.mean("draw")
        apart = abs(means - means.median("chain")) / spread.where(spread > 0)
        flags = apart.max([d for d in apart.dims if d != "chain"]) > 3
        chains = [int(c) for c in flags["chain"].values[flags.values]]
        if len(chains) == checked.sizes["chain"]:
            return f"The posterior looks multimodal: each chain settled elsewhere for {name}."
        if chains:
            listed = ", ".join(map(str, chains))
            return (
                f"The posterior looks multimodal: chain {listed} settled elsewhere for {name}; "
                "do not average over the chains."
            )
    return ""
