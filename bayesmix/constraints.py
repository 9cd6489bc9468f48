"""What a mixture must satisfy: convex constraints, as a user or a file states them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Bounds:
    """Least and greatest weight of some domains.

    Attributes
    ----------
    limits : mapping
        {domain: (lower, upper)}, fractions of the tokens.

    Examples
    --------
    >>> Bounds({"wikipedia": (0.02, 0.10)}).limits["wikipedia"]
    (0.02, 0.1)
    """

    limits: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Fixed:
    """Domains whose weight is given.

    Attributes
    ----------
    weights : mapping
        {domain: weight}, fractions of the tokens.

    Examples
    --------
    >>> Fixed({"wikipedia": 0.05}).weights["wikipedia"]
    0.05
    """

    weights: Mapping[str, float]


@dataclass(frozen=True)
class GroupSum:
    """Least and greatest sum of some domains' weights.

    Attributes
    ----------
    name : str
        For messages.
    domains : sequence of str
    min, max : float
        Fractions of the tokens.

    Examples
    --------
    >>> GroupSum("code", ["github", "stackexchange"], min=0.1).max
    1.0
    """

    name: str
    domains: Sequence[str]
    min: float = 0.0
    max: float = 1.0


@dataclass(frozen=True)
class TokenBudget:
    """Supply of tokens: a run of D tokens takes at most `max_epochs` passes over each domain.

    Attributes
    ----------
    available : mapping
        {domain: tokens}; domains that are not named have all that is wanted.
    max_epochs : float

    Examples
    --------
    >>> TokenBudget({"wikipedia": 5e9}, max_epochs=4).available["wikipedia"]
    5000000000.0
    """

    available: Mapping[str, float]
    max_epochs: float = 1.0


@dataclass(frozen=True)
class KL:
    """Greatest Kullback-Leibler divergence from a reference, ``sum h log(h / reference)``.

    Attributes
    ----------
    reference : mapping
        {domain: weight} that sums to 1; a domain at 0 must stay there.
    max : float
        Nats.

    Examples
    --------
    >>> KL({"web": 0.7, "code": 0.3}, max=0.05).max
    0.05
    """

    reference: Mapping[str, float]
    max: float


@dataclass(frozen=True)
class L1:
    """Greatest distance from a reference, ``sum |h - reference|``.

    Attributes
    ----------
    reference : mapping
        {domain: weight} that sums to 1.
    max : float
        Between 0 and 2: twice the share of tokens that may move.

    Examples
    --------
    >>> L1({"web": 0.7, "code": 0.3}, max=0.1).max
    0.1
    """

    reference: Mapping[str, float]
    max: float


Constraint = Bounds | Fixed | GroupSum | TokenBudget | KL | L1


def check(constraint: Constraint, domains: tuple[str, ...]) -> None:
    """Refuse unknown names and numbers out of range."""
    match constraint:
        case Bounds(limits):
            kind, names = "bounds", list(limits)
            wrong = [f"{n} {p!r}" for n, p in limits.items() if not _is_pair(p)]
        case Fixed(given):
            kind, names = "fixed weights", list(given)
            wrong = [f"{n} {w!r}" for n, w in given.items() if not _is_pair((w, w))]
        case GroupSum(name, members, low, high):
            kind, names = f"group {name}", list(members)
            wrong = [] if _is_pair((low, high)) else [f"{(low, high)!r}"]
            wrong += [] if members and len({*members}) == len(members) else [f"{list(members)!r}"]
        case TokenBudget(available, epochs):
            kind, names = "token budget", list(available)
            wrong = [f"{n} {t!r}" for n, t in available.items() if not _is_positive(t)]
            wrong += [] if _is_positive(epochs) else [f"max_epochs {epochs!r}"]
        case KL(reference, limit) | L1(reference, limit):
            kind, names = type(constraint).__name__.lower(), list(reference)
            wrong = [f"{n} {w!r}" for n, w in reference.items() if not 0 <= w <= 1]
            if not wrong and abs(sum(reference.values()) - 1) > 0.005:
                wrong = [f"a reference that sums to {sum(reference.values()):g}"]
            wrong += [] if limit >= 0 and math.isfinite(limit) else [f"max {limit!r}"]
        case _:
            raise ValueError(f"no constraint: {constraint!r}")
    unknown = [name for name in names if name not in domains]
    if unknown:
        raise ValueError(
            f"{kind}: unknown domain {', '.join(map(repr, unknown))}; "
            f"valid names: {', '.join(domains)}"
        )
    if wrong:
        raise ValueError(f"{kind}: out of range: {', '.join(wrong)}")


def _is_pair(pair: Any) -> bool:
    try:
        low, high = pair
        return bool(0 <= low <= high <= 1)
    except (TypeError, ValueError):  # no two numbers
        return False


def _is_positive(number: float) -> bool:
    return number > 0 and math.isfinite(number)
