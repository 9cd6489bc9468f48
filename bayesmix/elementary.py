"""Exponential and logarithm for kernels, in arithmetic that LLVM turns into vector instructions.

A call of the C library takes one number at a time, and most of the law's gradient was such calls;
Numba vectorises them by Intel's SVML only, which few machines have. Within two units in the last
place of the C library's, so one formula serves vectors and single numbers alike.
"""

import math

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

# log 2 in two parts, the first of few enough bits that whole multiples are exact
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_PER_LN2 = 1 / math.log(2)
# 1.5 * 2^52: a number added to it is rounded to a whole one, in the low bits of the sum
_ROUND = 6755399441055744.0
_ROUND_BITS = 0x4338000000000000
_ROOT_HALF_BITS = 0x3FE6A09E667F3BCD
# Taylor's series of exp, from r^2: |r| <= log(2)/2, so that r^14 / 14! is below 1e-17
_E2, _E3, _E4, _E5, _E6, _E7, _E8, _E9, _E10, _E11, _E12, _E13 = (
    1 / math.factorial(k) for k in range(2, 14)
)
# the series of log((1 + s) / (1 - s)) / s - 2 in s^2, fitted by FreeBSD's e_log.c
_L1, _L2, _L3, _L4, _L5, _L6, _L7 = (
    6.666666666666735130e-01,
    3.999999999940941908e-01,
    2.857142874366239149e-01,
    2.222219843214978396e-01,
    1.818357216161805012e-01,
    1.531383769920937332e-01,
    1.479819860511658591e-01,
)


@intrinsic
def _bits(typing_context, value):
    """The bits of a float as an integer."""

    def build(context, builder, signature, values):
        return builder.bitcast(values[0], context.get_value_type(types.int64))

    return types.int64(types.float64), build


@intrinsic
def _from_bits(typing_context, value):
    """The float that has these bits."""

    def build(context, builder, signature, values):
        return builder.bitcast(values[0], context.get_value_type(types.float64))

    return types.float64(types.int64), build


@numba.njit(cache=True, error_model="numpy", fastmath={"contract"})
def exp(x):
    """e to the x; 0 below -708, where the C library has subnormal numbers.

    Examples
    --------
    >>> round(exp(1.0), 12), exp(-math.inf), exp(math.inf)
    (2.718281828459, 0.0, inf)
    """
    inside = min(max(x, -708.0), 709.0)
    rounded = inside * _PER_LN2 + _ROUND
    n = rounded - _ROUND
    r = (inside - n * _LN2_HIGH) - n * _LN2_LOW
    p = _E12 + r * _E13
    p = _E11 + r * p
    p = _E10 + r * p
    p = _E9 + r * p
    p = _E8 + r * p
    p = _E7 + r * p
    p = _E6 + r * p
    p = _E5 + r * p
    p = _E4 + r * p
    p = _E3 + r * p
    p = _E2 + r * p
    p = 1.0 + r * (1.0 + r * p)
    # n is added to the exponent of p
    value = _from_bits(_bits(p) + (_bits(rounded) << 52))
    value = 0.0 if x < -708.0 else value
    value = math.inf if x > 709.0 else value
    return value if x == x else x


@numba.njit(cache=True, error_model="numpy", fastmath={"contract"})
def log(x):
    """Natural logarithm; of subnormal numbers within 1, of negative ones not a number.

    Examples
    --------
    >>> log(1.0), log(0.0), log(math.inf)
    (0.0, -inf, inf)
    """
    # x = 2^k m with m between the root of 1/2 and that of 2
    k = (_bits(x) - _ROOT_HALF_BITS) >> 52
    f = _from_bits(_bits(x) - (k << 52)) - 1.0
    n = _from_bits(_ROUND_BITS + k) - _ROUND
    s = f / (2.0 + f)
    z = s * s
    w = z * z
    rest = w * (_L2 + w * (_L4 + w * _L6)) + z * (_L1 + w * (_L3 + w * (_L5 + w * _L7)))
    half = 0.5 * f * f
    value = n * _LN2_HIGH - ((half - (s * (half + rest) + n * _LN2_LOW)) - f)
    value = -math.inf if x == 0.0 else value
    value = x if x == math.inf else value
    return value if x >= 0.0 else math.nan


@numba.njit(cache=True, error_model="numpy")
def exp_each(values):
    """Exponentials of an array's numbers, in their place."""
    flat = values.reshape(-1)
    for i in range(flat.size):
        flat[i] = exp(flat[i])


@numba.njit(cache=True, error_model="numpy")
def log_each(values):
    """Logarithms of an array's numbers, in their place."""
    flat = values.reshape(-1)
    for i in range(flat.size):
        flat[i] = log(flat[i])


@numba.njit(cache=True, error_model="numpy")
def taken(values, places):
    """``values[places]`` of two vectors, which as such takes a third of a second to compile."""
    found = np.empty(places.shape[0], values.dtype)
    for i in range(places.shape[0]):
        found[i] = values[places[i]]
    return found
