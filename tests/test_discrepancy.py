"""The law's misfit over scales: its parts against closed forms, least squares and simulation."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from synthetic import fit_of, parameters, swarm

from bayesmix import runs_from_frame
from bayesmix.discrepancy import Scales, _smooth, discrepancy_draws, scales

N_DRAWS = 40_000
SD_ERROR = 5 / np.sqrt(2 * N_DRAWS)  # 5 standard errors of a standard deviation


def _runs(scale: list[tuple[float, float]], n_mixtures: int = 6):
    """Each mixture a run of every size, evaluated at every (N, D) that is listed."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "run_id": f"m{m}_{n:g}",
            "n_params": n,
            "n_tokens": d,
            "weight_web": h,
            "weight_code": 1 - h,
            "loss_web": 3.0,
            "loss_code": 2.0,
        }
        for m, h in enumerate(rng.uniform(0.1, 0.9, n_mixtures))
        for n, d in scale
    ]
    return runs_from_frame(pd.DataFrame(rows))


def _posterior(runs, **scale: float) -> dict[str, np.ndarray]:
    n_cells, n_components = len(scales(runs).log_scale), len(runs.domains)
    names = ("offset_scale", "transient_scale", "bend_scale", "slope_scale")
    zero = dict.fromkeys(names, 0.0)
    values = {**zero, "discrepancy_correlation": 0.5, **scale}
    return {
        **{name: np.full(N_DRAWS, value) for name, value in values.items()},
        "offset": np.zeros((N_DRAWS, n_cells, n_components)),
    }


def _draws(runs, posterior, n, d) -> np.ndarray:
    n, d = np.broadcast_arrays(np.atleast_1d(n), np.atleast_1d(d))
    return discrepancy_draws(runs, posterior, n, d, np.random.default_rng(1))


LATE = [(1e8, 1e9), (1e8, 2e9), (3e8, 1e9), (3e8, 2e9), (3e8, 4e9)]


def test_rows_of_one_n_and_d_share_a_cell() -> None:
    runs = _runs([(1e8, 1e9), (1e8, 1.01e9), (1e8, 2e9)])
    cells = scales(runs)
    assert len(cells.log_scale) == 2
    tokens = runs.n_tokens.values
    np.testing.assert_array_equal(cells.row_cell, (tokens > 1.5e9).astype(int))


def test_dense_checkpoints_are_cells_of_their_own() -> None:
    tokens = 1e9 * 1.01 ** np.arange(50)
    cells = scales(_runs([(1e8, d) for d in tokens]))
    rows = np.log(_runs([(1e8, d) for d in tokens]).n_tokens.values)
    for m in range(len(cells.log_scale)):
        assert np.ptp(rows[cells.row_cell == m]) <= 0.02 + 1e-12
    assert len(cells.log_scale) == 17  # of three tokens each, but for the last
    # the last two of 50 are its own
    assert cells.to_go[-1] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("other", [1.001, 1.01, 1.1])
def test_sizes_that_hardly_differ_show_no_slope(other: float) -> None:
    runs = _runs([(1e8, 1e9), (1e8 * other, 1e9)])
    draws = _draws(runs, _posterior(runs, slope_scale=0.02), [1e9], [1e9])
    centre = np.log(1e8) + np.log(other) / 2
    want = 0.02 * (np.log(1e9) - centre)
    np.testing.assert_allclose(draws[:, 0].std(axis=0), want, rtol=SD_ERROR)
    offsets = _draws(runs, _posterior(runs, offset_scale=0.01), [1e9], [1e9])
    # a new one, less the mean of two
    np.testing.assert_allclose(offsets[:, 0].std(axis=0), 0.01 * np.sqrt(1.5), rtol=SD_ERROR)


def test_sizes_at_20_tokens_a_parameter_show_nothing_across() -> None:
    sizes = np.array([1e8, 2e8, 4e8])
    runs = _runs([(n, 20 * n) for n in sizes])
    posterior = _posterior(runs, slope_scale=0.02)
    np.testing.assert_allclose(_draws(runs, posterior, [1.6e9], [3.2e10]), 0, atol=1e-9)
    draws = _draws(runs, posterior, [1.6e9, 1e8], [3.2e10 * np.e**2, 2e9])
    # the way to it is partly across: the component of (0, 2) orthogonal to (1, 1)
    np.testing.assert_allclose(draws[:, 0].std(axis=0), 0.02 * np.sqrt(2), rtol=SD_ERROR)
    np.testing.assert_array_equal(draws[:, 1], 0)  # fitted


def test_the_regression_is_weighted_least_squares_that_counts_early_cells_less() -> None:
    cells = scales(_runs(LATE))
    np.testing.assert_allclose(cells.to_go, np.log([2, 1, 4, 2, 1]), atol=1e-12)
    y = np.random.default_rng(0).normal(size=5)
    x = np.column_stack([np.ones(5), cells.log_scale])
    weight = 1 / (1 + (cells.to_go / 0.5) ** 2)
    beta = np.linalg.solve(x.T * weight @ x, x.T * weight @ y)
    new = np.log([[1e9, 1e10], [2e8, 3e9]])
    want = np.column_stack([np.ones(2), new]) @ beta
    np.testing.assert_allclose(cells.hat(new) @ y, want, rtol=1e-9)


def test_offsets_in_the_model_have_no_mean_and_no_slopes() -> None:
    cells = scales(_runs(LATE))
    x = np.column_stack([np.ones(5), cells.log_scale - cells.log_scale.mean(axis=0)])
    weight = 1 / (1 + (cells.to_go / 0.5) ** 2)
    for name, basis in cells.offset_bases().items():
        assert basis.shape == (5, 2), name
        np.testing.assert_allclose(x.T * weight @ basis, 0.0, atol=1e-12)


def test_no_part_of_the_misfit_has_a_mean_or_slopes_and_all_ends_leave_the_bend_as_it_is() -> None:
    cells = scales(_runs(LATE))
    weight = 1 / (1 + (cells.to_go / 0.5) ** 2)
    x = np.column_stack([np.ones(5), cells.log_scale]) * weight[:, None]
    assert not cells.ended.all()
    # all of it lies in the basis, which has neither
    np.testing.assert_allclose(x.T @ cells.basis(), 0.0, atol=1e-12)
    ended = replace(cells, ended=np.ones(5, bool))
    bend = ended.basis() @ ended.covariances()[0] @ ended.basis().T
    want = cells.bend_covariance(cells.log_scale, cells.log_scale)
    np.testing.assert_allclose(bend, want, atol=1e-12)
    np.testing.assert_allclose(x.T @ want, 0.0, atol=1e-12)


def test_one_cell_leaves_nothing_to_learn() -> None:
    for basis in scales(_runs([(1e8, 1e9)])).offset_bases().values():
        assert basis.shape == (1, 0)


def test_a_fitted_cell_keeps_its_own_offset() -> None:
    runs = _runs(LATE)
    posterior = _posterior(runs, offset_scale=1.0, transient_scale=1.0, bend_scale=1.0)
    posterior["offset"] = np.random.default_rng(0).normal(size=posterior["offset"].shape)
    draws = _draws(runs, posterior, [1e8, 3e8], [2e9, 1e9])
    # the draws' bends at the cells are 0 up to the root of rounding
    np.testing.assert_allclose(draws, posterior["offset"][:, [1, 2]], atol=1e-5)


def test_a_new_cell_errs_as_a_prediction_of_least_squares() -> None:
    runs = _runs([(1e8, 1e9), (2e8, 1e9), (4e8, 1e9)])
    posterior = _posterior(runs, offset_scale=0.003)
    draws = _draws(runs, posterior, [4e8 * np.e**2], [1e9])
    x = np.log([1.0, 2.0, 4.0])
    outside = 2 + x[2] - x.mean()
    want = 0.003 * np.sqrt(1 + 1 / 3 + outside**2 / ((x - x.mean()) ** 2).sum())
    np.testing.assert_allclose(draws[:, 0].std(axis=0), want, rtol=SD_ERROR)
    assert np.corrcoef(draws[:, 0], rowvar=False)[0, 1] == pytest.approx(
        0.5, abs=5 / np.sqrt(N_DRAWS)
    )


def test_points_of_a_path_share_what_is_new() -> None:
    runs = _runs([(1e8, 1e9)])
    n, d = np.array([1e9, 1e10, 1e8]), np.array([2e10, 2e11, 1e9])
    posterior = _posterior(runs, offset_scale=0.03)
    rng = np.random.default_rng(1)
    path = discrepancy_draws(runs, posterior, n, d, rng, path=True)
    np.testing.assert_allclose(path[:, 0], path[:, 1], atol=1e-12)
    # the one cell is all of the regression, so a new one errs by both
    assert path[:, 0].std() == pytest.approx(0.03 * np.sqrt(2), rel=SD_ERROR)
    assert not path[:, 2].any()


def _joint(cells: Scales, new: np.ndarray, **scale: float) -> np.ndarray:
    """Covariance of the misfit at the cells and at one new scale, from its parts one by one."""
    n = len(cells.log_scale)
    at = np.concatenate([cells.log_scale, new])
    hat = np.vstack([cells.hat(cells.log_scale), cells.hat(new)])
    less_line = np.eye(n + 1) - np.pad(hat, ((0, 0), (0, 1)))
    own = scale["offset_scale"] ** 2 * np.eye(n + 1)
    own += scale["transient_scale"] ** 2 * np.diag([*cells.to_go**2, 0.0])
    # a bend is less its line; none is told where no run ends, and the rest has a line again
    shows = np.diag(np.append(cells.ended, True)) @ less_line
    bend = scale["bend_scale"] ** 2 * less_line @ shows @ _smooth(at, at) @ shows.T @ less_line.T
    return bend + less_line @ own @ less_line.T


def _told(cells: Scales, joint: np.ndarray, seen: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation at the new scale, given what the line leaves of the cells'."""
    basis = cells.basis()
    cross = joint[-1, :-1] @ basis
    known = basis.T @ joint[:-1, :-1] @ basis
    weights = cross @ np.linalg.pinv(known, rcond=1e-9, hermitian=True)
    # fewer early cells than the line leaves: no doubt then, but rounding
    return weights @ basis.T @ seen, np.sqrt(max(joint[-1, -1] - weights @ cross, 0.0))


@pytest.mark.parametrize(
    ("bend", "offset", "transient"), [(0.02, 0.005, 0.004), (0.0, 0.0, 0.01), (0.0, 0.01, 0.0)]
)
def test_a_new_cell_is_what_conditioning_on_the_fitted_ones_says(bend, offset, transient) -> None:
    sizes = [(1e8, 1e9), (2e8, 1e9), (4e8, 1e9), (4e8, 2e9), (8e8, 1e9), (8e8, 2e9)]
    runs = _runs(sizes)
    cells = scales(runs)
    new = np.log([[2.4e9, 2e9]])
    scale = {"bend_scale": bend, "offset_scale": offset, "transient_scale": transient}
    joint = _joint(cells, new, **scale)
    seen = cells.left @ np.array([0.01, -0.02, 0.01, 0.02, 0.03, 0.03])
    told, sd = _told(cells, joint, seen)

    posterior = _posterior(runs, **scale)
    posterior["offset"] = np.broadcast_to(seen[:, None], posterior["offset"].shape)
    draws = _draws(runs, posterior, 2.4e9, 2e9)[:, 0]
    error = 5 * sd / np.sqrt(N_DRAWS) + 1e-8
    np.testing.assert_allclose(draws.mean(axis=0), told, atol=error)
    np.testing.assert_allclose(draws.std(axis=0), sd, rtol=SD_ERROR, atol=1e-7)
    # of independent cells a new one is hardly told
    assert (abs(told) < 0.01) == (bend == transient == 0)


def test_slopes_are_in_doubt_where_the_runs_are_of_one_size_alone() -> None:
    runs = _runs([(1e8, 1e9), (1e8, 2e9)])
    draws = _draws(runs, _posterior(runs, slope_scale=0.02), [1e8, 1e8 * np.e, 1e8 / np.e**2], 4e9)
    np.testing.assert_allclose(draws[:, 0], 0, atol=1e-15)
    np.testing.assert_allclose(draws[:, 1].std(axis=0), 0.02, rtol=SD_ERROR)
    np.testing.assert_allclose(draws[:, 2], -2 * draws[:, 1], rtol=1e-12)
    both = _runs([(1e8, 1e9), (2e8, 1e9)])
    draws = _draws(both, _posterior(both, slope_scale=0.02), [9e8, 9e8], [1e9, np.e * 1e9])
    np.testing.assert_allclose(draws[:, 0], 0, atol=1e-15)
    np.testing.assert_allclose(draws[:, 1].std(axis=0), 0.02, rtol=SD_ERROR)


def test_a_smooth_covariance_is_that_of_twice_integrated_noise_but_for_a_line() -> None:
    """Second differences, over steps much less than its length, against quadrature."""
    step = 1e-2
    at = np.column_stack([step * np.arange(4), np.zeros(4)])
    second = np.array([[1.0, -2.0, 1.0, 0.0], [0.0, 1.0, -2.0, 1.0]])
    grid = (np.arange(30_000) + 0.5) * 3 * step / 30_000
    # a kink at each place of the noise
    response = second @ np.maximum(at[:, :1] - grid, 0.0)
    want = response @ response.T * (grid[1] - grid[0])
    np.testing.assert_allclose(second @ _smooth(at, at) @ second.T, want, rtol=8e-3)


def test_bends_beyond_two_sizes_are_nearly_those_of_a_cubic_spline() -> None:
    gap, d = 1.2, np.array([0.0, 0.7, 2.5])
    cells = Scales(np.array([[0.0, 0.0], [gap, 0.0]]), np.arange(2), np.ones(2, bool))
    new = np.column_stack([gap + d, np.zeros(3)])
    got, spline = np.diag(cells.bend_covariance(new, new)), d**2 * (gap + d) / 3
    assert got[0] == pytest.approx(0, abs=1e-12)
    # less by the next term of the covariance, which a length of 10 e-folds has
    assert (got[1:] < spline[1:]).all()
    np.testing.assert_allclose(got, spline, rtol=0.3)


def test_runs_end_where_their_last_rows_are() -> None:
    cells = scales(_runs(LATE))
    assert cells.ended.tolist() == [False, True, False, False, True]
    apart = _runs(LATE)
    frame = apart.frame.assign(run_id=[f"r{i}" for i in range(len(apart))])
    assert scales(runs_from_frame(frame)).ended.all()


def test_predictions_take_it_in_both_intervals_or_leave_it_out() -> None:
    runs = swarm(("web", "code", "books"))
    draws = parameters(runs.domains, n_draws=400, spread=0.0)
    fit = fit_of({**draws, "bend_scale": np.full(400, 0.01)}, runs)
    mixture = dict(zip(runs.domains, runs.weights.values.mean(axis=0), strict=True))
    n, d = runs.n_params.values, runs.n_tokens.values
    far = {"n_params": n.max() * np.e**3, "n_tokens": float(d.max())}
    with_it = fit.predict(mixture, **far).draws
    without = fit.predict(mixture, **far, discrepancy=False).draws
    assert without["expected"].std("draw").max() < 1e-12
    got = np.log(with_it["expected"]).std("draw").sel(domain="web").item()
    cells = scales(runs)
    at = np.log([[far["n_params"], far["n_tokens"]]])
    still = {"bend_scale": 0.01, "offset_scale": 0.0, "transient_scale": 0.0}
    joint = _joint(cells, at, **still)
    want = _told(cells, joint, np.zeros(len(cells.log_scale)))[1]
    assert got == pytest.approx(want, rel=5 / np.sqrt(800))
    assert (with_it["loss"].std("draw") > without["loss"].std("draw")).all()
