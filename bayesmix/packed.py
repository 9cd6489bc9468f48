"""Arrays in a flat vector, at places that a layout says: of any size, by one and the same code."""

import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytensor.scalar as ps
import pytensor.tensor as pt
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.link.numba.cache import compile_numba_function_src
from pytensor.link.numba.dispatch.basic import numba_njit, register_funcify_default_op_cache_key
from pytensor.tensor.variable import TensorVariable

# PyTensor keeps compiled Ops on disk under this key: an edited one must not meet its old code
_SOURCE = zlib.crc32(Path(__file__).read_bytes())


class ViewAt(Op):
    """Part of a vector, as an array: from `layout[entry]` on, of the shape that follows there.

    Of one or two axes; `shape` has None for lengths that only the layout knows.

    Examples
    --------
    >>> layout = pt.constant(layout_of([(2, 1), (1, 2)]))
    >>> ViewAt((1, None))(pt.constant([1.0, 2.0, 3.0, 4.0]), layout, 3).eval().tolist()
    [[3.0, 4.0]]
    """

    __props__ = ("shape",)

    def __init__(self, shape: tuple[int | None, ...]) -> None:
        if len(shape) not in (1, 2):
            raise ValueError(f"a view has one or two axes, not {len(shape)}")
        self.shape = shape
        self.view_map = {0: [0]}

    def make_node(self, vector, layout, entry):
        vector, layout = pt.as_tensor_variable(vector), pt.as_tensor_variable(layout)
        array = pt.tensor(dtype=vector.dtype, shape=self.shape)
        return Apply(self, [vector, layout, ps.constant(entry, dtype="int64")], [array])

    def perform(self, node, inputs, output_storage):
        vector, layout, entry = inputs
        start, *shape = layout[entry : entry + 1 + len(self.shape)]
        output_storage[0][0] = vector[start : start + np.prod(shape)].reshape(shape)


def layout_of(shapes: Iterable[Sequence[int]]) -> np.ndarray:
    """Start and shape of each of some arrays, one after another, as `ViewAt` reads them.

    Examples
    --------
    >>> layout_of([(2, 3), (4,)]).tolist()
    [0, 2, 3, 6, 4]
    """
    entries, start = [], 0
    for shape in shapes:
        entries += [start, *shape]
        start += int(np.prod(shape))
    return np.array(entries, np.int64)


class _Pack(Op):
    __props__ = ()

    def make_node(self, *arrays):
        return Apply(self, list(arrays), [pt.dvector()])

    def perform(self, node, inputs, output_storage):
        output_storage[0][0] = np.concatenate([np.ravel(array) for array in inputs])


def pack(variables: Iterable[TensorVariable]) -> TensorVariable:
    """Numbers and arrays of floats one after another in a vector.

    Examples
    --------
    >>> pack([pt.constant([[1.0, 2.0]]), pt.constant(3.0)]).eval().tolist()
    [1.0, 2.0, 3.0]
    """
    return _Pack()(*variables)


@register_funcify_default_op_cache_key(ViewAt)
def _view_numba(op, node, **kwargs):
    if len(op.shape) == 1:

        @numba_njit
        def view(vector, layout, entry):
            start = layout[entry]
            return vector[start : start + layout[entry + 1]]

    else:

        @numba_njit
        def view(vector, layout, entry):
            start, n, m = layout[entry], layout[entry + 1], layout[entry + 2]
            return vector[start : start + n * m].reshape((n, m))

    return view, _SOURCE


@register_funcify_default_op_cache_key(_Pack)
def _pack_numba(op, node, **kwargs):
    arrays = [f"array_{i}" for i in range(len(node.inputs))]
    total = " + ".join(f"{array}.size" for array in arrays)
    lines = [f"def packed({', '.join(arrays)}):", f"    vector = np.empty({total})", "    at = 0"]
    for array, variable in zip(arrays, node.inputs, strict=True):
        # loops: an assignment to a slice takes ten times as long to compile
        axes = range(variable.ndim)
        loops = [f"for i{axis} in range({array}.shape[{axis}]):" for axis in axes]
        loops += [f"vector[at] = {array}[{', '.join(f'i{axis}' for axis in axes) or '()'}]"]
        lines += [f"{'    ' * depth}{line}" for depth, line in enumerate(loops, start=1)]
        lines.append(f"{'    ' * len(loops)}at += 1")
    lines.append("    return vector")
    source = "\n".join(lines)
    return numba_njit(compile_numba_function_src(source, "packed", {"np": np})), _SOURCE
