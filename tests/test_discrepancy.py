"""The law's misfit outside the data: none inside, of the stated size outside."""

import numpy as np
import pytest
from synthetic import fit_of, parameters, swarm

from bayesmix.discrepancy import CORRELATION, PER_EFOLD, discrepancy_draws, efolds_outside

N_DRAWS = 40_000


@pytest.fixture(scope="module")
def runs():
    return swarm(("web", "code", "books"))


def test_inside_the_data_there_is_none(runs) -> None:
    n, d = runs.n_params.values, runs.n_tokens.values
    inside = discrepancy_draws(runs, n, d, 10, 3, np.random.default_rng(0))
    assert not inside.any()


def test_outside_it_grows_with_the_e_folds_and_is_correlated(runs) -> None:
    n = runs.n_params.values.max() * np.exp([1.0, 2.0, 0.0, 1.0])
    d = runs.n_tokens.values.max() * np.exp([0.0, 0.0, 3.0, 1.0])
    error = discrepancy_draws(runs, n, d, N_DRAWS, 3, np.random.default_rng(0))
    want = PER_EFOLD * np.array([1.0, 2.0, 3.0, np.sqrt(2)])
    # 5 standard errors of a standard deviation
    np.testing.assert_allclose(error.std(axis=0)[:, 0], want, rtol=5 / np.sqrt(2 * N_DRAWS))
    assert abs(error.mean(axis=0)).max() < 5 * want.max() / np.sqrt(N_DRAWS)
    correlation = np.corrcoef(error[:, 3], rowvar=False)
    np.testing.assert_allclose(correlation[0, 1:], CORRELATION, atol=5 / np.sqrt(N_DRAWS))
    # one slope a draw: rows along N are proportional
    np.testing.assert_allclose(error[:, 1], 2 * error[:, 0], rtol=1e-9)


def test_below_the_data_counts_too() -> None:
    fitted = np.array([1e8, 1e9])
    np.testing.assert_allclose(efolds_outside(1e8 / np.exp([2.0]), fitted), [2.0])


def test_predictions_take_it_in_both_intervals_or_leave_it_out(runs) -> None:
    fit = fit_of(parameters(runs.domains, n_draws=400, spread=0.0), runs)
    mixture = dict.fromkeys(runs.domains, 1 / 3)
    far = {"n_params": 1e12, "n_tokens": float(runs.n_tokens.values.max())}
    with_it = fit.predict(mixture, **far).draws
    without = fit.predict(mixture, **far, discrepancy=False).draws
    assert without["expected"].std("draw").max() < 1e-12
    efolds = np.log(1e12 / runs.n_params.values.max())
    got = np.log(with_it["expected"]).std("draw").sel(domain="web").item()
    assert got == pytest.approx(PER_EFOLD * efolds, rel=5 / np.sqrt(2 * 400))
    assert (with_it["loss"].std("draw") > without["loss"].std("draw")).all()
