"""An objective at one N and D, as functions to minimise.

The objective is a weighted sum of expected losses, or the greatest of them: the law's, of which
`law.py` gives values and exact gradients, times each draw's discrepancy. The mixtures are exact: a
domain at 0 has no tokens.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from bayesmix import law as laws
from bayesmix.discrepancy import discrepancy_draws
from bayesmix.draws import law_draws
from bayesmix.lagrangian import Smoothed, Target
from bayesmix.optimise import project
from bayesmix.posterior import Fit
from bayesmix.risk import Risk, is_tail, smooth, value

_AT_ONCE = 8000  # evaluations in one call of the kernel
_HUGE = 1e12  # nats, in place of infinite losses, of which no difference can be taken


@dataclass(frozen=True)
class Worst:
    """The worst domain as an objective: the greatest of some weighted losses, draw by draw.

    Attributes
    ----------
    weights : mapping, optional
        {domain or ``target:<name>``: weight}; by default 1 for every domain with observed losses.
        One over the loss of a mixture that is good enough puts unlike domains on one scale.

    Examples
    --------
    >>> Worst({"web": 1.0, "code": 2.0}).weights["code"]
    2.0
    """

    weights: Mapping[str, float] | None = None


Objective = Mapping[str, float] | Worst


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
    objective : array, shape (S, C)
        Non-negative weights over domains and targets, times the draw's discrepancy.
    worst : bool
        Whether the objective is the greatest of the weighted losses, not their sum.
    """

    parameters: tuple[np.ndarray, ...]
    variant: laws.Variant
    n_params: float
    n_tokens: float
    objective: np.ndarray
    worst: bool = False

    @property
    def n_draws(self) -> int:
        """S, the number of draws."""
        return len(self.parameters[0])

    def subset(self, draws: np.ndarray) -> "Problem":
        """The same under some of the draws."""
        return replace(
            self,
            parameters=tuple(values[draws] for values in self.parameters),
            objective=self.objective[draws],
        )

    def thinned(self, most: int) -> "Problem":
        """The same under at most so many draws, evenly spaced."""
        if self.n_draws <= most:
            return self
        return self.subset(np.linspace(0, self.n_draws - 1, most).astype(int))

    def normalised(self) -> tuple["Problem", float]:
        """The same per unit of its weights, in which tolerances are stated, and that unit.

        The unit is the sum of the weights, of the worst domain the greatest; mean over the draws.
        """
        each = self.objective.max(axis=1) if self.worst else self.objective.sum(axis=1)
        unit = float(each.mean())
        return replace(self, objective=self.objective / unit), unit

    def values(self, points: np.ndarray) -> np.ndarray:
        """The objective of mixtures (P, K) under every draw, shape (S, P)."""
        sizes = np.ones(len(points))
        at = laws.points(points, self.n_params * sizes, self.n_tokens * sizes)
        loss = laws.evaluate_draws(
            *self.parameters, *at.arrays, self.variant.noise, self.variant.head
        )
        loss *= self.objective[:, None, :]
        return loss.max(axis=2) if self.worst else loss.sum(axis=2)

    def at(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weighted sum (S,) and gradient (S, K), every draw at a mixture of its own (S, K)."""
        value, gradient, _ = self._kernel(points)
        return value, gradient

    def losses(self, points: np.ndarray) -> np.ndarray:
        """Weighted losses (S, C), every draw at a mixture of its own (S, K)."""
        loss = replace(self, objective=np.zeros_like(self.objective))._kernel(points)[2]
        return np.where(self.objective > 0, np.minimum(loss, _HUGE) * self.objective, 0.0)

    def _kernel(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return laws.objective_draws(
            *self.parameters,
            np.ascontiguousarray(points),
            np.log(self.n_params),
            np.log(self.n_tokens),
            self.objective,
            self.variant.noise,
            self.variant.head,
        )


def check_sizes(n_params: float, n_tokens: float) -> None:
    """Refuse an N or a D that is no positive number."""
    for name, size in {"n_params": n_params, "n_tokens": n_tokens}.items():
        if not (math.isfinite(size) and size > 0):
            raise ValueError(f"{name} must be positive and finite, got {size!r}")


def problem(
    fit: Fit,
    n_params: float,
    n_tokens: float,
    objective: Mapping[str, float],
    *,
    worst: bool = False,
    seed: int = 0,
) -> Problem:
    """The problem of a fit's posterior, for an objective {component: weight}."""
    check_sizes(n_params, n_tokens)
    weights = np.array([float(objective.get(name, 0.0)) for name in fit.components])
    draws = law_draws(fit.posterior["posterior"].to_dataset())
    # a loss outside the objective may be infinite at weight 0, and 0 x inf is no number
    draws["tau"][:, weights == 0] = 1.0
    parameters = tuple(draws[name] for name in laws.PARAMETERS)
    factors = discrepancy_factors(fit, np.array([n_params]), np.array([n_tokens]), seed)[:, 0]
    return Problem(
        parameters,
        laws.LAWS[fit.law],
        float(n_params),
        float(n_tokens),
        weights * factors,
        worst,
    )


def discrepancy_factors(
    fit: Fit, n_params: np.ndarray, n_tokens: np.ndarray, seed: int, *, path: bool = False
) -> np.ndarray:
    """What each draw's losses are multiplied by at R pairs of N and D, shape (S, R, C).

    The same as in `predict` for the same seed, unless the pairs are points of one `path`.
    """
    draws = law_draws(fit.posterior["posterior"].to_dataset())
    rng = np.random.default_rng(seed)
    return np.exp(discrepancy_draws(fit.runs, draws, n_params, n_tokens, rng, path=path))


def draws_target(of: Problem) -> Target:
    """Every draw's objective as a problem of its own."""

    def target(points: np.ndarray, draws: np.ndarray, around: np.ndarray, width: float) -> Smoothed:
        these = of if len(draws) == of.n_draws else of.subset(draws)
        return _each(these, points, around, width)

    return target


def risk_target(
    of: Problem, risk: Risk, scale: float = 1.0, less: np.ndarray | float = 0.0
) -> Target:
    """A measure of the objective over all draws as a function of one mixture.

    Parameters
    ----------
    of : Problem
    risk : Risk
    scale : float
        `risk.scale` of the draws somewhere near; no matter to a mean.
    less : array, shape (S,)
        What the measure takes the draws relative to.
    """

    def target(points: np.ndarray, _: np.ndarray, around: np.ndarray, width: float) -> Smoothed:
        inner, outer = around[..., :-1], around[..., -1]
        shape, n_corners = (len(points), of.n_draws), inner.shape[-1]
        parts = []
        # several points in one call: starting threads costs more than a few draws do
        size = max(_AT_ONCE // of.n_draws, 1)
        for first in range(0, len(points), size):
            some = points[first : first + size]
            every = of
            if len(some) > 1:
                every = of.subset(np.tile(np.arange(of.n_draws), len(some)))
            corners = inner[first : first + size].reshape(len(some) * of.n_draws, n_corners)
            parts.append(_each(every, np.repeat(some, of.n_draws, axis=0), corners, width))
        each = Smoothed(*(np.concatenate(part) for part in zip(*parts, strict=True)))
        losses = np.minimum(each.values, _HUGE).reshape(shape) - less
        values, p = smooth(risk, losses, outer, scale * width if is_tail(risk) else scale)
        slopes = np.einsum("ps,psk->pk", p, each.gradients.reshape(*shape, -1))
        gaps = (p * each.gaps.reshape(shape)).sum(axis=1)
        if not around.size:
            return Smoothed(values, slopes, around, gaps)
        if is_tail(risk):
            exact = np.array([value(risk, row) for row in losses])
            gaps = gaps + exact - (p * losses).sum(axis=1)
        kept = np.concatenate([each.weights.reshape(*shape, n_corners), p[..., None]], axis=2)
        return Smoothed(values, slopes, kept, gaps)

    return target


def first_weights(of: Problem, risk: Risk | None, n_problems: int) -> np.ndarray:
    """Weights p' to start `minimise_within` from; `risk` None for `draws_target`."""
    counted = (of.objective > 0).astype(float)
    counted /= counted.sum(axis=1, keepdims=True)
    inner = counted if of.worst else np.empty((of.n_draws, 0))
    if risk is None:
        return inner
    if not (of.worst or is_tail(risk)):
        return np.empty((n_problems, 0, 1))
    outer = np.full((of.n_draws, 1), 1 / of.n_draws)
    return np.tile(np.concatenate([inner, outer], axis=1), (n_problems, 1, 1))


def _each(of: Problem, points: np.ndarray, around: np.ndarray, width: float) -> Smoothed:
    """Every draw's objective at its own mixture: of the worst domain, `Smoothed`."""
    if not of.worst:
        values, gradients = of.at(points)
        return Smoothed(values, gradients, around, np.zeros(len(points)))
    counted = of.objective > 0
    losses = of.losses(points)
    p = project(around + losses / width, np.zeros_like(losses), counted.astype(float))
    values = (p * losses).sum(axis=1)
    gradients = replace(of, objective=p * of.objective).at(points)[1]
    gaps = np.where(counted, losses, -np.inf).max(axis=1) - values
    return Smoothed(values - ((p - around) ** 2).sum(axis=1) * width / 2, gradients, p, gaps)


def resolve_objective(
    components: tuple[str, ...], observed: tuple[str, ...], objective: Objective | None
) -> tuple[dict[str, float], bool]:
    """The objective's weights, checked, and whether it is the worst domain's.

    By default the mean over the observed domains, or the worst of them.
    """
    worst = isinstance(objective, Worst)
    given = objective.weights if isinstance(objective, Worst) else objective
    valid = ", ".join(components)
    if given is None:
        names = observed
        if not names:
            raise ValueError(f"no domain has observed losses: give an objective over {valid}")
        return dict.fromkeys(names, 1.0 if worst else 1 / len(names)), worst
    if not hasattr(given, "items"):
        raise ValueError(f"an objective is {{name: weight}} or a Worst of that, not {given!r}")
    unknown = [name for name in given if name not in components]
    if unknown:
        raise ValueError(
            f"unknown name {', '.join(map(repr, unknown))} in the objective; valid names: {valid}"
        )
    weights = {name: float(weight) for name, weight in given.items()}
    wrong = [f"{n!r}: {w:g}" for n, w in weights.items() if not (w >= 0 and math.isfinite(w))]
    if wrong:
        raise ValueError(f"the objective's weights must be 0 or more, got {', '.join(wrong)}")
    if not any(weights.values()):
        raise ValueError(f"no weight of the objective is above 0; valid names: {valid}")
    return weights, worst
