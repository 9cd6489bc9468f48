"""Capacity competition: how a model of N parameters divides itself among domains.

The optimal division x* minimises ``sum_i h_i c_i x_i^(-b_i)`` under ``sum_i (x_i - H) <= N - H``
and ``x_i >= H`` (Dai & Zheng, arXiv 2606.08167, Theorem 4.1). In logs, with ``u_i = log x_i``,
``g_i = log(h_i b_i c_i)``, ``r_i = 1 / (b_i + 1)`` and the log multiplier ``nu``::

    u_i = max(log H, r_i (g_i - nu)),     logsumexp_i u_i = log(N + (K - 1) H),

a convex, decreasing equation in ``nu``, which Newton's method climbs monotonically.
"""

import math

import numba
import numpy as np
import xarray as xr

from bayesmix.elementary import exp, log

_TOLERANCE = 1e-14
_MAX_STEPS = 100


@numba.njit(cache=True, error_model="numpy")
def solve(g, r, log_n, log_floor, u):
    """Write the optimal log parameters of each domain into `u`; return the log multipliers.

    All problems take Newton steps together, until each has arrived; what one ends at does not
    depend on the others. Problems are the last axis, along which the loops are vectorised.

    Parameters
    ----------
    g : array, shape (K, P)
        ``log(h_i b_i c_i)``; minus infinity for a domain of weight 0, which rests on the floor.
    r : array, shape (K,)
        ``1 / (b_i + 1)``.
    log_n : array, shape (P,)
        Log of N, in parameters.
    log_floor : float
        Log of H, in parameters.
    u : array, shape (K, P)
        Output: ``log x_i``.

    Returns
    -------
    array, shape (P,)
        ``nu``.
    """
    n_domains, n_problems = g.shape
    log_budget, floor_share = np.empty(n_problems), np.empty(n_problems)
    nu = np.full(n_problems, -math.inf)
    for p in range(n_problems):
        floors = (n_domains - 1) * exp(log_floor - log_n[p])
        log_budget[p] = log_n[p] + log(1.0 + floors)
        floor_share[p] = exp(log_floor - log_budget[p])
    # each domain alone would fill the budget at this nu: the largest has F >= 0
    for i in range(n_domains):
        per_r = 1.0 / r[i]
        for p in range(n_problems):
            nu[p] = max(nu[p], g[i, p] - log_budget[p] * per_r)
    total, slope = np.empty(n_problems), np.empty(n_problems)
    for _ in range(_MAX_STEPS):
        for p in range(n_problems):
            total[p] = 0.0
            slope[p] = 0.0
        for i in range(n_domains):
            r_i = r[i]
            for p in range(n_problems):
                u_i = r_i * (g[i, p] - nu[p])
                share = exp(u_i - log_budget[p])
                total[p] += share if u_i > log_floor else floor_share[p]
                slope[p] += r_i * share if u_i > log_floor else 0.0
        moving = 0
        for p in range(n_problems):
            gap = log(total[p])
            step = gap * total[p] / slope[p]
            arrived = abs(gap) <= _TOLERANCE or slope[p] == 0.0 or abs(step) <= 1e-16 * abs(nu[p])
            nu[p] += 0.0 if arrived else step
            moving += 0 if arrived else 1
        if moving == 0:
            break
    for i in range(n_domains):
        for p in range(n_problems):
            u[i, p] = max(log_floor, r[i] * (g[i, p] - nu[p]))
    return nu


@numba.njit(cache=True, error_model="numpy")
def solve_vjp(u_bar, u, r, log_n, log_floor, g_bar):
    """Pull the cotangent `u_bar` of ``log x`` back through `solve`, by the implicit derivative.

    Writes the cotangent of ``g`` into `g_bar` and returns that of ``log H``. The cotangent of
    ``b`` through ``r`` is ``-u_i g_bar_i``, since ``(b_i + 1) u_i = g_i - nu`` where x_i > H.
    Shapes are those of `solve`.
    """
    n_domains, n_problems = u.shape
    norm, pull = np.zeros(n_problems), np.zeros(n_problems)
    on_floor, floor_bar = np.zeros(n_problems), np.zeros(n_problems)
    for i in range(n_domains):
        r_i = r[i]
        for p in range(n_problems):
            free = u[i, p] > log_floor
            share = exp(u[i, p] - log_n[p]) if free else 0.0
            g_bar[i, p] = share
            norm[p] += r_i * share
            pull[p] += r_i * u_bar[i, p] if free else 0.0
            on_floor[p] += 0.0 if free else 1.0
            floor_bar[p] += 0.0 if free else u_bar[i, p]
    total = 0.0
    for p in range(n_problems):
        pull[p] /= norm[p]
        among_floors = (on_floor[p] - (n_domains - 1)) * exp(log_floor - log_n[p])
        total += floor_bar[p] - pull[p] * among_floors
    for i in range(n_domains):
        r_i = r[i]
        for p in range(n_problems):
            free = u[i, p] > log_floor
            g_bar[i, p] = r_i * (u_bar[i, p] - pull[p] * g_bar[i, p]) if free else 0.0
    return total


def allocate(weights, c, b, n_params, floor) -> xr.DataArray:
    """Optimal parameters of each domain (Dai & Zheng, Theorem 4.1, the inner problem).

    Parameters
    ----------
    weights : DataArray, dims (..., domain)
        Mixture weights, fractions that sum to 1 over ``domain``.
    c, b : DataArray, dims (domain,)
        Scale (nats per token times parameters^b) and exponent of the capacity loss, positive.
    n_params : float or DataArray
        N, parameters of the model.
    floor : float
        H, parameters below which no domain falls; 0 < H < N.

    Returns
    -------
    DataArray, dims (..., domain)
        x*, parameters, with ``sum x = N + (K - 1) H``.

    Raises
    ------
    ValueError
        If not 0 < H < N, or c or b is not positive.

    Examples
    --------
    >>> import xarray as xr
    >>> h = xr.DataArray([0.5, 0.5], dims="domain", coords={"domain": ["code", "prose"]})
    >>> x = allocate(h, c=xr.ones_like(h), b=xr.full_like(h, 0.3), n_params=1e6, floor=1e3)
    >>> x.values.round().tolist()
    [500500.0, 500500.0]
    """
    if not (np.all(floor > 0) and np.all(floor < np.min(n_params))):
        raise ValueError(f"the floor H must lie between 0 and N, got H = {floor}, N = {n_params}")
    if not (np.all(np.asarray(c) > 0) and np.all(np.asarray(b) > 0)):
        raise ValueError("c and b must be positive")

    def one(h, c, b, n):
        with np.errstate(divide="ignore"):
            g = np.log(h * b * c)
        u = np.empty((len(g), 1))
        solve(g[:, None].copy(), 1 / (b + 1), np.log([n]), math.log(floor), u)
        return np.exp(u[:, 0])

    return xr.apply_ufunc(
        one,
        weights,
        c,
        b,
        n_params,
        input_core_dims=[["domain"], ["domain"], ["domain"], []],
        output_core_dims=[["domain"]],
        vectorize=True,
    )
