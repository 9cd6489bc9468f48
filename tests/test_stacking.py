"""Leave-one-run-out: the integral against quadrature, importance sampling against the exact."""

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad, simpson
from scipy.special import logsumexp
from scipy.stats import multivariate_t, norm, t
from synthetic import fit_of, parameters, swarm

import bayesmix as bm
from bayesmix import discrepancy
from bayesmix.noise import UNSEEN
from bayesmix.posterior import fitted_losses
from bayesmix.stacking import run_log_likelihood

DOMAINS = ("web", "code")


def two_checkpoints(runs):
    """Another checkpoint of every run, a little worse; of some only one domain."""
    late = runs.frame
    early = late.assign(n_tokens=late["n_tokens"] / 2)
    losses = ["loss_web", "loss_code"]
    noise = np.random.default_rng(5).normal(0.01, 0.004, early[losses].shape)
    early[losses] *= np.exp(noise)
    early.loc[::4, "loss_code"] = np.nan
    return bm.runs_from_frame(pd.concat([late, early]), weight_resolution=0.0)


@pytest.fixture(scope="module")
def fit():
    runs = two_checkpoints(swarm(DOMAINS, n_runs=8))
    rng = np.random.default_rng(3)
    draws = parameters(DOMAINS, n_draws=40, spread=0.01)
    draws["common"] = rng.uniform(0.003, 0.02, (40, 2))
    draws["rho"] = rng.uniform(0.2, 0.8, 40)
    draws["offset"] = 0.002 * rng.normal(size=(40, 8, 2))
    made = fit_of(draws, runs, chains=4)
    assert made.posterior["posterior"].sizes["cell"] == 8
    return made


def test_the_integral_over_the_run_effect(fit):
    """Against SciPy's quadrature of SciPy's multivariate t."""
    values = run_log_likelihood(fit)
    assert values.dims == ("chain", "draw", "run")
    posterior = fit.posterior["posterior"].to_dataset()
    observed = np.log(fit.runs.losses.values)
    law = np.log(fitted_losses(fit).values)
    cell = discrepancy.scales(fit.runs).row_cell
    for chain, draw, run in ((0, 0, 0), (1, 3, 4), (3, 9, 5)):
        p = posterior.isel(chain=chain, draw=draw)
        rows = np.flatnonzero(fit.runs.run_ids.values == values["run"].values[run])
        assert len(rows) == 2
        error = observed[rows] - law[chain, draw, rows] - p["offset"].values[cell[rows]]

        def density(f, p=p, error=error):
            total = norm.pdf(f)
            for i in range(2):
                known = np.isfinite(error[:, i])
                size, sigma = known.sum(), float(p["sigma"][i])
                shape = np.full((size, size), float(p["rho"])) + (1 - float(p["rho"])) * np.eye(
                    size
                )
                at = error[known, i] - float(p["common"][i]) * f
                total *= multivariate_t.pdf(at, shape=sigma**2 * shape, df=float(p["dof"]))
            return total

        exact = quad(density, -8, 8, limit=400, points=[-3, -1, 0, 1, 3], epsabs=0, epsrel=1e-9)[0]
        assert values.values[chain, draw, run] == pytest.approx(np.log(exact), abs=1e-6)


def test_the_integral_where_a_domain_was_left_out():
    """Its noise has degrees of freedom of its own, and the doubt about a weight of 0.

    How much wider a run's errors are is integrated out as well.
    """
    frame = swarm(DOMAINS, n_runs=8).frame
    frame.loc[2, ["weight_web", "weight_code"]] = [0.0, 1.0]
    frame.loc[2, ["loss_web", "loss_code"]] = [7.6, 2.86]  # near the law's
    runs = bm.runs_from_frame(frame, weight_resolution=0.0)
    draws = parameters(DOMAINS, n_draws=8, spread=0.01)
    draws["common"] = np.full((8, 2), 0.01)
    draws["sigma_unseen"] = np.random.default_rng(3).uniform(0.01, 0.03, (8, 2))
    draws["dof"], draws["dof_unseen"] = np.full(8, 9.0), np.full(8, 2.5)
    draws["outlier_scale"] = np.full(8, 0.1)
    fit = fit_of(draws, runs, chains=1)
    values = run_log_likelihood(fit)
    row = int(np.flatnonzero(runs.weights.values[:, 0] == 0)[0])
    at = list(values["run"].values).index(runs.run_ids.values[row])
    error = np.log(runs.losses.values[row]) - np.log(fitted_losses(fit).values[0, :, row])
    for s in (0, 5):
        scale = draws["sigma"][s].copy()
        scale[0] = np.hypot(scale[0], draws["sigma_unseen"][s, 0] * UNSEEN)

        def density(f, wider, s=s, scale=scale):
            wide = scale * np.exp(wider)
            left = (error[s] - 0.01 * f) / wide
            return norm.pdf(f) * (t.pdf(left, [2.5, 9.0]) / wide).prod()

        options = {"limit": 400, "points": [-3, -1, 0, 1, 3], "epsabs": 0, "epsrel": 1e-9}
        exact = sum(
            share * quad(density, -8, 8, args=(0.1 * z,), **options)[0]
            for z, share in zip(*np.polynomial.laguerre.laggauss(30), strict=True)
        )
        assert values.values[0, s, at] == pytest.approx(np.log(exact), abs=1e-6)


def test_losses_at_a_printed_zero_are_judged_with_their_shift():
    frame = swarm(DOMAINS, n_runs=8).frame
    frame.loc[2, ["weight_web", "weight_code"]] = [0.0, 1.0]
    shifted = frame.copy()
    shifted.loc[2, "loss_web"] *= 1.2
    draws = parameters(DOMAINS, n_draws=8, spread=0.01)
    plain = run_log_likelihood(
        fit_of(draws, bm.runs_from_frame(frame, weight_resolution=0.001), chains=1)
    )
    draws["zero_shift"] = np.tile([np.log(1.2), 0.7], (8, 1))
    runs = bm.runs_from_frame(shifted, weight_resolution=0.001)
    found = run_log_likelihood(fit_of(draws, runs, chains=1))
    np.testing.assert_allclose(found, plain, rtol=1e-10)


def test_the_integral_over_an_outlier():
    """Errors of 10 and 30 scales, likely far out in the tail of how much wider errors are."""
    frame = swarm(DOMAINS, n_runs=8).frame
    draws = parameters(DOMAINS, n_draws=4, spread=0)
    draws["common"] = np.full((4, 2), 0.01)
    draws["dof"] = np.full(4, 12.0)
    draws["outlier_scale"] = np.array([0.02, 0.05, 0.1, 0.3])
    sigma = draws["sigma"][0]
    law = fitted_losses(fit_of(draws, swarm(DOMAINS, n_runs=8), chains=1)).values[0, 0]
    frame.loc[2, ["loss_web", "loss_code"]] = law[2] * np.exp(sigma * [10, -8])
    frame.loc[5, ["loss_web", "loss_code"]] = law[5] * np.exp(sigma * [-30, 25])
    runs = bm.runs_from_frame(frame, weight_resolution=0.0)
    fit = fit_of(draws, runs, chains=1)
    values = run_log_likelihood(fit)
    f, wider = np.linspace(-7, 7, 281), np.linspace(0, 7, 2801)
    for row in (2, 5):
        error = np.log(runs.losses.values[row] / law[row])
        wide = sigma * np.exp(wider)[:, None]
        density = (t.pdf((error - 0.01 * f[:, None])[:, None] / wide, 12.0) / wide).prod(axis=2)
        of_wider = simpson(density * norm.pdf(f)[:, None], x=f, axis=0)
        for s, scale in enumerate(draws["outlier_scale"]):
            exact = np.log(simpson(of_wider * np.exp(-wider / scale) / scale, x=wider))
            found = float(values.sel(run=runs.run_ids.values[row]).values[0, s])
            assert found == pytest.approx(exact, abs=2e-5)


def test_loo_against_leaving_each_run_out():
    """With a prior of 400 parameter sets, every posterior is a sum: nothing is sampled twice."""
    draws = parameters(DOMAINS, n_draws=400, spread=0.01, seed=2)
    runs = swarm(DOMAINS, truth={name: value[0] for name, value in draws.items()}, n_runs=12)
    prior = fit_of(draws, runs)
    log_p = run_log_likelihood(prior).values.reshape(400, 12)
    exact = np.empty(12)
    for r in range(12):
        others = np.delete(log_p, r, axis=1).sum(axis=1)
        exact[r] = logsumexp(others + log_p[:, r]) - logsumexp(others)
    weights = np.exp(log_p.sum(axis=1) - logsumexp(log_p.sum(axis=1)))
    chosen = np.random.default_rng(0).choice(400, size=4000, p=weights)
    posterior = fit_of({name: value[chosen] for name, value in draws.items()}, runs)
    found = bm.loo(posterior)
    assert (found.pareto_k < found.good_k).all()
    np.testing.assert_allclose(found.elpd_i, exact, atol=0.04)
    assert found.elpd == pytest.approx(exact.sum(), abs=0.12)
    assert found.elpd_i.shape == (12,)
    assert found.n_data_points == 12


def test_a_run_without_losses_is_left_out():
    draws = parameters(DOMAINS, n_draws=400, spread=0.001, seed=2)
    runs = swarm(DOMAINS, truth={name: value[0] for name, value in draws.items()}, n_runs=12)
    frame = runs.frame
    frame.loc[frame["run_id"] == frame["run_id"][3], ["loss_web", "loss_code"]] = np.nan
    blank = bm.runs_from_frame(frame, weight_resolution=0.0)
    found = bm.loo(fit_of(draws, blank))
    assert found.elpd_i.shape == (11,)
    others = run_log_likelihood(fit_of(draws, runs)).drop_sel(run=frame["run_id"][3])
    np.testing.assert_allclose(run_log_likelihood(fit_of(draws, blank)), others, rtol=1e-12)


@pytest.fixture(scope="module")
def rivals():
    """The truth, and the same with the irreducible part off by 3%."""
    draws = parameters(DOMAINS, n_draws=200, spread=0.002, seed=4)
    runs = swarm(DOMAINS, truth={name: value[0] for name, value in draws.items()}, n_runs=20)
    off = dict(draws, E=draws["E"] * 1.03)
    return {"off": fit_of(off, runs), "true": fit_of(draws, runs)}


def test_stack_weighs_the_better_law(rivals):
    stack = bm.stack(rivals)
    assert stack.table.index[0] == "true"
    assert stack.weights["true"] > 0.9
    assert sum(stack.weights.values()) == pytest.approx(1)
    assert stack.pareto_k.dims == ("law", "run")
    assert dict(stack.pareto_k.sizes) == {"law": 2, "run": 20}
    assert "Leave-one-run-out comparison, 20 runs; Pareto k above " in repr(stack)
    assert stack.most_pareto_k == pytest.approx(1 - 1 / np.log10(200))
    assert "<table" in stack._repr_html_()


def test_stack_predicts_by_weight(rivals):
    stack = bm.stack(rivals)
    half = bm.Stack(stack.fits, stack.table.assign(weight=0.5), stack.pareto_k, 0.7)
    equal = dict.fromkeys(DOMAINS, 0.5)
    mixed = half.predict(equal, n_params=1e8, n_tokens=2e9, seed=1)
    assert mixed.draws.sizes["draw"] == 400
    alone = [fit.predict(equal, n_params=1e8, n_tokens=2e9, seed=1) for fit in rivals.values()]
    means = [part.draws["expected"].mean("draw").values for part in alone]
    np.testing.assert_allclose(mixed.draws["expected"].mean("draw"), np.mean(means, axis=0))
    uneven = bm.Stack(stack.fits, stack.table.assign(weight=[0.75, 0.25]), stack.pareto_k, 0.7)
    assert uneven.predict(equal, 1e8, 2e9).draws.sizes["draw"] == 200 + 67
    one = bm.Stack(stack.fits, stack.table.assign(weight=[1.0, 0.0]), stack.pareto_k, 0.7)
    drawn = one.predict(equal, 1e8, 2e9, seed=1).draws["loss"].values
    np.testing.assert_array_equal(drawn, alone[1].draws["loss"].values)


def test_what_is_refused(rivals):
    with pytest.raises(ValueError, match="two fits or more"):
        bm.stack({"one": rivals["true"]})
    with pytest.raises(ValueError, match="different runs: other"):
        bm.stack({**rivals, "other": fit_of(parameters(DOMAINS), swarm(DOMAINS, seed=9))})
    frame = rivals["true"].runs.frame
    frame.loc[0, ["weight_web", "weight_code"]] = [0.0, 1.0]
    zero = bm.runs_from_frame(frame, weight_resolution=0.0)
    fits = {law: fit_of(parameters(DOMAINS), zero, law=law) for law in ("transfer", "regression")}
    with pytest.raises(
        ValueError, match=r"regression is not of the same losses .* 1 are used by one"
    ):
        bm.stack(fits)
