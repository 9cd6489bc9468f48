"""Optima that rest on kinks of the law, where a domain is about to get capacity of its own.

Up to some weight a domain rests on the floor H and costs the others no capacity; from there on it
does. For a domain that helps others more than it counts itself, the best weight is often exactly
that: a kink, where gradients do not vanish and a gradient method stalls. On it
``log(h_i b_i c_i) - nu(h) = (b_i + 1) log H`` (see `allocation`), so that h_i follows from the
other weights, and the law is smooth in those. `settle` minimises along the kinks, and leaves one
where the one-sided derivatives say so.
"""

from dataclasses import replace

import numba
import numpy as np

from bayesmix import law as laws
from bayesmix.allocation import solve, solve_vjp
from bayesmix.elementary import log
from bayesmix.objective import Problem
from bayesmix.optimise import Minima, minimise, project, residual

_NEAR_FIRST, _NEAR = 0.5, 0.05  # of a kink, in log x: where a method stalled, and later
_ASIDE = 1e-7  # of a kink, relative to the weight: where to take one-sided derivatives
_AT_BOUND = 1e-9
_STEP = 0.1  # off a kink that is left, relative to the weight
_TIE = 1e-10  # nats
_ROUNDS = 10
_PRICES = 8
_SETTLED = 1e-7  # residual of what needs no more work


@numba.njit(cache=True, error_model="numpy")
def _multipliers(points, log_c, b, log_n, log_floor):  # type: ignore[no-untyped-def]
    """log lambda of every draw's capacity problem, with its gradient in h, and log x unfloored."""
    n_draws, n_domains = points.shape
    nu, gradient, log_x = np.empty(n_draws), np.zeros((n_draws, n_domains)), np.empty(points.shape)
    # each draw has a floor of its own, so its problem is solved alone
    g, u, u_bar, g_bar = (
        np.empty((n_domains, 1)), np.empty((n_domains, 1)), np.empty((n_domains, 1)),
        np.empty((n_domains, 1)),
    )  # fmt: skip
    r, size = np.empty(n_domains), np.full(1, log_n)
    for s in range(n_draws):
        for i in range(n_domains):
            r[i] = 1.0 / (b[s, i] + 1.0)
            g[i, 0] = log(points[s, i]) + log_c[s, i] + log(b[s, i])
            u_bar[i, 0] = 0.0
        nu[s] = solve(g, r, size, log_floor[s], u)[0]
        # nu = g_j - u_j / r_j for any domain above the floor, as the largest is
        largest = np.argmax(u)
        u_bar[largest, 0] = -1.0 / r[largest]
        solve_vjp(u_bar, u, r, size, log_floor[s], g_bar)
        g_bar[largest, 0] += 1.0
        for i in range(n_domains):
            log_x[s, i] = r[i] * (g[i, 0] - nu[s])
            if points[s, i] > 0.0:
                gradient[s, i] = g_bar[i, 0] / points[s, i]
    return nu, gradient, log_x


def settle(of: Problem, best: Minima, lower: np.ndarray, upper: np.ndarray) -> None:
    """Improve, in place, the draws' optima at which a gradient method stalled.

    Parameters
    ----------
    of : Problem
    best : Minima
        One point a draw. Where it is replaced, its residual takes, for a domain on a kink, the
        derivative between its two one-sided ones that is nearest to stationary.
    lower, upper : array, shape (K,)
    """
    stuck = np.flatnonzero(best.residuals > _SETTLED)
    h = best.points[stuck]
    before = np.zeros(h.shape, dtype=bool)
    leaving = np.zeros(h.shape)
    gained = np.zeros(len(h), dtype=bool)
    for near in (_NEAR_FIRST, *[_NEAR] * _ROUNDS):
        pinned = _near_kinks(of.subset(stuck), h, near) & (leaving == 0)
        pinned &= (h > lower) & (h < upper)
        new = gained | (pinned != before).any(axis=1)  # else what follows has been done
        stuck, h, pinned = stuck[new], h[new], pinned[new]
        if not stuck.size:
            return
        these = of.subset(stuck)
        h, left, leaving = _along_kinks(these, h, pinned, lower, upper)
        value = np.where(np.isfinite(left), these.at(h)[0], np.inf)
        gained = value < best.values[stuck] - _TIE
        better = gained | ((left < best.residuals[stuck]) & (value <= best.values[stuck] + _TIE))
        for part, found in zip(best, (h, value, left), strict=True):
            part[stuck[better]] = found[better]
        # a step off the kink, to the side where the objective falls
        h = project(h * (1 + _STEP * leaving), lower, upper)
        going = left > _SETTLED
        stuck, h, before = stuck[going], h[going], pinned[going]
        leaving, gained = leaving[going], gained[going]


def _along_kinks(
    of: Problem, h: np.ndarray, pinned: np.ndarray, lower: np.ndarray, upper: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Minimise with the pinned domains on their kinks.

    Returns
    -------
    h : array, shape (S, K)
    left : array, shape (S,)
        The residual; infinite where a kink lies outside the bounds.
    leaving : array, shape (S, K)
        -1 or 1 for the one pinned domain, if any, that had better leave its kink, downwards or
        upwards; else 0.
    """
    named = dict(zip(laws.PARAMETERS, of.parameters, strict=True))
    log_c, b, log_floor = named["log_c"], named["b"], named["log_H"]
    log_threshold = (b + 1) * log_floor[:, None] - np.log(b) - log_c
    # below their kinks the pinned domains take no capacity
    named["log_c"] = np.where(pinned, -np.inf, log_c)
    calm = replace(of, parameters=tuple(named.values()))

    def raised(free: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The mixture whose pinned domains are on their kinks; the derivative of log lambda."""
        nu, d_nu, _ = _multipliers(free, log_c[rows], b[rows], np.log(of.n_params), log_floor[rows])
        on_kinks = np.exp(nu[:, None] + log_threshold[rows])
        return np.where(pinned[rows], on_kinks, free), d_nu

    # The weight of the pinned domains, h_B, follows from that of the others, h_F: minimise
    # f - price * sum h_B under sum h_F = room, with price and room from the step before.
    every = np.arange(len(h))
    slope = calm.at(h)[1]
    price = (slope * h).sum(axis=1, keepdims=True)
    room = np.where(pinned, 0.0, h).sum(axis=1, keepdims=True)
    p = np.where(pinned, 0.0, h) / room
    for _ in range(_PRICES):

        def function(
            p: np.ndarray,
            rows: np.ndarray,
            price: np.ndarray = price,
            room: np.ndarray = room,
        ) -> tuple[np.ndarray, np.ndarray]:
            h, d_nu = raised(room[rows] * p, rows)
            value, slope = calm.subset(rows).at(h)
            on = np.where(pinned[rows], h, 0.0)
            nu_bar = ((slope - price[rows]) * on).sum(axis=1, keepdims=True)
            value = value - (price[rows] * on).sum(axis=1)
            return value, np.where(pinned[rows], 0.0, room[rows] * (slope + nu_bar * d_nu))

        low, high = (np.where(pinned, 0.0, bound / room) for bound in (lower, upper))
        p = minimise(function, p, low, high, tolerance=1e-9, max_steps=50).points
        h, d_nu = raised(room * p, every)
        slope = calm.at(h)[1]
        on = np.where(pinned, h, 0.0)
        # what weight is worth to those that are free to move, at no bound
        own = slope + (slope * on).sum(axis=1, keepdims=True) * d_nu
        own /= 1 + on.sum(axis=1, keepdims=True) * d_nu
        shares = np.where(pinned, 0.0, np.minimum(h - lower, upper - h)).clip(1e-300)
        change = -price
        price = (shares * own).sum(axis=1, keepdims=True) / shares.sum(axis=1, keepdims=True)
        change = abs(change + price).max() + abs(h.sum(axis=1) - 1).max()
        room = 1 - on.sum(axis=1, keepdims=True)
        if change <= _AT_BOUND:
            break
    # negative below a bound, positive above: a kink can lie out of reach
    out = np.minimum(h - lower, 0) + np.maximum(h - upper, 0)
    out[abs(out) <= _AT_BOUND] = 0
    h = project(h, lower, upper)
    below = calm.at(h)[1]
    above = of.at(h * np.where(pinned, 1 + _ASIDE, 1.0))[1]
    slope = below + ((below - price) * on).sum(axis=1, keepdims=True) * d_nu
    slope = np.where(pinned, np.clip(price, below, np.maximum(above, below)), slope)
    left = np.where((out != 0).any(axis=1), np.inf, residual(h, slope, lower, upper))
    # leave one kink at a time: that from which the objective falls the steepest
    gain = np.where(pinned, np.maximum(below - price, price - above), 0.0)
    gain = np.where(pinned & (out != 0), np.inf, gain)
    side = np.where(below - price > price - above, -1.0, 1.0)
    side = np.where(out != 0, -np.sign(out), side)
    worst = np.arange(len(h)), gain.argmax(axis=1)
    leaving = np.zeros(h.shape)
    leaving[worst] = np.where(gain[worst] > _SETTLED, side[worst], 0.0)
    return h, left, leaving


def _near_kinks(of: Problem, h: np.ndarray, distance: float) -> np.ndarray:
    """Domains whose capacity would be about H if there were no floor, shape (S, K)."""
    named = dict(zip(laws.PARAMETERS, of.parameters, strict=True))
    log_n = np.log(of.n_params)
    log_x = _multipliers(h, named["log_c"], named["b"], log_n, named["log_H"])[2]
    near = abs(log_x - named["log_H"][:, None]) < distance
    # somebody must take what capacity is left
    near[np.arange(len(h)), log_x.argmax(axis=1)] = False
    return near
