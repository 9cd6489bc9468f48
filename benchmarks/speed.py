"""Speed of the kernel, of the model's compilation and of the import.

`python -m benchmarks.speed [--out benchmarks/speed.csv]` prints the table and writes it. Times are
of one core; run it on a machine that does nothing else.
"""

import argparse
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal
from unittest import mock

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from bayesmix import allocation
from bayesmix import law as laws
from bayesmix._files import atomic_path
from bayesmix.compiling import compiled, log_density
from bayesmix.elementary import exp_each
from bayesmix.fit import fit
from bayesmix.model import build_model
from bayesmix.runs import Runs, read_runs, write_runs
from bayesmix.simulate import draw_design, simulate

LAW = "transfer"
SUBPROCESSES = 3


def processor() -> str:
    """The processor's name, where the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def kernel_parameters(n_domains: int) -> tuple[np.ndarray | float, ...]:
    """Parameters in the order of `law.PARAMETERS`."""
    rng = np.random.default_rng(0)
    tau = rng.uniform(0, 0.5, (n_domains, n_domains))
    np.fill_diagonal(tau, 1.0)
    # about half a nat a term
    return (
        rng.uniform(1, 2, n_domains), rng.normal(4, 0.3, n_domains),
        rng.uniform(0.1, 0.4, n_domains), rng.normal(4, 0.3, n_domains),
        rng.uniform(0.1, 0.4, n_domains), tau,
        rng.normal(4, 0.3, n_domains), 0.3, rng.normal(5, 0.3, n_domains), 0.3, np.log(1e6), 1.0,
    )  # fmt: skip


def kernel_milliseconds(runs: Runs, repeats: int = 2000) -> float:
    """Median time of the law's value and vector-Jacobian product at every row of a swarm."""
    variant = laws.LAWS[LAW]
    at = laws.points(runs.weights.values, runs.n_params.values, runs.n_tokens.values)
    n_domains = len(runs.domains)
    arguments = (*kernel_parameters(n_domains), *at.arrays, variant.noise, variant.head)
    loss_bar = np.random.default_rng(1).normal(size=(at.row_log_d.size, n_domains))

    seconds = np.empty(repeats)
    for i in range(-1, repeats):  # the first call, which compiles, is overwritten by the last
        start = time.perf_counter()
        _, *saved = laws.forward(*arguments)
        laws.pullback(*arguments, *saved, loss_bar)
        seconds[i] = time.perf_counter() - start
    return 1e3 * float(np.median(seconds))


def kernel_bound(runs: Runs) -> float:
    """Milliseconds that the exponentials and logarithms of `kernel_milliseconds` alone take.

    Each number's cost is that of a long array. What it comes to is
    ``K (M + P (steps + 2)) + C (2 M + R)`` of M mixtures, P problems, R rows, K = C domains.
    """
    at = laws.points(runs.weights.values, runs.n_params.values, runs.n_tokens.values)
    n_domains = len(runs.domains)
    parameters = dict(zip(laws.PARAMETERS, kernel_parameters(n_domains), strict=True))
    b = parameters["b"][:, None]
    with np.errstate(divide="ignore"):  # a weight of 0 rests on the floor
        gains = np.log(at.mixtures[at.problem_mixture].T * b) + parameters["log_c"][:, None]
    # the uncompiled solver takes one problem: its logarithms are one of the budget, one a step
    with (
        mock.patch.object(allocation, "exp", math.exp),
        mock.patch.object(allocation, "log", side_effect=math.log) as logs,
    ):
        for p, log_n in enumerate(at.problem_log_n):
            allocation.solve.py_func(
                gains[:, [p]], 1 / (b[:, 0] + 1), np.array([log_n]), parameters["log_H"],
                np.empty((n_domains, 1)),
            )  # fmt: skip
        steps = logs.call_count / at.problem_log_n.size - 1
    in_law = at.mixtures.size + at.problem_log_n.size * n_domains * (steps + 2)
    in_law += 2 * at.mixtures.size + at.row_log_d.size * n_domains
    values, seconds = np.full(10_000, 0.5), np.empty(200)
    for i in range(-1, len(seconds)):
        values[:] = 0.5
        start = time.perf_counter()
        exp_each(values)
        seconds[i] = time.perf_counter() - start
    return 1e3 * in_law * float(np.median(seconds)) / values.size


def compile_seconds(path: str) -> float:
    """Time to build and compile the model of a swarm, in this process, libraries imported."""
    import nutpie.compile_pymc  # noqa: F401  takes a second, with ArviZ

    runs = read_runs(path)
    start = time.perf_counter()
    compiled(build_model(runs, LAW))
    return time.perf_counter() - start


def start_seconds(path: str, backend: Literal["numba", "jax"]) -> float:
    """Time of a fit of one warm-up draw and one draw, in this process: all but the sampling."""
    runs = read_runs(path)
    start = time.perf_counter()
    fit(runs, LAW, backend=backend, draws=1, tune=1, chains=1, progressbar=False)
    return time.perf_counter() - start


def gradient_milliseconds(runs: Runs, backend: str, repeats: int = 1000) -> float:
    """Median time of the model's log density and gradient, through Python."""
    # not above: what is timed in other processes starts without it, as a user's fit does
    import jax
    from pymc.sampling.jax import get_jaxified_logp

    import bayesmix.jax_ops  # noqa: F401  tells PyTensor how

    model = build_model(runs, LAW)
    if backend == "jax":
        function = jax.jit(jax.value_and_grad(get_jaxified_logp(model)))
        start = model.initial_point(0)
        point = [start[v.name] for v in model.value_vars]
    else:
        by_nutpie = compiled(model)
        function, point = log_density(by_nutpie), by_nutpie.initial_point_func(0)
    seconds = np.empty(repeats)
    for i in range(-1, repeats):  # the first call, which may compile, is overwritten by the last
        begin = time.perf_counter()
        jax.block_until_ready(function(point))
        seconds[i] = time.perf_counter() - begin
    return 1e3 * float(np.median(seconds))


def in_new_process(statements: str, **environment: str) -> float:
    """The number that some Python prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", statements],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def measure() -> pd.DataFrame:
    """All measurements: quantity, value, unit, target and the ratio to it; processor and load."""
    load = os.getloadavg()[0]
    # 48 mixtures at two sizes with five checkpoints each, less one run: 475 rows
    shape = {"n_mixtures": [48, 47], "checkpoints": 5}
    large = draw_design(7, [1.2e8, 3.1e8], **shape)
    small = draw_design(17, [1.1e9], n_mixtures=43)
    rows = []
    for design, said, target in ((large, "475 x 7", 0.25), (small, "43 x 17", None)):
        # the target of the second line is three times what exponentials and logarithms take
        took = kernel_milliseconds(design)
        rows.append((f"kernel, value and gradient, {said}", took, "ms", target))
        bound = kernel_bound(design)
        rows.append((f"the same against its lower bound, {said}", took, "ms", 3 * bound))
    simulated = simulate(7, [1.2e8, 3.1e8], **shape).runs
    for backend in ("numba", "jax"):
        value = gradient_milliseconds(simulated, backend)
        rows.append((f"gradient of the model of 475 x 7, {backend}", value, "ms", None))
    with tempfile.TemporaryDirectory() as folder:
        swarm = f"{folder}/swarm.csv"
        write_runs(simulated, swarm)
        call = f"from benchmarks.speed import *; print(compile_seconds({swarm!r}))"
        caches = {
            "PYTENSOR_FLAGS": f"base_compiledir={folder}/pytensor",
            "NUMBA_CACHE_DIR": f"{folder}/numba",
        }
        for state, target in (("cold", 20.0), ("warm", None)):
            seconds = in_new_process(call, **caches)
            rows.append((f"compile the model of 475 x 7, {state}", seconds, "s", target))
        starts = ("numba", "caches of 475 rows", 5.0), ("jax", "no cache", None)
        for backend, state, target in starts:
            call = f"from benchmarks.speed import *; print(start_seconds({swarm!r}, {backend!r}))"
            seconds = in_new_process(call, **caches)
            rows.append((f"start of a fit of 380 x 7, {backend}, {state}", seconds, "s", target))
    call = "import time; t = time.time(); import bayesmix; print(time.time() - t)"
    imports = [in_new_process(call) for _ in range(SUBPROCESSES)]
    rows.append(("import bayesmix", float(np.median(imports)), "s", None))
    table = pd.DataFrame(rows, columns=["quantity", "value", "unit", "target"])
    table["ratio"] = table["value"] / table["target"]
    table["processor"] = processor()
    table["load_before"] = load
    return table.round({"value": 4, "ratio": 3, "load_before": 2})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("speed.csv"))
    out = parser.parse_args().out
    table = measure()
    load = table["load_before"][0]
    shown = Table(title=f"Speed on one core: {processor()}, load before {load:.1f}")
    shown.add_column("quantity")
    for name in ("value", "target", "ratio"):
        shown.add_column(name, justify="right")
    for row in table.itertuples():
        target, ratio = (
            ("", "") if np.isnan(row.target) else (f"{row.target:g} {row.unit}", f"{row.ratio:.2f}")
        )
        shown.add_row(row.quantity, f"{row.value:.3f} {row.unit}", target, ratio)
    Console().print(shown)
    with atomic_path(out) as path:
        table.to_csv(path, index=False)


if __name__ == "__main__":
    main()
