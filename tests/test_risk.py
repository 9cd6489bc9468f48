"""Measures of risk: against definitions, and their optima against brute force and other solvers."""

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from synthetic import fit_of, parameters, swarm

from bayesmix import (
    Bounds,
    CVaR,
    Mean,
    ProbBelow,
    Quantile,
    Regret,
    Worst,
    pareto_front,
    recommend,
)
from bayesmix.feasible import feasible_set
from bayesmix.objective import problem
from bayesmix.optima import InfiniteObjectiveError, draw_optima
from bayesmix.pareto import near_optimal
from bayesmix.risk import parse_risk, scale, smooth, value, weights

N, D = 1.5e8, 4e9
THREE = ("web", "code", "books")
UNIFORM = dict.fromkeys(THREE, 1 / 3)
DRAWS = arrays(float, st.integers(2, 40), elements=st.floats(-10, 10).map(lambda x: round(x, 3)))
LEVELS = st.sampled_from([0.05, 0.5, 0.8, 0.9, 0.97])


@pytest.fixture(scope="module")
def fit():
    return fit_of(parameters(THREE, n_draws=200, spread=0.25, seed=5), swarm(THREE))


def grid(steps=100):
    i, j = np.meshgrid(range(steps + 1), range(steps + 1), indexing="ij")
    i, j = i[i + j <= steps], j[i + j <= steps]
    return np.column_stack([i, j, steps - i - j]) / steps


# --- measures of draws ---


@given(DRAWS, LEVELS)
def test_measures_are_what_their_names_say(draws, level):
    assert value(Mean(), draws) == pytest.approx(draws.mean(), abs=1e-12)
    assert value(Quantile(level), draws) == pytest.approx(np.quantile(draws, level), abs=1e-12)
    # Rockafellar and Uryasev: the least over t of t + mean(draws - t)+ / (1 - level), at a draw
    excess = np.maximum(draws - draws[:, None], 0).mean(axis=1) / (1 - level)
    truth = (draws + excess).min()
    assert value(CVaR(level), draws) == pytest.approx(truth, abs=1e-10)
    assert value(Regret(level), draws) == pytest.approx(truth, abs=1e-10)
    assert value(ProbBelow({}), draws) == np.mean([x < 0 for x in draws])


@given(DRAWS, LEVELS)
def test_weights_are_gradients(draws, level):
    for risk in (Mean(), Quantile(level), CVaR(level), Regret(), Regret(level)):
        p = weights(risk, draws)
        assert p.sum() == pytest.approx(1)
        assert (p >= 0).all()
        assert p @ draws == pytest.approx(value(risk, draws), abs=1e-10)
    # a tail mean lies above its tangent everywhere
    other = draws[::-1] + np.linspace(-1, 1, len(draws))
    tangent = value(CVaR(level), draws) + weights(CVaR(level), draws) @ (other - draws)
    assert value(CVaR(level), other) >= tangent - 1e-10


def test_the_normal_distribution_has_closed_forms():
    draws = scipy.stats.norm.ppf((np.arange(100_000) + 0.5) / 100_000)
    z = scipy.stats.norm.ppf(0.9)
    assert value(Quantile(0.9), draws) == pytest.approx(z, abs=1e-4)
    assert value(CVaR(0.9), draws) == pytest.approx(scipy.stats.norm.pdf(z) / 0.1, abs=1e-4)
    assert value(ProbBelow({}), draws - 1) == pytest.approx(scipy.stats.norm.cdf(1), abs=1e-5)


def test_smooth_measures_come_close_and_have_gradients():
    draws = np.random.default_rng(0).normal(3, 0.01, (2, 400))
    for risk, tolerance in ((Mean(), 1e-12), (CVaR(0.9), 1e-6), (Quantile(0.9), 5e-4)):
        width = 1e-5 if risk == CVaR(0.9) else scale(risk, draws[0])
        around = np.stack([weights(risk, row) for row in draws])
        found, p = smooth(risk, draws, around, width)
        for row, one in zip(draws, found, strict=True):
            assert one == pytest.approx(value(risk, row), abs=tolerance)
        step = 1e-7 * np.random.default_rng(1).normal(size=draws.shape)
        up, down = (smooth(risk, draws + s * step, around, width)[0] for s in (1, -1))
        np.testing.assert_allclose((p * step).sum(axis=1), (up - down) / 2, atol=1e-12)


@pytest.mark.parametrize("level", [0, 1, -0.1, 1.5, np.nan])
def test_levels_that_are_refused(level):
    for kind in (Quantile, CVaR, Regret):
        with pytest.raises(ValueError, match="between 0 and 1"):
            kind(level)


@pytest.mark.parametrize("risk", [Mean(), Quantile(0.9), CVaR(0.75), Regret(), Regret(0.5)])
def test_measures_read_as_they_print(risk):
    assert parse_risk(str(risk), dict) == risk


@pytest.mark.parametrize(
    "text", ["max", "", "cvar", "cvar:", "cvar:1", "cvar:x", "mean:1", "quantile", "prob-below:"]
)
def test_texts_that_are_no_measure(text):
    with pytest.raises(ValueError, match="is none of mean, quantile:Q"):
        parse_risk(text, dict)


# --- optima ---


@pytest.mark.parametrize("risk", [Mean(), CVaR(0.8), Regret(), Regret(0.8)])
def test_three_domains_equal_brute_force(fit, risk):
    rec = recommend(fit, N, D, risk=risk)
    of = problem(fit, N, D, UNIFORM)
    own = draw_optima(of, np.full((1, 3), 1 / 3), feasible_set([], THREE, D)).values
    less = own if isinstance(risk, Regret) else 0.0
    near = rec.weights.values + 0.01 * (grid(40) - 1 / 3)
    mixtures = np.concatenate([grid(), near[(near >= 0).all(axis=1)]])
    values = np.array([value(risk, draws) for draws in (of.values(mixtures).T - less)])
    assert rec.risk_value == pytest.approx(value(risk, rec.loss.values - less), abs=1e-9)
    assert rec.risk_value <= values.min() + 1e-9
    np.testing.assert_allclose(rec.weights, mixtures[values.argmin()], atol=0.02)
    assert rec.convergence["residual"] <= 1e-6
    assert rec.risk == str(risk)


def test_a_quantile_and_a_chance_are_as_good_as_brute_force_to_the_draws_grain(fit):
    of, mixtures = problem(fit, N, D, UNIFORM), grid()
    values = of.values(mixtures)
    rec = recommend(fit, N, D, risk=Quantile(0.8))
    spread = float(rec.loss.std())
    # an order statistic of 200 draws is uneven by about its spacing, 0.02 sd
    assert rec.risk_value <= np.quantile(values, 0.8, axis=0).min() + 0.02 * spread
    beat = dict(zip(THREE, (0.2, 0.3, 0.5), strict=True))
    theirs = of.values(np.array([[0.2, 0.3, 0.5]]))
    found = recommend(fit, N, D, risk=ProbBelow(beat))
    assert found.risk_value == (found.loss.values < theirs[:, 0]).mean()
    assert found.risk_value >= (values < theirs).mean(axis=0).max() - 0.015


def test_a_tail_mean_equals_a_linear_programmes_with_another_solver(fit):
    level = 0.8
    rec = recommend(fit, N, D, risk=CVaR(level))
    of = problem(fit, N, D, UNIFORM)
    n = of.n_draws

    def goal(x):
        return x[3] + x[4:].mean() / (1 - level)

    def slope(_):
        return np.concatenate([np.zeros(3), [1], np.full(n, 1 / n / (1 - level))])

    def above(x):
        return x[4:] + x[3] - of.at(np.tile(x[:3], (n, 1)))[0]

    def above_slope(x):
        return np.hstack([-of.at(np.tile(x[:3], (n, 1)))[1], np.ones((n, 1)), np.eye(n)])

    h = np.full(3, 1 / 3)
    t = np.quantile(of.values(h[None]), level)
    first = np.concatenate([h, [t], np.maximum(of.values(h[None])[:, 0] - t, 0)])
    truth = scipy.optimize.minimize(
        goal,
        first,
        jac=slope,
        method="SLSQP",
        bounds=[(0, 1)] * 3 + [(None, None)] + [(0, None)] * n,
        constraints=[
            {"type": "ineq", "fun": above, "jac": above_slope},
            {"type": "eq", "fun": lambda x: x[:3].sum() - 1, "jac": lambda x: np.arange(n + 4) < 3},
        ],
        options={"ftol": 1e-12, "maxiter": 100},
    )
    np.testing.assert_allclose(rec.weights, truth.x[:3], atol=1e-5)
    assert rec.risk_value == pytest.approx(truth.fun, abs=1e-9)


def test_a_tail_mean_has_no_feasible_direction_of_descent(fit):
    of = problem(fit, N, D, UNIFORM)
    h = recommend(fit, N, D, risk=CVaR(0.8)).weights.values
    angles = np.linspace(0, 2 * np.pi, 721)
    plane = np.array([[1, -1, 0], [1, 1, -2]]) / np.sqrt([[2], [6]])
    away = h + 1e-6 * np.column_stack([np.cos(angles), np.sin(angles)]) @ plane
    here = value(CVaR(0.8), of.values(h[None])[:, 0])
    rise = np.array([value(CVaR(0.8), draws) for draws in of.values(away).T]) - here
    assert (rise / 1e-6).min() >= -1e-6


def test_every_measure_is_best_on_its_own_yardstick(fit):
    of = problem(fit, N, D, UNIFORM)
    own = draw_optima(of, np.full((1, 3), 1 / 3), feasible_set([], THREE, D)).values
    yardsticks = {Mean(): 0.0, CVaR(0.9): 0.0, Regret(0.9): own}
    chosen = {risk: recommend(fit, N, D, risk=risk).loss.values for risk in yardsticks}
    for risk, less in yardsticks.items():
        best = value(risk, chosen[risk] - less)
        assert all(best <= value(risk, draws - less) + 1e-10 for draws in chosen.values())
    assert (chosen[Mean()] >= own - 1e-9).all()


def test_the_discrepancy_counts_in_tails(fit):
    far = recommend(fit, 7e9, 1e11, risk=CVaR(0.9), seed=3)
    mixture = dict(zip(THREE, far.weights.values, strict=True))
    predicted = fit.predict(mixture, 7e9, 1e11, seed=3).draws["expected"]
    draws = predicted.sel(domain="mean").isel(row=0).values
    np.testing.assert_allclose(far.loss, draws, rtol=1e-12)
    assert far.risk_value == pytest.approx(value(CVaR(0.9), draws), rel=1e-12)


# --- the worst domain ---


@pytest.mark.parametrize("risk", [Mean(), CVaR(0.8)])
def test_the_worst_domain_equals_brute_force(risk):
    fit = fit_of(parameters(THREE, n_draws=20, spread=0.25, seed=5), swarm(THREE))
    counted = {"web": 1.0, "code": 1.3, "books": 0.9}
    rec = recommend(fit, N, D, objective=Worst(counted), risk=risk)
    each = [problem(fit, N, D, {name: weight}) for name, weight in counted.items()]
    near = rec.weights.values + 0.01 * (grid(40) - 1 / 3)
    mixtures = np.concatenate([grid(), near[(near >= 0).all(axis=1)], rec.weights.values[None]])
    worst = np.max([of.values(mixtures) for of in each], axis=0)
    values = np.array([value(risk, draws) for draws in worst.T])
    np.testing.assert_allclose(rec.loss, worst[:, -1], rtol=1e-12)
    assert rec.risk_value == pytest.approx(values[-1], abs=1e-12)
    assert rec.risk_value <= values[:-1].min() + 1e-8
    # and so does every draw's own
    own = np.max(
        [[of.values(rec.optima.values)[s, s] for s in range(of.n_draws)] for of in each], axis=0
    )
    assert (own <= worst.min(axis=1) + 1e-8).all()
    assert rec.convergence["draws_converged"] > 0.95


def moves(count: int) -> np.ndarray:
    """Random directions that keep the sum of three weights."""
    steps = np.random.default_rng(5).normal(size=(count, 3))
    steps -= steps.mean(axis=1, keepdims=True)
    return steps / abs(steps).max(axis=1, keepdims=True)


def test_an_optimum_can_be_beaten_by_what_is_near_it(fit):
    mean = recommend(fit, N, D)
    before = {str(d): float(w) for d, w in zip(THREE, mean.weights, strict=True)}
    rec = recommend(fit, N, D, risk=ProbBelow(before))
    of = problem(fit, N, D, UNIFORM)
    base = of.values(mean.weights.values[None])
    chances = [
        (of.values(mean.weights.values + size * moves(400)) < base).mean(axis=0).max()
        for size in (1e-4, 1e-3, 1e-2)
    ]
    # what the smoothing of a chance over 200 draws gives up: measured 0.02, and a draw is 0.005
    assert rec.risk_value >= max(chances) - 0.026
    assert rec.risk_value > 0.5
    assert rec.convergence["residual"] < 1e-6
    assert not any("stopped short" in warning for warning in rec.warnings)


def test_what_a_constraint_costs_of_a_chance(fit):
    limits = np.linspace(0.16, 0.2, 5)
    found = [
        recommend(fit, N, D, risk=ProbBelow(UNIFORM), constraints=(Bounds({"web": (0, limit)}),))
        for limit in limits
    ]
    prices = [rec.constraints["price"].item() for rec in found]
    assert min(prices) > 2
    # what loosening the bound brings is the area under its price, but for the kernel: by 0.010
    bought = found[-1].risk_value - found[0].risk_value
    assert np.trapezoid(prices, limits) == pytest.approx(bought, abs=0.016)
    assert f"at {prices[0]:.4f} of the chance per unit" in repr(found[0])


@pytest.mark.parametrize("risk", [Mean(), CVaR(0.8), Quantile(0.8), ProbBelow(UNIFORM)])
@pytest.mark.parametrize("worst", [False, True])
def test_every_measure_is_the_same_in_any_unit(risk, worst):
    fit = fit_of(parameters(THREE, n_draws=40, spread=0.25, seed=5), swarm(THREE))
    limits = (Bounds({"web": (0, 0.18)}),)
    one, *others = (
        recommend(
            fit,
            N,
            D,
            objective=Worst(dict.fromkeys(THREE, w)) if worst else dict.fromkeys(THREE, w / 3),
            risk=risk,
            constraints=limits,
        )
        for w in (1.0, 100.0, 1e-6)
    )
    for rec, unit in zip(others, (100.0, 1e-6), strict=True):
        np.testing.assert_allclose(rec.weights, one.weights, atol=1e-6)
        priced = 1.0 if isinstance(risk, ProbBelow) else unit
        np.testing.assert_allclose(rec.risk_value, priced * one.risk_value, rtol=1e-7)
        np.testing.assert_allclose(
            rec.constraints["price"], priced * one.constraints["price"], rtol=1e-4, atol=1e-9 * unit
        )
        assert rec.convergence["gap"] <= 1e-8


# --- fronts and sets ---


def test_the_front_of_two_objectives_is_not_beaten(fit):
    objectives = {"code": {"code": 1.0}, "rest": {"web": 0.5, "books": 0.5}}
    front = pareto_front(fit, N, D, objectives, points=9)
    assert front["loss"].dims == ("objective", "point", "draw")
    means = front["loss"].mean("draw").values
    assert (np.diff(means[0]) > 0).all()
    assert (np.diff(means[1]) < 0).all()
    mixtures = grid()
    a, b = (problem(fit, N, D, w).values(mixtures).mean(axis=0) for w in objectives.values())
    for first, second in means.T:
        assert not ((a < first - 1e-9) & (b < second - 1e-9)).any()
    ends = [recommend(fit, N, D, objective=w).loss.mean() for w in objectives.values()]
    np.testing.assert_allclose([means[0, 0], means[1, -1]], ends, atol=1e-9)
    with pytest.raises(ValueError, match="two objectives"):
        pareto_front(fit, N, D, {"code": {"code": 1.0}})
    with pytest.raises(ValueError, match="weighted sums of losses"):
        pareto_front(fit, N, D, {"worst": Worst(), "code": {"code": 1.0}})
    with pytest.raises(ValueError, match="n_params must be positive"):
        pareto_front(fit, -1.0, D, objectives)


def test_a_front_is_the_same_in_any_unit(fit):
    objectives = {"code": {"code": 1.0}, "rest": {"web": 0.5, "books": 0.5}}
    front = pareto_front(fit, N, D, objectives, points=9, draws=50)
    small = {k: {name: 1e-9 * w for name, w in one.items()} for k, one in objectives.items()}
    found = pareto_front(fit, N, D, small, points=9, draws=50)
    np.testing.assert_allclose(found["weights"], front["weights"], atol=1e-6)
    np.testing.assert_allclose(found["loss"], 1e-9 * front["loss"], rtol=1e-6)
    assert 0 < front.attrs["residual"] <= 1e-6
    assert front.attrs["violation"] <= 1e-8


def test_a_front_whose_ends_are_infinite_asks_for_bounds():
    fit = fit_of(parameters(THREE, n_draws=20), swarm(THREE), law="regression")
    objectives = {"code": {"code": 1.0}, "books": {"books": 1.0}}
    with pytest.raises(InfiniteObjectiveError, match="a lower bound above 0"):
        pareto_front(fit, N, D, objectives)
    kept = [Bounds({"code": (0.01, 1), "books": (0.01, 1)})]
    front = pareto_front(fit, N, D, objectives, constraints=kept, points=5)
    assert front.sizes["point"] == 5
    assert np.isfinite(front["loss"]).all()


def test_a_mixture_to_beat_has_a_loss():
    fit = fit_of(parameters(THREE, n_draws=20), swarm(THREE), law="regression")
    with pytest.raises(InfiniteObjectiveError, match="the mixture to beat has no finite loss"):
        recommend(fit, N, D, risk=ProbBelow({"web": 0.5, "code": 0.5}))
    # what the objective does not count is no matter
    halves = {"web": 1.0, "code": 1.0}
    rec = recommend(fit, N, D, objective=halves, risk=ProbBelow({"web": 0.7, "code": 0.3}))
    assert rec.risk_value > 0.5


def test_the_set_near_the_optimum_equals_brute_force(fit):
    epsilon, mixtures = 0.005, grid(200)
    near = near_optimal(fit, N, D, epsilon, draws=200)
    mean = problem(fit, N, D, UNIFORM).values(mixtures).mean(axis=0)
    inside = mixtures[mean <= near.attrs["optimum"] + epsilon]
    for i, name in enumerate(THREE):
        least, most = near["weights"].sel(domain=name, weight_of=name).values
        assert least == pytest.approx(inside[:, i].min(), abs=0.005)
        assert most == pytest.approx(inside[:, i].max(), abs=0.005)
    np.testing.assert_allclose(near["loss"], near.attrs["optimum"] + epsilon, atol=1e-7)
    with pytest.raises(ValueError, match="epsilon"):
        near_optimal(fit, N, D, 0)


@pytest.mark.parametrize("epsilon", [1e-4, 0.01])
def test_the_set_near_the_optimum_of_many_domains_is_kept(epsilon):
    names = [f"d{i}" for i in range(6)]
    many = fit_of(parameters(names, n_draws=40), swarm(names))
    near = near_optimal(many, N, D, epsilon)
    assert (near["loss"] - near.attrs["optimum"]).max() <= epsilon * (1 + 1e-6)
    np.testing.assert_allclose(near["weights"].sum("weight_of"), 1, atol=1e-8)
    # a smaller set reaches no farther
    low = float(near["weights"].sel(domain="d5", weight_of="d5", end="least")) + 1e-3
    fewer = near_optimal(many, N, D, epsilon, constraints=[Bounds({"d5": (low, 1.0)})])
    for i, name in enumerate(names):
        least, most = near["weights"].sel(domain=name, weight_of=name).values
        inner = fewer["weights"].sel(domain=name, weight_of=name).values
        assert inner[1] <= most + 2e-4, i
        assert inner[0] >= least - 2e-4, i
