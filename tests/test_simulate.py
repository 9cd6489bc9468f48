"""Simulated swarms against the law written out again, and against the noise's distributions."""

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

from bayesmix import law as laws
from bayesmix.discrepancy import scales
from bayesmix.priors import LogNormal, Normal
from bayesmix.reference import reference
from bayesmix.runs import runs_from_frame
from bayesmix.simulate import (
    draw_design,
    draw_parameters,
    observe,
    simulate,
    simulate_additive,
    simulate_from_prior,
    with_noise,
)

SIZES = [5e7, 1.5e8, 4e8]


def law_by_hand(truth, h, n_params, n_tokens):
    """One row's losses; the multiplier of the capacity problem by bracketing, not by Newton."""
    domains = range(truth.sizes["domain"])
    b, log_c, log_h = truth["b"].values, truth["log_c"].values, float(truth["log_H"])
    gains = [np.log(h[i] * b[i]) + log_c[i] if h[i] > 0 else -np.inf for i in domains]

    def sizes(nu):
        return [np.exp(max(log_h, (gains[i] - nu) / (b[i] + 1))) for i in domains]

    budget = n_params + (len(domains) - 1) * np.exp(log_h)
    x = sizes(optimize.brentq(lambda nu: sum(sizes(nu)) / budget - 1, -60, 60, xtol=1e-14))
    losses = []
    for i in range(truth.sizes["component"]):
        loss = float(truth["E"][i])
        if i in domains:
            loss += np.exp(log_c[i]) * x[i] ** -b[i]
        tokens = n_tokens ** float(truth.get("fade", 1.0)) * sum(
            float(truth["tau"][i, j]) * h[j] for j in domains
        )
        loss += np.exp(float(truth["log_A"][i])) * tokens ** -float(truth["a"][i])
        loss += np.exp(float(truth["log_G"][i])) * n_params ** -float(truth["g"])
        loss += np.exp(float(truth["log_Q"][i])) * n_tokens ** -float(truth["q"])
        losses.append(loss)
    return losses


def standardised(swarm):
    """Errors of log loss over sigma, shape (runs, checkpoints, components)."""
    observed = np.concatenate([swarm.runs.losses.values, swarm.runs.target_losses.values], axis=1)
    errors = np.log(observed / swarm.losses.values) / swarm.parameters["sigma"].values
    return errors.reshape(swarm.runs.n_runs, -1, errors.shape[1])


def test_losses_are_the_law():
    swarm = simulate(4, SIZES, n_mixtures=5, zeros=0.2, checkpoints=2, targets=["exam"], seed=1)
    runs = swarm.runs
    expected = [
        law_by_hand(swarm.parameters, *row)
        for row in zip(runs.weights.values, runs.n_params.values, runs.n_tokens.values, strict=True)
    ]
    np.testing.assert_allclose(swarm.losses.values, expected, rtol=1e-10)
    assert (runs.weights.values == 0).any()
    assert runs.targets == ("exam",)


def test_noise_is_multivariate_t_over_a_runs_checkpoints():
    swarm = simulate(2, [1e8], n_mixtures=4000, checkpoints=2, noise=0.01, dof=4.0, rho=0.7, seed=2)
    first, second = standardised(swarm)[:, 0], standardised(swarm)[:, 1]
    t = stats.t(4.0)
    both = (first + second) / np.sqrt(2 * 1.7), (first - second) / np.sqrt(2 * 0.3)
    for errors in (first, second, *both):
        assert stats.kstest(errors.ravel(), t.cdf).pvalue > 0.01
    # the checkpoints share one scale: independent t would be further out less often
    distance = (both[0] ** 2 + both[1] ** 2) / 2
    assert stats.kstest(distance.ravel(), stats.f(2, 4.0).cdf).pvalue > 0.01


def test_runs_of_one_mixture_share_scale_and_part_of_the_error():
    once = draw_design(["web", "code"], [1e8], n_mixtures=3000, seed=4).frame
    again = once.assign(run_id=once["run_id"] + "b")
    design = runs_from_frame(pd.concat([once, again]), weight_resolution=0.0)
    truth = simulate(["web", "code"], [1e8], n_mixtures=2, dof=4.0, rho=0.0, seed=1).parameters
    truth = truth.drop_vars("rho").assign(phi=0.6)
    drawn = observe(design, truth, seed=2)
    errors = np.log(drawn.runs.losses.values / drawn.losses.values) / truth["sigma"].values
    first, second = errors[:3000], errors[3000:]
    both = (first + second) / np.sqrt(2 * 1.6), (first - second) / np.sqrt(2 * 0.4)
    for part in (first, second, *both):
        assert stats.kstest(part.ravel(), stats.t(4.0).cdf).pvalue > 0.01
    distance = (both[0] ** 2 + both[1] ** 2) / 2
    assert stats.kstest(distance.ravel(), stats.f(2, 4.0).cdf).pvalue > 0.01


def test_noise_is_independent_across_components_and_runs():
    errors = standardised(simulate(2, [1e8], n_mixtures=4000, rho=0.9, seed=3))[:, 0]
    assert stats.spearmanr(errors[:, 0], errors[:, 1]).pvalue > 0.01
    assert stats.spearmanr(errors[1:, 0], errors[:-1, 0]).pvalue > 0.01
    # a shared scale would show in the sizes
    assert stats.spearmanr(abs(errors[:, 0]), abs(errors[:, 1])).pvalue > 0.01


def test_design_is_what_was_asked_for():
    design = draw_design(
        ["web", "code", "books"],
        SIZES,
        n_mixtures=[300, 200, 100],
        zeros=0.25,
        checkpoints=4,
        tokens=[1e9, 3e9, 8e9],
        seed=4,
    )
    frame = design.frame
    assert design.n_runs == 600
    assert len(design) == 2400
    assert design.checkpoints("late") == design
    of_run = frame.groupby("run_id")["n_tokens"]
    assert set(of_run.max()) == {1e9, 3e9, 8e9}
    np.testing.assert_allclose(of_run.get_group("m07_50M"), [0.25e9, 0.5e9, 0.75e9, 1e9])
    weights = [f"weight_{d}" for d in design.domains]
    parts = frame[weights].to_numpy() * 1e4
    np.testing.assert_allclose(parts, parts.round(), atol=1e-9)
    assert (parts.round().sum(axis=1) == 10_000).all()
    per_mixture = frame[weights][frame["n_tokens"] == 1e9]
    assert len(per_mixture) == 300
    # one of three domains is always kept: the others are left out with probability 1/4
    assert (per_mixture.to_numpy() == 0).mean() == pytest.approx(0.25 * 2 / 3, abs=0.03)
    small, large = (frame[frame["n_params"] == n] for n in (5e7, 4e8))
    np.testing.assert_array_equal(small[weights].to_numpy()[:400], large[weights].to_numpy())


def test_concentration_spreads_the_mixtures():
    spread = {
        c: draw_design(3, [1e8], n_mixtures=2000, concentration=c).weights.var().item()
        for c in (1.0, 10.0)
    }
    # variance of a Dirichlet's weight: (1/K)(1 - 1/K) / (K c + 1), and that of the rounding
    for c, variance in spread.items():
        assert variance == pytest.approx(2 / 9 / (3 * c + 1), rel=0.06)


def test_design_refuses_equal_sizes():
    with pytest.raises(ValueError, match=r"sizes must differ, got 1e\+08, 1e\+08"):
        draw_design(2, [1e8, 1e8], tokens=[2e9, 8e9])


def test_an_unknown_law_is_refused():
    with pytest.raises(ValueError, match="unknown law 'nope'; valid names: quantization"):
        simulate(2, [1e8], law="nope")


def test_design_refuses_lists_of_different_lengths():
    with pytest.raises(ValueError, match="2 sizes, 2 token counts and 3 numbers of mixtures"):
        draw_design(3, [1e8, 2e8], n_mixtures=[3, 2, 1])
    with pytest.raises(ValueError, match="2 sizes, 1 token counts"):
        draw_design(3, [1e8, 2e8], tokens=[1e9])


def test_observe_refuses_parameters_of_other_domains():
    truth = draw_parameters(["web", "code"])
    with pytest.raises(ValueError, match="parameters are of web, code; the design has a, b"):
        observe(draw_design(["a", "b"], [1e8]), truth)


@pytest.mark.parametrize("law", laws.LAWS)
def test_parameters_are_those_of_the_law_and_its_losses_believable(law):
    swarm = simulate(6, SIZES, law=law, targets=["exam"], seed=5)
    variant = laws.LAWS[law]
    # a target's row of tau needs no transfer between domains
    assert ("log_A" in swarm.parameters) == variant.noise
    assert ("log_G" in swarm.parameters) == variant.head
    uniform = draw_design(6, [1e8], n_mixtures=1, concentration=1e6, targets=["exam"])
    typical = observe(uniform, swarm.parameters, law=law).losses
    assert (typical > 0.8).all()
    assert (typical < 4.5).all()


def test_regression_is_blank_where_a_weight_is_zero():
    swarm = simulate(3, [1e8], n_mixtures=50, zeros=0.3, law="regression", seed=6)
    zero = swarm.runs.weights.values == 0
    assert zero.any()
    np.testing.assert_array_equal(np.isnan(swarm.runs.losses.values), zero)
    assert np.isinf(swarm.losses.values[zero]).all()


def test_the_seed_decides():
    one, again, other = (simulate(3, SIZES, seed=s) for s in (7, 7, 8))
    assert one.runs == again.runs
    assert one.parameters.identical(again.parameters)
    assert one.runs != other.runs
    assert not one.parameters.equals(other.parameters)


@pytest.fixture(scope="module")
def prior_swarms():
    design = draw_design(3, SIZES, n_mixtures=40, zeros=0.2, checkpoints=2, seed=9)
    # nothing shared by the components of a run, so that errors are independent
    alone = {"common_mean": Normal(-20.0, 1e-3), "outlier_scale": LogNormal(-20.0, 1e-3)}
    return design, simulate_from_prior(design, 60, priors=alone, seed=9)


def test_prior_truth_has_its_level_at_the_reference_point(prior_swarms):
    design, swarms = prior_swarms
    at = reference(design)
    point = laws.points(at.weights[None], np.array([at.n_params]), np.array([at.n_tokens]))
    for swarm in swarms[:5]:
        values = {name: swarm.parameters[name].values[()] for name in laws.PARAMETERS}
        loss = laws.evaluate(values, point, laws.LAWS["transfer"])[0]
        np.testing.assert_allclose(loss, swarm.parameters["level"], rtol=1e-10)


def test_prior_truth_differs_and_follows_the_prior(prior_swarms):
    design, swarms = prior_swarms
    # level: log-normal around the placeholder of 2.5 with spread 0.3
    z = [np.log(swarm.parameters["level"].values / 2.5) / 0.3 for swarm in swarms]
    assert stats.kstest(np.ravel(z), "norm").pvalue > 0.01
    assert all(swarm.runs.n_runs == design.n_runs for swarm in swarms)


def test_prior_noise_is_the_models(prior_swarms):
    design, swarms = prior_swarms
    unseen = design.weights.values == 0
    uniform = []
    for swarm in swarms:
        truth = swarm.parameters
        errors = np.log(swarm.runs.losses.values / swarm.losses.values)
        errors -= truth["offset"].values[scales(design).row_cell]
        scale = np.where(
            unseen,
            np.sqrt(truth["sigma"].values ** 2 + truth["sigma_unseen"].values ** 2),
            truth["sigma"].values,
        )
        # one checkpoint of each run: those of a run are not independent
        dof = np.where(unseen, float(truth["dof_unseen"]), float(truth["dof"]))
        uniform.append(stats.t(dof).cdf(errors / scale)[::2])
    uniform = np.array(uniform)
    for cells in (uniform[:, unseen[::2]], uniform[:, ~unseen[::2]]):
        assert stats.kstest(cells.ravel(), "uniform").pvalue > 0.01


def test_errors_of_a_run_are_wider_by_an_exponential():
    swarm = simulate(3, SIZES, n_mixtures=300, noise=0.01, dof=1e9, seed=4)
    truth = swarm.parameters.assign(outlier_scale=0.4)
    again = with_noise(swarm.runs, swarm.losses.values, truth, seed=5)
    errors = np.log(again.runs.losses.values / swarm.losses.values) / 0.01

    def cdf(x):
        nodes, weights = np.polynomial.laguerre.laggauss(40)
        return stats.norm.cdf(np.multiply.outer(x, np.exp(-0.4 * nodes))) @ weights

    # one component of each run: all of a run are as much wider
    assert stats.kstest(errors[:, 0], cdf).pvalue > 0.01
    assert stats.kstest(errors[:, 0], "norm").pvalue < 1e-6
    wide = np.argsort(abs(errors[:, 0]))[-60:]
    assert abs(errors[wide, 1]).mean() > 1.3 * abs(errors[:, 1]).mean()


def test_losses_at_printed_zeros_are_shifted():
    exact = draw_design(["web", "code"], SIZES, zeros=0.5, seed=1)
    design = runs_from_frame(exact.frame, weight_resolution=0.001)
    truth = draw_parameters(design.domains, noise=1e-9)
    truth = truth.assign(zero_shift=("component", [0.2, -0.1]))
    plain = observe(design, truth.drop_vars("zero_shift"), seed=2)
    shifted = observe(design, truth, seed=2)
    ratio = np.log(shifted.losses.values / plain.losses.values)
    missing = design.weights.values == 0
    assert missing.any(axis=0).all()
    np.testing.assert_allclose(ratio, missing * [0.2, -0.1], atol=1e-14)
    np.testing.assert_allclose(shifted.runs.losses, shifted.losses, rtol=1e-7)
    of_exact = [observe(exact, t, seed=2).losses for t in (truth, truth.drop_vars("zero_shift"))]
    np.testing.assert_array_equal(*of_exact)


def test_additive_losses_are_the_additive_law():
    design = draw_design(3, SIZES, n_mixtures=4, zeros=0.2, targets=["exam"], seed=10)
    swarm = simulate_additive(design, seed=10)
    p = {name: values.values for name, values in swarm.parameters.items()}
    for row, h in enumerate(design.weights.values):
        n_params, n_tokens = float(design.n_params[row]), float(design.n_tokens[row])
        for i in range(4):
            mixed = sum(p["C"][i, j] * h[j] ** p["gamma"][i, j] for j in range(3))
            loss = p["E"][i] + 1 / mixed
            loss += p["A"][i] / n_params ** p["alpha"][i] + p["B"][i] / n_tokens ** p["beta"][i]
            assert swarm.losses.values[row, i] == pytest.approx(loss, rel=1e-12)
    assert abs(standardised(swarm)).max() > 0.1
