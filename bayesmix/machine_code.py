"""A compiled function kept on disk, whole, for other processes.

Numba keeps the kernels of a model, but all else takes some 15 s to compile. Machine code of the
whole is in ``pytensor.config.compiledir``, a file a key. As with Numba's own cache, who can write
there can run code.
"""

import hashlib
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytensor

from bayesmix._files import atomic_path

_KEPT = 50  # files, of some 5 MB each


@dataclass(frozen=True)
class _Code:
    """A function that was read from disk, in place of Numba's."""

    address: int
    library: Any  # hold what the code points to
    environments: list[Any]


def keep(key: str, function: Any) -> None:
    """Write what was compiled, and let the oldest files go."""
    if function._library.has_dynamic_globals:
        return  # addresses of this process are in the code
    content = pickle.dumps(_serialized(function))
    path = path_of(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(hashlib.sha256(content).digest() + content)
    files = sorted(path.parent.glob("*.pickle"), key=lambda file: file.stat().st_mtime)
    for old in files[:-_KEPT]:
        old.unlink(missing_ok=True)


def read(key: str) -> _Code | None:
    """What an earlier process compiled, or None if there is none, or not whole."""
    try:
        written = path_of(key).read_bytes()
    except OSError:
        return None
    digest, content = written[:32], written[32:]
    if hashlib.sha256(content).digest() != digest:
        return None
    try:
        return _code(*pickle.loads(content))
    except Exception:  # parts of Numba that are not public, or of a file that another version wrote
        return None


def path_of(key: str) -> Path:
    """The file of a key."""
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
