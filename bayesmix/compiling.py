"""A model compiled for nutpie: once on a machine for all swarms whose model has one graph.

The machine code knows neither the swarm nor its sizes, which it reads from vectors (`packed.py`).
It is kept on disk (`machine_code.py`) under a key of all that it was made from: the model's graph,
this package's sources, the versions of the libraries, and the processor.
"""

import ctypes
import gc
import hashlib
import math
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
from pymc.initial_point import make_initial_point_fn
from pytensor.graph import clone_replace, rewrite_graph
from pytensor.graph.basic import Constant
from pytensor.graph.traversal import ancestors
from pytensor.tensor.variable import TensorVariable

from bayesmix import machine_code
from bayesmix.packed import ViewAt, layout_of, pack

_LIBRARIES = ("llvmlite", "numba", "numpy", "nutpie", "pymc", "pytensor", "scipy")
_NOT_FINITE = (3, 4)  # nutpie's codes: the gradient, or the density, is not
_DOUBLES = ctypes.POINTER(ctypes.c_double)

# a hash of this package, as it is imported: its kernels are part of the machine code
_SOURCES = hashlib.sha256(
    b"".join(file.read_bytes() for file in sorted(Path(__file__).parent.rglob("*.py")))
).hexdigest()

# the last graph compiled: refits of a swarm, as in a calibration study, share it
_last: dict[str, Any] = {}
_functions: dict[tuple[str, ...], Any] = {}  # of nodes, by PyTensor's key of each and its types
_lock = threading.Lock()


def compiled(model: pm.Model) -> Any:
    """The model compiled for nutpie, by code from memory, from disk or made now.

    It samples unknowns in its own coordinates: `natural.in_natural_units` has the rest.
    """
    key = code_key(model)
    with _lock:
        if key not in _last:
            function = machine_code.read(key) or _compile(key, model)
            _last.clear()
            _last[key] = function
        function = _last[key]
    return _with_data(model, function)


def unconstrained(by_nutpie: Any) -> list[str]:
    """Of each entry (P,) of a point, the name of the variable that it belongs to."""
    names, _, shapes = by_nutpie.shape_info
    each = zip(names, shapes, strict=True)
    return [name for name, shape in each for _ in range(math.prod(shape))]


def log_density(by_nutpie: Any) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """The log density, nats, and its gradient (P,) at a point (P,): what a chain evaluates."""
    function = ctypes.CFUNCTYPE(
        ctypes.c_int64, ctypes.c_uint64, _DOUBLES, _DOUBLES, _DOUBLES, ctypes.c_void_p
    )
    of = function(by_nutpie.compiled_logp_func.address)

    def density(point: np.ndarray) -> tuple[float, np.ndarray]:
        _check(np.shape(point), by_nutpie)
        value, gradient = np.empty(1), np.empty(by_nutpie.n_dim)
        arrays = [_pointer(x) for x in (np.ascontiguousarray(point, float), gradient, value)]
        code = of(by_nutpie.n_dim, *arrays, by_nutpie.user_data.ctypes.data)
        if code not in (0, *_NOT_FINITE):
            raise RuntimeError(f"the log density cannot be evaluated: code {code}")
        return float(value[0]), gradient

    return density


def compiled_jax(model: pm.Model) -> Any:
    """The model compiled by JAX, which takes its gradient too."""
    import nutpie

    try:
        import bayesmix.jax_ops  # noqa: F401  tells PyTensor how
    except ModuleNotFoundError as error:
        message = "backend 'jax' needs JAX: install bayesmix with its extra, bayesmix[jax]"
        raise ImportError(message) from error
    return nutpie.compile_pymc_model(model, backend="jax", gradient_backend="jax")


def _check(shape: tuple[int, ...], by_nutpie: Any) -> None:
    """Machine code would read beyond a point that is too short."""
    if shape != (by_nutpie.n_dim,):
        raise ValueError(f"the model has {by_nutpie.n_dim} unknowns, the point {shape}")


def _pointer(array: np.ndarray) -> Any:
    return array.ctypes.data_as(_DOUBLES)


def _numbers_first(variables: Iterable[TensorVariable]) -> list[TensorVariable]:
    """So that their places in a vector do not depend on the shapes of others."""
    return sorted(variables, key=lambda variable: variable.ndim > 0)


def _unknowns(model: pm.Model) -> list[TensorVariable]:
    """What is sampled, as the sampler sees it."""
    return _numbers_first(model.rvs_to_values[variable] for variable in model.free_RVs)


def _data(model: pm.Model) -> tuple[list[TensorVariable], list[TensorVariable]]:
    """Floats and integers that the model reads."""
    floats = [variable for variable in model.data_vars if variable.dtype == "float64"]
    integers = [variable for variable in model.data_vars if variable.dtype == "int64"]
    return _numbers_first(floats), _numbers_first(integers)


def _with_data(model: pm.Model, function: Any) -> Any:
    """A log density with what it reads of a model: nutpie's own form of a compiled model."""
    from nutpie.compile_pymc import CompiledPyMCModel

    start, names = model.initial_point(), [variable.name for variable in _unknowns(model)]
    shapes = {name: np.shape(start[name]) for name in names}
    ends = np.cumsum([0, *(math.prod(shape) for shape in shapes.values())]).tolist()

    floats, integers = ([v.get_value() for v in variables] for variables in _data(model))
    groups = shapes.values(), map(np.shape, floats), map(np.shape, integers)
    vectors = {
        "floats": _flat(floats, np.float64),
        "integers": _flat(integers, np.int64),
        "layout": np.concatenate([layout_of(group) for group in groups]),
    }
    for vector in vectors.values():
        vector.flags.writeable = False
    return CompiledPyMCModel(
        dims={},
        _coords={},
        _shapes=shapes,
        _n_dim=ends[-1],
        n_expanded=ends[-1],
        shape_info=(names, [slice(*both) for both in pairwise(ends)], list(shapes.values())),
        compiled_logp_func=function,
        compiled_expand_func=_copied(),
        initial_point_func=_starts(model, names),
        shared_data=vectors,  # hold what the addresses point to
        shared_var_keys={},
        user_data=np.array([(v.ctypes.data, v.size) for v in vectors.values()], np.int64),
        logp_func=None,
        expand_func=None,
        reparameterized_names=[],
    )


def _starts(model: pm.Model, names: Sequence[str]) -> Callable[[int | None], np.ndarray]:
    """nutpie's own starts: within 1 of the middle of each prior, given what it depends on."""
    lock = threading.Lock()  # chains ask from threads

    @cache  # when first asked: to compile it takes half a second
    def function() -> Callable[[int | None], dict[str, np.ndarray]]:
        made = make_initial_point_fn(
            model=model, jitter_rvs=set(model.free_RVs), return_transformed=True
        )
        return cast(Callable[[int | None], dict[str, np.ndarray]], made)

    def starts(seed: int | None = None) -> np.ndarray:
        with lock:
            point = function()(seed)
        return np.concatenate([np.ravel(point[name]) for name in names]).astype(float)

    return starts


def _flat(arrays: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate([np.empty(0, dtype), *(array.ravel() for array in arrays)])


def code_key(model: pm.Model) -> str:
    """A hash of all that machine code is made from: equal for models that differ in data alone."""
    from numba.core.registry import cpu_target

    graph = model.basic_RVs + model.potentials + model.deterministics
    made_from = (
        pytensor.dprint(graph, file="str", print_type=True),
        [_content(c.data) for c in ancestors(graph) if isinstance(c, Constant)],
        [variable.name for variable in _unknowns(model)],  # which have the transform in it
        [str(variable.type) for variable in model.data_vars],  # by which they have their places
        pytensor.config.get_config_hash(),
        pytensor.config.numba__fastmath,
        sys.version,
        cpu_target.target_context.codegen().magic_tuple(),
        [version(name) for name in _LIBRARIES],
        _SOURCES,
    )
    return hashlib.sha256(repr(made_from).encode()).hexdigest()


def _content(constant: Any) -> bytes | str:
    array = np.asarray(constant)
    return repr(constant) if array.dtype.hasobject else array.tobytes()


def _compile(key: str, model: pm.Model) -> Any:
    """Compile, and keep it for other processes where that is possible."""
    with _no_collection():
        function = _c_function(_graph(model))
    # rests on parts of Numba that are not public, and on a folder that can be written: without
    # them the next process takes its time, no more
    with suppress(Exception):
        machine_code.keep(key, function)
    return function


def _graph(model: pm.Model) -> Any:
    """The log density with its gradient, as a function of vectors."""
    import numba

    point, floats, integers, layout = vectors = [
        pt.dvector("point"), pt.dvector("floats"), pt.lvector("integers"), pt.lvector("layout")
    ]  # fmt: skip
    unknowns, data = _unknowns(model), _data(model)
    values, entry = {}, 0
    for vector, variables in zip((point, floats, integers), (unknowns, *data), strict=True):
        for place, variable in enumerate(variables):
            if variable.ndim == 0:
                values[variable] = vector[place]
            else:
                values[variable] = ViewAt(variable.type.shape)(vector, layout, entry)
            entry += 1 + variable.ndim

    logp = rewrite_graph(model.logp(), include=["canonicalize", "stabilize"])
    outputs = clone_replace([logp, pack(pt.grad(logp, unknowns))], values)
    with model, _functions_shared():
        function = pm.compile(vectors, outputs, mode="NUMBA", on_unused_input="ignore")
    # straight into the C function: all else would go through LLVM once a layer
    return numba.njit(function.vm.jit_fn.py_func, inline="always")


@contextmanager
def _functions_shared() -> Iterator[None]:
    """Nodes that are equal share one function, in this process.

    PyTensor makes one for each, in a second one that it keeps on disk: twice as many to compile,
    and another thousand to read. Here the whole is kept.
    """
    from pytensor.link.numba.dispatch import basic

    def shared(op: Any, node: Any = None, **kwargs: Any) -> tuple[Any, str | None]:
        function, key = basic.numba_funcify_and_cache_key(op, node=node, **kwargs)
        if node is None:  # the whole graph
            return function, None
        if key is None:
            return function, key
        types = [str(variable.type) for variable in (*node.inputs, *node.outputs)]
        fast = str(pytensor.config.numba__fastmath)
        return _functions.setdefault((key, fast, *types), function), key

    before = basic.numba_funcify_ensure_cache
    basic.numba_funcify_ensure_cache = shared
    try:
        yield
    finally:
        basic.numba_funcify_ensure_cache = before


def _c_function(density: Any) -> Any:
    """As nutpie calls it, by pointers: `user_data` holds the addresses and lengths of vectors."""
    import numba
    from numba import types
    from nutpie.compile_pymc import address_as_void_pointer

    doubles, size = types.CPointer(types.double), types.uint64

    @numba.cfunc(types.int64(size, doubles, doubles, doubles, types.voidptr))
    def logp(n_dim: Any, point: Any, gradient: Any, value: Any, user_data: Any) -> int:
        try:
            at = numba.carray(user_data, (3, 2), np.int64)
            floats = numba.carray(address_as_void_pointer(at[0, 0]), at[0, 1], np.float64)
            integers = numba.carray(address_as_void_pointer(at[1, 0]), at[1, 1], np.int64)
            sizes = numba.carray(address_as_void_pointer(at[2, 0]), at[2, 1], np.int64)
            found, slopes = density(numba.carray(point, n_dim), floats, integers, sizes)
            value[0] = found.item()
            finite = True
            for i in range(n_dim):  # an assignment to a slice takes a second to compile
                gradient[i] = slopes[i]
                finite &= np.isfinite(slopes[i])
            if not finite:
                return 3
            if not np.isfinite(value[0]):
                return 4
        except Exception:
            return 1
        return 0

    return logp


@cache
def _copied() -> Any:
    """What a draw is kept as: its point."""
    import numba
    from numba import types

    doubles, size = types.CPointer(types.double), types.uint64

    @numba.cfunc(types.int64(size, size, doubles, doubles, types.voidptr))
    def expand(n_dim: Any, n_expanded: Any, point: Any, out: Any, user_data: Any) -> int:
        for i in range(n_dim):
            out[i] = point[i]
        return 0

    return expand


@contextmanager
def _no_collection() -> Iterator[None]:
    """Compilation makes millions of objects that stay: to look for garbage is a tenth of it."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
