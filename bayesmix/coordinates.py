"""The coordinate in which the sampler walks, where a prior's own is hard to walk in."""

import pytensor.tensor as pt
from pymc.logprob.transforms import Transform
from pytensor.graph.basic import Variable
from pytensor.tensor.variable import TensorVariable


class LogSoftplus(Transform):
    """A variable ``v = at + log softplus(u)`` of the coordinate u, on the whole line both.

    For a v that is the log of an amount which data bound from above and hardly from below, as the
    floor H of the capacity problem. In v such a posterior is a narrow peak with a tail ten times as
    long below, which one step size does not serve. In u it is the amount itself above ``exp(at)``
    and its log below. The density of v is the same in either.

    Examples
    --------
    >>> to = LogSoftplus(-6.0)
    >>> v = to.backward(pt.constant(2.0))
    >>> round(float(to.forward(v).eval()), 6)
    2.0
    """

    name = "softplus"
    ndim_supp = 0

    def __init__(self, at: float) -> None:
        self.at = at

    def forward(self, value: TensorVariable, *inputs: Variable) -> TensorVariable:
        """The coordinate of a value."""
        amount = pt.exp(value - self.at)
        return amount + pt.log(-pt.expm1(-amount))

    def backward(self, value: TensorVariable, *inputs: Variable) -> TensorVariable:
        """The value at a coordinate."""
        return self.at + pt.log(pt.softplus(value))

    def log_jac_det(self, value: TensorVariable, *inputs: Variable) -> TensorVariable:
        """Log of the slope of `backward`."""
        return -pt.softplus(-value) - pt.log(pt.softplus(value))
