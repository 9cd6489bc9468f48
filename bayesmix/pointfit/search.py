"""What every fit shares: Huber's loss of log losses, and parameters as one vector to search."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

HUBER = 0.05  # of log loss: an error beyond 5% counts as an outlier
N_STARTS = 8
_NEAR_BOUND = 0.01  # of the room between the bounds, on the scale of the search

Values = dict[str, np.ndarray]
Bounds = dict[str, tuple[float, float]]


class Fitted(NamedTuple):
    """What a law's file hands back.

    Attributes
    ----------
    parameters : Dataset
        Named dims ``component``, ``domain``, ``source``, ``mixture``.
    n_parameters : int
    converged : bool
    message : str
        The optimiser's; of what did not converge, if anything did not.
    at_bounds : tuple of str
        Parameters that ended on a bound, as in ``E[github]``.
    loss : float
        Mean over the fitted cells of what was minimised.
    """

    parameters: xr.Dataset
    n_parameters: int
    converged: bool
    message: str
    at_bounds: tuple[str, ...]
    loss: float


class Minimum(NamedTuple):
    """The best end of a search from several starts, in natural units; `loss` is a mean."""

    values: Values
    loss: float
    converged: bool
    message: str
    at_bounds: tuple[str, ...]


class Space:
    """Named parameters as one vector: in log where the lower bound is above 0.

    Parameters
    ----------
    like : mapping
        Arrays with the names, the order and the shapes of the parameters.
    bounds : mapping
        (low, high) by name, natural units.

    Examples
    --------
    >>> space = Space({"E": np.array(1.0), "t": np.zeros(2)}, {"E": (0.1, 9.0), "t": (-5, 5)})
    >>> space.point({"E": np.array(1.0), "t": np.array([2.0, 3.0])})
    array([0., 2., 3.])
    """

    def __init__(self, like: Mapping[str, np.ndarray], bounds: Bounds) -> None:
        self.shapes = {name: np.shape(value) for name, value in like.items()}
        sizes = [int(np.prod(shape)) for shape in self.shapes.values()]
        low, high = np.repeat(np.array([bounds[n] for n in self.shapes], float), sizes, axis=0).T
        self.in_log = low > 0
        self.low = np.where(self.in_log, np.log(np.where(self.in_log, low, 1)), low)
        self.high = np.where(self.in_log, np.log(np.where(self.in_log, high, 1)), high)
        self._splits = np.cumsum(sizes)[:-1]

    def point(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """The vector of some values, inside the bounds."""
        flat = np.concatenate([np.ravel(values[name]) for name in self.shapes])
        flat = np.where(self.in_log, np.log(np.where(self.in_log, flat, 1)), flat)
        room = 1e-3 * (self.high - self.low)
        return np.clip(flat, self.low + room, self.high - room)

    def slope(self, point: np.ndarray) -> np.ndarray:
        """Derivative of the natural values in the vector."""
        return np.where(self.in_log, np.exp(np.where(self.in_log, point, 0)), 1.0)

    def values(self, point: np.ndarray) -> Values:
        """The natural values, by name."""
        parts = np.split(np.where(self.in_log, self.slope(point), point), self._splits)
        named = zip(self.shapes.items(), parts, strict=True)
        return {name: part.reshape(shape) for (name, shape), part in named}

    def on_bounds(self, point: np.ndarray) -> tuple[str, ...]:
        """Names of the values on a bound, with their index: ``E``, ``t[1]``."""
        room = _NEAR_BOUND * (self.high - self.low)
        on = (point - self.low < room) | (self.high - point < room)
        labels = [
            name + (f"[{','.join(map(str, index))}]" if index else "")
            for name, shape in self.shapes.items()
            for index in np.ndindex(*shape)
        ]
        return tuple(label for label, yes in zip(labels, on, strict=True) if yes)


def huber(residual: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean Huber loss of residuals in log loss, and its gradient.

    Examples
    --------
    >>> value, gradient = huber(np.array([0.01, 1.0]))
    >>> round(value, 6), gradient
    (0.0244, array([0.005, 0.025]))
    """
    inner = np.clip(residual, -HUBER, HUBER)
    return float((inner * (residual - inner / 2)).mean()), inner / residual.size


def best_of(ends: Sequence[Minimum]) -> Minimum:
    """The end of least training loss; of ends that tie, the first."""
    least = min(end.loss for end in ends)
    return next(end for end in ends if end.loss <= least * (1 + 1e-6))
