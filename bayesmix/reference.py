"""The point inside a swarm at which the model is anchored."""

from dataclasses import dataclass

import numpy as np

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
    """

    weights: np.ndarray
    n_params: float
    n_tokens: float


def reference(runs: Runs) -> Reference:
    """The reference point of a swarm: mean mixture, geometric mean N and D."""
    weights = runs.effective_weights().values.mean(axis=0)
    # a domain that no run ever drew still needs a finite log weight
    weights = np.maximum(weights, 1e-4)
    return Reference(
        weights / weights.sum(),
        float(np.exp(np.log(runs.n_params.values).mean())),
        float(np.exp(np.log(runs.n_tokens.values).mean())),
    )
