"""Arrays in vectors: put there and found again, by NumPy and by compiled code of any size."""

import numpy as np
import pytensor.tensor as pt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytensor import function

from bayesmix.packed import ViewAt, layout_of, pack

SHAPES = st.tuples(st.integers(0, 4), st.integers(1, 4), st.integers(0, 3))


@pytest.fixture(scope="module", params=["FAST_COMPILE", "NUMBA"])
def there_and_back(request: pytest.FixtureRequest):
    """A vector, a matrix and eight vectors more, taken apart and put together, and their sums."""
    vector, layout = pt.dvector(), pt.lvector()
    views = [ViewAt((None,))(vector, layout, 0), ViewAt((None, None))(vector, layout, 2)]
    views += [ViewAt((None,))(vector, layout, 5 + 2 * i) for i in range(8)]
    numbers = [view.sum() for view in views]
    return function([vector, layout], [pack([*views, *numbers]), views[1]], mode=request.param)


@settings(deadline=None, max_examples=40)
@given(SHAPES)
def test_arrays_are_found_again(there_and_back, shape: tuple[int, int, int]) -> None:
    n, m, k = shape
    shapes = [(n,), (m, k), *8 * [(k,)]]
    rng = np.random.default_rng(n + 10 * m + 100 * k)
    arrays = [rng.normal(size=each) for each in shapes]
    flat = np.concatenate([array.ravel() for array in arrays])
    packed, matrix = there_and_back(flat, layout_of(shapes))
    np.testing.assert_array_equal(packed[: flat.size], flat)
    np.testing.assert_allclose(packed[flat.size :], [a.sum() for a in arrays], atol=1e-14)
    np.testing.assert_array_equal(matrix, arrays[1])


@pytest.mark.parametrize("mode", ["FAST_COMPILE", "NUMBA"])
def test_what_is_viewed_is_not_overwritten(mode: str) -> None:
    """PyTensor computes in place where it may: not in the vector that the caller holds."""
    vector, layout = pt.dvector(), pt.lvector()
    view = ViewAt((None,))(vector, layout, 0)
    doubled = function([vector, layout], pack([pt.exp(view) * 2, view]), mode=mode)
    held = np.array([1.0, 2.0, 3.0])
    got = doubled(held, layout_of([(3,)]))
    np.testing.assert_array_equal(held, [1.0, 2.0, 3.0])
    np.testing.assert_allclose(got, np.r_[2 * np.exp(held), held], rtol=1e-15)


def test_views_have_one_or_two_axes() -> None:
    with pytest.raises(ValueError, match="one or two axes, not 3"):
        ViewAt((None, None, None))
