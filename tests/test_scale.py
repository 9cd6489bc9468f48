"""Choices along scales: against single recommendations, closed forms and brute force."""

import numpy as np
import pytest
from synthetic import fit_of, parameters, swarm

from bayesmix import Bounds, CVaR, TokenBudget, overtakes, recommend, scale_path
from bayesmix.optima import InfiniteObjectiveError

THREE = ("web", "code", "books")
A, B = (
    dict(zip(THREE, (0.5, 0.3, 0.2), strict=True)),
    dict(zip(THREE, (0.2, 0.3, 0.5), strict=True)),
)


@pytest.fixture(scope="module")
def fit():
    return fit_of(parameters(THREE, n_draws=40, spread=0.2), swarm(THREE))


def test_a_path_is_a_row_of_recommendations(fit):
    sizes, horizons = [1e8, 1e9, 2e10], [4e9, 2e10, 4e11]
    limits = [TokenBudget({"code": 5e9})]
    path = scale_path(fit, sizes, horizons, constraints=limits, risk=CVaR(0.5), seed=2)
    for step, (size, horizon) in enumerate(zip(sizes, horizons, strict=True)):
        rec = recommend(fit, size, horizon, constraints=limits, risk=CVaR(0.5), seed=2)
        one = path.isel(step=step)
        np.testing.assert_allclose(one["weights"], rec.weights, atol=1e-5)
        np.testing.assert_allclose(one["optima"], rec.optima, atol=1e-5)
        np.testing.assert_allclose(one["loss"], rec.loss, atol=1e-9)
    assert path["weights"].sel(domain="code")[-1] <= 5e9 / 4e11 + 1e-9
    assert 0 < path.attrs["residual"] <= 1e-6
    assert path.attrs["violation"] <= 1e-8
    with pytest.raises(ValueError, match="3 sizes, but 1 horizons"):
        scale_path(fit, sizes, [2e9])


def test_the_crossing_has_a_closed_form():
    # data noise alone, at exponents 0.2 and 0.4, so that the difference is
    # left D^-0.2 - right D^-0.4: it falls below 0 as D falls below (right / left)^5
    p, q, n_draws = 0.4, 0.6, 30
    draws = parameters(("web", "code"), n_draws=n_draws, spread=0.1)
    draws["log_c"] = np.full((n_draws, 2), -60.0)
    draws["a"] = np.tile([0.2, 0.4], (n_draws, 1))
    truth = np.geomspace(1.05e8, 1.95e8, n_draws)  # within what was fitted: no discrepancy
    left = np.exp(draws["log_A"][:, 0]) * (p**-0.2 - q**-0.2)
    right = left * (20 * truth) ** 0.2
    draws["log_A"][:, 1] = np.log(right / ((1 - q) ** -0.4 - (1 - p) ** -0.4))
    fit = fit_of(draws, swarm(("web", "code")), law="regression", chains=1)
    # less web is better where the other domain still lacks tokens, so it is overtaken
    a, b = {"web": q, "code": 1 - q}, {"web": p, "code": 1 - p}
    found = overtakes(fit, a, b, n_params=(1e8, 2e8))
    assert found["last"].all()
    assert not found["first"].any()
    d = 20 * found["size"].values
    expected = (right[:, None] * d**-0.4 - left[:, None] * d**-0.2) / 2
    np.testing.assert_allclose(found["difference"], expected, atol=1e-12)
    np.testing.assert_allclose(found["n_params"], truth, rtol=1e-5)


def test_a_crossing_is_where_the_losses_are_equal(fit):
    # over five decades: the chord between two of 200 sizes is then off by less than 2e-5 nats
    found = overtakes(fit, A, B, n_params=(1e7, 1e12), seed=4)
    ahead = found["difference"].values < 0
    np.testing.assert_array_equal(found["first"], ahead[:, 0])
    np.testing.assert_array_equal(found["last"], ahead[:, -1])
    turns = (~ahead[:, :-1] & ahead[:, 1:]).any(axis=1)
    np.testing.assert_array_equal(np.isfinite(found["n_params"]), turns)
    for s in np.flatnonzero(turns)[:5]:
        size = float(found["n_params"][s])
        loss = [
            fit.predict(h, size, 20 * size, seed=4).draws["expected"].sel(domain="mean")[s, 0]
            for h in (A, B)
        ]
        assert float(loss[0] - loss[1]) == pytest.approx(0, abs=2e-5)
    back = overtakes(fit, B, A, n_params=(1e7, 1e12), seed=4)
    np.testing.assert_allclose(back["difference"], -found["difference"], atol=1e-12)


def test_crossings_do_not_depend_on_how_finely_one_looks(monkeypatch):
    # far outside, where each place of its own would have an offset of its own
    draws = parameters(THREE, n_draws=40, spread=0.2) | {"offset_scale": np.full(40, 0.02)}
    fit = fit_of(draws, swarm(THREE))
    found = []
    for sizes in (20, 200):
        monkeypatch.setattr("bayesmix.scale._SIZES", sizes)
        found.append(overtakes(fit, A, B, n_params=(1e9, 1e12), seed=4))
        signs = np.sign(found[-1]["difference"])
        assert (abs(signs.diff("size")) > 0).sum("size").max() <= 1
    few, many = (f["n_params"].values for f in found)
    np.testing.assert_array_equal(np.isfinite(few), np.isfinite(many))


def test_constraints_that_come_one_by_one_hold_at_every_step(fit):
    limits = iter([Bounds({"code": (0, 0.1)})])
    path = scale_path(fit, [1e8, 1e9], [4e9, 2e10], constraints=limits, draws=20)
    assert (path["weights"].sel(domain="code") <= 0.1 + 1e-9).all()


def test_mixtures_of_which_none_has_a_loss_are_not_compared():
    fit = fit_of(parameters(THREE, n_draws=8), swarm(THREE), law="regression")
    without = {"web": 0.5, "code": 0.5}
    with pytest.raises(InfiniteObjectiveError, match="neither mixture has a finite loss"):
        overtakes(fit, without, {"web": 0.6, "code": 0.4}, n_params=(1e8, 1e9))
    # one that has is better throughout
    found = overtakes(fit, A, without, n_params=(1e8, 1e9))
    assert found["first"].all()
    assert found["last"].all()


def test_paths_that_are_refused(fit):
    with pytest.raises(ValueError, match="positive and ascending"):
        overtakes(fit, A, B, n_params=(1e9, 1e8))
    with pytest.raises(ValueError, match="unknown domain 'poems'"):
        overtakes(fit, {"poems": 1.0}, B, n_params=(1e8, 1e9))
    for bad in ({"n_params": (1e8, 1e9), "tokens_per_param": -5}, {"n_params": (-1.0, 1e9)}):
        with pytest.raises(ValueError, match="must be positive"):
            overtakes(fit, A, B, **bad)
    with pytest.raises(ValueError, match="n_params must be positive"):
        scale_path(fit, [-1.0], [2e9])
