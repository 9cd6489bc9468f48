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

_TOLERANCE = 1e-14
_MAX_STEPS = 100


@numba.njit(cache=True, error_model="numpy")
def solve(g, r, log_n, log_floor, u):
    """Write the optimal log parameters of each domain into `u`; return the log multiplier.

    Parameters
    ----------
    g : array, shape (K,)
        ``log(h_i b_i c_i)``; minus infinity for a domain of weight 0, which rests on the floor.
    r : array, shape (K,)
        ``1 / (b_i + 1)``.
    log_n, log_floor : float
        Logs of N and H, in parameters.
    u : array, shape (K,)
        Output: ``log x_i``.
    """
    n_domains = g.shape[0]
    log_budget = log_n + math.log1p((n_domains - 1) * math.exp(log_floor - log_n))
    floor_share = math.exp(log_floor - log_budget)
    # each domain alone would fill the budget at this nu: the largest has F >= 0
    nu = -math.inf
    for i in range(n_domains):
        nu = max(nu, g[i] - log_budget / r[i])
    for _ in range(_MAX_STEPS):
        total = 0.0
        slope = 0.0
        for i in range(n_domains):
            u_i = r[i] * (g[i] - nu)
            if u_i > log_floor:
                share = math.exp(u_i - log_budget)
                total += share
                slope += share * r[i]
            else:
                total += floor_share
        gap = math.log(total)
        if abs(gap) <= _TOLERANCE or slope == 0.0:
            break
        step = gap * total / slope
        nu += step
        if abs(step) <= 1e-16 * abs(nu):
            break
    for i in range(n_domains):
        u[i] = max(log_floor, r[i] * (g[i] - nu))
    return nu


@numba.njit(cache=True, error_model="numpy")
def solve_vjp(u_bar, u, r, log_n, log_floor, g_bar):
    """Pull the cotangent `u_bar` of ``log x`` back through `solve`, by the implicit derivative.

    Writes the cotangent of ``g`` into `g_bar` and returns that of ``log H``. The cotangent of
    ``b`` through ``r`` is ``-u_i g_bar_i``, since ``(b_i + 1) u_i = g_i - nu`` where x_i > H.
    """
    n_domains = u.shape[0]
    norm = 0.0
    pull = 0.0
    on_floor = 0
    floor_bar = 0.0
    for i in range(n_domains):
        if u[i] > log_floor:
            norm += math.exp(u[i] - log_n) * r[i]
            pull += u_bar[i] * r[i]
        else:
            on_floor += 1
            floor_bar += u_bar[i]
    for i in range(n_domains):
        if u[i] > log_floor:
            g_bar[i] = r[i] * (u_bar[i] - pull * math.exp(u[i] - log_n) / norm)
        else:
            g_bar[i] = 0.0
    return floor_bar - pull * (on_floor - (n_domains - 1)) * math.exp(log_floor - log_n) / norm


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
        u = np.empty_like(g)
        solve(g, 1 / (b + 1), math.log(n), math.log(floor), u)
        return np.exp(u)

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
