"""Machine code of a whole model: kept on disk, read by another process, and never another's."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import nutpie
import pandas as pd
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest

import bayesmix as bm
from bayesmix import compiling, machine_code
from bayesmix.compiling import code_key, compiled, log_density, unconstrained
from bayesmix.model import build_model
from bayesmix.model_data import data
from bayesmix.priors import Normal

LAW = "quantization"
OTHER_PROCESS = """
import sys
from pathlib import Path
import numpy as np
from bayesmix import compiling, machine_code
sys.path.insert(0, sys.argv[1])
from test_compiling import drawn, small

def refuse(key, model):
    raise AssertionError("compiled again")

compiling._compile = refuse
machine_code.path_of = lambda key: Path(sys.argv[2]) / f"{key}.pickle"
print(drawn(small(float(sys.argv[3]), int(sys.argv[4]))).tobytes().hex())
"""


def swarm(slope: float) -> bm.Runs:
    """Two domains of five runs: the least that a law is fitted to."""
    web = np.linspace(0.1, 0.9, 5)
    columns = {"weight_web": web, "weight_code": 1 - web, "loss_web": 3 * web**-slope}
    runs = {"run_id": list("abcde"), "n_params": 1e8, "n_tokens": 2e9}
    return bm.runs_from_frame(pd.DataFrame({**runs, **columns}))


def small(slope: float, n: int = 3) -> pm.Model:
    """As `build_model` makes them, with what its code calls from outside: BLAS, log gamma."""
    with pm.Model(coords={"place": list("abcdefgh"[:n])}) as model:
        x = data(np.vander(np.linspace(0.0, slope, n), n))
        spread = pm.LogNormal("spread", 0.0, 0.3)
        level = pm.Normal("level", 0.0, 1.0, dims="place")
        column = pm.Normal("column", 0.0, 1.0, shape=(data(n), 1))
        fitted = pm.Deterministic("fitted", pt.dot(x, level), dims="place")
        off = (data(np.linspace(0.3, slope, n)) - fitted) / spread
        fit = (pt.gammaln(spread + 1) - off**2 / 2 - pt.log(spread)).sum()
        pm.Potential("likelihood", fit + (column * x)[data([0, 1])].sum())
    return model


def in_memory(model: pm.Model):
    """What a model was compiled to."""
    compiled(model)
    return compiling._last[code_key(model)]


def drawn(model: pm.Model) -> np.ndarray:
    """A few draws of the unknowns."""
    tree = nutpie.sample(
        compiled(model), draws=5, tune=5, chains=1, seed=1, progress_bar=False, save_warmup=False
    )
    posterior = tree["posterior"].to_dataset()
    return np.concatenate([posterior[name].values.ravel() for name in sorted(posterior)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    """Where this module's machine code is, with that of the swarm's model."""
    folder = tmp_path_factory.mktemp("code") / "bayesmix"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine_code, "path_of", lambda key: folder / f"{key}.pickle")
        compiling._last.clear()
        compiled(small(0.05))
        yield folder
        compiling._last.clear()


@pytest.mark.parametrize(("slope", "n"), [(0.05, 3), (0.1, 3), (0.1, 5)])
def test_another_process_reads_what_this_one_compiled(folder: Path, slope: float, n: int) -> None:
    """The same draws but for rounding, of this swarm and of others of any size.

    Here functions that many parts have are run as they were compiled with the first of them.
    """
    command = [sys.executable, "-W", "error", "-c", OTHER_PROCESS]
    command += [str(Path(__file__).parent), str(folder), str(slope), str(n)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    there = np.frombuffer(bytes.fromhex(done.stdout.strip()))
    np.testing.assert_allclose(there, drawn(small(slope, n)), rtol=1e-9)
    assert not np.allclose(there, drawn(small(0.2, n)), rtol=1e-3)


def test_starts_are_dispersed_around_the_middle_of_the_prior(folder: Path) -> None:
    """By the seed alone: within 1 of it, in the sampler's own coordinates."""
    starts = compiled(small(0.05)).initial_point_func
    np.testing.assert_array_equal(starts(3), starts(3))
    many = np.array([starts(seed) for seed in range(400)])
    middle = [0.3**2 / 2, *np.zeros(6)]  # of the log-normal, the log of its mean
    assert abs(many - middle).max() <= 1.0
    np.testing.assert_allclose(many.std(axis=0), 1 / np.sqrt(3), rtol=0.1)


@pytest.mark.parametrize("damage", ["cut", "changed", "absent"])
def test_a_damaged_file_is_no_code(folder: Path, damage: str, tmp_path: Path, monkeypatch) -> None:
    """Code that is not whole would crash the process, where it runs at all."""
    model = small(0.05)
    key = code_key(model)
    content = machine_code.path_of(key).read_bytes()
    middle = len(content) // 2
    monkeypatch.setattr(machine_code, "path_of", lambda key: tmp_path / f"{key}.pickle")
    if damage == "cut":
        machine_code.path_of(key).write_bytes(content[:middle])
    elif damage == "changed":
        changed = bytes([content[middle] ^ 1])
        machine_code.path_of(key).write_bytes(content[:middle] + changed + content[middle + 1 :])
    assert machine_code.read(key) is None
    machine_code.path_of(key).write_bytes(content)
    assert machine_code.read(key) is not None


def test_the_key_tells_models_apart_and_not_their_data(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = swarm(0.05)
    key = code_key(build_model(runs, LAW))
    assert code_key(build_model(swarm(0.1), LAW)) == key
    others = [
        build_model(runs, "regression"),
        build_model(runs, LAW, {"capacity_mean": Normal(0.0, 1.0)}),
    ]
    keys = {code_key(model) for model in others}
    for name, other in {"_SOURCES": "edited", "version": lambda _: "another"}.items():
        with monkeypatch.context() as patch:
            patch.setattr(compiling, name, other)
            keys.add(code_key(build_model(runs, LAW)))
    assert len(keys - {key}) == 4
    # data that nothing uses has its place in the vectors all the same
    for unused in (1.0, 1, [1.0]):
        model = build_model(runs, LAW)
        with model:
            data(unused)
        keys.add(code_key(model))
    assert len(keys - {key}) == 4 + 3


def test_the_oldest_files_go(folder: Path, tmp_path: Path, monkeypatch) -> None:
    function = in_memory(small(0.05))
    monkeypatch.setattr(machine_code, "_KEPT", 2)
    monkeypatch.setattr(machine_code, "path_of", lambda key: tmp_path / f"{key}.pickle")
    (tmp_path / ".killed.pickle.x").mkdir()  # as a process leaves it that is killed while it writes
    for key in ("first", "second", "third"):
        machine_code.keep(key, function)
    assert {file.stem for file in tmp_path.iterdir() if file.is_file()} == {"second", "third"}


@pytest.mark.parametrize("n", [3, 4])
def test_the_log_density_is_the_models_own(folder: Path, n: int) -> None:
    """Against PyMC's terms by another compiler, and the gradient against differences.

    By the same code for both sizes.
    """
    model = small(0.05, n)
    by_nutpie = compiled(model)
    density = log_density(by_nutpie)
    names = unconstrained(by_nutpie)
    point = np.random.default_rng(0).normal(size=len(names))
    as_pymc = {
        name: point[np.array(names) == name].reshape(np.shape(value))
        for name, value in model.initial_point().items()
    }
    value, gradient = density(point)
    terms = model.compile_logp(mode="FAST_COMPILE", sum=False)(as_pymc)
    assert value == pytest.approx(sum(np.sum(term) for term in terms), rel=1e-12)
    steps = 1e-5 * np.eye(len(point))
    slopes = [(density(point + s)[0] - density(point - s)[0]) / 2e-5 for s in steps]
    np.testing.assert_allclose(gradient, slopes, rtol=1e-6, atol=1e-6)


def test_a_density_without_a_value_is_not_an_error(folder: Path) -> None:
    """A line search may try any point."""
    density = log_density(compiled(small(0.05)))
    value, gradient = density(np.full(7, np.nan))
    assert not np.isfinite(value)
    assert gradient.shape == (7,)
    with pytest.raises(ValueError, match=r"the model has 7 unknowns, the point \(3,\)"):
        density(np.zeros(3))


def test_what_cannot_be_kept_or_read_is_compiled(folder: Path, monkeypatch) -> None:
    """The file rests on parts of Numba that another version may not have."""
    model = small(0.05)
    key, function = code_key(model), in_memory(model)
    monkeypatch.setattr(machine_code, "_serialized", None)
    monkeypatch.setattr(compiling, "_graph", lambda model: model)
    monkeypatch.setattr(compiling, "_c_function", lambda _: function)
    assert compiling._compile("another", model) is function
    monkeypatch.setattr(machine_code, "_code", None)
    assert machine_code.read(key) is None


def test_a_file_holds_nothing_of_a_swarms_data(folder: Path) -> None:
    """Nor of its sizes: code, the symbol, and the constants of functions."""
    content = machine_code.path_of(code_key(small(0.05))).read_bytes()[32:]
    _, symbol, environments = pickle.loads(content)
    assert symbol.startswith("cfunc.")
    constants = [c for e in environments for c in e.consts]
    assert not any(isinstance(c, np.ndarray) for c in constants)


def test_equal_nodes_share_a_function_and_others_do_not(folder: Path) -> None:
    """Graphs compiled one after another: of the same nodes, of other nodes, of other types."""
    vector, matrix = pt.dvector(), pt.dmatrix()
    at, square = np.array([0.5, -1.5]), np.array([[0.3, 2.0]])
    graphs = [
        ([vector], [pt.exp(vector) * 2, (vector**2).sum()], (at,)),
        ([vector], [pt.exp(vector) * 3, (vector**2).sum()], (at,)),
        ([matrix], [pt.exp(matrix) * 2, (matrix**2).sum()], (square,)),
        ([vector, matrix], [vector * matrix, matrix * vector + matrix], (at, square)),
    ]
    truth = [
        (2 * np.exp(at), 2.5),
        (3 * np.exp(at), 2.5),
        (2 * np.exp(square), 4.09),
        (at * square, square * at + square),
    ]
    counts = []
    for _ in range(2):
        for (inputs, outputs, values), expected in zip(graphs, truth, strict=True):
            with compiling._functions_shared():
                function = pytensor.function(inputs, outputs, mode="NUMBA")
            for got, right in zip(function(*values), expected, strict=True):
                np.testing.assert_allclose(got, right, rtol=1e-14)
        counts.append(len(compiling._functions))
    assert counts[0] == counts[1]
