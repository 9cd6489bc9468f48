"""Capacity competition against convex programming, its optimality conditions and closed forms."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from scipy.optimize import minimize

from bayesmix import allocation

SEEDS = st.integers(0, 2**32 - 1)


def problem(rng, n_domains):
    """A random problem (h, c, b, N, H): exponents 0.01 to 0.9, weights and floors down to 1e-12."""
    h = np.maximum(rng.dirichlet(np.full(n_domains, rng.choice([0.05, 0.3, 1.0]))), 1e-12)
    if rng.random() < 0.5:
        h[rng.random(n_domains) < 0.3] = rng.choice([0.0, 1e-12])
    if not h.any():
        h[0] = 1.0
    c = np.exp(rng.uniform(-12, 12, n_domains))
    b = np.exp(rng.uniform(math.log(0.01), math.log(0.9), n_domains))
    n_params = 10 ** rng.uniform(6, 12)
    floor = n_params * 10 ** rng.uniform(-12, -0.01)
    return h / h.sum(), c, b, n_params, floor


def gains(h, c, b):
    with np.errstate(divide="ignore"):
        return np.log(h * b * c)


def solved(h, c, b, n_params, floor):
    """log x and the log multiplier."""
    log_x = np.empty((len(h), 1))
    (nu,) = solve(gains(h, c, b)[:, None], 1 / (b + 1), [n_params], math.log(floor), log_x)
    return log_x[:, 0], nu


def solve(g, r, n_params, log_floor, out, kernel=allocation.solve):
    return kernel(np.ascontiguousarray(g), r, np.log(n_params), log_floor, out)


def assert_optimal(h, c, b, n_params, floor):
    """The Karush-Kuhn-Tucker conditions, sufficient because the program is convex."""
    log_x, nu = solved(h, c, b, n_params, floor)
    budget = n_params + (len(h) - 1) * floor
    assert abs(np.exp(log_x).sum() / budget - 1) < 1e-12
    # the marginal worth of a parameter: equal off the floor, no more than that on it
    log_worth = gains(h, c, b) - (b + 1) * log_x
    on_floor = log_x <= math.log(floor)
    assert not on_floor.all()
    assert (log_x >= math.log(floor)).all()
    assert np.abs(log_worth[~on_floor] - nu).max() < 1e-12 * max(1, abs(nu))
    assert (log_worth[on_floor] <= nu + 1e-12 * max(1, abs(nu))).all()


@pytest.mark.parametrize("n_domains", range(2, 11))
@pytest.mark.parametrize("zeros", [False, True])
def test_agrees_with_scipy_on_the_convex_program(n_domains, zeros):
    rng = np.random.default_rng([n_domains, zeros])
    h = rng.dirichlet(np.ones(n_domains))
    if zeros:
        h[: n_domains // 2] = 0
        h /= h.sum()
    c, b = np.exp(rng.normal(3, 0.5, n_domains)), rng.uniform(0.1, 0.6, n_domains)
    n_params, floor = 1e8, 10 ** rng.uniform(6, 7.5)
    log_floor = math.log(floor / n_params)
    log_budget = math.log1p((n_domains - 1) * floor / n_params)

    # convex in v = log(x / N) too, and well scaled there
    worth = h * c * n_params**-b
    total = worth.sum()
    found = minimize(
        lambda v: (worth * np.exp(-b * v)).sum() / total,
        np.full(n_domains, log_budget - math.log(n_domains)),
        jac=lambda v: -b * worth * np.exp(-b * v) / total,
        bounds=[(log_floor, 1.0)] * n_domains,
        constraints={
            "type": "ineq",
            "fun": lambda v: math.exp(log_budget) - np.exp(v).sum(),
            "jac": lambda v: -np.exp(v),
        },
        method="SLSQP",
        options={"ftol": 1e-13, "maxiter": 500},
    )
    assert found.success, found.message
    log_x = solved(h, c, b, n_params, floor)[0] - math.log(n_params)
    np.testing.assert_allclose(np.exp(log_x), np.exp(found.x), atol=2e-8)
    assert (worth * np.exp(-b * log_x)).sum() / total <= found.fun * (1 + 1e-12)


@given(n_domains=st.integers(2, 100), seed=SEEDS)
def test_budget_is_spent_exactly(n_domains, seed):
    h, c, b, n_params, floor = problem(np.random.default_rng(seed), n_domains)
    log_x, _ = solved(h, c, b, n_params, floor)
    assert abs(np.exp(log_x).sum() / (n_params + (n_domains - 1) * floor) - 1) < 1e-12


def test_optimality_conditions_of_4000_extreme_problems():
    rng = np.random.default_rng(0)
    for _ in range(4000):
        assert_optimal(*problem(rng, rng.integers(2, 101)))


def test_newton_needs_few_steps(monkeypatch):
    # the uncompiled function: a logarithm of the budget, then one of the total a step
    logs = 0

    def counted(value):
        nonlocal logs
        logs += 1
        return math.log(value)

    monkeypatch.setattr(allocation, "exp", math.exp)
    monkeypatch.setattr(allocation, "log", counted)
    rng = np.random.default_rng(1)
    problems = [problem(rng, n_domains) for n_domains in rng.integers(2, 30, 500)]
    most = 0
    for h, c, b, n_params, floor in problems:
        logs = 0
        g, out = gains(h, c, b)[:, None], np.empty((len(h), 1))
        solve(g, 1 / (b + 1), [n_params], math.log(floor), out, allocation.solve.py_func)
        most = max(most, logs - 1)
    assert most <= 10


def test_problems_solved_together_are_those_solved_alone():
    rng = np.random.default_rng(2)
    n_params, r = 10 ** rng.uniform(6, 12, 37), rng.uniform(0.55, 0.99, 9)
    g, log_floor = rng.normal(0, 6, (9, 37)), math.log(1e4)
    g[3, 5] = -math.inf
    together = np.empty_like(g)
    nu = solve(g, r, n_params, log_floor, together)
    for p in range(37):
        alone = np.empty((9, 1))
        # rounding is that of single numbers, not of vectors
        assert solve(g[:, [p]], r, n_params[[p]], log_floor, alone) == pytest.approx(nu[p], 1e-14)
        np.testing.assert_allclose(alone[:, 0], together[:, p], rtol=1e-14)


def over_domains(values):
    return xr.DataArray(np.asarray(values, dtype=float), dims="domain")


def test_equal_domains_share_equally():
    same = xr.ones_like(over_domains(range(5)))
    x = allocation.allocate(0.2 * same, 7 * same, 0.4 * same, n_params=1e9, floor=1e6)
    np.testing.assert_allclose(x, (1e9 + 4e6) / 5, rtol=1e-13)


def test_the_only_domain_with_weight_takes_all_but_the_floors():
    x = allocation.allocate(
        over_domains([0, 1, 0, 0]), over_domains([1, 2, 3, 4]), over_domains([0.1, 0.9, 0.3, 0.2]),
        n_params=1e9, floor=1e6,
    )  # fmt: skip
    np.testing.assert_allclose(x, [1e6, 1e9, 1e6, 1e6], rtol=1e-13)


@pytest.mark.parametrize("b", [0.01, 0.3, 0.9])
def test_equal_exponents_give_powers_of_gain(b):
    rng = np.random.default_rng(3)
    h, c = rng.dirichlet(np.ones(6)), np.exp(rng.normal(size=6))
    x = allocation.allocate(
        over_domains(h), over_domains(c), over_domains(np.full(6, b)), n_params=1e9, floor=1.0
    )
    share = (h * c) ** (1 / (1 + b))
    np.testing.assert_allclose(x, (1e9 + 5) * share / share.sum(), rtol=1e-13)


def test_by_hand():
    # b = 1: x in proportion to sqrt(h c) = sqrt(2), sqrt(1/2); the budget is 2.5 + 0.5
    halves = over_domains([0.5, 0.5])
    ones = xr.ones_like(halves)
    x = allocation.allocate(halves, over_domains([4, 1]), ones, n_params=2.5, floor=0.5)
    np.testing.assert_allclose(x, [2, 1], rtol=1e-14)
    # H = 1.5: the shares 8/3, 4/3 of a budget of 4 would break the floor
    x = allocation.allocate(halves, over_domains([4, 1]), ones, n_params=2.5, floor=1.5)
    np.testing.assert_allclose(x, [2.5, 1.5], rtol=1e-14)


def test_allocate_broadcasts_over_runs_and_sizes():
    rng = np.random.default_rng(4)
    h = xr.DataArray(rng.dirichlet(np.ones(3), size=4), dims=("row", "domain"))
    c, b = over_domains([5, 10, 20]), over_domains([0.2, 0.3, 0.4])
    sizes = xr.DataArray([1e7, 1e8], dims="size")
    x = allocation.allocate(h, c, b, sizes, floor=1e5)
    assert x.dims == ("row", "size", "domain")
    for row in range(4):
        for size in range(2):
            log_x, _ = solved(h.values[row], c.values, b.values, sizes.values[size], 1e5)
            np.testing.assert_allclose(x[row, size], np.exp(log_x), rtol=1e-14)


@pytest.mark.parametrize(
    ("c", "b", "floor", "message"),
    [
        ([1, 1], [0.3, 0.3], 1e9, "floor H"),
        ([1, 1], [0.3, 0.3], 0.0, "floor H"),
        ([1, 0], [0.3, 0.3], 1e3, "positive"),
        ([1, 1], [0.3, -0.3], 1e3, "positive"),
    ],
)
def test_allocate_refuses(c, b, floor, message):
    with pytest.raises(ValueError, match=message):
        allocation.allocate(
            over_domains([0.5, 0.5]), over_domains(c), over_domains(b), 1e9, floor=floor
        )


def five_points(function, step):
    """Derivative at 0, error of order step^4."""
    near, far = (function(k * step) - function(-k * step) for k in (1, 2))
    return (8 * near - far) / (12 * step)


@pytest.mark.parametrize("n_domains", [2, 3, 10, 100])
@pytest.mark.parametrize("active", ["all", "one", "half"])
def test_implicit_derivative_against_finite_differences(n_domains, active):
    rng = np.random.default_rng([n_domains, len(active)])
    n_params, floor = 1e8, 1e8 * 0.01 / n_domains
    b = rng.uniform(0.05, 0.9, n_domains)
    # choose x first, then the gains that make it optimal: no kink is near
    x = np.exp(rng.uniform(0, 1, n_domains))
    n_active = {"all": n_domains, "one": 1, "half": max(1, n_domains // 2)}[active]
    x[:n_active] *= (n_params + (n_active - 1) * floor) / x[:n_active].sum()
    g = (b + 1) * np.log(x)
    g[n_active:] = (b[n_active:] + 1) * (
        math.log(floor) - rng.uniform(0.5, 2, n_domains - n_active)
    )
    g[n_active : n_active + n_domains // 4] = -math.inf
    g += 3.0

    log_floor = math.log(floor)

    def log_x(g=g, b=b, log_floor=log_floor):
        out = np.empty((n_domains, 1))
        solve(g[:, None], 1 / (b + 1), [n_params], log_floor, out)
        return out[:, 0]

    u = log_x()
    on_floor = u <= log_floor
    assert (~on_floor).sum() == n_active
    bar, g_bar = rng.normal(size=n_domains), np.empty((n_domains, 1))
    floor_bar = allocation.solve_vjp(
        bar[:, None].copy(), u[:, None].copy(), 1 / (b + 1), np.log([n_params]), log_floor, g_bar
    )
    g_bar = g_bar[:, 0]
    b_bar = -u * g_bar
    assert (g_bar[on_floor] == 0).all()

    scale = np.abs(bar).sum()
    at_floor = five_points(lambda e: bar @ log_x(log_floor=log_floor + e), 1e-2)
    assert floor_bar == pytest.approx(at_floor, rel=1e-8, abs=1e-10 * scale)
    for i in rng.permutation(n_domains)[:10]:
        unit = np.eye(n_domains)[i]
        by_g = five_points(lambda e: bar @ log_x(g=g + e * unit), 1e-2)  # noqa: B023
        assert g_bar[i] == pytest.approx(by_g, rel=1e-8, abs=1e-10 * scale)
        by_b = five_points(lambda e: bar @ log_x(b=b + e * unit), 2e-4)  # noqa: B023
        assert b_bar[i] == pytest.approx(by_b, rel=1e-8, abs=1e-10 * scale)
