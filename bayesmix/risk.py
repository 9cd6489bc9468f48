"""Measures of risk: from draws of an objective to the one number that a choice minimises.

The draws are of the *expected* objective under the posterior (law and discrepancy): the noise of a
new run is no reason to prefer a mixture, and its t tails have no mean. Every measure acts on draws
of shape (S,), in nats per token, lower being better:

- `Mean`, `Quantile` and `CVaR` on the objective itself;
- `Regret` on what each draw could have saved, the objective less the draw's own optimum;
- `ProbBelow` on the objective less that of a given mixture.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from bayesmix.optimise import project

_BANDWIDTH = 2.0  # of the kernel, in standard deviations of the draws over the root of their number
_BISECTIONS = 60


@dataclass(frozen=True)
class Mean:
    """The posterior mean.

    Examples
    --------
    >>> str(Mean())
    'mean'
    """

    def __str__(self) -> str:
        return "mean"


@dataclass(frozen=True)
class Quantile:
    """A quantile of the posterior: exceeded with probability 1 - `level`.

    Attributes
    ----------
    level : float
        Between 0 and 1.

    Raises
    ------
    ValueError
        If `level` is not between 0 and 1.

    Examples
    --------
    >>> str(Quantile(0.9))
    'quantile:0.9'
    """

    level: float

    def __post_init__(self) -> None:
        _check_level(self.level)

    def __str__(self) -> str:
        return f"quantile:{self.level:g}"


@dataclass(frozen=True)
class CVaR:
    """Conditional value at risk: the mean over the worst 1 - `level` of the posterior.

    Attributes
    ----------
    level : float
        Between 0 and 1.

    Raises
    ------
    ValueError
        If `level` is not between 0 and 1.

    Examples
    --------
    >>> str(CVaR(0.9))
    'cvar:0.9'
    """

    level: float

    def __post_init__(self) -> None:
        _check_level(self.level)

    def __str__(self) -> str:
        return f"cvar:{self.level:g}"


@dataclass(frozen=True)
class Regret:
    """Loss beyond the draw's own optimum: its mean, or the mean of its worst 1 - `level`.

    The mean of the regret is least where the mean of the loss is.

    Attributes
    ----------
    level : float, optional
        Between 0 and 1; the mean over all draws by default.

    Raises
    ------
    ValueError
        If `level` is not between 0 and 1.

    Examples
    --------
    >>> str(Regret()), str(Regret(0.9))
    ('regret', 'regret:0.9')
    """

    level: float | None = None

    def __post_init__(self) -> None:
        if self.level is not None:
            _check_level(self.level)

    def __str__(self) -> str:
        return "regret" if self.level is None else f"regret:{self.level:g}"


@dataclass(frozen=True)
class ProbBelow:
    """The chance to beat a given mixture, such as the present one; the greater the better.

    Attributes
    ----------
    baseline : mapping
        The mixture, {domain: weight}.

    Examples
    --------
    >>> str(ProbBelow({"web": 0.5, "code": 0.5}))
    'prob-below'
    """

    baseline: Mapping[str, float]

    def __str__(self) -> str:
        return "prob-below"


Risk = Mean | Quantile | CVaR | Regret | ProbBelow


def parse_risk(text: str, read_baseline: Callable[[str], Mapping[str, float]]) -> Risk:
    """The measure that a text names: that of the command line's ``--risk``.

    Parameters
    ----------
    text : str
        ``mean``, ``quantile:0.9``, ``cvar:0.9``, ``regret``, ``regret:0.9`` or
        ``prob-below:FILE.csv``.
    read_baseline : callable
        Reads the mixture of a file's name.

    Raises
    ------
    ValueError
        If the text is none of these.

    Examples
    --------
    >>> parse_risk("cvar:0.9", dict)
    CVaR(level=0.9)
    """
    name, colon, argument = text.partition(":")
    if name == "prob-below" and argument:
        return ProbBelow(read_baseline(argument))
    if not colon and name in ("mean", "regret"):
        return Mean() if name == "mean" else Regret()
    levelled: dict[str, Callable[[float], Risk]] = {
        "quantile": Quantile,
        "cvar": CVaR,
        "regret": Regret,
    }
    try:
        return levelled[name](float(argument))
    except (KeyError, ValueError):
        raise ValueError(
            f"risk {text!r} is none of mean, quantile:Q, cvar:A, regret, regret:A "
            "(0 < Q, A < 1) and prob-below:FILE.csv"
        ) from None


def value(risk: Risk, draws: np.ndarray) -> float:
    """The measure of some draws.

    Parameters
    ----------
    risk : Risk
    draws : array, shape (S,)
        Of the objective, nats per token; for `Regret` less the draw's own optimum, for
        `ProbBelow` less the baseline's.

    Returns
    -------
    float
        Nats per token; of `ProbBelow` a probability.

    Examples
    --------
    >>> draws = np.array([1.0, 2.0, 3.0, 6.0])
    >>> value(Mean(), draws), value(CVaR(0.5), draws), value(Quantile(0.5), draws)
    (3.0, 4.5, 2.5)
    >>> value(ProbBelow({}), draws - 2.5)
    0.5
    """
    if not np.isfinite(draws).all():
        return math.nan
    if isinstance(risk, ProbBelow):
        return float((draws < 0).mean())
    if isinstance(risk, Quantile):
        return float(np.quantile(draws, risk.level))
    return float(weights(risk, draws) @ draws)


def weights(risk: Risk, draws: np.ndarray) -> np.ndarray:
    """What each draw counts: a (sub-)gradient of `value` with respect to the draws.

    Parameters
    ----------
    risk : Risk
    draws : array, shape (S,)
        As for `value`.

    Returns
    -------
    array, shape (S,)
        They sum to 1, and to 0 for `ProbBelow`, which is a step function of the draws.

    Examples
    --------
    >>> weights(CVaR(0.5), np.array([1.0, 6.0, 2.0, 3.0])).tolist()
    [0.0, 0.5, 0.0, 0.5]
    """
    n = len(draws)
    if isinstance(risk, ProbBelow):
        return np.zeros(n)
    level = _tail(risk)
    if level is None:
        return np.full(n, 1 / n)
    ascending = np.argsort(draws, kind="stable")
    out = np.zeros(n)
    if isinstance(risk, Quantile):
        below, share = divmod(level * (n - 1), 1)
        out[ascending[int(below)]] += 1 - share
        out[ascending[min(int(below) + 1, n - 1)]] += share
        return out
    # the worst draws in full, and of the next what is left of the tail
    cap = 1 / ((1 - level) * n)
    out[ascending[::-1]] = np.diff(np.minimum(cap * np.arange(n + 1), 1))
    return out


def smooth(
    risk: Risk, draws: np.ndarray, around: np.ndarray, width: float
) -> tuple[np.ndarray, np.ndarray]:
    """A differentiable stand-in for the measure, and its gradient: what is minimised.

    Of a tail mean, ``max p'v`` over what draws may count, it is ``max p'v - |p - around|^2 / 2r``:
    exact once `around` is the maximiser, as it becomes in the method of multipliers. A quantile
    and a probability are those of the draws smoothed by a Gaussian kernel.

    Parameters
    ----------
    risk : Risk
    draws : array, shape (P, S)
        As for `value`, of P problems.
    around : array, shape (P, S)
        Weights of the round before; read for tail means alone.
    width : float
        Nats over which a draw's weight goes from 0 to full, or the kernel's standard deviation.

    Returns
    -------
    value : array, shape (P,)
        Nats. Of `ProbBelow` the probability not to be below, which is to be small, times `width`.
    weights : array, shape (P, S)

    Examples
    --------
    >>> draws = np.array([[1.0, 2.0, 3.0, 6.0]])
    >>> value, weights = smooth(CVaR(0.5), draws, np.full((1, 4), 0.25), 1e-6)
    >>> value.round(3).tolist(), weights.round(3).tolist()
    ([4.5], [[0.0, 0.0, 0.5, 0.5]])
    """
    n = draws.shape[1]
    if isinstance(risk, ProbBelow):
        z = draws / width
        return width * ndtr(z).mean(axis=1), _normal(z) / n
    level = _tail(risk)
    if level is None:
        return draws.mean(axis=1), np.full(draws.shape, 1 / n)
    if isinstance(risk, Quantile):
        at = _smooth_quantile(draws, level, width)
        kernel = _normal((draws - at) / width)
        return at[:, 0], kernel / kernel.sum(axis=1, keepdims=True)
    cap = min(1 / ((1 - level) * n), 1.0)
    steepness = cap / width
    lifted = around + steepness * (draws - draws.mean(axis=1, keepdims=True))
    p = project(lifted, np.zeros(n), np.full(n, cap))
    return (p * draws).sum(axis=1) - ((p - around) ** 2 / (2 * steepness)).sum(axis=1), p


def scale(risk: Risk, draws: np.ndarray) -> float:
    """What `smooth` measures widths in: the draws' spread, or the kernel's standard deviation.

    Parameters
    ----------
    risk : Risk
    draws : array, shape (S,)
        As for `value`, at a mixture near the one that is sought.
    """
    spread = float(draws.std()) or 1.0
    return spread if is_tail(risk) else spread * min(_BANDWIDTH / math.sqrt(len(draws)), 1.0)


def is_tail(risk: Risk) -> bool:
    """Whether the measure is the mean of a tail.

    Examples
    --------
    >>> is_tail(CVaR(0.9)), is_tail(Regret()), is_tail(Quantile(0.9))
    (True, False, False)
    """
    return isinstance(risk, CVaR | Regret) and _tail(risk) is not None


def is_mean(risk: Risk) -> bool:
    """Whether the measure is least where the mean is."""
    return isinstance(risk, Mean | Regret) and _tail(risk) is None


def _tail(risk: Risk) -> float | None:
    return getattr(risk, "level", None)


def _smooth_quantile(draws: np.ndarray, level: float, width: float) -> np.ndarray:
    """Where the kernel's distribution function reaches the level, shape (P, 1): by bisection."""
    low, high = (f(draws, axis=1, keepdims=True) for f in (np.min, np.max))
    low, high = low - 9 * width, high + 9 * width
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        below = ndtr((middle - draws) / width).mean(axis=1, keepdims=True) < level
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2


def _normal(z: np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"a level lies between 0 and 1, got {level!r}")
