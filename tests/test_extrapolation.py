"""How far a prediction is from the data, what its width is made of, and seed noise."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from synthetic import fit_of, parameters, swarm

import bayesmix as bm
from bayesmix import plots
from bayesmix.discrepancy import evidence, scales
from bayesmix.replicates import noise_sentence

DOMAINS = ("web", "code", "books")


@pytest.fixture(scope="module")
def fit() -> bm.Fit:
    draws = parameters(DOMAINS, n_draws=4000, spread=0.0)
    draws |= {"offset_scale": np.full(4000, 0.01), "dof": np.full(4000, 500.0)}
    return fit_of(draws, swarm(DOMAINS))


def test_distances_are_e_folds_and_half_an_l1_distance(fit) -> None:
    runs = fit.runs
    n, d, h = runs.n_params.values, runs.n_tokens.values, runs.weights.values
    asked = np.array([1.0, 0.0, 0.0])
    table = pd.DataFrame([asked, h[4]], columns=[f"weight_{name}" for name in DOMAINS])
    table["n_params"] = [n.max() * np.e**2, n.max()]
    table["n_tokens"] = [d.min() / np.e, d.max()]
    got = (
        bm.extrapolation(fit, table)
        .groupby("row")[["efolds_n", "efolds_d", "mixture_distance"]]
        .first()
    )
    nearest = (abs(h - asked).sum(axis=1) / 2).min()
    np.testing.assert_allclose(got.loc[0], [2.0, 1.0, nearest], rtol=1e-9)
    np.testing.assert_allclose(got.loc[1], 0.0, atol=1e-12)


def test_the_width_of_a_normal_prediction_splits_into_its_variances(fit) -> None:
    h = dict(zip(DOMAINS, fit.runs.weights.values.mean(axis=0), strict=True))
    table = bm.extrapolation(fit, h, 4e8, 6e9).set_index("domain")
    cells = scales(fit.runs)
    hat = cells.hat(np.log([[4e8, 6e9]]))[0]
    # independent offsets of 1% at the cells and there, less the line, given none left at the cells
    left = cells.left
    told = left @ hat @ np.linalg.pinv(left @ left.T, rcond=1e-9) @ left @ hat
    misfit = np.sqrt(1 + hat @ hat - told)
    sigma = fit.posterior["posterior"]["sigma"].values[0, 0]
    z90 = 2 * 1.6448536
    for i, name in enumerate(DOMAINS):
        row = table.loc[name]
        assert row["parameters"] < 1e-9
        # 4,000 draws give a 90% width to about 2%, three standard errors 6%
        assert row["discrepancy"] == pytest.approx(z90 * misfit, rel=0.06)
        whole = z90 * 100 * np.hypot(0.01 * misfit, sigma[i])
        assert row["width"] == pytest.approx(whole, rel=0.06)
        parts = row[["parameters", "discrepancy", "run_noise"]]
        assert np.linalg.norm(parts) == pytest.approx(row["width"], rel=1e-9)


def test_seed_noise_is_the_pooled_deviation_of_repeats() -> None:
    rng = np.random.default_rng(0)
    rows = [
        {
            "run_id": f"m{m}_s{s}",
            "n_params": 1e8,
            "n_tokens": 2e9,
            "weight_web": h,
            "weight_code": 1 - h,
            "loss_web": 3 * np.exp(0.1 * h + 0.004 * rng.normal()),
        }
        for m, h in enumerate(rng.uniform(0.1, 0.9, 400))
        for s in range(3)
    ]
    got = bm.seed_noise(bm.runs_from_frame(pd.DataFrame(rows)))
    # 800 degrees of freedom: 5 standard errors
    assert got["web"] == pytest.approx(0.004, rel=5 / np.sqrt(2 * 800))
    assert np.isnan(got["code"])


def test_a_run_evaluated_twice_is_one_seed() -> None:
    row = {"n_params": 1e8, "n_tokens": 2e9, "weight_web": 0.5, "weight_code": 0.5}
    losses = {"a": (3.0, 3.1), "b": (3.2, 3.2001)}
    frame = pd.DataFrame(
        [{"run_id": run, **row, "loss_web": loss} for run, both in losses.items() for loss in both]
    )
    means = [np.log(both).mean() for both in losses.values()]
    with pytest.warns(bm.RunsWarning, match="several rows of one run"):
        runs = bm.runs_from_frame(frame)
    one = runs.select(np.arange(2))
    assert bm.seed_noise(runs)["web"] == pytest.approx(np.std(means, ddof=1))
    assert np.isnan(bm.seed_noise(one)["web"])


def test_without_repeats_seed_noise_is_blank(fit) -> None:
    table = bm.noise_table(fit)
    assert table["seed_noise"].isna().all()
    assert "cannot be told apart" in noise_sentence(fit)
    np.testing.assert_allclose(
        table["noise_and_misfit"], fit.posterior["posterior"]["sigma"].values[0, 0]
    )


def test_repeats_are_said(fit) -> None:
    frame = fit.runs.frame
    again = frame.assign(run_id=frame["run_id"] + "b")
    losses = [c for c in frame if str(c).startswith("loss_")]
    again[losses] *= np.exp(0.01 * np.sqrt(2))  # two errors of 1% each about their mean
    twice = replace(fit, runs=bm.runs_from_frame(pd.concat([frame, again])))
    assert noise_sentence(twice).endswith("seed noise 1%.")


def test_the_source_of_the_misfit_is_said(fit) -> None:
    assert "is learned, from 4 pairs" in evidence(fit.runs)
    assert "is learned" in repr(fit)
    one = fit.runs.where("n_params < 1.5e8 and n_tokens < 3e9")
    assert "is the prior's: one pair of them does not show it" in evidence(one)
    assert evidence(one).endswith("Runs of one N and D do not show the slope over it.")
    assert "slope" not in evidence(fit.runs)
    nearly = fit.runs.frame.drop_duplicates("run_id").assign(n_params=1e8, n_tokens=2e9)
    nearly.loc[nearly.index[0], ["n_params", "n_tokens"]] *= 1.01
    nearly = bm.runs_from_frame(nearly)
    assert evidence(nearly).endswith("Runs of one N and D do not show the slope over it.")
    along = fit.runs.frame.assign(n_tokens=20 * fit.runs.frame["n_params"])
    along = bm.runs_from_frame(along.drop_duplicates(["run_id", "n_params"]))
    assert "N and D rise together: runs do not show what each does alone." in evidence(along)


def test_the_figure_shows_the_bands_over_the_fitted_sizes(fit) -> None:
    ax = plots.plot_extrapolation(fit, n_params=(1e8, 1e10), tokens_per_parameter=20.0)
    h = dict(zip(DOMAINS, fit.runs.weights.values.mean(axis=0), strict=True))
    (line,) = ax.lines
    size = line.get_xdata()
    want = fit.predict(h, float(size[-1]), 20.0 * float(size[-1])).draws["expected"]
    # the discrepancy is drawn anew: means over 4,000 draws
    assert line.get_ydata()[-1] == pytest.approx(float(want.sel(domain="mean").mean()), rel=2e-3)
    assert "parameters" in ax.get_xlabel()
    assert "nats per token" in ax.get_ylabel()
    assert any("90% equal-tailed" in text.get_text() for text in ax.get_legend().get_texts())
    plt.close(ax.figure)
    with pytest.raises(
        ValueError, match="unknown domain 'cod'; valid names: web, code, books, mean"
    ):
        plots.plot_extrapolation(fit, n_params=(1e8, 1e10), domain="cod")
