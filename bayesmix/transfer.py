"""What a token of one domain is worth to another: tau, and which pairs share one."""

from collections.abc import Mapping, Sequence

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pytensor.tensor.variable import TensorVariable

from bayesmix.model_data import data
from bayesmix.pooling import between
from bayesmix.priors import Prior
from bayesmix.runs import Runs


def transfer_rows(
    runs: Runs,
    prior: Mapping[str, Prior],
    groups: Mapping[str, str],
    *,
    transfer: bool,
    centre: bool,
) -> TensorVariable:
    """tau (C, K): ones on the diagonal, a simplex row per target; identity without transfer.

    To be called inside a model. What is sampled follows `centring`, or without `centre` is all
    against the mean.
    """
    n_domains, n_targets = len(runs.domains), len(runs.targets)
    rows = data(np.eye(n_domains))
    if transfer:
        pair = transfer_pairs(runs.domains, groups)
        centred = centring(runs, groups) if centre else np.zeros(n_domains)
        # anchored at close kin, which data inform; the many small pairs only bound the spread
        spread = prior["tau_spread"].rv("tau_spread")
        mean = prior["tau_kin"].rv("tau_kin") - spread
        i, j = np.nonzero(~np.eye(n_domains, dtype=bool))
        first = np.unique(pair, return_index=True)[1]
        source, shape = data(j[first]), data(len(first))
        logit = between("tau_z", mean, spread, data(centred), source, shape=shape)
        if len(first) < pair.size:
            logit = logit[data(pair)]
        rows = pt.set_subtensor(rows[data(i), data(j)], pm.math.sigmoid(logit))
    if n_targets:
        flat = data(np.ones(n_domains))
        target_rows = pm.Dirichlet("tau_target", flat, dims=("target", "source"))
        rows = pt.concatenate([rows, target_rows], axis=0)
    if transfer or n_targets:
        pm.Deterministic("tau", rows, dims=("component", "source"))
    return rows


def transfer_pairs(domains: Sequence[str], groups: Mapping[str, str]) -> np.ndarray:
    """Code of the two groups of each ordered pair of domains, row by row, the diagonal left out.

    Parameters
    ----------
    domains : sequence of str
    groups : mapping
        {domain: group}.

    Raises
    ------
    ValueError
        If a group has a domain that there is not.

    Examples
    --------
    >>> transfer_pairs(["c", "python", "web"], {"c": "code", "python": "code"}).tolist()
    [0, 1, 0, 1, 2, 2]
    """
    unknown = [name for name in groups if name not in domains]
    if unknown:
        raise ValueError(
            f"groups: unknown domain {', '.join(map(repr, unknown))}; valid names: "
            f"{', '.join(domains)}"
        )
    code = _group_codes(domains, groups)
    i, j = np.nonzero(~np.eye(len(domains), dtype=bool))
    pairs = np.column_stack([code[i], code[j]])
    return np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1)


def _group_codes(domains: Sequence[str], groups: Mapping[str, str]) -> np.ndarray:
    """Of each domain's group, the place of its first domain."""
    # a pair sets a name that was given apart from that of a lone domain
    names = [(name in groups, groups.get(name, name)) for name in domains]
    return np.array([names.index(name) for name in names])


def centring(runs: Runs, groups: Mapping[str, str]) -> np.ndarray:
    """How far the tau of each source (K,) are sampled as they are, and not against their mean.

    From 0, all against the mean, where no run has the source or another of its group, to 1; a half
    where what the runs have of it makes one run of it alone (docs/sampling.md).

    Examples
    --------
    >>> from bayesmix import load_dataset
    >>> centring(load_dataset("tinyswarm"), {}).round(2).tolist()
    [0.91, 0.9, 0.91, 0.93, 0.87, 0.85]
    """
    one_a_run = np.unique(runs.run_ids.values, return_index=True)[1]
    code = _group_codes(runs.domains, groups)
    weights = runs.effective_weights().values[one_a_run] @ (code[:, None] == code)
    alone = (weights**2).sum(axis=0)
    return alone / (alone + 1)
