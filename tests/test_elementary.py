"""Vectorised exponential and logarithm against NumPy's."""

import math

import numpy as np
import pytest

from bayesmix import elementary


def in_place(kernel, values: np.ndarray) -> np.ndarray:
    made = values.reshape(-1, 10).copy()
    kernel(made)
    return made.reshape(-1)


def test_exponentials_are_within_two_units_in_the_last_place() -> None:
    x = np.random.default_rng(0).uniform(-707, 708.5, 100_000)
    np.testing.assert_allclose(in_place(elementary.exp_each, x), np.exp(x), rtol=4.5e-16, atol=0)


@pytest.mark.parametrize("spread", [700.0, 1.0, 1e-3, 1e-9])
def test_logarithms_are_within_two_units_in_the_last_place(spread: float) -> None:
    x = np.exp(np.random.default_rng(1).uniform(-spread, spread, 100_000))
    np.testing.assert_allclose(in_place(elementary.log_each, x), np.log(x), rtol=4.5e-16, atol=0)


@pytest.mark.parametrize(
    ("x", "e_to_x"), [(0.0, 1.0), (-0.0, 1.0), (709.5, math.inf), (-709.0, 0.0)]
)
def test_exponentials_at_the_ends(x: float, e_to_x: float) -> None:
    assert elementary.exp(x) == e_to_x


def test_what_has_no_value_has_none() -> None:
    assert elementary.exp(math.inf) == elementary.log(math.inf) == math.inf
    assert elementary.exp(-math.inf) == 0.0
    assert elementary.log(0.0) == elementary.log(-0.0) == -math.inf
    for none in (elementary.exp(math.nan), elementary.log(math.nan), elementary.log(-1.0)):
        assert math.isnan(none)


def test_a_vector_is_treated_as_its_numbers_are() -> None:
    """The ends, too, in the vector instructions of a loop."""
    ends = np.array([math.inf, -math.inf, math.nan, -1.0, 0.0, 800.0, -800.0, 1.0, 5.0, 1e300])
    many = np.tile(ends, 8)
    for kernel, one in (
        (elementary.exp_each, elementary.exp),
        (elementary.log_each, elementary.log),
    ):
        alone = np.tile([one(x) for x in ends], 8)
        np.testing.assert_allclose(in_place(kernel, many), alone, rtol=4.5e-16)
