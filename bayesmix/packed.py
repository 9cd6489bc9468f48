"""What varies between swarms of one shape, in two shared vectors of a model: floats and integers.

A compiled model takes another swarm by its vectors. With a shared variable for each array, half of
the compilation was nutpie's unpacking of them, whose code grows with the square of their number.
"""

from typing import Any

import numpy as np
import pymc as pm
from pytensor.tensor.variable import TensorVariable

_LAYOUT = "data_layout"


class Packed:
    """Arrays of the model on the context stack, to be closed by `fill`.

    Examples
    --------
    >>> with pm.Model() as model:
    ...     data = Packed()
    ...     grid, n = data([[1.0, 2.0]]), data(3)
    ...     data.fill()
    >>> grid.eval().tolist(), int(n.eval())
    ([[1.0, 2.0]], 3)
    """

    def __init__(self) -> None:
        self._arrays: dict[str, list[np.ndarray]] = {"floats": [], "integers": []}
        self._shapes: list[int] = []
        self._vectors = {
            "floats": pm.Data("data_floats", np.empty(0), shape=(None,)),
            "integers": pm.Data("data_integers", np.empty(0, int), shape=(None,)),
        }

    def __call__(self, value: Any) -> TensorVariable:
        """A variable of the model that holds an array or a number; vectors have no static shape."""
        array = np.asarray(value)
        kind = "floats" if array.dtype.kind == "f" else "integers"
        start = sum(a.size for a in self._arrays[kind])
        self._arrays[kind].append(array)
        self._shapes += [array.ndim, *array.shape]
        flat = self._vectors[kind][start : start + array.size]
        # a vector's static shape would be checked in each evaluation, and the check be compiled
        return flat if array.ndim == 1 else flat.reshape(array.shape)

    def fill(self) -> None:
        """Put the arrays in the model."""
        for kind, vector in self._vectors.items():
            flat = [a.ravel() for a in self._arrays[kind]]
            vector.set_value(
                np.concatenate([vector.get_value(), *flat], dtype=vector.dtype, casting="same_kind")
            )
        pm.Data(_LAYOUT, np.array(self._shapes))


def layout(model: pm.Model) -> tuple[int, ...]:
    """The number of axes and the shape of each array of a model, in order."""
    return tuple(model[_LAYOUT].get_value().tolist())
