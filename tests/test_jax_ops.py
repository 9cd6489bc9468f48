"""The JAX backend against the Numba kernels: the same numbers, another compiler."""

import sys

import jax
import numpy as np
import pandas as pd
import pytest
from pymc.sampling.jax import get_jaxified_logp
from pytensor.compile.mode import Mode

import bayesmix as bm
from bayesmix import allocation, jax_ops
from bayesmix import law as laws
from bayesmix.draws import law_draws
from bayesmix.model import build_model
from bayesmix.reference import reference
from bayesmix.simulate import simulate


@pytest.mark.parametrize("log_floor", [-30.0, 3.0, 6.2])
def test_allocation_is_the_solvers(log_floor: float) -> None:
    """No floor active, some, and all but one; one domain of weight 0 rests on the floor."""
    rng = np.random.default_rng(0)
    gains, r = rng.normal(0, 4, (3, 5)), rng.uniform(0.55, 0.9, 5)
    log_n = np.log([1e3, 2e3, 5e3])
    gains[0, 2] = -700.0
    want = np.empty((5, 3))
    allocation.solve(gains.T.copy(), r, log_n, log_floor, want)
    np.testing.assert_allclose(
        jax_ops.solve(gains, r, log_n, log_floor), want.T, rtol=1e-13, atol=1e-13
    )


@pytest.fixture(scope="module")
def swarm() -> bm.Runs:
    """Zeros, checkpoints, blank losses, a target, printed weights, and runs that repeat."""
    runs = simulate(
        3, [5e7, 2e8], n_mixtures=5, checkpoints=2, zeros=0.2, targets=["exam"], seed=3
    ).runs
    frame = runs.frame
    frame.loc[4, "loss_domain1"] = frame.loc[9, "target_exam"] = np.nan
    again = frame[frame["run_id"] == frame["run_id"].iloc[0]].assign(run_id="again")
    return bm.runs_from_frame(pd.concat([frame, again]), weight_resolution=0.001)


@pytest.mark.parametrize("law", ["transfer", "regression", "quantization"])
def test_model_and_gradient_are_those_of_the_numba_kernels(swarm: bm.Runs, law: str) -> None:
    model = build_model(swarm, law)
    # PyTensor's own nodes by Python, which adds no more than 32 terms: compiling takes far longer
    by_kernels = model.compile_fn(
        [*model.logp(sum=False), model.dlogp()],
        mode=Mode("py", "fast_compile"),
        inputs=model.value_vars,
    )
    value = jax.jit(jax.value_and_grad(get_jaxified_logp(model)))
    point = model.initial_point()
    rng = np.random.default_rng(0)
    for _ in range(3):  # measured: to 7e-12
        moved = {name: x + rng.normal(0, 0.2, np.shape(x)) for name, x in point.items()}
        *terms, slope = by_kernels(moved)
        got, bars = value([moved[v.name] for v in model.value_vars])
        assert float(got) == pytest.approx(sum(np.sum(x) for x in terms), rel=1e-13)
        np.testing.assert_allclose(
            np.concatenate([np.ravel(bar) for bar in bars]), slope, rtol=1e-11, atol=1e-11
        )


def test_draws_by_jax_hold_the_law(swarm: bm.Runs) -> None:
    """What JAX sampled, in natural units, gives by the Numba kernel the levels that it sampled."""
    fit = bm.fit(swarm, backend="jax", draws=20, tune=50, chains=1, progressbar=False)
    ref = reference(fit.runs)
    at = laws.points(ref.weights[None], np.array([ref.n_params]), np.array([ref.n_tokens]))
    draws = law_draws(fit.posterior["posterior"].to_dataset())
    found = laws.evaluate_draws(*(draws[n] for n in laws.PARAMETERS), *at.arrays, True, True)
    levels = fit.posterior["posterior"]["level"].isel(chain=0)
    np.testing.assert_allclose(found[:, 0], levels, rtol=1e-12)
    assert (levels.std("draw") > 0).all()


def test_an_unknown_backend_is_an_error(swarm: bm.Runs) -> None:
    with pytest.raises(ValueError, match="unknown backend 'torch'; valid names: numba, jax"):
        bm.fit(swarm, backend="torch")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="backend 'jax' is nutpie's, not of sampler 'pymc'"):
        bm.fit(swarm, backend="jax", sampler="pymc")


def test_without_jax_the_error_names_the_extra(
    swarm: bm.Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "bayesmix.jax_ops")
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(ImportError, match=r"install bayesmix with its extra, bayesmix\[jax\]"):
        bm.fit(swarm, backend="jax")
