"""The model of skills: what it must do whatever its numbers, and its losses by hand."""

import numpy as np
import pytest

from bayesmix.simulate import draw_design
from bayesmix.skills import simulate_skills


@pytest.fixture(scope="module")
def swarm():
    return simulate_skills(draw_design(3, [5e7, 8e8], n_mixtures=4, seed=2), seed=5)


def test_losses_fall_with_scale_and_stay_above_the_irreducible(swarm) -> None:
    losses, n_params = swarm.losses.values, swarm.runs.n_params.values
    small, large = losses[n_params < 1e8], losses[n_params > 1e8]
    assert (large < small).all()
    E, gain = swarm.parameters["E"].values, swarm.parameters["gain"].values
    assert (losses > E).all()
    assert (losses < E + gain).all()


def test_a_domain_with_more_weight_has_less_loss(swarm) -> None:
    large = swarm.runs.n_params.values > 1e8
    for i in range(3):
        order = np.argsort(swarm.runs.weights.values[large, i])
        assert (np.diff(swarm.losses.values[large, i][order]) < 0).all()


def test_the_smallest_model_holds_one_skill() -> None:
    losses = simulate_skills(draw_design(2, [1e3, 1e6], n_mixtures=2, seed=1), seed=5).losses
    assert (losses.values[:2] > losses.values[2:]).all()


def test_the_same_seed_gives_the_same_swarm(swarm) -> None:
    again = simulate_skills(draw_design(3, [5e7, 8e8], n_mixtures=4, seed=2), seed=5)
    assert again.runs == swarm.runs
    other = simulate_skills(draw_design(3, [5e7, 8e8], n_mixtures=4, seed=2), seed=6)
    assert other.runs != swarm.runs
