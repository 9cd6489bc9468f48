"""Each law, fitted to losses drawn from itself, finds itself again."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.optimize import approx_fprime, check_grad

import bayesmix as bm
from bayesmix.pointfit import (
    POINT_LAWS,
    additive,
    bimix,
    chinchilla,
    exponential,
    joint,
    loglinear,
    mechanistic,
    point_fit,
)
from bayesmix.pointfit.curves import Rows, fit_curve
from bayesmix.pointfit.search import HUBER, Space, huber

DOMAINS = ("web", "code", "books")
N, D = np.array([1e8, 2e8, 4e8]), np.array([2e9, 4e9, 8e9])


def at_points(n_mixtures, sizes=N, horizons=D, seed=0):
    """Weights, N and D of every mixture at every size and horizon, and the run of each row."""
    rng = np.random.default_rng(seed)
    mixtures = rng.dirichlet(np.ones(3), n_mixtures)
    m, n, d = (x.ravel() for x in np.meshgrid(range(n_mixtures), sizes, horizons, indexing="ij"))
    return mixtures[m.astype(int)], n, d


def runs_with(losses, weights, n_params, n_tokens):
    """A swarm with these losses (R, 3)."""
    runs = [f"{w}{n}" for w, n in zip(weights[:, 0], n_params, strict=True)]
    table = pd.DataFrame({"run_id": runs, "n_params": n_params, "n_tokens": n_tokens})
    for i, name in enumerate(DOMAINS):
        table[f"weight_{name}"], table[f"loss_{name}"] = weights[:, i], losses[:, i]
    return bm.runs_from_frame(table, weight_resolution=0.0)


def references(n_params, n_tokens):
    return {
        "n_params_reference": float(np.exp(np.log(n_params).mean())),
        "n_tokens_reference": float(np.exp(np.log(n_tokens).mean())),
    }


POWER = {
    "E": ("component", [1.5, 0.9, 2.0]),
    "A": ("component", [0.5, 0.4, 0.3]),
    "alpha": ("component", [0.3, 0.4, 0.5]),
    "B": ("component", [0.4, 0.3, 0.5]),
    "beta": ("component", [0.5, 0.3, 0.4]),
}
C = ("source", [[3.0, 0.4, 0.8], [0.5, 4.0, 0.3], [0.6, 0.3, 2.0]])
GAMMA = ("source", [[0.4, 0.6, 0.8], [0.7, 0.3, 0.5], [0.5, 0.8, 0.6]])
MIXTURE = {"C": (("component", C[0]), C[1]), "gamma": (("component", GAMMA[0]), GAMMA[1])}
MIXING = {
    "c": ("component", [1.5, 1.0, 2.0]),
    "t": (("component", "source"), [[-2.0, 0.5, 0.2], [0.3, -3.0, 0.8], [0.1, 0.6, -1.5]]),
}
BIMIX = {
    "C": ("component", [2.0, 1.0, 1.5]),
    "alpha": ("component", [0.1, 0.2, 0.15]),
    "B": ("component", [0.3, 0.5, 0.4]),
    "beta": ("component", [0.5, 0.4, 0.3]),
}


@pytest.mark.parametrize(
    ("law", "module", "truth", "found"),
    [
        ("additive", additive, POWER | MIXTURE, ["E", "C", "gamma", "alpha", "beta"]),
        ("bimix", bimix, BIMIX, list(BIMIX)),
        ("log-linear", loglinear, MIXING, list(MIXING)),
    ],
)
def test_parameters_are_recovered(law, module, truth, found):
    at = at_points(40)
    parameters = xr.Dataset(truth | references(*at[1:]))
    fit = point_fit(runs_with(module.evaluate(parameters, *at), *at), law)
    assert fit.converged
    assert not fit.at_bounds
    for name in found:
        np.testing.assert_allclose(fit.parameters[name].values, parameters[name], rtol=0.05)
    elsewhere = at_points(5, sizes=[8e8], horizons=[2e10], seed=1)
    np.testing.assert_allclose(
        fit.evaluate(*elsewhere), module.evaluate(parameters, *elsewhere), rtol=2e-3
    )


def test_joint_recovers_its_predictions():
    at = at_points(40)
    coefficients = np.random.default_rng(3).uniform(0.2, 0.8, (2, 3, 3))
    truth = {name: value for name, value in (POWER | MIXTURE).items() if name not in "AB"} | {
        "C_A": (("component", "source"), coefficients[0]),
        "C_B": (("component", "source"), coefficients[1]),
        "gamma_A": ("component", [1.2, 0.8, 1.0]),
        "gamma_B": ("component", [0.7, 1.0, 1.3]),
    }
    parameters = xr.Dataset(truth | references(*at[1:]))
    fit = point_fit(runs_with(joint.evaluate(parameters, *at), *at), "joint")
    assert fit.n_parameters == 3 * (5 + 4 * 3)
    elsewhere = at_points(5, sizes=[8e8], horizons=[2e10], seed=1)
    np.testing.assert_allclose(
        fit.evaluate(*elsewhere), joint.evaluate(parameters, *elsewhere), rtol=5e-3
    )


def test_exponential_at_one_scale():
    at = at_points(40, sizes=N[:1], horizons=D[:1])
    truth = xr.Dataset(MIXING | {"k": ("component", [1.0, 1.5, 0.7])} | references(*at[1:]))
    fit = point_fit(runs_with(exponential.evaluate(truth, *at), *at), "exponential")
    assert fit.n_parameters == 3 * (2 + 3)
    np.testing.assert_allclose(fit.parameters["c"], truth["c"], rtol=0.01)
    # t is fixed up to a constant, which k takes up
    slopes = fit.parameters["t"] - fit.parameters["t"].isel(source=0)
    np.testing.assert_allclose(slopes, truth["t"] - truth["t"].isel(source=0), atol=0.05)


def test_exponential_nests_the_size_and_step_laws():
    """Losses ``E + exp(t h) (A / N^alpha + B / D^beta)`` are of its form at every N and D."""
    weights, n_params, n_tokens = at_points(30)
    t = np.array(MIXING["t"][1])

    def losses(weights, n_params, n_tokens):
        power = 0.6 * (n_params / 2e8)[:, None] ** -0.4 + 0.5 * (n_tokens / 4e9)[:, None] ** -0.3
        return np.array([1.5, 1.0, 2.0]) + np.exp(weights @ t.T) * power

    fit = point_fit(
        runs_with(losses(weights, n_params, n_tokens), weights, n_params, n_tokens), "exponential"
    )
    elsewhere = at_points(5, sizes=[8e8], horizons=[2e10], seed=1)
    np.testing.assert_allclose(fit.evaluate(*elsewhere), losses(*elsewhere), rtol=5e-3)


def test_chinchilla_knows_its_mixtures_and_no_others():
    at = at_points(3)
    parameters = xr.Dataset(POWER | references(*at[1:]))
    rows = Rows(at[0], np.log(at[1] / 2e8), np.log(at[2] / 4e9))
    losses = np.stack(
        [
            chinchilla.power_terms(
                {k: v.values[i] for k, v in parameters[list(POWER)].items()}, rows
            )[0]
            for i in range(3)
        ],
        axis=1,
    )
    fit = point_fit(runs_with(losses, *at), "chinchilla")
    assert fit.n_parameters == 3 * 3 * 5
    np.testing.assert_allclose(fit.parameters["alpha"].T, [POWER["alpha"][1]] * 3, rtol=0.02)
    assert np.isnan(fit.predict(dict.fromkeys(DOMAINS, 1 / 3), 1e9, 1e10)).all()
    few = point_fit(fit.runs.where("n_params < 3e8"), "chinchilla")
    assert not few.converged
    assert "3 sizes" in few.message


@pytest.mark.parametrize("law", ["transfer", "regression", "quantization"])
def test_own_law_recovers_its_predictions(law):
    searched = {
        "E": [1.2, 0.9, 1.5],
        "log_c": np.log([0.6, 0.5, 0.8]) + np.array([0.3, 0.35, 0.25]) * np.log(7e7),
        "b": [0.3, 0.35, 0.25],
        "log_A": np.log([0.4, 0.3, 0.5]) + np.array([0.3, 0.4, 0.35]) * np.log(1.4e9),
        "a": [0.3, 0.4, 0.35],
        "tau": [[1, 0.2, 0.1], [0.3, 1, 0.05], [0.1, 0.15, 1]] if law == "transfer" else np.eye(3),
        "log_G": np.log([0.2, 0.3, 0.2]) + 0.3 * np.log(2e8),
        "g": 0.3,
        "log_Q": np.log([0.1, 0.1, 0.1]) + 0.4 * np.log(4e9),
        "q": 0.4,
        "log_H": np.log(1e5),
        "fade": 1.0,
    }
    truth = xr.Dataset({n: (mechanistic._DIMS.get(n, ()), v) for n, v in searched.items()}).assign(
        observed=("component", [True] * 3)
    )
    at = at_points(40)
    fit = point_fit(runs_with(mechanistic.evaluate(truth, *at, law=law), *at), f"point:{law}")
    inside = at_points(5, seed=1)
    expected = mechanistic.evaluate(truth, *inside, law=law)
    np.testing.assert_allclose(fit.evaluate(*inside), expected, rtol=2e-3)


def test_linear_and_mean_are_closed_form():
    at = at_points(20, sizes=N[:1], horizons=D[:1])
    slopes = np.array([[2.0, 3.0, 2.5], [3.0, 1.0, 2.0], [2.0, 2.5, 4.0]])
    runs = runs_with(at[0] @ slopes.T, *at)
    fit = point_fit(runs, "linear")
    np.testing.assert_allclose(fit.parameters["slope"][:, :3], slopes, rtol=1e-9)
    assert fit.n_parameters == 9
    np.testing.assert_allclose(
        point_fit(runs, "mean").predict(runs.weights, 1e8, 1e9)[0, :3], runs.losses.mean("row")
    )


def test_regmix_fits_a_step():
    pytest.importorskip("lightgbm")
    at = at_points(200, sizes=N[:1], horizons=D[:1])
    losses = np.where(at[0][:, :1] > 0.5, 2.0, 3.0) + np.zeros((1, 3))
    fit = point_fit(runs_with(losses, *at), "regmix")
    np.testing.assert_allclose(
        fit.evaluate(np.array([[0.9, 0.05, 0.05]]), 1e8, 2e9), 2.0, rtol=0.01
    )
    assert fit.optimum(1e8, 2e9).sel(domain="web") > 0.5


CURVES = {
    "additive": (additive.curve, POWER | MIXTURE),
    "joint": (
        joint.curve,
        {n: v for n, v in (POWER | MIXTURE).items() if n not in "AB"}
        | {"C_A": MIXTURE["C"], "C_B": MIXTURE["gamma"]}
        | {"gamma_A": ("component", [1.2] * 3), "gamma_B": ("component", [0.7] * 3)},
    ),
    "exponential": (exponential.mixing, MIXING | {"k": ("component", [1.0] * 3)}),
    "log-linear": (loglinear.curve, MIXING),
    "bimix": (bimix.curve, BIMIX),
    "trend": (
        partial(exponential.trend, mixture=np.array([0, 1, 2, 1])),
        POWER | {"A": MIXTURE["C"], "B": MIXTURE["gamma"]},
    ),
}


@pytest.mark.parametrize("name", CURVES)
def test_slopes_match_finite_differences(name):
    curve, truth = CURVES[name]
    values = {k: v.values[0] for k, v in xr.Dataset(truth).items()}
    rng = np.random.default_rng(0)
    rows = Rows(rng.dirichlet(np.ones(3), 4), rng.normal(size=4), rng.normal(size=4))
    slopes = curve(values, rows)[1]
    assert set(slopes) == set(values)
    for key, value in values.items():

        def loss(x, key=key, value=value):
            return curve(values | {key: x.reshape(np.shape(value))}, rows)[0]

        numeric = approx_fprime(np.ravel(value), loss, 1e-7)
        np.testing.assert_allclose(slopes[key].reshape(4, -1), numeric, rtol=1e-5, atol=1e-6)


def test_slopes_are_finite_at_weight_zero():
    p = {"C": np.array([1.0, 2.0]), "gamma": np.array([0.5, 0.5])}
    loss, slopes = additive.mixture_term(p, np.array([[1.0, 0.0]]))
    assert loss == 1.0
    np.testing.assert_array_equal(slopes["C"], [[-1.0, 0.0]])
    np.testing.assert_array_equal(slopes["gamma"], [[0.0, 0.0]])


def test_huber_gradient():
    x = np.random.default_rng(0).normal(0, 2 * HUBER, 20)
    assert check_grad(lambda r: huber(r)[0], lambda r: huber(r)[1], x) < 1e-7


def test_a_search_that_stops_short_says_so(monkeypatch):
    monkeypatch.setattr("bayesmix.pointfit.curves._MAX_STEPS", 2)
    rows = Rows(np.ones((9, 1)), np.zeros(9), np.linspace(-1, 1, 9))
    truth = {"E": np.array(1.0), "B": np.array(1.0), "beta": np.array(0.5)}
    start = {"E": np.array(0.1), "B": np.array(0.1), "beta": np.array(1.5)}
    y = np.log(chinchilla.power_terms(truth, rows)[0])
    end = fit_curve(chinchilla.power_terms, [start], chinchilla.POWER_BOUNDS, rows, y)
    assert not end.converged


def test_parameters_on_a_bound_are_named():
    space = Space({"E": np.array(1.0), "t": np.zeros(2)}, {"E": (0.1, 9.0), "t": (-5.0, 5.0)})
    point = space.point({"E": np.array(1.0), "t": np.array([0.0, 5.0])})
    assert space.on_bounds(point) == ("t[1]",)
    # losses that do not depend on the domain's own share
    at = at_points(20, sizes=N[:1], horizons=D[:1])
    fit = point_fit(runs_with(np.full((20, 3), 2.0), *at), "bimix")
    assert {"alpha[web]", "alpha[code]", "alpha[books]"} <= set(fit.at_bounds)


def test_every_law_is_tested():
    assert set(POINT_LAWS) == {
        "point:transfer", "point:regression", "point:quantization", "additive", "joint",
        "exponential", "log-linear", "bimix", "regmix", "linear", "chinchilla", "mean",
    }  # fmt: skip
