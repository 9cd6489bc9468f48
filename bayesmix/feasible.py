"""The set of mixtures that meet every constraint.

`feasible_set` turns constraints into bounds, linear rows and distances to a
reference at the run's D, and refuses a set that no mixture meets, naming what clashes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linprog, minimize

from bayesmix.constraints import (
    KL,
    L1,
    Bounds,
    Constraint,
    Fixed,
    GroupSum,
    TokenBudget,
    check,
)
from bayesmix.optimise import project

FEASIBLE = 1e-8  # breach that a mixture may have, units of weight or nats
_ROUND = 1e-10  # nats, below which the root of a divergence is rounded off
_LEAST_UNIT = 1e-5  # of a sum's excess
_SLACK = 1e-9  # by which a set may miss and still count as met: rounding of the numbers given


@dataclass(frozen=True)
class FeasibleSet:
    """Mixtures that meet every constraint: what the minimisers work on.

    An L1 distance has corners, so with one the variables are ``y = (u, 1/K - w)`` with
    ``h = reference + u - w``: again non-negative bounds and a sum of 1, and the distance is linear.

    Attributes
    ----------
    domains : tuple of str
    lower, upper : array, shape (K,)
    rows : array, shape (J, K)
        ``rows @ h <= limits``.
    limits : array, shape (J,)
    kl_references : array, shape (M, K)
    kl_limits : array, shape (M,)
        Nats.
    l1_reference : array, shape (K,), optional
    l1_limit : float
    lower_names, upper_names : tuple of str
        Which constraint each bound comes from; "" where none does.
    names : tuple of str
        Of the other constraints, in the order of `excess`.
    """

    domains: tuple[str, ...]
    lower: np.ndarray
    upper: np.ndarray
    rows: np.ndarray
    limits: np.ndarray
    kl_references: np.ndarray
    kl_limits: np.ndarray
    l1_reference: np.ndarray | None = None
    l1_limit: float = 2.0
    lower_names: tuple[str, ...] = field(default=())
    upper_names: tuple[str, ...] = field(default=())
    names: tuple[str, ...] = field(default=())

    def excess(self, points: np.ndarray) -> np.ndarray:
        """By how much mixtures (P, K) break each constraint beside bounds, shape (P, J + M + 1).

        Negative where there is room. The last column is there with an L1 distance alone. A
        divergence is ``sum h log(h / reference) - h + reference``, which is none below 0 though the
        weights sum to less than 1.
        """
        columns = [points @ self.rows.T - self.limits]
        for reference, limit in zip(self.kl_references, self.kl_limits, strict=True):
            terms = points * _log_ratio(points, reference) - points + reference
            columns.append(terms.sum(axis=1)[:, None] - limit)
        if self.l1_reference is not None:
            columns.append(abs(points - self.l1_reference).sum(axis=1)[:, None] - self.l1_limit)
        return np.concatenate(columns, axis=1)

    def reach(self) -> np.ndarray:
        """Greatest weight (K,) that bounds and sums leave each domain."""
        greatest = self.upper.copy()
        for few, most in self.at_most():
            greatest[few] = np.minimum(greatest[few], most)
        return np.maximum(greatest, self.lower)

    def at_most(self) -> list[tuple[np.ndarray, float]]:
        """Of each sum the domains (K,) that it limits, and to what: one from below the others."""
        return [
            (row > 0, limit) if row.max() > 0 else (row == 0, 1 + limit)
            for row, limit in zip(self.rows, self.limits, strict=True)
        ]

    def pull(self, points: np.ndarray, multipliers: np.ndarray) -> np.ndarray:
        """Gradient in h of ``sum_j multipliers_j excess_j`` without the L1 column, shape (P, K)."""
        n_rows = len(self.limits)
        gradient = multipliers[:, :n_rows] @ self.rows
        for m, reference in enumerate(self.kl_references):
            gradient += multipliers[:, [n_rows + m]] * _log_ratio(points, reference)
        return gradient

    def rooted(self, excess: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the minimisers keep below 0 in place of `excess`, and its derivative by `excess`.

        Of a divergence it is the root less the limit's: about the reference a divergence is a
        square, whose slope vanishes as its limit does. The excess of a sum is in units that shrink
        with what its limit leaves to few domains: losses bend the more about small weights.
        """
        rooted, rate = excess.copy(), np.ones_like(excess)
        sums = slice(len(self.limits))
        few = np.minimum(abs(self.limits), 1 - abs(self.limits))
        units = np.clip(4 * few, _LEAST_UNIT, 1)
        rooted[:, sums], rate[:, sums] = excess[:, sums] / units, 1 / units
        balls = slice(len(self.limits), len(self.limits) + len(self.kl_limits))
        limits = self.kl_limits + _ROUND
        roots = np.sqrt(excess[:, balls] + limits)
        rooted[:, balls], rate[:, balls] = roots - np.sqrt(limits), 0.5 / roots
        return rooted, rate

    def violation(self, points: np.ndarray) -> np.ndarray:
        """Greatest breach of any constraint, the sum of 1 among them, shape (P,)."""
        parts = [
            abs(points.sum(axis=1) - 1),
            (self.lower - points).max(axis=1),
            (points - self.upper).max(axis=1),
            self.excess(points).max(axis=1, initial=0.0),
        ]
        return np.max(parts, axis=0)


def feasible_set(
    constraints: Sequence[Constraint], domains: Sequence[str], n_tokens: float
) -> FeasibleSet:
    """The mixtures that meet every constraint.

    Parameters
    ----------
    constraints : sequence of Constraint
    domains : sequence of str
        K names, in the order of the mixtures.
    n_tokens : float
        D of the run, tokens.

    Returns
    -------
    FeasibleSet

    Raises
    ------
    ValueError
        If a name is unknown, a number out of range, or no mixture meets all constraints: then
        naming a smallest set of them that clash.

    Examples
    --------
    >>> from bayesmix.constraints import Bounds, GroupSum, TokenBudget
    >>> allowed = feasible_set([TokenBudget({"code": 1e9})], ["web", "code"], 4e9)
    >>> allowed.upper.tolist()
    [1.0, 0.25]
    >>> feasible_set([Bounds({"web": (0.6, 1)}), GroupSum("all", ["code"], min=0.5)],
    ...              ["web", "code"], 4e9)
    Traceback (most recent call last):
        ...
    ValueError: no mixture meets all of: web at least 0.6; group all at least 0.5
    """
    domains, constraints = tuple(domains), tuple(constraints)
    for constraint in constraints:
        check(constraint, domains)
    if sum(isinstance(c, L1) for c in constraints) > 1:
        raise ValueError("at most one L1 distance can be kept")
    parts = [part for c in constraints for part in _parts(c, domains, n_tokens)]
    allowed = _assemble(parts, domains)
    if not _is_feasible(allowed):
        raise ValueError(f"no mixture meets all of: {'; '.join(_clash(parts, domains))}")
    return allowed


@dataclass(frozen=True)
class _Part:
    """One inequality: ``sum of domains' weights <= limit`` (sign 1) or ``>=`` (sign -1), or a ball.

    `name` is what it is called in messages and reports.
    """

    name: str
    limit: float
    domains: tuple[str, ...] = ()
    sign: int = 1
    ball: KL | L1 | None = None


def _parts(constraint: Constraint, domains: tuple[str, ...], n_tokens: float) -> list[_Part]:
    """The inequalities of a constraint that say something."""
    stated: list[tuple[str, tuple[str, ...], tuple[float, float]]] = []
    match constraint:
        case Bounds(limits):
            stated += [(name, (name,), pair) for name, pair in limits.items()]
        case Fixed(given):
            stated += [(f"{name} (fixed)", (name,), (w, w)) for name, w in given.items()]
        case GroupSum(name, members, low, high):
            stated += [(f"group {name}", tuple(members), (low, high))]
        case TokenBudget(available, epochs):
            supply = {name: tokens * epochs / n_tokens for name, tokens in available.items()}
            return [
                _Part(f"{name} at most {share:.6g} (token budget)", share, (name,))
                for name, share in supply.items()
                if share < 1
            ]
        case KL(_, limit):
            return [_Part(f"kl at most {limit:g}", limit, ball=constraint)]
        case L1(_, limit):
            return [_Part(f"l1 at most {limit:g}", limit, ball=constraint)]
    out = []
    for said, names, (low, high) in stated:
        if low == 1:  # of what is 0, bounds: no price makes a sum exactly that
            others = [name for name in domains if name not in names]
            out += [_Part(f"{said} at least 1", 0.0, (name,)) for name in others]
        if low > 0 and (low < 1 or len(names) == 1):
            out.append(_Part(f"{said} at least {low:g}", low, names, -1))
        if high == 0:
            out += [_Part(f"{said} at most 0", 0.0, (name,)) for name in names]
        elif high < 1:
            out.append(_Part(f"{said} at most {high:g}", high, names))
    return out


def _assemble(parts: Sequence[_Part], domains: tuple[str, ...]) -> FeasibleSet:
    k = len(domains)
    lower, upper = np.zeros(k), np.ones(k)
    lower_names, upper_names = [""] * k, [""] * k
    rows, limits, row_names = [], [], []
    kls = [(_vector(p.ball.reference, domains), p.limit) for p in parts if isinstance(p.ball, KL)]
    l1s = [(_vector(p.ball.reference, domains), p.limit) for p in parts if isinstance(p.ball, L1)]
    l1_reference, l1_limit = l1s[0] if l1s else (None, 2.0)
    for reference, limit in kls:
        upper[reference == 0] = 0.0
        if limit == 0:  # a point, about which no root bends enough
            lower, upper = np.maximum(lower, reference), np.minimum(upper, reference)
    for part in parts:
        if part.ball is not None:
            continue
        if len(part.domains) == 1:
            i = domains.index(part.domains[0])
            if part.sign > 0 and part.limit < upper[i]:
                upper[i], upper_names[i] = part.limit, part.name
            if part.sign < 0 and part.limit > lower[i]:
                lower[i], lower_names[i] = part.limit, part.name
        else:
            rows.append([part.sign * float(name in part.domains) for name in domains])
            limits.append(part.sign * part.limit)
            row_names.append(part.name)
    return FeasibleSet(
        domains,
        lower,
        upper,
        np.array(rows).reshape(-1, k),
        np.array(limits),
        np.array([reference for reference, _ in kls]).reshape(-1, k),
        np.array([limit for _, limit in kls]),
        l1_reference,
        l1_limit,
        tuple(lower_names),
        tuple(upper_names),
        (*row_names, *(p.name for kind in (KL, L1) for p in parts if isinstance(p.ball, kind))),
    )


def _is_feasible(allowed: FeasibleSet) -> bool:
    """Whether any mixture meets the constraints, to within rounding."""
    if (allowed.lower > allowed.upper + _SLACK).any():
        return False
    start = _linear_point(allowed)
    if start is None:
        return False
    if not len(allowed.kl_limits):
        return True
    # the search may stop short from where a weight is at a bound, or at another's reference
    starts = (start, *allowed.kl_references, allowed.upper)
    return any(
        _least_kl(allowed, project(h[None], allowed.lower, allowed.upper)[0]) <= FEASIBLE
        for h in starts
    )


def _linear_point(allowed: FeasibleSet) -> np.ndarray | None:
    """A mixture that meets all but the divergences: a linear programme in h and |h - reference|."""
    k = len(allowed.domains)
    rows = np.hstack([allowed.rows, np.zeros_like(allowed.rows)])
    limits = allowed.limits + _SLACK
    if allowed.l1_reference is not None:
        eye = np.eye(k)
        away = np.block([[eye, -eye], [-eye, -eye], [np.zeros(k), np.ones(k)]])
        rows = np.vstack([rows, away])
        limits = np.concatenate(
            [limits, allowed.l1_reference, -allowed.l1_reference, [allowed.l1_limit + _SLACK]]
        )
    upper = np.maximum(allowed.upper, allowed.lower)
    found = linprog(
        np.zeros(2 * k),
        A_ub=rows,
        b_ub=limits,
        A_eq=np.concatenate([np.ones(k), np.zeros(k)])[None],
        b_eq=[1.0],
        bounds=[*zip(allowed.lower - _SLACK, upper + _SLACK, strict=True), *[(0, None)] * k],
    )
    return found.x[:k] if found.status == 0 else None


def _least_kl(allowed: FeasibleSet, start: np.ndarray) -> float:
    """Breach of a mixture about which the greatest divergence has the least excess."""
    k, n_rows = len(start), len(allowed.limits)
    n_kl = len(allowed.kl_limits)
    # variables (h, d, t): d bounds |h - reference| for an L1 distance, t the excess
    reference = allowed.l1_reference if allowed.l1_reference is not None else start
    d_limit = allowed.l1_limit if allowed.l1_reference is not None else 2.0

    def excess(x: np.ndarray) -> np.ndarray:
        h, d, t = x[:k], x[k : 2 * k], x[2 * k]
        every = allowed.excess(h[None])[0]
        return np.concatenate(
            [
                t - every[n_rows : n_rows + n_kl],
                -every[:n_rows],
                d - h + reference,
                d + h - reference,
                [d_limit - d.sum()],
            ]
        )

    def slope(x: np.ndarray) -> np.ndarray:
        h, eye, none = x[:k], np.eye(k), np.zeros((k, 1))
        kl = np.array([-_log_ratio(h[None], r)[0] for r in allowed.kl_references])
        return np.block(
            [
                [kl, np.zeros((n_kl, k)), np.ones((n_kl, 1))],
                [-allowed.rows, np.zeros((n_rows, k + 1))],
                [-eye, eye, none],
                [eye, eye, none],
                [np.zeros((1, k)), -np.ones((1, k)), np.zeros((1, 1))],
            ]
        )

    h = np.clip(start, 1e-6, None)
    first = np.concatenate([h, abs(h - reference), [allowed.excess(h[None]).max()]])
    least = np.minimum(np.maximum(allowed.lower, 1e-12), allowed.upper)
    found = minimize(
        lambda x: (x[-1], np.eye(len(x))[-1]),
        first,
        jac=True,
        method="SLSQP",
        bounds=[*zip(least, allowed.upper, strict=True), *[(0, 2)] * k, (None, None)],
        constraints=[
            {"type": "ineq", "fun": excess, "jac": slope},
            {
                "type": "eq",
                "fun": lambda x: x[:k].sum() - 1,
                "jac": lambda _: np.arange(2 * k + 1) < k,
            },
        ],
        options={"ftol": 1e-12, "maxiter": 500},
    )
    # the search may say that it failed for a last digit: what counts is where it ended
    return float(allowed.violation(project(found.x[None, :k], allowed.lower, allowed.upper))[0])


def _clash(parts: Sequence[_Part], domains: tuple[str, ...]) -> list[str]:
    """Names of a smallest set of inequalities that no mixture meets: none of it can be spared."""
    kept = list(parts)
    for part in parts:
        fewer = [other for other in kept if other is not part]
        if not _is_feasible(_assemble(fewer, domains)):
            kept = fewer
    return list(dict.fromkeys(part.name for part in kept))


def _vector(reference: Mapping[str, float], domains: tuple[str, ...]) -> np.ndarray:
    values = np.array([float(reference.get(name, 0.0)) for name in domains])
    return values / values.sum()


def _log_ratio(points: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """``log(h / reference)``, finite at h = 0, and 0 where the reference is."""
    kept = reference > 0
    ratio = np.maximum(points, 1e-300) / np.where(kept, reference, 1.0)
    return np.where(kept, np.log(ratio), 0.0)
