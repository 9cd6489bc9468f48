"""What every point fit offers: predictions, an optimum, a bootstrap, and honest blanks."""

import sys

import numpy as np
import pytest

from bayesmix.constraints import Bounds
from bayesmix.pointfit import POINT_LAWS, point_fit
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
    import bayesmix as bm

    fit = point_fit(bm.runs_from_frame(frame, weight_resolution=0.0), law)
    predicted = fit.predict(UNIFORM, 1e8, 2e9).isel(row=0)
    assert np.isnan(predicted.sel(domain="books"))
    assert np.isfinite(predicted.sel(domain=["web", "code", "mean"])).all()


def test_bootstrap(fits):
    fit = fits["additive"]
    boot = fit.bootstrap(n=8, seed=1)
    prediction = boot.predict(UNIFORM, 1e8, 2e9, seed=2)
    assert dict(prediction.draws.sizes) == {"draw": 8, "row": 1, "domain": 5}
    table = prediction.summary()
    assert (table["lower"] < table["upper"]).all()
    # refits spread around the fit itself
    np.testing.assert_allclose(table["mean"], fit.predict(UNIFORM, 1e8, 2e9)[0], rtol=0.01)
    again = fit.bootstrap(n=8, seed=1).predict(UNIFORM, 1e8, 2e9, seed=2)
    np.testing.assert_array_equal(prediction.draws["loss"], again.draws["loss"])


def test_same_seed_same_fit(runs, fits):
    again = point_fit(runs, "additive")
    assert again.parameters.identical(fits["additive"].parameters)


def test_regmix_without_lightgbm(runs, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(ImportError, match=r"bayesmix\[rivals\]"):
        point_fit(runs, "regmix")
