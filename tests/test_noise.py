"""The noise kernel against SciPy's multivariate t and finite differences."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from scipy.special import gammaln
from scipy.stats import multivariate_t

from bayesmix import noise, ops
from bayesmix.discrepancy import Scales

# three groups, with repeats and checkpoints, and three rows that are alone with theirs
REPEAT = np.array([0, 0, 0, 5, 0, 1, 1, 2, 3, 2, 2, 4])
RUN = np.array([4, 4, 1, 8, 2, 3, 3, 0, 6, 5, 5, 7])
CELL = np.array([0, 1, 0, 1, 1, 0, 1, 1, 0, 0, 1, 1])
N_ROWS, N_COMPONENTS = 12, 3
DOF = [3.3, 5.2]


@pytest.fixture(scope="module")
def cells() -> noise.Cells:
    rng = np.random.default_rng(0)
    observed = rng.normal(1.0, 0.1, size=(N_ROWS, N_COMPONENTS))
    observed[2, 1] = observed[7, 0] = observed[3, 2] = np.nan
    observed[5:7, 2] = np.nan  # a whole run
    doubt = np.where(rng.random(observed.shape) < 0.4, rng.random(observed.shape), 0.0)
    # rows of a mixture are without a domain together
    doubt[REPEAT == 1, 0] = doubt[REPEAT == 2, 1] = doubt[REPEAT == 3, 1] = noise.UNSEEN
    return noise.cells(
        observed, doubt, Scales(np.zeros((2, 2)), CELL, np.ones(2, bool)), RUN, REPEAT
    )


def _parameters(rho: float, phi: float) -> dict:
    rng = np.random.default_rng(1)
    return {
        "loss": np.exp(rng.normal(1.0, 0.1, size=(N_ROWS, N_COMPONENTS))),
        "offset": rng.normal(0.0, 0.05, size=(2, N_COMPONENTS)),
        "sigma": rng.uniform(0.3, 1.3, N_COMPONENTS),
        "kappa": rng.uniform(0.1, 1.0, N_COMPONENTS),
        "kappa_unseen": rng.uniform(0.1, 1.0, N_COMPONENTS),
        "common": rng.uniform(0.1, 1.0, N_COMPONENTS),
        "effect": rng.normal(size=9),
        "outlier": rng.exponential(0.5, size=9),
        "dof": DOF[0],
        "dof_unseen": DOF[1],
        "rho": rho,
        "phi": phi,
    }


def _constant(n: np.ndarray | int, dof: float) -> np.ndarray:
    """Of the multivariate t, what the kernel leaves out."""
    return gammaln((dof + n) / 2) - gammaln(dof / 2) - n / 2 * np.log(dof * np.pi)


@pytest.mark.parametrize(("rho", "phi"), [(0.0, 0.0), (0.6, 0.0), (0.3, 0.3), (0.6, 0.25)])
def test_value_is_the_multivariate_t(cells, rho: float, phi: float) -> None:
    p = _parameters(rho, phi)
    want, sizes = 0.0, ([], [])
    for group in range(6):
        for i in range(N_COMPONENTS):
            k = np.flatnonzero((group == REPEAT) & np.isfinite(cells.observed[:, i]))
            if not k.size:
                continue
            correlation = np.where(RUN[k][:, None] == RUN[k], rho, phi)
            np.fill_diagonal(correlation, 1.0)
            unseen = bool(cells.unseen[k[0], i])
            kappa = p["kappa_unseen" if unseen else "kappa"][i]
            scale = np.hypot(p["sigma"][i], kappa * cells.doubt[k, i])
            scale *= np.exp(p["outlier"][RUN[k]])
            mean = np.log(p["loss"][k, i]) + p["offset"][CELL[k], i]
            mean += p["common"][i] * p["effect"][RUN[k]]
            shape = scale[:, None] * correlation * scale
            want += multivariate_t(mean, shape, df=DOF[unseen]).logpdf(cells.observed[k, i])
            want -= _constant(k.size, DOF[unseen])
            sizes[unseen].append(k.size)
    got, _ = noise.log_likelihood(*p.values(), *cells.arrays)
    assert got == pytest.approx(want, rel=1e-13)
    size, count, kind = cells.sizes
    for unseen in (False, True):
        counted = np.repeat(size[kind == unseen], count[kind == unseen].astype(int))
        np.testing.assert_array_equal(counted, np.sort(sizes[unseen]))
        assert counted.size


@pytest.mark.parametrize(("rho", "phi"), [(0.6, 0.0), (0.3, 0.3), (0.6, 0.25)])
def test_gradient_against_central_differences(cells, rho: float, phi: float) -> None:
    p = _parameters(rho, phi)
    _, bars = noise.log_likelihood(*p.values(), *cells.arrays)
    for (name, value), bar in zip(p.items(), bars, strict=True):
        if name == "phi" and phi == 0.0:
            continue  # its edge
        flat = np.ravel(np.asarray(value, dtype=float))
        for at in range(flat.size):
            step = np.zeros_like(flat)
            step[at] = 1e-6
            ends = []
            for sign in (1, -1):
                moved = (flat + sign * step).reshape(np.shape(value))
                moved = moved if moved.ndim else float(moved)
                ends.append(noise.log_likelihood(*{**p, name: moved}.values(), *cells.arrays)[0])
            want = (ends[0] - ends[1]) / 2e-6
            assert np.ravel(bar)[at] == pytest.approx(want, rel=1e-6, abs=5e-9), (name, at)


def test_the_op_gives_the_kernels_value_and_gradient(cells) -> None:
    """Through PyTensor and Numba, as the sampler sees it; the constant is SciPy's."""
    p = _parameters(0.6, 0.25)
    symbols = [pt.as_tensor(np.asarray(value, dtype=float)).type() for value in p.values()]
    total = ops.log_likelihood(*symbols, cells.arrays, cells.sizes)
    compiled = pytensor.function(symbols, [total, *pt.grad(total, symbols[:8])], mode="NUMBA")
    got, *slopes = compiled(*(np.asarray(value, dtype=float) for value in p.values()))
    value, bars = noise.log_likelihood(*p.values(), *cells.arrays)
    size, count, unseen = cells.sizes
    value += count @ _constant(size, np.where(unseen, *DOF[::-1]))
    assert got == pytest.approx(value, rel=1e-12)
    for slope, bar in zip(slopes, bars[:8], strict=True):
        np.testing.assert_allclose(slope, bar, rtol=1e-12, atol=1e-12)
