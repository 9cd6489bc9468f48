"""Scores against closed forms and against numbers worked out by hand."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.stats import norm, spearmanr

from bayesmix import runs_from_frame
from bayesmix.scores import aggregate, headline, ranking, score, score_runs

LOSS = np.array([1.2, 2.0, 2.05, 2.9])
# the normal distribution by its quantiles, so that only their number limits the agreement
NORMAL = norm.ppf((np.arange(20_000) + 0.5) / 20_000)


def normal(mean, sd):
    return mean + sd * NORMAL


def test_scores_of_a_normal_forecast():
    mean, sd = 2.0, 0.3
    table = score(LOSS, np.full(4, mean), np.tile(normal(mean, sd), (4, 1)))
    z = (LOSS - mean) / sd
    crps = sd * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi))
    # 200 quantiles stand for the integral: 1.4e-4 is measured
    np.testing.assert_allclose(table["crps"], crps, rtol=2e-4)
    half = norm.ppf(0.95) * sd
    np.testing.assert_allclose(table["lower"], mean - half, rtol=1e-4)
    np.testing.assert_allclose(table["upper"], mean + half, rtol=1e-4)
    penalty = 20 * np.maximum(abs(LOSS - mean) - half, 0)
    np.testing.assert_allclose(table["interval_score"], 2 * half + penalty, rtol=1e-3)
    np.testing.assert_allclose(table["pit"], norm.cdf(z), atol=1e-4)
    for level in (50, 80, 90, 95):
        inside = abs(z) <= norm.ppf(0.5 + level / 200)
        np.testing.assert_array_equal(table[f"covered_{level}"], inside)


def test_one_absurd_draw_does_not_make_the_crps():
    draws = np.tile(normal(2.0, 0.3), (4, 1))
    plain = score(LOSS, np.full(4, 2.0), draws)["crps"]
    draws[:, 0] = 1e12
    np.testing.assert_allclose(score(LOSS, np.full(4, 2.0), draws)["crps"], plain, rtol=1e-3)


def test_calibrated_forecasts_cover_what_they_claim():
    rng = np.random.default_rng(0)
    centre = rng.normal(3, 1, 4000)
    draws = centre[:, None] + rng.normal(size=(4000, 999))
    table = score(centre + rng.normal(size=4000), centre, draws)
    made = aggregate(table)
    for level, name in {50: "_50", 80: "_80", 90: "", 95: "_95"}.items():
        # three standard errors of 4000 independent intervals
        p = level / 100
        assert abs(made[f"coverage{name}"] - p) < 3 * np.sqrt(p * (1 - p) / 4000)
    counts, _ = np.histogram(table["pit"], 10, (0, 1))
    assert ((counts - 400) ** 2 / 400).sum() < 21.7  # 99% of chi squared with 9 degrees


def test_a_point_has_an_error_and_no_interval():
    table = score(LOSS, LOSS + 0.1)
    np.testing.assert_allclose(table["crps"], 0.1)
    made = aggregate(table)
    assert made["mre"] == pytest.approx(100 * np.mean(0.1 / LOSS))
    assert made["mae"] == pytest.approx(0.1)
    for name in ("coverage", "coverage_50", "width", "interval_score"):
        assert np.isnan(made[name])


@pytest.mark.parametrize("draws", [None, np.full((2, 5), 2.0)])
@pytest.mark.parametrize("blank", [np.nan, np.inf])
def test_a_blank_is_a_blank_everywhere(draws, blank):
    predicted = np.array([2.0, blank])
    if draws is not None:
        draws = draws.copy()
        draws[1, 2] = np.nan
    table = score(np.array([2.0, 2.0]), predicted, draws)
    assert table.drop(columns="loss").loc[1].isna().all()
    assert table.loc[0, "crps"] == 0
    # an average over the cells that a law likes would flatter it
    assert np.isnan(aggregate(table)["mre"])


@pytest.fixture
def runs():
    """Three runs of one size and one of another; c has weight 0, one loss is blank; a target."""
    return runs_from_frame(
        pd.DataFrame(
            {
                "run_id": list("pqrs"),
                "n_params": [1e8, 1e8, 1e8, 4e8],
                "n_tokens": 2e9,
                "weight_a": [0.5, 0.8, 0.5, 0.3],
                "weight_b": [0.5, 0.2, 0.5, 0.3],
                "weight_c": [0.0, 0.0, 0.0, 0.4],
                "loss_a": [3.0, 2.0, 3.1, 1.0],
                "loss_c": [5.0, 4.0, 5.1, np.nan],
                "target_exam": 2.0,
            }
        ),
        weight_resolution=0.0,
    )


def forecast(runs, sd=0.1, n_draws=4000, common=0.0):
    """Draws around the losses, of which `common` is shared by the cells of a draw."""
    names = [*runs.domains, "target:exam"]
    rng = np.random.default_rng(1)
    centre = np.nan_to_num(np.hstack([runs.losses.values, runs.target_losses.values]), nan=2.0)
    own = sd * rng.normal(size=(n_draws, *centre.shape))
    draws = xr.DataArray(
        centre + own + common * rng.normal(size=(n_draws, 1, 1)),
        dims=("draw", "row", "domain"),
        coords={"domain": names},
    )
    return draws.mean("draw"), draws


def test_cells_are_what_was_observed(runs):
    cells, _ = score_runs(runs, ("a", "c"), *forecast(runs))
    assert cells["domain"].value_counts().to_dict() == {
        "a": 4, "c": 3, "target:exam": 4, "mean": 3
    }  # fmt: skip
    at = cells.set_index(["run_id", "domain"])
    assert at.loc[("q", "mean"), "loss"] == 3.0
    assert at.loc[("q", "a"), "weight"] == 0.8
    assert at["weight"].xs("mean", level=1).isna().all()
    assert at["weight"].xs("target:exam", level=1).isna().all()
    assert at.loc[("s", "a"), "n_params"] == 4e8
    # the mean of two independent errors of 0.1
    width = (at["upper"] - at["lower"]).xs("mean", level=1)
    np.testing.assert_allclose(width, 2 * norm.ppf(0.95) * 0.1 / np.sqrt(2), rtol=0.05)


def test_scores_separate_cells_at_weight_zero(runs):
    predicted, draws = forecast(runs)
    off = xr.DataArray([0.0, 0.0, 0.5, 0.0], {"domain": predicted["domain"]}, ("domain",))
    made = headline(*score_runs(runs, ("a", "c"), predicted + off, draws + off))
    # domain c has weight 0 wherever it has a loss, and its loss is 5.0, 4.0, 5.1
    relative = [0.5 / 5.0, 0.5 / 4.0, 0.5 / 5.1]
    assert made["mre"] == pytest.approx(100 * sum(relative) / 7, abs=0.1)
    assert made["mre_pos"] == pytest.approx(0, abs=0.1)
    assert made["coverage_pos"] == 1
    assert made["coverage"] == pytest.approx(4 / 7)
    assert made["coverage_mean"] == 0


def test_pairs_are_of_one_size_and_of_different_mixtures(runs):
    # errors that all runs share cancel in a difference, as draws are joint
    _, pairs = score_runs(runs, ("a", "c"), *forecast(runs, common=1.0))
    assert pairs[["run_id", "other"]].values.tolist() == [["p", "q"], ["q", "r"]]
    np.testing.assert_allclose(pairs["loss"], [1.0, -1.1])
    np.testing.assert_allclose(pairs["upper"] - pairs["lower"], 2 * norm.ppf(0.95) * 0.1, rtol=0.05)
    made = headline(*score_runs(runs, ("a", "c"), *forecast(runs, common=1.0)))
    assert made["coverage_difference"] == 1
    assert made["width"] > 50


def test_one_run_has_no_pairs_and_no_order(runs):
    cells, pairs = score_runs(
        runs.select([0]), ("a", "c"), *(x[..., :1, :] for x in forecast(runs))
    )
    assert len(pairs) == 0
    made = headline(cells, pairs)
    assert np.isnan([made["spearman"], made["regret"], made["coverage_difference"]]).all()


def test_domains_that_a_law_does_not_know_are_blank(runs):
    predicted, _ = forecast(runs)
    cells, pairs = score_runs(runs, ("a", "c"), predicted.sel(domain=["a", "b"]))
    assert cells.groupby("domain")["predicted"].count().to_dict() == {
        "a": 4, "c": 0, "mean": 0, "target:exam": 0
    }  # fmt: skip
    made = headline(cells, pairs)
    assert np.isnan([made["mre"], made["spearman"], made["regret"]]).all()
    assert made["mre_pos"] < 1


def test_rank_correlation_is_scipys():
    rng = np.random.default_rng(3)
    loss, predicted = rng.normal(size=(2, 30)).round(1)
    made = ranking(pd.DataFrame({"n_params": 1e8, "loss": loss, "predicted": predicted}))
    assert made["spearman"] == pytest.approx(spearmanr(loss, predicted).statistic)


def test_order_and_regret_are_within_a_size():
    cells = pd.DataFrame(
        {
            "n_params": [1e8] * 3 + [4e8] * 2,
            "loss": [3.0, 3.2, 3.4, 2.0, 2.1],
            "predicted": [3.1, 3.0, 3.3, 1.9, 1.8],
        }
    )
    made = ranking(cells)
    # the second is taken at either size, 0.2 and 0.1 nats above the best
    assert made["regret"] == pytest.approx(0.15)
    assert made["spearman"] == pytest.approx((0.5 - 1) / 2)


def test_equal_predictions_choose_at_random():
    cells = pd.DataFrame({"n_params": 1e8, "loss": [3.0, 3.2, 3.4], "predicted": 3.0})
    made = ranking(cells)
    assert made["regret"] == pytest.approx(0.2)
    assert np.isnan(made["spearman"])
    # beside a fold that has an order
    other = cells.assign(fold="b", predicted=[1.0, 2.0, 3.0])
    made = ranking(pd.concat([cells.assign(fold="a"), other]))
    assert (made["spearman"], made["regret"]) == (pytest.approx(1), pytest.approx(0.1))


def test_a_swarm_of_targets_is_scored_on_them():
    runs = runs_from_frame(
        pd.DataFrame(
            {
                "run_id": list("pq"),
                "n_params": 1e8,
                "n_tokens": 2e9,
                "weight_a": [0.5, 0.8],
                "weight_b": [0.5, 0.2],
                "target_exam": [2.0, 3.0],
                "target_chat": [4.0, 5.0],
            }
        )
    )
    predicted = xr.DataArray(
        [[2.2, 4.0], [3.0, 5.5]], {"domain": ["target:exam", "target:chat"]}, ("row", "domain")
    )
    cells, pairs = score_runs(runs, (), predicted)
    made = headline(cells, pairs)
    assert made["mre"] == pytest.approx((10 + 0 + 0 + 10) / 4)
    assert np.isnan(made["mre_pos"])
    assert cells.loc[cells["domain"] == "mean", "loss"].tolist() == [3.0, 4.0]
    assert pairs["predicted"].tolist() == pytest.approx([-1.15])
    assert made["spearman"] == pytest.approx(1)
