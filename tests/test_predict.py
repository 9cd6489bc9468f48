"""Predictions against the law by hand, closed forms of the t, and what must be refused."""

import importlib

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import scipy.stats
import xarray as xr
from synthetic import fit_of, parameters, swarm

from bayesmix import predict, runs_from_frame
from bayesmix._cautions import below_floor
from bayesmix.draws import law_draws, losses

DOMAINS = ("web", "code", "books")
H = {"web": 0.5, "code": 0.3, "books": 0.2}


def by_hand(draws, h, n_params, n_tokens):
    """The law term by term, for one mixture with every x above the floor; shape (S, C)."""
    b, k = draws["b"], len(h)
    c, floor = np.exp(draws["log_c"]), np.exp(draws["log_H"])
    values = np.empty((len(b), draws["E"].shape[1]))
    for s in range(len(b)):
        budget = n_params + (k - 1) * floor[s]

        def excess(log_lambda, s=s, budget=budget):
            x = (h * b[s] * c[s] / np.exp(log_lambda)) ** (1 / (b[s] + 1))
            return x.sum() - budget

        log_lambda = scipy.optimize.brentq(excess, -100, 100, xtol=1e-13, rtol=1e-14)
        x = (h * b[s] * c[s] / np.exp(log_lambda)) ** (1 / (b[s] + 1))
        assert (x > floor[s]).all()
        tokens = n_tokens ** draws["fade"][s] * draws["tau"][s] @ h
        head = np.exp(draws["log_G"][s]) * n_params ** -draws["g"][s]
        head = head + np.exp(draws["log_Q"][s]) * n_tokens ** -draws["q"][s]
        noise = np.exp(draws["log_A"][s]) * tokens ** -draws["a"][s]
        values[s] = draws["E"][s] + noise + head
        values[s, :k] += c[s] * x ** -b[s]
    return values


@pytest.fixture(scope="module")
def fit():
    runs = swarm(DOMAINS, ("chat",), unobserved=("books",))
    return fit_of(parameters(DOMAINS, ("chat",), n_draws=40), runs)


def test_the_expected_loss_is_the_law(fit):
    draws = parameters(DOMAINS, ("chat",), n_draws=40)
    found = fit.predict(H, n_params=7e8, n_tokens=1e11, discrepancy=False).draws["expected"]
    truth = by_hand(draws, np.array([0.5, 0.3, 0.2]), 7e8, 1e11)
    assert list(found["domain"].values) == [*DOMAINS, "target:chat", "mean"]
    np.testing.assert_allclose(found.isel(row=0).values[:, :4], truth, rtol=1e-10)


def test_mean_is_over_the_domains_with_observed_losses(fit):
    drawn = fit.predict(H, n_params=7e8, n_tokens=1e11).draws
    for kind in ("expected", "loss"):
        mean = drawn[kind].sel(domain=["web", "code"]).mean("domain")
        np.testing.assert_allclose(drawn[kind].sel(domain="mean"), mean, rtol=1e-14)


def test_summary_has_the_contracts_columns(fit):
    table = pd.DataFrame(
        {
            "run_id": ["a", "b"],
            "weight_books": [0.2, 0.0],  # in another order than the fit's
            "weight_web": [0.5, 0.6],
            "weight_code": [0.3, 0.4],
            "note": ["x", "y"],
        }
    )
    found = fit.predict(table, n_params=1e9, n_tokens=1e10)
    summary = found.summary(0.8)
    assert list(summary) == [
        "row", "run_id", "n_params", "n_tokens", "domain", "mean", "sd", "lower", "upper",
        "expected_lower", "expected_upper", "prob",
    ]  # fmt: skip
    assert summary["domain"].tolist() == [*DOMAINS, "target:chat", "mean"] * 2
    assert summary["row"].tolist() == [0] * 5 + [1] * 5
    assert summary["run_id"].tolist() == ["a"] * 5 + ["b"] * 5
    assert (summary["prob"] == 0.8).all()
    assert found.mixtures["note"].tolist() == ["x", "y"]
    expected = found.draws["expected"].values
    for column, truth in {
        "mean": expected.mean(0),
        "sd": expected.std(0),
        "expected_lower": np.quantile(expected, 0.1, axis=0),
        "expected_upper": np.quantile(expected, 0.9, axis=0),
        "lower": np.quantile(found.draws["loss"].values, 0.1, axis=0),
        "upper": np.quantile(found.draws["loss"].values, 0.9, axis=0),
    }.items():
        np.testing.assert_allclose(summary[column], truth.ravel(), rtol=1e-12)
    alone = fit.predict(H, n_params=1e9, n_tokens=1e10).summary()
    np.testing.assert_allclose(summary["mean"][:5], alone["mean"], rtol=1e-12)


def test_a_run_is_a_t_in_log_loss_around_the_law():
    draws = parameters(DOMAINS, n_draws=40_000, spread=0)
    fit = fit_of(draws, swarm(DOMAINS))
    found = fit.predict(H, n_params=1e9, n_tokens=1e10, seed=3, discrepancy=False)
    summary = found.summary(0.9).iloc[:3]
    sigma, dof = draws["sigma"][0], draws["dof"][0]
    np.testing.assert_allclose(summary["sd"], 0, atol=1e-11)  # rounding of 40,000 terms
    np.testing.assert_allclose(summary["expected_lower"], summary["mean"], rtol=1e-11)
    for column, p in {"lower": 0.05, "upper": 0.95}.items():
        quantile = scipy.stats.t.ppf(p, dof)
        # four standard errors of a sample quantile
        error = 4 * np.sqrt(0.05 * 0.95 / 40_000) / scipy.stats.t.pdf(quantile, dof)
        scaled = np.log(summary[column] / summary["mean"]) / sigma
        np.testing.assert_allclose(scaled, quantile, atol=error)
    rest = np.log(found.draws["loss"] / found.draws["expected"]).isel(row=0).values[:, :3]
    assert scipy.stats.kstest(rest[:, 1] / sigma[1], scipy.stats.t(dof).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(rest.T)[0, 1]) < 0.05  # domains err on their own


def test_a_domain_without_tokens_is_noisier_by_what_the_fit_learned():
    draws = parameters(DOMAINS, n_draws=20_000, spread=0)
    draws["sigma_unseen"] = np.full((20_000, 3), 0.05)
    draws["dof_unseen"] = np.full(20_000, 2.5)
    fit = fit_of(draws, swarm(DOMAINS))
    found = fit.predict(
        {"web": 0.5, "code": 0.5, "books": 0.0}, n_params=1e9, n_tokens=1e10, seed=1
    )
    rest = np.log(found.draws["loss"] / found.draws["expected"]).isel(row=0)
    for name, scale, dof in (
        ("web", draws["sigma"][0, 0], draws["dof"][0]),
        ("books", np.hypot(draws["sigma"][0, 2], 0.05), 2.5),
    ):
        quartile = scipy.stats.t.ppf(0.75, dof)
        found_scale = float(rest.sel(domain=name).quantile(0.75)) / quartile
        assert found_scale == pytest.approx(scale, rel=0.02)


def test_a_printed_zero_is_off_the_law_by_what_the_fit_learned():
    draws, runs = parameters(DOMAINS, n_draws=40), swarm(DOMAINS)
    printed = runs_from_frame(runs.frame, weight_resolution=0.001)
    at = [{"web": 0.5, "code": 0.5, "books": 0.0}, H]
    table = pd.DataFrame(at).add_prefix("weight_").assign(n_params=1e9, n_tokens=1e10)
    law = fit_of(draws, printed).predict(table, seed=1).draws["expected"]
    exact = fit_of(draws, runs).predict(table, seed=1).draws["expected"]
    draws["zero_shift"] = np.random.default_rng(2).normal(0.1, 0.05, (40, 3))
    shifted = fit_of(draws, printed).predict(table, seed=1).draws["expected"]
    ratio = (shifted / law).sel(domain=list(DOMAINS))
    np.testing.assert_allclose(ratio.sel(row=1), 1.0, rtol=1e-14)
    np.testing.assert_allclose(ratio.sel(row=0)[:, :2], 1.0, rtol=1e-14)
    books = np.exp(draws["zero_shift"][:, 2])
    np.testing.assert_allclose(ratio.sel(row=0)[:, 2], books, rtol=1e-14)
    # an exact zero is the law's own
    again = fit_of(draws, runs).predict(table, seed=1).draws["expected"]
    np.testing.assert_array_equal(again, exact)


def test_all_errors_of_a_run_can_be_wider():
    draws = parameters(DOMAINS, n_draws=20_000, spread=0)
    draws["outlier_scale"] = np.full(20_000, 0.4)
    found = fit_of(draws, swarm(DOMAINS)).predict(H, n_params=1e9, n_tokens=1e10, seed=2)
    rest = np.log(found.draws["loss"] / found.draws["expected"]).isel(row=0).values[:, :3]
    scaled, dof = rest / draws["sigma"][0], float(draws["dof"][0])

    def cdf(x):
        nodes, weights = np.polynomial.laguerre.laggauss(40)
        return scipy.stats.t.cdf(np.multiply.outer(x, np.exp(-0.4 * nodes)), dof) @ weights

    assert scipy.stats.kstest(scaled[:, 1], cdf).pvalue > 1e-3
    assert abs(scipy.stats.spearmanr(*abs(scaled[:, :2]).T).statistic) > 0.05  # of one run


def test_a_printed_zero_is_predicted_at_half_the_resolution():
    table = swarm(DOMAINS).frame
    runs = runs_from_frame(table, weight_resolution=0.01)
    draws = parameters(DOMAINS, n_draws=8)
    fit = fit_of(draws, runs)
    found = fit.predict(
        {"web": 0.5, "code": 0.5, "books": 0.0}, n_params=1e9, n_tokens=1e10, discrepancy=False
    )
    truth = by_hand(draws, np.array([0.5, 0.5, 0.005]) / 1.005, 1e9, 1e10)
    np.testing.assert_allclose(found.draws["expected"].isel(row=0).values[:, :3], truth, rtol=1e-10)


def test_seeds_reproduce_and_differ(fit):
    one, same, other = (
        fit.predict(H, n_params=1e9, n_tokens=1e10, seed=seed, discrepancy=False).draws
        for seed in (1, 1, 2)
    )
    xr.testing.assert_identical(one, same)
    np.testing.assert_array_equal(one["expected"], other["expected"])
    assert (one["loss"] != other["loss"]).all()


def test_every_way_to_give_mixtures_agrees(fit):
    table = pd.DataFrame([{f"weight_{d}": w for d, w in H.items()}])
    array = xr.DataArray([0.2, 0.5, 0.3], {"domain": ["books", "web", "code"]}, "domain")
    rows = xr.concat([array, array], "row").transpose("domain", "row")
    truth = predict(fit, H, 1e9, 1e10).draws["expected"].values
    for weights in (table, array):
        np.testing.assert_array_equal(
            predict(fit, weights, 1e9, 1e10).draws["expected"].values, truth
        )
    both = predict(fit, rows, 1e9, 1e10).draws["expected"]
    np.testing.assert_allclose(both.values, np.concatenate([truth, truth], axis=1), rtol=1e-14)


def test_sizes_and_horizons_come_from_the_table_where_they_are_not_given(fit):
    table = pd.DataFrame({f"weight_{d}": [w, w] for d, w in H.items()})
    table["n_params"], table["n_tokens"] = [1e9, 5e9], [1e10, 1e11]
    found = fit.predict(table).draws["expected"]
    np.testing.assert_array_equal(found["n_params"], [1e9, 5e9])
    for row, (n, d) in enumerate([(1e9, 1e10), (5e9, 1e11)]):
        alone = fit.predict(H, n_params=n, n_tokens=d).draws["expected"]
        np.testing.assert_allclose(found.isel(row=row), alone.isel(row=0), rtol=1e-14)
    given = fit.predict(table, n_params=2e9).draws
    np.testing.assert_array_equal(given["n_params"], [2e9, 2e9])
    np.testing.assert_array_equal(given["n_tokens"], [1e10, 1e11])
    weights = table.drop(columns=["n_params", "n_tokens"])
    by_row = fit.predict(weights, table["n_params"], [1e10, 1e11]).draws["expected"]
    np.testing.assert_array_equal(by_row, found)


def test_weights_that_nearly_sum_are_renormalised(fit):
    near = {"web": 0.502, "code": 0.301, "books": 0.201}
    total = sum(near.values())
    exact = {name: weight / total for name, weight in near.items()}
    np.testing.assert_allclose(
        fit.predict(near, 1e9, 1e10).draws["expected"],
        fit.predict(exact, 1e9, 1e10).draws["expected"],
        rtol=1e-14,
    )


def test_regression_is_blank_where_it_has_no_value():
    fit = fit_of(parameters(DOMAINS, n_draws=40), swarm(DOMAINS), law="regression")
    found = fit.predict({"web": 0.6, "code": 0.4, "books": 0.0}, 1e9, 1e10).summary()
    blank = found.set_index("domain")[["mean", "sd", "lower", "expected_upper"]].isna()
    assert blank.loc[["books", "mean"]].all(axis=None)
    assert not blank.loc[["web", "code"]].any(axis=None)


def test_targets_alone_have_no_mean():
    runs = swarm(DOMAINS, ("chat",), unobserved=DOMAINS)
    fit = fit_of(parameters(DOMAINS, ("chat",), n_draws=8), runs)
    found = fit.predict(H, 1e9, 1e10).summary().set_index("domain")
    assert np.isnan(found.loc["mean", "mean"])
    assert found.loc["target:chat", "mean"] > 0


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"web": 0.5, "code": 0.5}, "domains are code, web; the fit's are web, code, books"),
        ({**H, "poems": 0.0}, "domains are books, code, poems, web"),
        ({"web": 0.5, "code": 0.3, "books": 0.1}, r"mixture 1: .* sum to 1"),
        ({"web": 0.9, "code": 0.3, "books": -0.2}, r"mixture 1: .* non-negative"),
        ({"web": np.nan, "code": 0.3, "books": 0.2}, r"mixture 1: .*nan"),
        (pd.DataFrame({f"weight_{d}": [] for d in H}), "there is no mixture to predict"),
        (np.array([0.5, 0.3, 0.2]), "a DataFrame with columns weight_<domain> .* not ndarray"),
    ],
)
def test_mixtures_that_are_refused(fit, weights, said):
    with pytest.raises(ValueError, match=said):
        fit.predict(weights, n_params=1e9, n_tokens=1e10)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n_params": 1e9}, "n_tokens is neither given nor a column"),
        ({"n_tokens": 1e10}, "n_params is neither given nor a column"),
        ({"n_params": 0, "n_tokens": 1e10}, "n_params must be positive"),
        ({"n_params": 1e9, "n_tokens": -1}, "n_tokens must be positive"),
        ({"n_params": np.inf, "n_tokens": 1e10}, "n_params must be positive"),
        (
            {"n_params": [1e9, 2e9], "n_tokens": 1e10},
            r"n_params must be one number or 1, .* \(2,\)",
        ),
    ],
)
def test_sizes_that_are_refused(fit, options, said):
    with pytest.raises(ValueError, match=said):
        fit.predict(H, **options)


def test_the_row_of_a_bad_size_is_named(fit):
    table = pd.DataFrame({f"weight_{d}": [w, w] for d, w in H.items()})
    table["n_params"] = ["1e9", "big"]
    with pytest.raises(ValueError, match=r"mixture 2: n_params .* 'big'"):
        fit.predict(table, n_tokens=1e10)


@pytest.mark.parametrize("prob", [0, 1, -0.1, 90])
def test_probabilities_that_are_refused(fit, prob):
    with pytest.raises(ValueError, match="between 0 and 1"):
        fit.predict(H, 1e9, 1e10).summary(prob)


def test_it_prints_the_mean_with_labelled_intervals(fit):
    found = fit.predict(H, 1e9, 1e10)
    assert "1 rows from 40 draws" in repr(found)
    assert "90% equal-tailed" in repr(found)
    assert "<table" in found._repr_html_()


def test_many_rows_take_fewer_draws_and_not_too_few(fit, monkeypatch):
    module = importlib.import_module("bayesmix.predict")  # bayesmix.predict is the function
    monkeypatch.setattr(module, "_LEAST_DRAWS", 5)
    monkeypatch.setattr(module, "_MOST_CELLS", 4 * 5 * 10)
    table = pd.DataFrame({f"weight_{d}": [w] * 10 for d, w in H.items()})
    found = fit.predict(table, 1e9, 1e10).draws["expected"]
    assert found.sizes["draw"] == 5
    kept = law_draws(fit.posterior["posterior"].to_dataset(), most=5)["E"]
    assert len(kept) == 5
    monkeypatch.setattr(module, "_MOST_CELLS", 4 * 5 * 9)
    said = "10 mixtures at once leave room for 4 draws: predict at most 9 at a time"
    with pytest.raises(ValueError, match=said):
        fit.predict(table, 1e9, 1e10)
    assert fit.predict(table.iloc[:9], 1e9, 1e10).draws.sizes["draw"] == 5


def test_a_model_below_the_floor_is_said(fit):
    floors = np.exp(fit.posterior["posterior"]["log_H"].values)
    between = float(np.median(floors))
    with pytest.warns(UserWarning, match="at or below the law's floor H of capacity under 50% of"):
        fit.predict(H, n_params=between, n_tokens=1e10)
    assert below_floor(fit, np.array([1e9, floors.max()]))[0].startswith(f"N = {floors.max():.3g} ")
    assert not below_floor(fit, floors.max() * (1 + 1e-9))
    # there every x is at the floor, and nothing is left that adds up to N + (K - 1) H
    draws = law_draws(fit.posterior["posterior"].to_dataset())
    small = {name: value.copy() for name, value in draws.items()}
    few, fewer = (
        losses(small, "transfer", np.full((1, 3), 1 / 3), np.array([n]), np.array([1e10]))
        for n in (floors.min(), 0.5 * floors.min())
    )
    head = np.exp(draws["log_G"][:, None]) * (
        floors.min() ** -draws["g"][:, None, None]
        - (0.5 * floors.min()) ** -draws["g"][:, None, None]
    )
    np.testing.assert_allclose(few - fewer, head, rtol=1e-6)
