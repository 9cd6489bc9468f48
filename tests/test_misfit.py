"""Scales of the misfit given offsets: against quadrature over the same density by SciPy."""

import numpy as np
import pymc as pm
import pytest
import xarray as xr
from scipy.stats import multivariate_normal
from synthetic import swarm

from bayesmix import load_dataset, runs_from_frame
from bayesmix.discrepancy import SCALES, scales
from bayesmix.misfit import with_learned_scales
from bayesmix.priors import LogNormal, Normal
from bayesmix.reference import swarm_priors

N_DRAWS = 4000
CORRELATION = 0.6


def _posterior(offset: np.ndarray, start: dict[str, np.ndarray]) -> xr.Dataset:
    """One chain whose draws all have the same offsets (cell, component)."""
    same = np.broadcast_to(offset, (1, N_DRAWS, *offset.shape))
    values = {name: (("chain", "draw"), start[name][None]) for name in SCALES}
    values["discrepancy_correlation"] = (("chain", "draw"), np.full((1, N_DRAWS), CORRELATION))
    return xr.Dataset({**values, "offset": (("chain", "draw", "cell", "component"), same)})


def test_scales_are_drawn_from_their_density_given_the_offsets() -> None:
    runs = load_dataset("tinyswarm")
    cells, priors = scales(runs), swarm_priors(runs, "transfer")
    basis, covariances = cells.basis(), cells.covariances()
    rng = np.random.default_rng(0)
    n_components = 3
    among = np.full((n_components, n_components), CORRELATION) + (1 - CORRELATION) * np.eye(3)
    truth = np.array([0.03, 0.004, 0.01])
    cov = np.tensordot(truth**2, covariances, 1)
    offset = basis @ np.linalg.cholesky(cov) @ rng.normal(size=(len(cov), 3))
    offset = offset @ np.linalg.cholesky(among).T

    grid = np.stack(
        np.meshgrid(*(np.log(s) + np.linspace(-4, 2, 13) for s in truth), indexing="ij"), -1
    ).reshape(-1, 3)
    values = (basis.T @ offset).ravel()
    density = np.empty(len(grid))
    for i, logs in enumerate(grid):
        full = np.kron(np.tensordot(np.exp(2 * logs), covariances, 1), among)
        density[i] = multivariate_normal(cov=full).logpdf(values)
        density[i] += sum(
            -0.5 * ((log - priors[name].mu) / priors[name].sigma) ** 2
            for name, log in zip(SCALES, logs, strict=True)
        )
    weights = np.exp(density - density.max())
    weights /= weights.sum()
    want = weights @ grid
    sd = np.sqrt(weights @ (grid - want) ** 2)

    start = {
        name: np.exp(priors[name].mu + priors[name].sigma * rng.normal(size=N_DRAWS))
        for name in SCALES
    }
    made = with_learned_scales(_posterior(offset, start), runs, priors, seed=1)
    drawn = np.log(np.column_stack([made[name].values[0] for name in SCALES]))
    # of 4000 draws the mean is off by sd / 63; the grid has half an e-fold between points
    np.testing.assert_allclose(drawn.mean(axis=0), want, atol=0.08 * sd.max())
    np.testing.assert_allclose(drawn.std(axis=0), sd, rtol=0.1)
    again = with_learned_scales(_posterior(offset, start), runs, priors, seed=1)
    xr.testing.assert_identical(made, again)


def test_scales_of_any_prior_are_learned_from_any_start() -> None:
    """A normal prior, that may be below 0, a wide one, and starts at 0 and below."""
    runs = load_dataset("tinyswarm")
    wide = {"bend_scale": Normal(0.0, 0.02), "offset_scale": LogNormal(-20.0, 8.0)}
    offset = scales(runs).left @ np.random.default_rng(0).normal(size=(14, 3)) * 0.01
    start = {name: np.linspace(-0.01, 0.01, N_DRAWS + 1)[:-1] for name in SCALES}
    priors = swarm_priors(runs, "transfer", wide)
    made = with_learned_scales(_posterior(offset, start), runs, priors, seed=0)
    for name in SCALES:
        assert np.isfinite(made[name]).all(), name
        assert (made[name] > 0).all(), name


def test_draws_of_many_cells_share_scales() -> None:
    frame = load_dataset("tinyswarm").frame
    tokens = np.exp(np.random.default_rng(0).uniform(12, 14.5, len(frame)))
    runs = runs_from_frame(frame.assign(n_tokens=tokens))
    n_cells = len(scales(runs).log_scale)
    assert n_cells > 60
    start = dict.fromkeys(SCALES, np.full(N_DRAWS, 0.01))
    among = np.linalg.cholesky(np.array([[1.0, CORRELATION], [CORRELATION, 1.0]]))
    values = 0.01 * np.random.default_rng(1).normal(size=(n_cells, 2)) @ among.T
    offset = scales(runs).left @ values
    made = with_learned_scales(_posterior(offset, start), runs, swarm_priors(runs, "transfer"), 0)
    # most of it is independent, and known to one part in the root of twice their number
    assert 50 <= len(np.unique(made["offset_scale"])) < N_DRAWS / 2
    assert made["offset_scale"].mean() == pytest.approx(0.01, rel=3 / np.sqrt(2 * 2 * n_cells))


def test_cells_that_show_nothing_leave_the_scales_as_they_are() -> None:
    runs = swarm(("web", "code")).where("n_params < 2e8").checkpoints("last")
    cells, priors = scales(runs), swarm_priors(runs, "transfer")
    assert cells.basis().shape[1] == 0
    start = dict.fromkeys(SCALES, np.full(N_DRAWS, 0.01))
    posterior = _posterior(np.zeros((len(cells.log_scale), 2)), start)
    assert with_learned_scales(posterior, runs, priors, seed=0) is posterior


@pytest.mark.parametrize("name", ["bend_scale", "slope_scale", "level"])
def test_densities_of_priors_are_pymc_s(name: str) -> None:
    prior = swarm_priors(load_dataset("tinyswarm"), "transfer")[name]
    values = np.array([0.001, 0.02, 0.5])
    with pm.Model():
        variable = prior.rv("x")
    np.testing.assert_allclose(
        prior.log_density(values), pm.logp(variable, values).eval(), rtol=3e-7
    )
