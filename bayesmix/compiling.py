"""A model compiled for nutpie: once in a process for swarms of one shape, once on a machine.

PyTensor and Numba keep the parts of a compiled model on disk, but to rewrite its graph and link
the parts again takes some 14 s. So the machine code of the whole is kept too, in
``pytensor.config.compiledir``, under a key of all that it was made from: the model's graph and
shapes, this package's sources, the versions of the libraries, and the processor. As with Numba's
own cache, who can write there can run code.
"""

import ctypes
import gc
import hashlib
import math
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pymc as pm
import pytensor
from pymc.initial_point import make_initial_point_fn

from bayesmix._files import atomic_path
from bayesmix.model import structure

_LIBRARIES = ("llvmlite", "numba", "numpy", "nutpie", "pandas", "pymc", "pytensor", "scipy")
_KEPT = 50  # files, of some 5 MB each
_NOT_FINITE = (3, 4)  # nutpie's codes: the gradient, or the density, is not
_DOUBLES = ctypes.POINTER(ctypes.c_double)

# a hash of this package, as it is imported: its kernels are part of the machine code
_SOURCES = hashlib.sha256(
    b"".join(file.read_bytes() for file in sorted(Path(__file__).parent.rglob("*.py")))
).hexdigest()

# the last model compiled, and what nutpie made of it: refits of swarms of one shape, as in a
# calibration study, share it
_last: dict[str, tuple[pm.Model, Any]] = {}
_lock = threading.Lock()


@dataclass(frozen=True)
class _Code:
    """A function that was read from disk, in place of Numba's."""

    address: int
    library: Any  # hold what the code points to
    environments: list[Any]


@dataclass(frozen=True)
class _Named:
    """In place of a shared variable, of which nutpie needs no more than the name."""

    name: str


def compiled(model: pm.Model) -> Any:
    """The model compiled for nutpie, or one compiled before with this model's data put in."""
    key = _key(model)
    with _lock:
        if key not in _last:
            _last.clear()
            _last[key] = model, _read(key, model) or _compile(key, model)
        first, shared_model = _last[key]
    values = {data.name: data.get_value() for data in model.data_vars}
    # starts are computed from the first model's own data: without this, draws would depend on
    # what was fitted before
    for name, value in values.items():
        first[name].set_value(value)
    # a law without some terms does not use all
    used = {variable.name for variable in shared_model.shared_var_keys}
    values = {name: value for name, value in values.items() if name in used}
    if not used or values.keys() != used:  # what is sampled would be the swarm before
        raise RuntimeError("nutpie does not name the data as the model does: another version?")
    return shared_model.with_data(**values)


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


def _key(model: pm.Model) -> str:
    """A hash of all that machine code is made from."""
    from numba.core.registry import cpu_target

    graph = model.basic_RVs + model.potentials + model.deterministics
    made_from = (
        structure(model),
        pytensor.dprint(graph, file="str", print_type=True),
        pytensor.config.get_config_hash(),
        pytensor.config.numba__fastmath,
        sys.version,
        cpu_target.target_context.codegen().magic_tuple(),
        [version(name) for name in _LIBRARIES],
        _SOURCES,
    )
    return hashlib.sha256(repr(made_from).encode()).hexdigest()


def _compile(key: str, model: pm.Model) -> Any:
    """By nutpie, and kept for other processes where that is possible."""
    import nutpie

    with _no_collection():
        made = nutpie.compile_pymc_model(model)
    # rests on parts of Numba and nutpie that are not public, and on a folder that can be written:
    # without them the next process takes its time, no more
    with suppress(Exception):
        _keep(key, made)
    return made


def _keep(key: str, made: Any) -> None:
    """Write what was compiled, and let the oldest files go."""
    functions = made.compiled_logp_func, made.compiled_expand_func
    if any(function._library.has_dynamic_globals for function in functions):
        return  # addresses of this process are in the code
    # without what this process or this swarm alone has
    bare = replace(
        made,
        compiled_logp_func=None,
        compiled_expand_func=None,
        initial_point_func=None,
        logp_func=None,
        expand_func=None,
        shared_data={key: value[:0] for key, value in made.shared_data.items()},
        shared_var_keys={_Named(v.name): k for v, k in made.shared_var_keys.items()},
    )
    content = pickle.dumps((bare, [_serialized(function) for function in functions]))
    path = _path(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(hashlib.sha256(content).digest() + content)
    files = sorted(path.parent.glob("*.pickle"), key=lambda file: file.stat().st_mtime)
    for old in files[:-_KEPT]:
        old.unlink(missing_ok=True)


def _read(key: str, model: pm.Model) -> Any | None:
    """What an earlier process compiled, or None if there is none, or not whole."""
    try:
        written = _path(key).read_bytes()
    except OSError:
        return None
    digest, content = written[:32], written[32:]
    if hashlib.sha256(content).digest() != digest:
        return None
    try:
        bare, functions = pickle.loads(content)
        logp, expand = (_code(*function) for function in functions)
        return replace(
            bare,
            compiled_logp_func=logp,
            compiled_expand_func=expand,
            initial_point_func=_starts(model),
        )
    except Exception:  # as in `_compile`
        return None


def _path(key: str) -> Path:
    return Path(pytensor.config.compiledir) / "bayesmix" / f"{key}.pickle"


def _serialized(function: Any) -> tuple[Any, str, list[Any]]:
    """A C callback as Numba would cache it: machine code, symbol, environments referred to."""
    from numba.core.environment import lookup_environment

    library = function._library
    code = library.serialize_using_object_code()
    names = [v.name for v in library._final_module.global_variables]
    named = [lookup_environment(name) for name in names if name.startswith("_ZN08NumbaEnv")]
    return code, function.native_name, [e for e in named if e is not None and e.can_cache()]


def _code(code: Any, symbol: str, environments: list[Any]) -> _Code:
    """The reverse of `_serialized`."""
    from numba.core.registry import cpu_target

    context = cpu_target.target_context
    context.refresh()
    library = context.codegen().unserialize_library(code)
    for environment in environments:
        library.codegen.set_env(environment.env_name, environment)
    return _Code(library.get_pointer_to_function(symbol), library, environments)


def _starts(model: pm.Model) -> Callable[[int | None], np.ndarray]:
    """nutpie's own starting points: each within 1 of the middle of its prior, by a seed."""
    start = make_initial_point_fn(
        model=model, jitter_rvs=set(model.free_RVs), return_transformed=True
    )
    names = [model.rvs_to_values[variable].name for variable in model.free_RVs]
    lock = threading.Lock()  # chains ask from threads

    def starts(seed: int | None = None) -> np.ndarray:
        with lock:
            point = start(seed)
        return np.concatenate([np.ravel(point[name]) for name in names]).astype(float)

    return starts


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
