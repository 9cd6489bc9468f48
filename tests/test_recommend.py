"""Recommendations against brute force, closed forms and what must be refused."""

import json

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import xarray as xr
from hypothesis import given
from hypothesis.extra.numpy import arrays
from synthetic import fit_of, full_parameters, parameters, swarm

from bayesmix import (
    KL,
    Bounds,
    Diagnosis,
    Fit,
    Fixed,
    GroupSum,
    Worst,
    point_fit,
    runs_from_frame,
)
from bayesmix import law as laws
from bayesmix._cautions import unfinished
from bayesmix.allocation import allocate
from bayesmix.feasible import feasible_set
from bayesmix.objective import problem, risk_target
from bayesmix.optima import draw_optima
from bayesmix.optimise import minimise, project, residual
from bayesmix.recommend import recommend
from bayesmix.risk import Mean

N, D = 1.5e8, 4e9  # within what `swarm` has, where the law has no discrepancy
THREE = ("web", "code", "books")


def names(k):
    return tuple(f"d{i}" for i in range(k))


def uniform_over(domains):
    return dict.fromkeys(domains, 1 / len(domains))


def losses(draws, mixtures, law="transfer", n_params=N, n_tokens=D):
    """The law's losses at mixtures (P, K), shape (S, P, C), without the module under test."""
    size = np.ones(len(mixtures))
    at = laws.points(mixtures, n_params * size, n_tokens * size)
    full = full_parameters({n: np.array(v) for n, v in draws.items()}, law)
    variant = laws.LAWS[law]
    return laws.evaluate_draws(
        *(full[name] for name in laws.PARAMETERS), *at.arrays, variant.noise, variant.head
    )


def grid(steps):
    """Every mixture of three domains in multiples of 1 / steps."""
    i, j = np.meshgrid(range(steps + 1), range(steps + 1), indexing="ij")
    keep = i + j <= steps
    i, j = i[keep], j[keep]
    return np.column_stack([i, j, steps - i - j]) / steps


# --- projection and minimiser ---


@st.composite
def boxes(draw):
    """Points, a metric and bounds that leave some mixture feasible."""
    k = draw(st.integers(2, 6))
    unit = st.floats(0, 1)
    inside = draw(arrays(float, k, elements=st.floats(0.01, 1)))
    inside /= inside.sum()
    lower = inside * draw(arrays(float, k, elements=unit))
    upper = inside + (1 - inside) * draw(arrays(float, k, elements=unit))
    points = draw(arrays(float, (3, k), elements=st.floats(-3, 3)))
    metric = draw(arrays(float, (3, k), elements=st.floats(1e-3, 10)))
    return points, lower, upper, metric, inside


@given(boxes(), st.integers(0, 2**32 - 1))
def test_projections_are_the_nearest_feasible_points(box, seed):
    points, lower, upper, metric, inside = box
    nearest = project(points, lower, upper, metric)
    assert (nearest >= lower).all()
    assert (nearest <= upper).all()
    np.testing.assert_allclose(nearest.sum(axis=1), 1, atol=1e-13)
    # nearest on a convex set: no feasible point lies on the far side, (z - p)' M^-1 (y - p) <= 0
    rng = np.random.default_rng(seed)
    corners = [
        scipy.optimize.linprog(
            rng.normal(size=len(lower)),
            A_eq=np.ones((1, len(lower))),
            b_eq=[1],
            bounds=np.column_stack([lower, upper]),
        ).x
        for _ in range(3)
    ]
    for feasible in (inside, *corners):
        side = ((points - nearest) / metric * (feasible - nearest)).sum(axis=1)
        assert (side <= 1e-7 * (1 + (abs(points) / metric).max())).all()


def test_projections_equal_those_of_a_general_solver():
    rng = np.random.default_rng(0)
    lower, upper = np.array([0.0, 0.1, 0.0, 0.2, 0.0]), np.array([1.0, 0.3, 0.25, 0.9, 1.0])
    points, metric = rng.normal(size=(20, 5)), rng.uniform(0.2, 2, (20, 5))
    found = project(points, lower, upper, metric)
    for z, m, nearest in zip(points, metric, found, strict=True):
        truth = scipy.optimize.minimize(
            lambda h, z=z, m=m: ((h - z) ** 2 / m).sum(),
            np.full(5, 0.2),
            jac=lambda h, z=z, m=m: 2 * (h - z) / m,
            bounds=list(zip(lower, upper, strict=True)),
            constraints={"type": "eq", "fun": lambda h: h.sum() - 1, "jac": np.ones_like},
            method="SLSQP",
            options={"ftol": 1e-15, "maxiter": 500},
        )
        np.testing.assert_allclose(nearest, truth.x, atol=1e-6)


def test_a_single_feasible_point_is_the_projection():
    only = np.array([0.2, 0.3, 0.5])
    np.testing.assert_allclose(project(np.ones((1, 3)), only, only)[0], only, atol=1e-15)
    np.testing.assert_allclose(
        project(np.array([[9.0, -9, 0]]), only, np.ones(3))[0], only, atol=1e-15
    )


def test_the_minimiser_finds_closed_forms():
    rng = np.random.default_rng(1)
    scale, power = rng.lognormal(0, 1, (50, 6)), rng.uniform(0.1, 1.5, (50, 1))

    def function(h, rows):
        a, w = power[rows], scale[rows]
        with np.errstate(divide="ignore"):  # infinite on the boundary, and stepped back from
            return (w * h**-a).sum(axis=1), -a * w * h ** (-a - 1)

    found = minimise(function, np.full((50, 6), 1 / 6), np.zeros(6), np.ones(6), tolerance=1e-9)
    truth = scale ** (1 / (1 + power))
    truth /= truth.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.points, truth, atol=1e-8)
    assert (found.residuals < 1e-6).all()


def test_the_residual_is_that_of_the_conditions_of_karush_kuhn_and_tucker():
    lower, upper = np.zeros(3), np.array([1.0, 1.0, 0.5])
    h = np.array([[0.5, 0.0, 0.5]])
    # stationary: least gradient at the upper bound, greatest at the lower
    assert residual(h, np.array([[2.0, 3.0, 1.0]]), lower, upper)[0] == 0
    # the second domain would bring more than the first
    assert residual(h, np.array([[2.0, 1.9, 1.0]]), lower, upper)[0] == pytest.approx(0.05)


def test_what_has_not_converged_is_not_called_converged():
    def kinked(h, rows):
        return abs(h[:, 0] - 0.3), np.sign(h[:, :1] - 0.3) * [[1.0, 0.0]]

    found = minimise(kinked, np.array([[0.9, 0.1]]), np.zeros(2), np.ones(2))
    assert found.points[0, 0] == pytest.approx(0.3, abs=1e-3)
    assert found.residuals[0] > 0.1

    def steep(h, rows):
        return (h[:, 0] - 0.3) ** 2, 2 * (h[:, :1] - 0.3) * [[1.0, 0.0]]

    short = minimise(steep, np.array([[0.9, 0.1]]), np.zeros(2), np.ones(2), max_steps=1)
    assert short.residuals[0] > 1e-6


# --- the law's objective ---


def test_gradients_are_those_of_finite_differences():
    draws = parameters(names(5), ("t",), n_draws=6)
    fit = fit_of(draws, swarm(names(5), ("t",)), chains=1)
    of = problem(fit, N, D, {"d0": 0.5, "d3": 1.0, "target:t": 0.2})
    h = np.random.default_rng(0).dirichlet(np.full(5, 3.0), 6)
    value, gradient = of.at(h)
    weights = np.array([0.5, 0, 0, 1.0, 0, 0.2])
    truth = np.einsum("ssc,c->s", losses(draws, h), weights)
    np.testing.assert_allclose(value, truth, rtol=1e-13)
    step = 1e-6
    for j in range(1, 5):
        move = np.zeros(5)
        move[[0, j]] = -step, step  # along the simplex
        up, down = (np.einsum("ssc,c->s", losses(draws, h + s * move), weights) for s in (1, -1))
        slope = (up - down) / (2 * step)
        np.testing.assert_allclose(gradient[:, j] - gradient[:, 0], slope, atol=2e-8)
    at = risk_target(of, Mean())(h, np.arange(6), np.empty((6, 0, 1)), 1.0)
    for i in range(6):
        each = of.at(np.tile(h[i], (6, 1)))
        assert at.values[i] == pytest.approx(each[0].mean(), rel=1e-14)
        np.testing.assert_allclose(at.gradients[i], each[1].mean(axis=0), rtol=1e-12)


# --- optima against the truth ---


@pytest.mark.parametrize("objective", [None, {"web": 0.7, "code": 0.3}, {"books": 2.0}])
def test_three_domains_equal_brute_force(objective):
    draws = parameters(THREE, n_draws=20, spread=0.25, seed=5)
    fit = fit_of(draws, swarm(THREE))
    rec = recommend(fit, N, D, objective=objective)
    steps = 200
    mixtures = grid(steps)
    weights = np.array([(objective or uniform_over(THREE)).get(d, 0.0) for d in THREE])
    values = losses(draws, mixtures) @ weights
    assert rec.convergence["residual"] <= 1e-6
    # the least of the grid is no better, and lies where the optimum does
    mean = values.mean(axis=0)
    assert rec.loss.mean() <= mean.min() + 1e-12
    np.testing.assert_allclose(rec.weights, mixtures[mean.argmin()], atol=1.5 / steps)
    own = np.einsum("ssc,c->s", losses(draws, rec.optima.values), weights)
    assert (own <= values.min(axis=1) + 1e-12).all()
    np.testing.assert_allclose(rec.optima, mixtures[values.argmin(axis=1)], atol=1.5 / steps)


def noise_only(k, n_draws, a, seed=0):
    """Draws of the regression law with next to no capacity term, and every exponent `a`."""
    draws = parameters(names(k), n_draws=n_draws, spread=0.5, seed=seed)
    draws["log_c"] = np.full((n_draws, k), -60.0)
    draws["a"] = np.broadcast_to(np.reshape(a, (-1, 1)), (n_draws, k)).copy()
    draws["log_A"] = np.log(np.random.default_rng(seed).lognormal(4, 1, (n_draws, k)))
    return draws


def test_data_noise_alone_has_a_closed_form():
    # the least of sum_i w_i A_i (D h_i)^-a has h_i proportional to (w_i A_i)^(1 / (1 + a))
    a = np.linspace(0.15, 0.6, 12)
    draws = noise_only(5, 12, a)
    fit = fit_of(draws, swarm(names(5)), law="regression")
    rec = recommend(fit, N, D, objective=dict(zip(names(5), [1, 2, 3, 4, 5], strict=True)))
    truth = (np.arange(1, 6) * np.exp(draws["log_A"])) ** (1 / (1 + a[:, None]))
    truth /= truth.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(rec.optima, truth, atol=1e-5)
    assert rec.convergence["draws_converged"] == 1


def test_the_posterior_mean_of_data_noise_has_a_closed_form():
    # where draws share the exponent, the mean objective is the same sum with the mean of A
    draws = noise_only(5, 12, 0.3)
    fit = fit_of(draws, swarm(names(5)), law="regression")
    rec = recommend(fit, N, D)
    truth = np.exp(draws["log_A"]).mean(axis=0) ** (1 / 1.3)
    np.testing.assert_allclose(rec.weights, truth / truth.sum(), atol=1e-5)


def test_a_domain_outside_the_objective_gets_nothing_without_transfer():
    fit = fit_of(noise_only(4, 8, 0.3), swarm(names(4)), law="regression")
    rec = recommend(fit, N, D, objective={"d0": 1.0, "d1": 1.0, "d3": 0.0})
    assert (rec.weights.values[2:] == 0).all()
    assert np.isfinite(rec.loss).all()
    assert np.isfinite(rec.to_dict()["loss"]["upper"])


def test_a_target_alone_takes_the_domain_that_is_worth_most_to_it():
    draws = parameters(THREE, ("chat",), n_draws=8)
    draws["tau"][:, 3] = [0.2, 0.5, 0.3]
    draws["tau"][:4, 3] = [0.2, 0.1, 0.7]
    fit = fit_of(draws, swarm(THREE, ("chat",)))
    rec = recommend(fit, N, D, objective={"target:chat": 1.0})
    np.testing.assert_array_equal(rec.optima, np.eye(3)[[2] * 4 + [1] * 4])


def test_domains_that_are_alike_share_alike():
    draws = parameters(names(4), n_draws=8, spread=0.2)
    for name in ("E", "log_c", "b", "log_A", "a", "log_G", "log_Q"):
        draws[name][:] = draws[name][:, :1]
    draws["tau"][:] = np.where(np.eye(4) > 0, 1.0, 0.1)
    fit = fit_of(draws, swarm(names(4)))
    rec = recommend(fit, N, D)
    np.testing.assert_allclose(rec.weights, 0.25, atol=1e-6)
    np.testing.assert_allclose(rec.optima, 0.25, atol=1e-6)
    np.testing.assert_allclose(rec.baselines["difference"].sel(baseline="uniform"), 0, atol=1e-12)


@pytest.mark.parametrize("objective", [None, {"d1": 0.5, "d4": 0.5}])
def test_no_random_mixture_within_bounds_is_better(objective):
    k = 7
    draws = parameters(names(k), n_draws=20, spread=0.25, seed=2)
    # floors that bind at weights of a percent: kinks are where mixtures go
    draws["log_H"] = draws["log_H"] + 3
    fit = fit_of(draws, swarm(names(k)))
    lower, upper = {"d0": 0.1}, {"d1": 0.3, "d2": 0.05}
    limits = {d: (lower.get(d, 0), upper.get(d, 1)) for d in (*lower, *upper)}
    rec = recommend(fit, N, D, objective=objective, constraints=[Bounds(limits)])
    rng = np.random.default_rng(0)
    low = np.array([lower.get(d, 0) for d in names(k)])
    high = np.array([upper.get(d, 1) for d in names(k)])
    spread = rng.choice([0.1, 1.0, 10.0], 10_000)[:, None]
    gamma = rng.gamma(np.broadcast_to(spread, (10_000, k)))
    random = low + (1 - low.sum()) * gamma / gamma.sum(axis=1, keepdims=True)
    random = project(random, low, high)
    near = project(rec.weights.values + 0.01 * rng.normal(size=(5000, k)), low, high)
    mixtures = np.concatenate([random, near])
    weights = np.array([(objective or uniform_over(names(k))).get(d, 0.0) for d in names(k)])
    values = losses(draws, mixtures) @ weights
    assert rec.loss.mean() <= values.mean(axis=0).min() + 1e-9
    own = np.einsum("ssc,c->s", losses(draws, rec.optima.values), weights)
    assert (own <= values.min(axis=1) + 1e-9).all()
    # no draw can do worse at its own optimum than at the recommendation
    assert (own <= rec.loss.values + 1e-9).all()
    for h in (rec.weights.values[None], rec.optima.values):
        np.testing.assert_allclose(h.sum(axis=1), 1, atol=1e-8)
        assert (h >= low).all()
        assert (h <= high).all()


TWO_GROUPS = [GroupSum("g", ["d0", "d1"], max=0.4), GroupSum("f", ["d2", "d3"], min=0.05)]
NEAR_UNIFORM = [KL(dict.fromkeys(names(6), 1 / 6), 0.3)]


@pytest.mark.parametrize(
    ("objective", "further", "least_kinks"),
    [
        ({"d1": 1.0}, [], 15),
        ({"d1": 0.7, "d4": 0.3}, [], 15),
        (None, [], 0),
        ({"d1": 1.0}, TWO_GROUPS, 15),
        ({"d1": 1.0}, NEAR_UNIFORM, 1),
        (None, NEAR_UNIFORM, 0),
    ],
)
def test_optima_on_kinks_have_no_feasible_direction_of_descent(objective, further, least_kinks):
    # a domain that only helps others gets what it can have without capacity: a kink
    k, n_draws = 6, 30
    draws = parameters(names(k), n_draws=n_draws, spread=0.3, seed=8)
    draws["log_H"] = draws["log_H"] + 2
    fit = fit_of(draws, swarm(names(k)), chains=1)
    of = problem(fit, N, D, objective or uniform_over(names(k)))
    upper = np.array([1.0, 0.5, 1.0, 1.0, 1.0, 0.01])
    limit = Bounds({"d1": (0, 0.5), "d5": (0, 0.01)})
    allowed = feasible_set([limit, *further], names(k), D)
    found = draw_optima(of, np.full((1, k), 1 / k), allowed)
    assert (found.residuals <= 1e-6).all()
    assert (allowed.violation(found.points) <= 1e-8).all()
    rng = np.random.default_rng(0)
    swaps = np.eye(k)[:, None] - np.eye(k)[None]
    directions = np.concatenate([swaps.reshape(-1, k), rng.normal(size=(300, k))])
    weights = np.array([(objective or uniform_over(names(k))).get(d, 0.0) for d in names(k)])
    kinks = 0
    for s in range(n_draws):
        one = {name: values[s : s + 1] for name, values in draws.items()}
        h = found.points[s]
        # feasible points a hair away, and the slope towards them
        away = project(h + 1e-7 * directions, np.zeros(k), upper)
        length = np.linalg.norm(away - h, axis=1)
        kept = length > 1e-9
        # what rounding left of a constraint that binds is no way out
        excess = allowed.excess(h[None])
        moved = allowed.excess(away) - excess
        kept &= ((excess < -1e-6) | (moved <= 1e-15)).all(axis=1)
        away, length = away[kept], length[kept]
        assert len(away) > 5
        rise = losses(one, away)[0] @ weights - (losses(one, h[None])[0] @ weights)
        assert (rise / length).min() >= -1e-6
        kinks += (found.points[s] > 0).sum() > (capacity(one, h) > 1 + 1e-9).sum()
    assert kinks >= least_kinks


def capacity(one, h):
    """x / H of each domain, of one draw."""
    allocated = allocate(
        xr.DataArray(h, dims="domain"),
        xr.DataArray(np.exp(one["log_c"][0]), dims="domain"),
        xr.DataArray(one["b"][0], dims="domain"),
        N,
        float(np.exp(one["log_H"][0])),
    )
    return allocated.values / np.exp(one["log_H"][0])


# --- what a recommendation carries ---


@pytest.fixture(scope="module")
def fit():
    runs = swarm(THREE, ("chat",), unobserved=("books",))
    return fit_of(parameters(THREE, ("chat",), n_draws=40), runs)


LIMITS = {"web": (0.1, 1), "books": (0, 0.05), "code": (0, 0.5)}


@pytest.fixture(scope="module")
def rec(fit):
    return recommend(fit, N, D, constraints=[Bounds(LIMITS)], seed=4)


def test_the_default_objective_is_the_mean_over_domains_with_losses(rec, fit):
    assert rec.objective == {"web": 0.5, "code": 0.5}
    mean = rec.losses.draws["expected"].sel(domain="mean").isel(row=0)
    np.testing.assert_allclose(rec.loss, mean, rtol=1e-12)
    asked = fit.predict(dict(zip(THREE, rec.weights.values, strict=True)), N, D, seed=4).draws
    np.testing.assert_allclose(rec.losses.draws["expected"], asked["expected"], rtol=1e-12)
    np.testing.assert_allclose(rec.losses.draws["loss"], asked["loss"], rtol=1e-12)


def test_expected_losses_hold_the_discrepancy_beyond_the_fitted_scales():
    drawn = parameters(THREE, ("chat",), n_draws=40) | {"bend_scale": np.full(40, 0.01)}
    fit = fit_of(drawn, swarm(THREE, ("chat",), unobserved=("books",)))
    far = recommend(fit, 7e9, 1e11, seed=2)
    asked = fit.predict(dict(zip(THREE, far.weights.values, strict=True)), 7e9, 1e11, seed=2)
    mean = asked.draws["expected"].sel(domain="mean").isel(row=0)
    np.testing.assert_allclose(far.loss, mean, rtol=1e-12)
    draws = parameters(THREE, ("chat",), n_draws=40)
    law = losses(draws, far.weights.values[None], n_params=7e9, n_tokens=1e11)
    law = law[:, 0, :2].mean(axis=1)
    uniform = fit.predict(dict.fromkeys(THREE, 1 / 3), 7e9, 1e11, seed=2).draws["expected"]
    difference = far.loss - uniform.sel(domain="mean").isel(row=0)
    found = far.baselines["difference"].sel(baseline="uniform")
    # the same error of the law at both mixtures, so that it all but cancels
    np.testing.assert_allclose(found, difference, atol=1e-12)
    assert float(found.std()) < float((far.loss - law).std())


def test_an_objective_is_a_weighted_sum_as_given(fit):
    rec = recommend(fit, N, D, objective={"web": 2.0, "target:chat": 1.0})
    drawn = rec.losses.draws["expected"].isel(row=0)
    truth = 2 * drawn.sel(domain="web") + drawn.sel(domain="target:chat")
    np.testing.assert_allclose(rec.loss, truth, rtol=1e-12)
    alike = recommend(fit, N, D, objective={"web": 4.0, "target:chat": 2.0})
    np.testing.assert_allclose(rec.weights, alike.weights, atol=1e-5)


def test_bounds_hold_and_those_that_bind_are_flagged(fit, rec):
    free = recommend(fit, N, D)
    assert free.weights.sel(domain="code") > 0.05
    assert free.weights.sum() == pytest.approx(1, abs=1e-12)
    bounds = rec.bounds
    assert (rec.weights >= bounds["lower"]).all()
    assert (rec.weights <= bounds["upper"]).all()
    assert (rec.optima >= bounds["lower"]).all()
    assert (rec.optima <= bounds["upper"]).all()
    np.testing.assert_array_equal(bounds["lower"], [0.1, 0, 0])
    np.testing.assert_array_equal(bounds["upper"], [1, 0.5, 0.05])
    half = recommend(fit, N, D, constraints=[Bounds(dict.fromkeys(THREE, (0.3, 0.5)))])
    for found in (rec, half):
        for name in THREE:
            weight = found.weights.sel(domain=name).item()
            low, high = (found.bounds[b].sel(domain=name).item() for b in ("lower", "upper"))
            truth = {low: "lower", high: "upper"}.get(weight, "")
            assert found.bounds["active"].sel(domain=name).item() == truth
    assert "lower" in half.bounds["active"]
    fixed = recommend(
        fit, N, D, constraints=[Bounds({"web": (0.6, 1), "code": (0.3, 1), "books": (0.1, 1)})]
    )
    np.testing.assert_allclose(fixed.weights, [0.6, 0.3, 0.1], atol=1e-12)


def test_baselines_are_paired_differences(rec, fit):
    assert rec.baselines["baseline"].values.tolist() == [
        "uniform",
        "best_observed",
        "swarm_mean",
        "unconstrained",
    ]
    mixtures = fit.runs.weights.values
    every = fit.predict(fit.runs.frame, N, D).draws["expected"].sel(domain="mean")
    best = int(every.mean("draw").values.argmin())
    truths = {
        "uniform": np.full(3, 1 / 3),
        "best_observed": mixtures[best],
        "swarm_mean": mixtures.mean(axis=0),
    }
    for name, truth in truths.items():
        one = rec.baselines.sel(baseline=name)
        np.testing.assert_allclose(one["weights"], truth, rtol=1e-12)
        theirs = fit.predict(dict(zip(THREE, truth, strict=True)), N, D).draws["expected"]
        theirs = theirs.sel(domain="mean").isel(row=0)
        np.testing.assert_allclose(one["difference"], rec.loss - theirs, atol=1e-12)
    assert rec.baselines.sel(baseline="best_observed")["run_id"] == f"run{best}"
    made = rec.to_dict()["baselines"]["uniform"]["difference"]
    difference = rec.baselines.sel(baseline="uniform")["difference"]
    assert made["lower"] == pytest.approx(np.quantile(difference, 0.05), rel=1e-9)
    assert made["upper"] == pytest.approx(np.quantile(difference, 0.95), rel=1e-9)
    assert made["mean"] == pytest.approx(float(difference.mean()))


def test_a_recommended_zero_is_a_zero_whatever_was_printed():
    table = swarm(THREE).frame
    table.loc[0, ["weight_web", "weight_code", "weight_books"]] = [0.6, 0.4, 0.0]
    draws = parameters(THREE, n_draws=8)
    fit = fit_of(draws, runs_from_frame(table, weight_resolution=0.01))
    rec = recommend(fit, N, D, constraints=[Bounds({"books": (0, 0)})])
    assert rec.weights.sel(domain="books") == 0
    truth = losses(draws, rec.weights.values[None])[:, 0]
    found = rec.losses.draws["expected"].isel(row=0).values[:, :3]
    np.testing.assert_allclose(found, truth, rtol=1e-12)
    # but of an observed run it is an unknown below the resolution
    printed = rec.baselines["weights"].sel(baseline="swarm_mean", domain="books")
    raw = fit.runs.weights.sel(domain="books")
    assert float(printed) > float(raw.mean())


def test_it_warns_of_scales_and_mixtures_beyond_the_swarm():
    runs = swarm(THREE)
    draws = parameters(THREE, n_draws=40)
    fit = fit_of(draws, runs)
    said = " ".join(recommend(fit, 2e8 * np.exp(2), 2e9 / np.exp(1)).warnings)
    assert "N = 1.48e+09 parameters is 2.0 e-folds above the largest that was fitted, 2e+08" in said
    assert "D = 7.36e+08 tokens is 1.0 e-folds below the smallest that was fitted, 2e+09" in said
    assert "leaves" not in said
    within = " ".join(recommend(fit, 1.5e8, 3e9).warnings)
    assert "e-folds" not in within
    tried = runs.weights.sel(domain="web")
    most, least = float(tried.max()), float(tried.min())
    beyond = recommend(fit, 1.5e8, 3e9, constraints=[Bounds({"web": (most + 0.02, 1)})])
    assert f"web {most + 0.02:.3f} (tried at most {most:.3f})" in " ".join(beyond.warnings)
    below = recommend(
        fit, 1.5e8, 3e9, constraints=[Bounds({"web": (0, least - 0.002), "code": (0.3, 1)})]
    )
    assert f"web {least - 0.002:.3f} (tried at least {least:.3f})" in " ".join(below.warnings)


def test_it_warns_of_failed_diagnostics_and_of_losses_never_seen(fit):
    assert any("diagnostics failed" in w for w in recommend(fit, N, D).warnings)  # 40 draws
    good = fit_of(parameters(THREE, n_draws=2000, spread=0.01), swarm(THREE))
    assert good.diagnose().passed
    assert not any("diagnostics" in w for w in recommend(good, N, D).warnings)
    unseen = recommend(fit, N, D, objective={"books": 1.0, "web": 1.0})
    assert any("books, whose losses were never observed" in w for w in unseen.warnings)
    zero = recommend(fit, N, D, objective={"books": 0.0, "web": 1.0})
    assert not any("never observed" in w for w in zero.warnings)


def test_it_says_where_the_search_stopped_short(fit, monkeypatch):
    rec = recommend(fit, N, D)
    assert rec.convergence["residual"] <= 1e-6
    assert rec.convergence["draws_converged"] == 1
    assert 0 < rec.convergence["agreed"] <= rec.convergence["starts"]
    monkeypatch.setattr("bayesmix.optimise._PATIENCE", 0)  # every problem is left at its start
    short = recommend(fit, N, D)
    assert short.convergence["residual"] > 1e-6
    assert any("stopped short" in w for w in short.warnings)
    assert any("draws' optima" in w for w in short.warnings)


@pytest.mark.parametrize("name", ["residual", "gap", "draws_violation"])
@pytest.mark.parametrize("bad", [1e-5, np.nan])
def test_what_is_left_over_or_no_number_is_said(name, bad):
    good = dict.fromkeys(("residual", "gap", "violation", "draws_violation"), 0.0)
    good["draws_converged"] = 1.0
    assert unfinished(good) == []
    assert len(unfinished(good | {name: bad})) == 1


def test_the_chance_to_be_best_is_shared_by_equal_mixtures(fit):
    equal = dict.fromkeys(fit.runs.domains, 1 / 3)
    p_best = recommend(fit, N, D, constraints=[Fixed(equal)]).p_best
    assert p_best["recommended"] == pytest.approx(p_best["uniform"])
    assert sum(p_best.values()) == pytest.approx(1)


def test_a_baseline_that_breaks_the_constraints_is_no_rival(fit):
    good, bad = {"web": 0.5, "code": 0.47, "books": 0.03}, {"web": 0.4, "code": 0.4, "books": 0.2}
    rec = recommend(fit, N, D, constraints=[Bounds(LIMITS)], baselines={"good": good, "bad": bad})
    allowed = rec.baselines["allowed"].to_series()
    assert allowed["good"]
    assert not allowed[["bad", "uniform", "unconstrained"]].any()
    rivals = allowed.index[allowed & (allowed.index != "unconstrained")]
    assert set(rec.p_best) == {"recommended", *rivals}
    ahead = rec.baselines["difference"].sel(baseline=rivals).max("baseline") < 0
    assert rec.p_best["recommended"] == pytest.approx(float(ahead.mean()))
    left = [name.replace("_", " ") for name in allowed.index[~allowed]]
    assert f"Left out, since they break the constraints: {', '.join(left)}." in repr(rec)
    free = recommend(fit, N, D, baselines={"good": good, "bad": bad})
    assert free.baselines["allowed"].all()
    assert "Left out" not in repr(free)


def test_the_same_seed_recommends_the_same_and_another_the_same_mixture(fit):
    one, same, other = (recommend(fit, N, D, seed=seed) for seed in (1, 1, 2))
    assert one.to_dict() == same.to_dict()
    np.testing.assert_allclose(one.weights, other.weights, atol=1e-5)
    assert (one.losses.draws["loss"] != other.losses.draws["loss"]).all()


def test_json_says_all_that_a_reader_needs(rec, fit, tmp_path):
    path = tmp_path / "recommendation.json"
    rec.to_json(path)
    made = json.loads(path.read_text())
    assert made == json.loads(json.dumps(rec.to_dict()))
    assert made["weights"] == dict(zip(THREE, rec.weights.values, strict=True))
    assert made["risk"] == "mean"
    assert made["objective"] == rec.objective
    assert made["warnings"] == list(rec.warnings)
    assert made["constraints"]["bounds"]["books"] == {
        "lower": 0.0,
        "upper": 0.05,
        "active": str(rec.bounds["active"].sel(domain="books").item()) or None,
    }
    loss = made["loss"]
    assert loss["mean"] == pytest.approx(float(rec.loss.mean()))
    assert loss["expected_lower"] == pytest.approx(np.quantile(rec.loss, 0.05), rel=1e-12)
    new_run = rec.losses.draws["loss"].isel(row=0).sel(domain=["web", "code"]).mean("domain")
    assert loss["upper"] == pytest.approx(np.quantile(new_run, 0.95))
    summary = rec.losses.summary().set_index("domain")
    assert set(loss["domains"]) == {*THREE, "target:chat", "mean"}
    assert loss["domains"]["code"]["lower"] == summary.loc["code", "lower"]
    for part in (loss, made["optima"], made["baselines"]["uniform"]["difference"]):
        assert (part["prob"], part["interval"]) == (0.9, "equal-tailed")
    where = made["provenance"]
    assert (where["n_params"], where["n_tokens"], where["seed"]) == (N, D, 4)
    assert (where["law"], where["draws"]) == ("transfer", 40)
    assert where["runs_hash"] == fit.runs.hash
    assert "bayesmix" in where["versions"]


def test_json_has_no_infinities(tmp_path, monkeypatch):
    # the diagnostics are of the predictions at the data, which are infinite here
    monkeypatch.setattr(Fit, "diagnose", lambda _: Diagnosis(True, pd.DataFrame(), ""))
    table = swarm(THREE).frame
    table["weight_books"] = 0.0
    table["weight_code"] = 1 - table["weight_web"]
    runs = runs_from_frame(table, weight_resolution=0.0)
    fit = fit_of(parameters(THREE, n_draws=8), runs, law="regression")
    rec = recommend(fit, N, D)
    assert rec.baselines["difference"].sel(baseline="swarm_mean").isnull().all()
    rec.to_json(tmp_path / "r.json")
    made = json.loads((tmp_path / "r.json").read_text())
    assert made["baselines"]["swarm_mean"]["difference"]["mean"] is None
    assert "tried at most 0.000" in " ".join(rec.warnings)
    with pytest.raises(ValueError, match="infinite at every mixture"):
        recommend(fit, N, D, constraints=[Bounds({"books": (0, 0)})])


def test_json_is_whole_or_not_there(rec, tmp_path, monkeypatch):
    path = tmp_path / "r.json"
    path.write_text("before")

    def broken(*_args, **_options):
        raise OSError("the disk is full")

    monkeypatch.setattr("pathlib.Path.write_text", broken)
    with pytest.raises(OSError, match="disk"):
        rec.to_json(path)
    monkeypatch.undo()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_it_prints_weights_intervals_and_warnings(rec):
    text = repr(rec)
    for part in (
        "1.5e+08 parameters",
        "books",
        "90%",
        "equal-tailed",
        "best observed",
        "Warning: ",
    ):
        assert part in text
    for name in THREE:
        assert f"{rec.weights.sel(domain=name).item():.4f}" in text
    page = rec._repr_html_()
    assert "<table" in page
    assert "equal-tailed" in page


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"objective": {"poems": 1.0}}, "unknown name 'poems' .* web, code, books, target:chat"),
        ({"objective": {"chat": 1.0}}, "unknown name 'chat'"),
        ({"objective": {"web": -1.0}}, "must be 0 or more, got 'web': -1"),
        ({"objective": {"web": np.nan}}, "must be 0 or more, got 'web': nan"),
        ({"objective": {"web": 0.0}}, "no weight of the objective is above 0; valid names: web"),
        ({"objective": {}}, "no weight of the objective is above 0"),
        ({"constraints": [Bounds({"poems": (0, 1)})]}, "bounds: unknown domain 'poems'; valid"),
        ({"baselines": {"uniform": {"web": 1.0}}}, "'uniform' is a baseline already"),
        ({"baselines": {"recommended": {"web": 1.0}}}, "'recommended' is a baseline already"),
        ({"baselines": {"unconstrained": {"web": 1.0}}}, "'unconstrained' is a baseline already"),
        ({"baselines": {"old": {"poems": 1.0}}}, "baseline 'old': unknown domain 'poems'"),
        ({"baselines": {"old": {"web": 0.5}}}, "baseline 'old': weights must be 0 or more and sum"),
    ],
)
def test_choices_that_are_refused(fit, options, said):
    with pytest.raises(ValueError, match=said):
        recommend(fit, N, D, **options)


@pytest.mark.parametrize("size", [0, -1.0, np.inf, np.nan])
def test_sizes_that_are_refused(fit, size):
    with pytest.raises(ValueError, match="n_params must be positive"):
        recommend(fit, size, D)
    with pytest.raises(ValueError, match="n_tokens must be positive"):
        recommend(fit, N, size)


def test_a_point_fit_is_a_baseline(fit):
    point = point_fit(fit.runs, "point:regression")
    rec = recommend(fit, N, D, baselines={"point": point})
    optimum = point.optimum(N, D)
    np.testing.assert_allclose(rec.baselines["weights"].sel(baseline="point"), optimum)
    with pytest.raises(ValueError, match="baseline 'point': a point fit has no optimum of the"):
        recommend(fit, N, D, objective=Worst(), baselines={"point": point})


def test_recommendations_and_predictions_are_of_the_same_draws():
    # outside the data, where the misfit is drawn
    draws = parameters(THREE, n_draws=40) | {"bend_scale": np.full(40, 0.05)}
    fit = fit_of(draws, swarm(THREE))
    rec = recommend(fit, 50 * N, 50 * D, seed=3)
    mixtures = np.stack([rec.weights.values, rec.baselines["weights"].sel(baseline="uniform")])
    table = pd.DataFrame(mixtures, columns=[f"weight_{name}" for name in THREE])
    predicted = fit.predict(table, 50 * N, 50 * D, seed=3).draws["expected"].sel(domain="mean")
    np.testing.assert_allclose(predicted[:, 0], rec.loss, rtol=1e-12)
    difference = rec.baselines["difference"].sel(baseline="uniform")
    np.testing.assert_allclose(predicted[:, 0] - predicted[:, 1], difference, atol=1e-12)


def test_targets_alone_need_an_objective():
    runs = swarm(THREE, ("chat",), unobserved=THREE)
    fit = fit_of(parameters(THREE, ("chat",), n_draws=8), runs)
    with pytest.raises(ValueError, match=r"no domain has observed losses: .* target:chat"):
        recommend(fit, N, D)
    assert recommend(fit, N, D, objective={"target:chat": 1.0}).loss.mean() > 0
