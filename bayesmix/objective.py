"""An objective at one N and D, as functions to minimise.

The objective is a weighted sum of the law's losses, of which `law.py` gives values and exact
gradients. The mixtures are exact: a domain at 0 has no tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from bayesmix import law as laws
from bayesmix.fit import Fit
from bayesmix.model import law_draws
from bayesmix.optimise import Function

_AT_ONCE = 8000  # evaluations in one call of the kernel


@dataclass(frozen=True)
class Problem:
    """An objective at one N and D under every posterior draw.

    Attributes
    ----------
    parameters : tuple of arrays
        The kernel's, in the order of `law.PARAMETERS`, each with a leading axis of S draws.
    variant : Variant
    n_params, n_tokens : float
        N (parameters) and D (tokens).
    objective : array, shape (C,)
        Non-negative weights over domains and targets.
    """

    parameters: tuple[np.ndarray, ...]
    variant: laws.Variant
    n_params: float
    n_tokens: float
    objective: np.ndarray

    @property
    def n_draws(self) -> int:
        """S, the number of draws."""
        return len(self.parameters[0])

    def subset(self, draws: np.ndarray) -> "Problem":
        """The same under some of the draws."""
        return replace(self, parameters=tuple(values[draws] for values in self.parameters))

    def thinned(self, most: int) -> "Problem":
        """The same under at most so many draws, evenly spaced."""
        if self.n_draws <= most:
            return self
        return self.subset(np.linspace(0, self.n_draws - 1, most).astype(int))

    def values(self, points: np.ndarray) -> np.ndarray:
        """The objective of mixtures (P, K) under every draw, shape (S, P)."""
        sizes = np.ones(len(points))
        at = laws.points(points, self.n_params * sizes, self.n_tokens * sizes)
        loss = laws.evaluate_draws(
            *self.parameters, *at.arrays, self.variant.noise, self.variant.head
        )
        return loss @ self.objective

    def at(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Objective (S,) and gradient (S, K), every draw at a mixture of its own (S, K)."""
        return laws.objective_draws(
            *self.parameters,
            np.ascontiguousarray(points),
            np.log(self.n_params),
            np.log(self.n_tokens),
            self.objective,
            self.variant.noise,
            self.variant.head,
        )

    def of_mean(self) -> Function:
        """The posterior mean as a function to minimise, the same for every start."""

        def function(points: np.ndarray, _: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            # several points in one call: starting threads costs more than a few draws do
            size = max(_AT_ONCE // self.n_draws, 1)
            values, gradients = [], []
            for start in range(0, len(points), size):
                some = points[start : start + size]
                shape = (len(some), self.n_draws)
                every = self.subset(np.tile(np.arange(self.n_draws), len(some)))
                value, gradient = every.at(np.repeat(some, self.n_draws, axis=0))
                values.append(value.reshape(shape).mean(axis=1))
                gradients.append(gradient.reshape(*shape, -1).mean(axis=1))
            return np.concatenate(values), np.concatenate(gradients)

        return function

    def of_draws(self) -> Function:
        """Every draw's objective as a problem of its own."""

        def function(points: np.ndarray, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            these = self if len(draws) == self.n_draws else self.subset(draws)
            return these.at(points)

        return function


def problem(fit: Fit, n_params: float, n_tokens: float, objective: Mapping[str, float]) -> Problem:
    """The problem of a fit's posterior, for an objective {component: weight}."""
    weights = np.array([float(objective.get(name, 0.0)) for name in fit.components])
    draws = law_draws(fit.posterior["posterior"].to_dataset())
    # a loss outside the objective may be infinite at weight 0, and 0 x inf is no number
    draws["tau"][:, weights == 0] = 1.0
    parameters = tuple(draws[name] for name in laws.PARAMETERS)
    return Problem(parameters, laws.LAWS[fit.law], float(n_params), float(n_tokens), weights)
