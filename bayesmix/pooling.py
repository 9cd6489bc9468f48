"""Partial pooling: normals of a common mean and spread, in coordinates that data can fix."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pytensor.tensor.variable import TensorVariable

from bayesmix.model_data import data
from bayesmix.priors import Prior


def mean_and_spread(name: str, prior: Mapping[str, Prior]) -> tuple[TensorVariable, TensorVariable]:
    """What normals are pooled by."""
    return prior[f"{name}_mean"].rv(f"{name}_mean"), prior[f"{name}_spread"].rv(f"{name}_spread")


def pooled(
    name: str,
    prior: Mapping[str, Prior],
    dims: str,
    *,
    informed: bool | float | np.ndarray,
    shift: Any = 0.0,
) -> Any:
    """Normals over `dims`: sampled as they are where data inform each, else against their mean.

    In between, by shares from 0 to 1, if data inform some more than others. With a `shift`, what
    data fix is the sum with it, and sampled is that: the same density.
    """
    mean, spread = mean_and_spread(name, prior)
    if informed is True:
        return pm.Normal(f"{name}_logit", mean + shift, spread, dims=dims) - shift
    if informed is False:
        return mean + spread * pm.Normal(f"{name}_z", 0.0, 1.0, dims=dims)
    return between(f"{name}_z", mean + shift, spread, data(informed), dims=dims) - shift


def between(name: str, mean: Any, spread: Any, centred: Any, of: Any = None, **shape: Any) -> Any:
    """Normals of a mean and a spread, sampled as they are as far as they are `centred` (0 to 1).

    `of` is the place in `centred` of each, if several share one.
    """
    middle, scale = centred * mean, spread**centred
    if of is not None:  # powers of what there is, not of each
        middle, scale = middle[of], scale[of]
    return mean + spread * (pm.Normal(name, middle, scale, **shape) - middle) / scale


def by_sum(
    name: str,
    normals: Any,
    shifts: Any,
    dims: str | None,
    *,
    centred: float = 0.0,
    exponents: Any = None,
) -> tuple[TensorVariable, TensorVariable]:
    """Two normals, of which data fix the sum of their exponentials.

    Sampled are its log, as it is, and their difference, as far as it is `centred`. The density is
    that of two normals.

    Parameters
    ----------
    name : str
        Of what is sampled.
    normals : two pairs
        Mean and spread of each.
    shifts : two TensorVariable
        What is added to each in the sum.
    dims : str, optional
    centred : float
        From 0 to 1.
    exponents : two TensorVariable, optional
        Then the normals are logs of odds times these, against what is left, and data see shares.
    """
    (mean, spread), (other_mean, other_spread) = normals
    mean, other_mean = mean + shifts[0], other_mean + shifts[1]
    either = pt.sqrt(spread**2 + other_spread**2)
    ratio = mean - other_mean
    difference = between(f"{name}_ratio_z", ratio, either, data(centred), dims=dims)
    share, other_share = -pt.softplus(-difference), -pt.softplus(difference)
    shrunk = 0.0
    if exponents is not None:  # of what there is in the middle, else it could not be undone
        total = pt.logaddexp(mean, other_mean)
        odds = pt.exp(total + share - shifts[0]) / exponents[0]
        shrunk = pt.log1p(odds + pt.exp(total + other_share - shifts[1]) / exponents[1])
    # given the difference of two Gaussians, what both say of the sum; the map from both to the
    # log of the sum and the difference keeps volumes
    weight, other_weight = (other_spread / either) ** 2, (spread / either) ** 2
    middle = weight * (mean - share) + other_weight * (other_mean - other_share)
    scale = spread * other_spread / either
    total = pm.Normal(f"{name}_total_log", middle - shrunk, scale, dims=dims) + shrunk
    return total + share - shifts[0], total + other_share - shifts[1]
