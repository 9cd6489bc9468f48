"""The same posterior without the project's kernels, by other samplers.

`python -m benchmarks.peers.plain [--shared ../shared] [--draws 300] [--samplers NAME ...]` samples
`pile17_1b` (the runs that `benchmarks.heldout` fits with seed 20) three times, with one chain each:

- ``bayesmix``: this project's Ops, sampled by nutpie as `bayesmix.fit` does;
- ``pymc``: the same priors and data, law and noise written in plain PyTensor: capacity is shared
  by an unrolled bisection, differentiated through a last step of Newton; PyMC's own NUTS;
- ``numpyro``: that plain model in JAX, by NumPyro's NUTS (extra ``peers``).

The least ESS (bulk) over the law's parameters, per second of sampling and per gradient, goes to
`benchmarks/peers/plain.csv`, with what it took to compile with warm caches. A ratio above 1 means
that ``bayesmix`` is faster.
"""

import argparse
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from unittest import mock

import arviz as az
import numpy as np
import pandas as pd
import pymc as pm
import pytensor.tensor as pt
import xarray as xr
from pytensor.gradient import disconnected_grad

import bayesmix as bm
from bayesmix import law as laws
from bayesmix import ops
from bayesmix.model import build_model
from bayesmix.noise import UNSEEN
from benchmarks.heldout import Random70
from benchmarks.speed import processor

OUT = Path(__file__).with_suffix(".csv")
STEPS = 60
PARAMETERS = ("E", "b", "a", "level", "tau", "g", "q", "log_H", "sigma")


def allocation(log_gain, slope, log_n, log_floor):
    """log x (P, K): ``x_i = max(H, (gain_i / price)^(1 / slope_i))`` with the price that sums up.

    Parameters
    ----------
    log_gain, slope : TensorVariable, shape (P, K)
    log_n : TensorVariable, shape (P,)
    log_floor : TensorVariable, scalar
    """
    total = pt.exp(log_n) + (log_gain.shape[1] - 1) * pt.exp(log_floor)

    def log_x(log_price):
        return (log_gain - log_price[:, None]) / slope

    def excess(log_price):
        x = pt.exp(pt.maximum(log_x(log_price), log_floor))
        return x.sum(axis=1) / total - 1

    # at these prices one x alone is more than all, and all are less than N / K each
    low = (log_gain - slope * pt.log(total)[:, None]).max(axis=1) - 1
    high = (log_gain - slope * (log_n - pt.log(log_gain.shape[1]))[:, None]).max(axis=1) + 1
    for _ in range(STEPS):
        middle = (low + high) / 2
        above = excess(middle) > 0
        low, high = pt.switch(above, middle, low), pt.switch(above, high, middle)
    price = disconnected_grad((low + high) / 2)
    found = log_x(price)
    free = found > log_floor
    by_price = -(free * pt.exp(found) / slope).sum(axis=1) / total
    price = price - excess(price) / disconnected_grad(by_price)
    return pt.maximum(log_x(price), log_floor)


def losses(parameters: Mapping, at: Sequence, variant: laws.Variant):
    """As `bayesmix.ops.losses`."""
    p = {name: pt.as_tensor_variable(value) for name, value in parameters.items()}
    mixtures, problem_mixture, problem_log_n, row_problem, row_log_d = at
    h = mixtures[problem_mixture]
    n_domains = h.shape[1]
    b = p["b"][None, :]
    gain = pt.log(h) + pt.log(b) + p["log_c"]  # `pile17_1b` is floored: no weight is 0
    log_x = allocation(gain, b + 1, problem_log_n, p["log_H"])
    capacity = pt.exp(p["log_c"] - b * log_x)[row_problem]
    loss = pt.zeros((row_problem.shape[0], p["E"].shape[0])) + p["E"]
    loss = pt.inc_subtensor(loss[:, :n_domains], capacity)
    if variant.noise:
        log_t = p["fade"] * row_log_d[:, None] + pt.log(pt.dot(h, p["tau"].T))[row_problem]
        loss += pt.exp(p["log_A"] - p["a"] * log_t)
    if variant.head:
        loss += pt.exp(p["log_G"] - p["g"] * problem_log_n[row_problem][:, None])
        loss += pt.exp(p["log_Q"] - p["q"] * row_log_d[:, None])
    return loss


def log_likelihood(
    loss, offset, sigma, kappa, kappa_unseen, common, effect, outlier, dof, dof_unseen, rho, phi,
    cells, sizes,
):  # fmt: skip
    """As `bayesmix.ops.log_likelihood`, of a swarm without checkpoints and repeats."""
    observed, doubt, row_cell, row_run, *_ = cells
    unseen = pt.eq(doubt, UNSEEN)
    seen = pt.lt(observed, np.inf)
    scale = pt.sqrt(sigma**2 + (pt.switch(unseen, kappa_unseen, kappa) * doubt) ** 2)
    scale *= pt.exp(outlier)[row_run][:, None]
    freedom = pt.switch(unseen, dof_unseen, dof)
    # the branch that is not taken has to be finite for the gradient
    error = pt.switch(seen, observed, 0.0) - pt.log(loss) - offset[row_cell]
    error = (error - common * effect[row_run][:, None]) / scale
    density = (
        pt.gammaln((freedom + 1) / 2)
        - pt.gammaln(freedom / 2)
        - pt.log(freedom * np.pi) / 2
        - pt.log(scale)
        - (freedom + 1) / 2 * pt.log1p(error**2 / freedom)
    )
    return pt.switch(seen, density, 0.0).sum()


def reference_log_x(weights, b, log_capacity, log_n, log_floor):
    """As `bayesmix.ops.reference_log_x`."""
    gains = pt.log(weights) + pt.log(b) + log_capacity
    return allocation(gains[None], pt.ones_like(gains)[None], log_n[None], log_floor)[0]


def without_trend(vector, columns):
    """As `bayesmix.ops.without_trend`."""
    return vector - pt.dot(columns, pt.dot(columns.T, vector))


def plain_model(runs: bm.Runs) -> pm.Model:
    """The project's model with plain PyTensor in place of its Ops."""
    plain = (losses, log_likelihood, reference_log_x, without_trend)
    with mock.patch.multiple(ops, **{function.__name__: function for function in plain}):
        return build_model(runs)


def sampled(name: str, runs: bm.Runs, draws: int, seed: int) -> xr.DataTree:
    """Posterior and sample stats of one chain, as many draws of warm-up."""
    options = {"draws": draws, "tune": draws, "chains": 1, "cores": 1, "progressbar": False}
    if name == "bayesmix":
        return bm.fit(runs, seed=seed, **options).posterior
    with plain_model(runs):
        return pm.sample(
            nuts_sampler=name, random_seed=seed, compute_convergence_checks=False, **options
        )


def measured(name: str, runs: bm.Runs, draws: int, seed: int = 0) -> dict[str, float | str]:
    """What compiling takes, and effective draws a second and a thousand gradients."""
    seconds = []
    for n in (1, 1, draws):  # the first fills the caches of compiled code
        start = time.perf_counter()
        tree = sampled(name, runs, n, seed)
        seconds.append(time.perf_counter() - start)
    posterior = tree["posterior"].to_dataset()[list(PARAMETERS)]
    least = min(float(value.min()) for value in az.ess(posterior, method="bulk").values())
    steps = float(tree["sample_stats"]["n_steps"].sum())
    _, compiling, whole = seconds
    sampling = whole - compiling
    return {
        "sampler": name,
        "draws": draws,
        "compile_seconds": compiling,
        "sampling_seconds": sampling,
        "steps_a_draw": steps / draws,
        "least_ess": least,
        "ess_per_second": least / sampling,
        "ess_per_1000_gradients": 1e3 * least / steps,
        "processor": processor(),
    }


def main() -> None:
    """Sample, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    shared = os.environ.get("BAYESMIX_SHARED", "../shared")
    parser.add_argument("--shared", type=Path, default=Path(shared))
    parser.add_argument("--draws", type=int, default=300, help="and as many of warm-up")
    names = ["bayesmix", "pymc", "numpyro"]
    parser.add_argument("--samplers", nargs="+", choices=names, default=names)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    runs = bm.read_runs(arguments.shared / "data" / "pile17_1b.csv")
    (fold,) = Random70(20).folds(runs)
    lines = pd.read_csv(OUT).to_dict("records") if OUT.exists() else []
    for name in arguments.samplers:
        line = measured(name, fold.fitted, arguments.draws)
        print(pd.DataFrame([line]).round(3).to_string(index=False), flush=True)
        lines = [old for old in lines if old["sampler"] != name] + [line]
        pd.DataFrame(lines).round(4).to_csv(OUT, index=False)
    table = pd.DataFrame(lines).set_index("sampler")["ess_per_second"]
    if "bayesmix" in table:
        print((table["bayesmix"] / table).round(1).to_string())


if __name__ == "__main__":
    main()
