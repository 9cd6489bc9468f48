"""The point inside a swarm at which the model is anchored, and the priors that follow from it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bayesmix import law as laws
from bayesmix.discrepancy import SAME_SCALE
from bayesmix.priors import Prior, default_priors, replace_priors
from bayesmix.runs import Runs


@dataclass(frozen=True)
class Reference:
    """The point inside the data at which levels and shares are defined.

    Attributes
    ----------
    weights : array, shape (K,)
        The mean mixture of the runs.
    n_params, n_tokens : float
        Geometric means, parameters and tokens.
    one_size, one_horizon : bool
        Whether all runs are of one N, and of one D.
    """

    weights: np.ndarray
    n_params: float
    n_tokens: float
    one_size: bool
    one_horizon: bool


def reference(runs: Runs) -> Reference:
    """The reference point of a swarm: mean mixture, geometric mean N and D."""
    weights = runs.effective_weights().values.mean(axis=0)
    # a domain that no run ever drew still needs a finite log weight
    weights = np.maximum(weights, 1e-4)
    log_n, log_d = np.log(runs.n_params.values), np.log(runs.n_tokens.values)
    return Reference(
        weights / weights.sum(),
        float(np.exp(log_n.mean())),
        float(np.exp(log_d.mean())),
        one_size=bool(np.ptp(log_n) <= SAME_SCALE),
        one_horizon=bool(np.ptp(log_d) <= SAME_SCALE),
    )


def swarm_priors(runs: Runs, law: str, new: Mapping[str, Prior] | None = None) -> dict[str, Prior]:
    """The default priors of a swarm under a law, some replaced by name.

    Raises
    ------
    ValueError
        If the law or a name is unknown, or a value is no prior (`replace_priors`).

    Examples
    --------
    >>> from bayesmix import load_dataset
    >>> swarm_priors(load_dataset("tinyswarm"), "transfer")["fade"]
    Normal(mu=2.0, sigma=1.5)
    """
    ref, headless = reference(runs), not laws.variant(law).head
    # without a head all of what it would be is irreducible, and the same in all runs
    defaults = default_priors(
        ref.n_params,
        ref.n_tokens,
        one_size=ref.one_size or headless,
        one_horizon=ref.one_horizon or headless,
    )
    return replace_priors(defaults, new)


def replaced_priors(used: Mapping[str, Prior], runs: Runs, law: str) -> dict[str, Prior]:
    """Those priors of a swarm's fit that are not its defaults, which follow the swarm."""
    defaults = swarm_priors(runs, law)
    return {name: prior for name, prior in used.items() if prior != defaults.get(name)}
