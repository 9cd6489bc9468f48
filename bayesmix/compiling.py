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
import pandas as pd
import pymc as pm
import pytensor
import pytensor.tensor as pt
from pymc.initial_point import make_initial_point_fn
from pytensor.graph import clone_replace, rewrite_graph
from pytensor.graph.basic import Constant
from pytensor.graph.traversal import ancestors
from pytensor.tensor.variable import TensorVariable

from bayesmix import machine_code
from bayesmix.machine_code import Functions
from bayesmix.packed import ViewAt, layout_of, pack

_LIBRARIES = ("llvmlite", "numba", "numpy", "nutpie", "pandas", "pymc", "pytensor", "scipy")
_NOT_FINITE = (3, 4)  # nutpie's codes: the gradient, or the density, is not
_DOUBLES = ctypes.POINTER(ctypes.c_double)

# a hash of this package, as it is imported: its kernels are part of the machine code
_SOURCES = hashlib.sha256(
    b"".join(file.read_bytes() for file in sorted(Path(__file__).parent.rglob("*.py")))
).hexdigest()

# the last graph compiled: refits of a swarm, as in a calibration study, share it
_last: dict[str, Functions] = {}
_lock = threading.Lock()


def compiled(model: pm.Model) -> Any:
    """The model compiled for nutpie, by code from memory, from disk or made now."""
    key = code_key(model)
    with _lock:
        if key not in _last:
            functions = machine_code.read(key) or _compile(key, model)
            _last.clear()
            _last[key] = functions
        functions = _last[key]
    return _with_data(model, functions)


def unconstrained(by_nutpie: Any) -> list[str]:
    """Of each entry (P,) of a point, the name of the variable that it belongs to."""
    names, _, shapes = by_nutpie.shape_info
    each = zip(names, shapes, strict=True)
    return [name for name, shape in each for _ in range(math.prod(shape))][: by_nutpie.n_dim]


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


def at_points(by_nutpie: Any, points: np.ndarray) -> dict[str, np.ndarray]:
    """All variables of the model, each (S, ...), at unconstrained points (S, P)."""
    function = ctypes.CFUNCTYPE(
        ctypes.c_int64, *2 * (ctypes.c_uint64,), *2 * (_DOUBLES,), ctypes.c_void_p
    )
    expand = function(by_nutpie.compiled_expand_func.address)
    _check(np.shape(points)[1:], by_nutpie)
    values = np.empty((len(points), by_nutpie.n_expanded))
    for point, row in zip(np.ascontiguousarray(points, float), values, strict=True):
        code = expand(
            by_nutpie.n_dim, by_nutpie.n_expanded, _pointer(point), _pointer(row),
            by_nutpie.user_data.ctypes.data,
        )  # fmt: skip
        if code != 0:
            raise RuntimeError(f"the model's variables cannot be evaluated: code {code}")
    return {
        name: values[:, where].reshape(len(points), *shape)
        for name, where, shape in zip(*by_nutpie.shape_info, strict=True)
    }


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


def _derived(model: pm.Model) -> list[TensorVariable]:
    """All else that a draw has."""
    sampled = set(_unknowns(model))
    return _numbers_first(v for v in model.unobserved_value_vars if v not in sampled)


def _data(model: pm.Model) -> tuple[list[TensorVariable], list[TensorVariable]]:
    """Floats and integers that the model reads."""
    floats = [variable for variable in model.data_vars if variable.dtype == "float64"]
    integers = [variable for variable in model.data_vars if variable.dtype == "int64"]
    return _numbers_first(floats), _numbers_first(integers)


def _with_data(model: pm.Model, functions: Functions) -> Any:
    """Functions with what they read of a model: nutpie's own form of a compiled model."""
    from nutpie.compile_pymc import CompiledPyMCModel

    start, names = model.initial_point(), [variable.name for variable in _unknowns(model)]
    shapes = {name: np.shape(start[name]) for name in names}
    dims = dict(model.named_vars_to_dims)
    for variable in _derived(model):
        axes = dims.get(variable.name, ())
        if len(axes) != variable.ndim:  # its shape would not be known before it is evaluated
            raise ValueError(f"{variable.name} has {variable.ndim} axes and {len(axes)} dims")
        shapes[variable.name] = tuple(len(model.coords[axis]) for axis in axes)
    ends = np.cumsum([0, *(math.prod(shape) for shape in shapes.values())]).tolist()

    floats, integers = ([v.get_value() for v in variables] for variables in _data(model))
    groups = [shapes[name] for name in names], map(np.shape, floats), map(np.shape, integers)
    vectors = {
        "floats": _flat(floats, np.float64),
        "integers": _flat(integers, np.int64),
        "layout": np.concatenate([layout_of(group) for group in groups]),
    }
    for vector in vectors.values():
        vector.flags.writeable = False
    return CompiledPyMCModel(
        dims=dims,
        _coords={name: pd.Index(values) for name, values in model.coords.items()},
        _shapes=shapes,
        _n_dim=ends[len(names)],
        n_expanded=ends[-1],
        shape_info=(list(shapes), [slice(*both) for both in pairwise(ends)], list(shapes.values())),
        compiled_logp_func=functions.logp,
        compiled_expand_func=functions.expand,
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


def _compile(key: str, model: pm.Model) -> Functions:
    """Compile, and keep it for other processes where that is possible."""
    with _no_collection():
        functions = _c_functions(*_graphs(model))
    # rests on parts of Numba that are not public, and on a folder that can be written: without
    # them the next process takes its time, no more
    with suppress(Exception):
        machine_code.keep(key, functions)
    return functions


def _graphs(model: pm.Model) -> tuple[Any, Any]:
    """The log density with its gradient, and all variables, as functions of vectors."""
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
                view = ViewAt(variable.ndim)(vector, layout, entry)
                values[variable] = pt.specify_shape(view, variable.type.shape)
            entry += 1 + variable.ndim

    logp = rewrite_graph(model.logp(), include=["canonicalize", "stabilize"])
    density = [logp, pack(pt.grad(logp, unknowns))]
    everything = [pack([*unknowns, *_derived(model)])]
    with model:
        functions = [
            pm.compile(
                vectors, clone_replace(outputs, values), mode="NUMBA", on_unused_input="ignore"
            )
            for outputs in (density, everything)
        ]
    return tuple(_inlined(function.vm.jit_fn) for function in functions)


def _inlined(jit_fn: Any) -> Any:
    """A function of PyTensor's without the one around it, to go into the C function.

    What holds all nodes would go through LLVM once a layer: a third of all compilation.
    """
    import numba

    inner = jit_fn.py_func.__globals__.get("jitable_func", jit_fn)
    return numba.njit(inner.py_func, inline="always")


def _c_functions(density: Any, everything: Any) -> Functions:
    """As nutpie calls them, by pointers: `user_data` holds the addresses and lengths of vectors."""
    import numba
    from numba import types
    from nutpie.compile_pymc import address_as_void_pointer

    doubles, size = types.CPointer(types.double), types.uint64

    @numba.njit
    def vectors(user_data: Any) -> Any:
        at = numba.carray(user_data, (3, 2), np.int64)
        floats = numba.carray(address_as_void_pointer(at[0, 0]), at[0, 1], np.float64)
        integers = numba.carray(address_as_void_pointer(at[1, 0]), at[1, 1], np.int64)
        return floats, integers, numba.carray(address_as_void_pointer(at[2, 0]), at[2, 1], np.int64)

    @numba.cfunc(types.int64(size, doubles, doubles, doubles, types.voidptr))
    def logp(n_dim: Any, point: Any, gradient: Any, value: Any, user_data: Any) -> int:
        try:
            floats, integers, sizes = vectors(user_data)
            found, slopes = density(numba.carray(point, n_dim), floats, integers, sizes)
            numba.carray(value, 1)[0] = found.item()
            numba.carray(gradient, n_dim)[:] = slopes
            if not np.all(np.isfinite(slopes)):
                return 3
            if not np.isfinite(found.item()):
                return 4
        except Exception:
            return 1
        return 0

    @numba.cfunc(types.int64(size, size, doubles, doubles, types.voidptr))
    def expand(n_dim: Any, n_expanded: Any, point: Any, out: Any, user_data: Any) -> int:
        try:
            floats, integers, sizes = vectors(user_data)
            (found,) = everything(numba.carray(point, n_dim), floats, integers, sizes)
            numba.carray(out, n_expanded)[:] = found
        except Exception:
            return -2
        return 0

    return Functions(logp, expand)


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
