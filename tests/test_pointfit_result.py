"""What every point fit offers: predictions, an optimum, a bootstrap, and honest blanks."""

import sys

import numpy as np
import pandas as pd
import pytest

import bayesmix as bm
from bayesmix.constraints import Bounds
from bayesmix.pointfit import POINT_LAWS, point_fit
from bayesmix.scores import score
from tests.synthetic import swarm

UNIFORM = {"web": 1 / 3, "code": 1 / 3, "books": 1 / 3}
FAST = [law for law in POINT_LAWS if law != "regmix"]


@pytest.fixture(scope="module")
def runs():
    return swarm(targets=("chat",), n_runs=60)


@pytest.fixture(scope="module")
def fits(runs):
    return {law: point_fit(runs, law) for law in FAST}


def test_unknown_law(runs):
    with pytest.raises(ValueError, match="unknown law 'nope'; valid names: point:transfer, "):
        point_fit(runs, "nope")


@pytest.mark.parametrize("law", FAST)
def test_predict(fits, law):
    fit = fits[law]
    assert law in repr(fit)
    predicted = fit.predict(UNIFORM, 1e8, 2e9)
    assert predicted.dims == ("row", "domain")
    assert list(predicted["domain"].values) == ["web", "code", "books", "target:chat", "mean"]
    if law == "chinchilla":  # no mixture here has three sizes
        assert np.isnan(predicted).all()
        assert not fit.converged
        return
    blank = law == "bimix"  # a target has no proportion
    assert np.isnan(predicted.sel(domain="target:chat")).all() == blank
    np.testing.assert_allclose(
        predicted.sel(domain="mean"), predicted.sel(domain=["web", "code", "books"]).mean("domain")
    )


@pytest.mark.parametrize("law", [law for law in FAST if law != "chinchilla"])
def test_laws_beat_or_are_the_mean(fits, runs, law):
    def error(fit):
        predicted = fit.predict(runs.frame).isel(domain=slice(3)).values
        return abs(predicted / runs.losses.values - 1).mean()

    assert error(fits[law]) <= error(fits["mean"])


def test_what_an_optimum_is_not_of(fits):
    with pytest.raises(ValueError, match="not the worst domain"):
        fits["additive"].optimum(1e8, 2e9, bm.Worst())
    for sizes in ((-1.0, 2e9), (1e8, np.inf)):
        with pytest.raises(ValueError, match="must be positive and finite"):
            fits["linear"].optimum(*sizes)


@pytest.mark.parametrize("law", ["transfer", "quantization"])
def test_parameters_of_what_has_no_loss_are_not_counted(law):
    """E, noise, a and a row of tau; b and c bear on how capacity is shared."""
    swarm = additive_swarm(8, seed=1)
    blank = bm.runs_from_frame(swarm.frame.assign(loss_web=np.nan))
    counts = [bm.point_fit(runs, f"point:{law}").n_parameters for runs in (swarm, blank)]
    assert counts[0] - counts[1] == {"transfer": 5, "quantization": 1}[law]


@pytest.mark.parametrize("law", [law for law in FAST if law not in ("chinchilla", "mean")])
def test_optimum_is_below_a_grid(fits, law):
    """No mixture of a fine grid is better than the optimum, within its bounds."""
    fit = fits[law]
    best = fit.optimum(
        1e8, 2e9, objective={"web": 0.5, "code": 0.5}, bounds=Bounds({"web": (0.0, 0.6)})
    )
    assert best.sum() == pytest.approx(1)
    assert best.sel(domain="web") <= 0.6 + 1e-12
    grid = np.array([[i, j, 40 - i - j] for i in range(25) for j in range(41 - i)]) / 40

    def value(weights):
        losses = fit.evaluate(weights, 1e8, 2e9)[:, :2].mean(axis=1)
        return np.where(np.isnan(losses), np.inf, losses)

    assert value(best.values[None])[0] <= value(grid).min() + 1e-9


def test_zero_weights(fits):
    only_web = {"web": 1.0, "code": 0.0, "books": 0.0}
    for law in ("point:regression", "bimix"):
        predicted = fits[law].predict(only_web, 1e8, 2e9).isel(row=0)
        assert np.isfinite(predicted.sel(domain="web"))
        assert np.isnan(predicted.sel(domain=["code", "mean"])).all()
    for law in ("point:transfer", "additive", "joint", "exponential", "log-linear", "linear"):
        assert np.isfinite(fits[law].predict(only_web, 1e8, 2e9)).all()


@pytest.mark.parametrize("law", ["point:transfer", "additive", "exponential", "bimix", "mean"])
def test_missing_cells(law):
    frame = swarm(n_runs=40).frame
    frame.loc[::3, "loss_web"] = np.nan
    frame["loss_books"] = np.nan
    fit = point_fit(bm.runs_from_frame(frame, weight_resolution=0.0), law)
    predicted = fit.predict(UNIFORM, 1e8, 2e9).isel(row=0)
    assert np.isnan(predicted.sel(domain="books"))
    assert np.isfinite(predicted.sel(domain=["web", "code", "mean"])).all()


def test_bootstrap(fits):
    fit = fits["additive"]
    boot = fit.bootstrap(n=8, seed=1)
    prediction = boot.predict(UNIFORM, 1e8, 2e9, draws=5, seed=2)
    assert dict(prediction.draws.sizes) == {"draw": 40, "row": 1, "domain": 5}
    # five new runs of every refit
    expected = prediction.draws["expected"].isel(row=0).transpose("draw", "domain").values
    np.testing.assert_array_equal(expected, np.repeat(expected[::5], 5, axis=0))
    table = prediction.summary()
    assert (table["lower"] < table["upper"]).all()
    # refits spread around the fit itself
    np.testing.assert_allclose(table["mean"], fit.predict(UNIFORM, 1e8, 2e9)[0], rtol=0.01)
    again = fit.bootstrap(n=8, seed=1).predict(UNIFORM, 1e8, 2e9, draws=5, seed=2)
    np.testing.assert_array_equal(prediction.draws["loss"], again.draws["loss"])


def test_the_noise_of_a_new_run_is_that_of_a_fitted_one(runs, fits):
    """Whole runs: errors of domains stay together; widened by sqrt(n / (n - p))."""
    fit = fits["mean"]
    drawn = fit.bootstrap(n=2).predict(UNIFORM, 1e8, 2e9, draws=400).draws
    ratio = np.log(drawn["loss"] / drawn["expected"]).isel(row=0, domain=slice(4)).values
    observed = np.concatenate([runs.losses.values, runs.target_losses.values], axis=1)
    own = np.log(observed / observed.mean(axis=0)) * np.sqrt(240 / 236)
    nearest = abs(ratio[:, None, :] - own).max(axis=2)
    assert nearest.min(axis=1).max() < 1e-12
    assert len(np.unique(nearest.argmin(axis=1))) == 60


def additive_swarm(n_runs, seed):
    """Losses of the additive law; the errors of a run's domains correlate by a half."""
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.ones(3), n_runs)
    gamma = np.array([[0.4, 0.6, 0.8], [0.7, 0.3, 0.5], [0.5, 0.8, 0.6]])
    scale = np.array([[3.0, 0.4, 0.8], [0.5, 4.0, 0.3], [0.6, 0.3, 2.0]])
    losses = 1 + 1 / (scale * weights[:, None, :] ** gamma).sum(axis=2)
    shared = rng.normal(size=(n_runs, 1)) + rng.normal(size=(n_runs, 3))
    frame = pd.DataFrame({"run_id": [f"r{i}" for i in range(n_runs)]})
    frame[["n_params", "n_tokens"]] = 1e8, 2e9
    for i, name in enumerate(("web", "code", "books")):
        frame[f"weight_{name}"] = weights[:, i]
        frame[f"loss_{name}"] = losses[:, i] * np.exp(0.01 / np.sqrt(2) * shared[:, i])
    return bm.runs_from_frame(frame, weight_resolution=0.0)


def test_evaluation_scores_the_intervals_of_point_fits():
    """The additive law is the truth: 90% intervals cover 90% of new losses, and of their mean."""
    runs = additive_swarm(240, seed=0)
    split = bm.ByMixture(2)
    plain = bm.evaluate(runs, ["additive"], split, progressbar=False)
    made = bm.evaluate(runs, ["additive"], split, bootstrap=10, progressbar=False)
    assert plain.summary()["coverage"].isna().all()
    line = made.summary().iloc[0]
    # 240 runs: a standard error of 0.02
    assert line["coverage"] == pytest.approx(0.9, abs=0.04)
    assert line["coverage_mean"] == pytest.approx(0.9, abs=0.05)
    assert line["width"] == pytest.approx(2 * 1.645, rel=0.15)
    assert line["mre"] == plain.summary()["mre"].item()
    assert line["crps"] == pytest.approx(made.summary()["mae"].item() / np.sqrt(2), rel=0.05)
    # the mean's errors correlate by a half: its interval is sqrt(2 / 3) as wide, not sqrt(1 / 3)
    assert line["width_mean"] / line["width"] == pytest.approx(np.sqrt(2 / 3), rel=0.1)
    with pytest.raises(ValueError, match="bootstrap must be 0 or more, got -1"):
        bm.evaluate(runs, ["additive"], split, bootstrap=-1)


def test_cells_that_some_refits_do_not_predict_have_no_interval():
    draws = np.array([[1.0, 2.0, 3.0], [1.0, np.nan, 3.0]])
    table = score(np.array([2.0, 2.0]), np.array([2.1, 2.1]), draws)
    assert table["covered_90"].isna().tolist() == [False, True]
    assert table["crps"].isna().tolist() == [False, True]
    assert table["pit"].isna().tolist() == [False, True]


def test_a_fit_through_all_points_learns_its_noise_from_runs_left_out():
    swarm = additive_swarm(64, seed=1)
    few = swarm.select(np.arange(3))
    fit = bm.point_fit(few, "linear")
    assert fit.n_parameters >= 9  # of 9 losses
    drawn = fit.bootstrap(n=2).predict(UNIFORM, 1e8, 2e9, draws=400)
    spread = np.log(drawn.draws["loss"] / drawn.draws["expected"]).std("draw")
    assert (spread.sel(domain=list(swarm.domains)) > 0.01).all()  # the noise alone is 0.01


def test_laws_without_anything_to_fit_say_so():
    frame = additive_swarm(12, seed=0).frame
    targets = frame.rename(columns={f"loss_{d}": f"target_{d}" for d in ("web", "code", "books")})
    fit = bm.point_fit(bm.runs_from_frame(targets, weight_resolution=0.0), "bimix")
    assert not fit.converged
    assert np.isnan(fit.predict(UNIFORM, 1e8, 2e9)).all()
    one = bm.point_fit(additive_swarm(12, seed=0).select([0]), "regmix")
    assert (one.converged, one.message) == (False, "fewer than two runs with losses")
    assert np.isnan(one.predict(UNIFORM, 1e8, 2e9)).all()


def test_same_seed_same_fit(runs, fits):
    again = point_fit(runs, "additive")
    assert again.parameters.identical(fits["additive"].parameters)


def test_regmix_without_lightgbm(runs, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(ImportError, match=r"bayesmix\[rivals\]"):
        point_fit(runs, "regmix")
