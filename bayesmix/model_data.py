"""What a model reads of a swarm: data, so that one machine code serves all swarms of one graph."""

from typing import Any

import numpy as np
import pymc as pm
import pytensor
from pytensor.tensor.variable import TensorVariable


def data(value: Any) -> TensorVariable:
    """An array or a number of the swarm, as data of the model on the stack.

    Whatever differs between swarms is: what is compiled serves all of one graph, see `compiling`.
    """
    model = pm.modelcontext(None)
    array = np.asarray(value)
    array = array.astype(np.int64 if array.dtype.kind in "iu" else np.float64)
    # `pm.Data` would take integers of half the size
    variable = pytensor.shared(array, f"data_{len(model.data_vars)}", shape=(None,) * array.ndim)
    model.register_data_var(variable)
    return variable
