"""Values of information against closed forms and quadrature."""

import numpy as np
import pytest
import scipy.integrate
from scipy.stats import norm
from scipy.stats.qmc import MultivariateNormalQMC

from bayesmix.information import _pareto_k, information

S = 4096


def spread(n, seed=0):
    """Standard normal numbers (S, n), evenly spread: one error in place of a tolerance's worth."""
    return MultivariateNormalQMC(np.zeros(n), seed=seed).random(S)


def knowledge_gradient(gap, sd):
    """Of a choice between 0 and x ~ N(gap, sd^2): Frazier et al. 2008, SIAM J. Control Optim."""
    return sd * norm.pdf(gap / sd) - abs(gap) * norm.cdf(-abs(gap) / sd)


@pytest.mark.parametrize("sd", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("gap", [-0.6, 0.0, 0.3])
def test_two_choices_of_a_normal_posterior(sd, gap):
    # theta ~ N(0, 1) is seen with noise: what is expected of it after is N(0, 1 / (1 + sd^2))
    draws = spread(2)
    theta, noise = draws[:, :1], draws[:, 1:]
    choices = np.concatenate([np.zeros_like(theta), gap + theta], axis=1)
    found = information(theta, sd**2 * np.eye(1), choices, noise)
    truth = knowledge_gradient(gap, 1 / np.sqrt(1 + sd**2))
    # measured: 9e-5
    assert found.value == pytest.approx(truth, abs=3e-4)
    assert found.trusted


def test_weights_that_fail_are_not_trusted():
    theta, noise = spread(2)[:, :1], spread(2)[:, 1:]
    choices = np.concatenate([np.zeros_like(theta), theta], axis=1)
    found = information(theta, 1e-6 * np.eye(1), choices, noise)
    assert found.value == pytest.approx(knowledge_gradient(0, 1), abs=1e-3)
    assert found.ess < 20
    assert not found.trusted


def test_correlated_noise_and_many_parameters():
    # theta in R^3 with covariance I, seen through A with noise of covariance R
    rng = np.random.default_rng(3)
    A, root, c = rng.normal(size=(5, 3)), rng.normal(size=(5, 5)), np.array([1.0, -0.5, 0.2])
    R = root @ root.T + 0.5 * np.eye(5)
    draws = spread(8)
    theta, noise = draws[:, :3], draws[:, 3:]
    found = information(theta @ A.T, R, np.stack([0 * theta[:, 0], 0.2 + theta @ c], 1), noise)
    told = A @ c @ np.linalg.solve(A @ A.T + R, A @ c)  # variance of E[c' theta | y]
    assert found.value == pytest.approx(knowledge_gradient(0.2, np.sqrt(told)), abs=0.01)


def test_an_outcome_of_many_numbers():
    # one number in sixty tells of the choice, far better than its noise: weights fail, and say so
    draws = spread(2)
    rng = np.random.default_rng(0)
    others, noise = rng.normal(size=(S, 59)), rng.normal(size=(S, 60))
    outcomes = np.concatenate([draws[:, :1], others], axis=1)
    choices = np.stack([np.zeros(S), draws[:, 0]], axis=1)
    noise_of = np.diag(np.r_[1e-4, np.ones(59)])
    found = information(outcomes, noise_of, choices, noise)
    assert found.value == pytest.approx(knowledge_gradient(0, 1), rel=0.03)
    assert found.ess < 100
    assert information(outcomes[:400], noise_of, choices[:400], noise[:400]).trusted is False


@pytest.fixture(scope="module")
def many_choices():
    """Objectives of 60 choices, and what 5 losses tell, linear in 6 normal parameters."""
    rng = np.random.default_rng(0)
    return 0.004 * rng.uniform(size=60), 0.02 * rng.normal(size=(60, 6)), rng.normal(size=(5, 6))


@pytest.mark.parametrize("sd", [1e6, 30.0, 10.0, 3.0])
def test_many_choices_and_few_draws(sd, many_choices):
    start, slopes, A = many_choices
    # E[theta | y] is normal, and 400,000 draws of it are the truth to 1e-5
    told = A.T @ np.linalg.solve(A @ A.T + sd**2 * np.eye(5), A)
    values, vectors = np.linalg.eigh(told)
    half = np.random.default_rng(1).normal(size=(200_000, 6)) * np.sqrt(np.maximum(values, 0))
    known = np.concatenate([half, -half]) @ vectors.T
    truth = start.min() - (start + known @ slopes.T).min(axis=1).mean()
    found = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        theta, noise = rng.normal(size=(1000, 6)), rng.normal(size=(1000, 5))
        choices = start + theta @ slopes.T
        one = information(theta @ A.T, sd**2 * np.eye(5), choices, noise, check=False)
        found.append(one.value)
    if sd == 1e6:  # it tells nothing
        assert truth == pytest.approx(0, abs=1e-9)
        assert set(found) == {0.0}
    # measured: 4e-4; against the choice by all draws 3e-3
    assert np.mean(found) == pytest.approx(truth, abs=6e-4)


def two_states(objective, distance, p=0.5):
    """Value with two equally likely states, by quadrature over the log of the odds after.

    An outcome that is normal given the state, its means `distance` standard deviations apart, has
    log odds of the first ~ N(d^2 / 2, d^2) under it, and N(-d^2 / 2, d^2) under the other.
    """

    def least(log_odds):
        first = 1 / (1 + np.exp(-log_odds))
        return (first * objective[0] + (1 - first) * objective[1]).min()

    def part(centre):
        return scipy.integrate.quad(
            lambda z: norm.pdf(z) * least(centre + distance * z), -8, 8, limit=300
        )[0]

    after = 0.5 * part(distance**2 / 2) + 0.5 * part(-(distance**2) / 2)
    return objective.mean(axis=0).min() - after


@pytest.mark.parametrize("distance", [0.5, 2.0, 6.0])
def test_a_posterior_of_two_states(distance):
    objective = np.array([[0.0, -1.0, 0.5], [0.0, 2.0, -0.2]])
    draws = spread(5)
    state = (draws[:, 0] > 0).astype(int)
    direction = np.array([3.0, -1.0, 2.0, 0.5])
    outcomes = state[:, None] * direction
    noise = np.diag([1.0, 2.0, 0.3, 4.0])
    noise *= (direction**2 / np.diag(noise)).sum() / distance**2
    found = information(outcomes, noise, objective[state], draws[:, 1:])
    assert found.value == pytest.approx(two_states(objective, distance), abs=1e-3)
    # half of all draws say the same
    assert found.trusted


def test_what_cannot_change_the_choice_is_worth_nothing():
    theta = spread(3)
    choices = np.stack([np.zeros(S), 5 + theta[:, 0]], axis=1)
    assert information(theta[:, :1], 4 * np.eye(1), choices, theta[:, 2:]).value == 0
    # an outcome that has nothing to do with the objective
    found = information(
        theta[:, 1:2], np.eye(1), np.stack([choices[:, 0], theta[:, 0]], 1), theta[:, 2:]
    )
    assert abs(found.value) < 0.002
    # an outcome that is the same whatever is true
    assert information(np.ones((S, 2)), np.eye(2), theta[:, :2], theta[:, 1:]).value == 0
    # no outcome, and no choice
    assert information(np.empty((S, 0)), np.empty((0, 0)), choices, np.empty((S, 0))).value == 0
    assert information(theta[:, :1], np.eye(1), choices[:, :1], theta[:, 2:]).value == 0


def test_no_outcome_is_worth_more_than_to_know():
    rng = np.random.default_rng(5)
    for few in (200, 1000):
        theta = rng.normal(size=(few, 6))
        choices = (theta[:, :3] @ rng.normal(size=(3, 20))) ** 2 / 3
        all_known = choices.mean(axis=0).min() - choices.min(axis=1).mean()
        for scale in (0.1, 1.0):
            found = information(
                theta, scale * np.eye(6), choices, rng.normal(size=(few, 6)), check=False
            )
            assert found.value < all_known
            assert np.isnan(found.pareto_k)


def test_the_standard_error_is_that_of_other_draws():
    # at 0.1 less what it cannot see: the draws also say what the present choice is
    for gap, few, tolerance in ((0.3, 400, 0.2), (0.1, 1000, 0.35)):
        rng = np.random.default_rng(8)
        values, errors = [], []
        for _ in range(60):
            theta, noise = rng.normal(size=(2, few, 1))
            choices = np.concatenate([0 * theta, gap + theta], axis=1)
            found = information(theta, np.eye(1), choices, noise, check=False)
            values.append(found.value)
            errors.append(found.standard_error)
        assert np.std(values) == pytest.approx(np.mean(errors), rel=tolerance)


def test_weights_of_one_draw_alone_are_not_trusted():
    """Where all others underflow no tail can be fitted, and ArviZ's k is no number or nonsense."""
    far = -np.cumsum(np.random.default_rng(0).exponential(15.0, 300))
    assert _pareto_k(np.concatenate([[0.0], far])[None]) > 0.7
    # evenly spread weights have no tail to speak of
    near = np.random.default_rng(1).normal(0, 0.1, 300)
    assert _pareto_k(near[None]) < 0.7
