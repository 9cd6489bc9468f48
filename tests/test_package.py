"""One import, and a quick one."""

import ast
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import cloudpickle
import pytest

import bayesmix as bm

HEAVY = ("pymc", "pytensor", "arviz", "nutpie", "numba", "matplotlib", "pandas", "xarray")


def test_the_version_is_the_installed_one():
    assert bm.__version__ == version("bayesmix")


def exported() -> list[str]:
    """Names in the stub that type checkers read."""
    stub = ast.parse(Path(bm.__file__).with_suffix(".pyi").read_text())
    (names,) = (ast.literal_eval(x.value) for x in stub.body if isinstance(x, ast.Assign))
    return names


def test_the_stub_lists_what_is_exported():
    assert sorted(exported()) == sorted(bm.__all__)
    assert sorted(bm.__all__) == dir(bm)


@pytest.mark.parametrize("name", exported())
def test_every_name_is_there_and_documented(name):
    assert getattr(bm, name).__doc__ or name == "POINT_LAWS"


def test_functions_keep_their_names_when_their_files_are_imported():
    import bayesmix.fit
    import bayesmix.predict

    assert callable(bayesmix.fit)
    assert callable(bayesmix.predict)


def test_importing_the_package_imports_nothing_heavy():
    code = f"import sys, bayesmix; print([x for x in {HEAVY} if x in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_function_that_names_the_package_can_be_sent_to_another_process() -> None:
    """As joblib sends those of a script or notebook, with the modules that they name."""
    sent = cloudpickle.loads(cloudpickle.dumps(lambda: bm))
    assert sent() is bm
