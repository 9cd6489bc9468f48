"""Coordinates of the sampler: one to one, and the density of the variable unchanged."""

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from bayesmix.coordinates import LogSoftplus


@pytest.fixture(scope="module")
def there_and_back():
    """u, by way of v, at one `at`."""
    u = pt.dscalar()
    to = LogSoftplus(-6.0)
    return pytensor.function([u], to.forward(to.backward(u)))


@given(u=st.floats(-25.0, 25.0))
def test_forward_undoes_backward(there_and_back, u: float) -> None:
    np.testing.assert_allclose(there_and_back(u), u, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("u", [-20.0, -1.0, 0.5, 4.0, 60.0])
def test_jacobian_is_the_slope(u: float) -> None:
    to = LogSoftplus(-2.0)
    x = pt.dscalar()
    slope, log_slope = pt.grad(to.backward(x), x).eval({x: u}), to.log_jac_det(x).eval({x: u})
    np.testing.assert_allclose(log_slope, np.log(slope), rtol=1e-9, atol=1e-12)


def test_the_density_is_that_of_the_variable() -> None:
    """Probability of an interval of v, by the density in u, against the normal distribution's."""
    with pm.Model() as model:
        v = pm.Normal("v", -6.0, 1.0, default_transform=LogSoftplus(-6.0 - np.log(4)))
    log_density = model.compile_logp()
    name = model.rvs_to_values[v].name
    to = model.rvs_to_transforms[v]
    low, high = (float(to.forward(pt.constant(x, dtype="float64")).eval()) for x in (-7.5, -4.5))
    got = integrate.quad(lambda u: np.exp(log_density({name: u})), low, high, epsabs=1e-10)[0]
    np.testing.assert_allclose(got, stats.norm(-6, 1).cdf([-7.5, -4.5]) @ [-1, 1], rtol=1e-8)
