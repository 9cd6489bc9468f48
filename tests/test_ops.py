"""The Ops: the kernel's values and gradients in every linker, compiled without object mode."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import xarray as xr
from pytensor.compile.mode import Mode
from pytensor.link.numba.dispatch.basic import numba_funcify_and_cache_key

from bayesmix import allocation, law, ops

ALL_LAWS = pytest.mark.parametrize("name", law.LAWS)
PYTHON = Mode(linker="py", optimizer="fast_compile")


def swarm():
    """Five rows of three mixtures, two sizes; one domain without weight in one of them."""
    mixtures = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1], [0.0, 0.5, 0.5]])
    sizes = np.array([1e8, 1e8, 3e8, 1e8, 3e8])
    return law.points(mixtures[[0, 1, 0, 2, 0]], sizes, 10.0 ** np.array([9.5, 10, 10, 9.8, 10.2]))


def parameters():
    """Three domains and a target, a nat or so a term, one floor binding; arrays, 0-d too."""
    values = {
        "E": [1.0, 1.2, 1.4, 1.6],
        "log_c": [6.0, 4.0, 8.0],
        "b": [0.3, 0.2, 0.4],
        "log_A": [6.0, 7.0, 5.0, 8.0],
        "a": [0.3, 0.35, 0.2, 0.4],
        "tau": [[1, 0.1, 0.2], [0.3, 1, 0.05], [0.5, 0.01, 1], [0.2, 0.3, 0.5]],
        "log_G": [5.0, 5.5, 4.5, 5.0],
        "g": 0.3,
        "log_Q": [8.0, 8.5, 7.5, 8.0],
        "q": 0.4,
        "log_H": np.log(3e7),
        "fade": 0.8,
    }
    return {name: np.asarray(value, dtype=float) for name, value in values.items()}


def evaluated(values, at, variant):
    return law.evaluate({k: v if v.ndim else float(v) for k, v in values.items()}, at, variant)


def symbols():
    return {name: pt.tensor(name, shape=v.shape) for name, v in parameters().items()}


def central(function, values, name):
    """Central differences of a scalar function of named arrays; the error is of order step^4."""
    gradient = np.empty(values[name].shape)
    step = 1e-4
    for index in np.ndindex(gradient.shape):

        def moved(k, index=index):
            value = values[name].copy()
            value[index] += k * step
            return function({**values, name: value})

        near, far = (moved(k) - moved(-k) for k in (1, 2))
        gradient[index] = (8 * near - far) / (12 * step)
    return gradient


def weighting(shape):
    """Fixed weights of both signs, so that a scalar depends on every output differently."""
    return np.cos(np.arange(np.prod(shape), dtype=float)).reshape(shape)


@ALL_LAWS
def test_numba_and_python_give_the_kernels_value_and_true_gradient(name, monkeypatch):
    at, variant, values, variables = swarm(), law.LAWS[name], parameters(), symbols()
    loss = ops.losses(variables, at.arrays, variant)
    expected = evaluated(values, at, variant)
    # a domain without weight has no finite loss without transfer: not asked for
    asked = np.where(np.isfinite(expected), weighting(expected.shape), 0)
    inputs = list(variables.values())
    outputs = [loss, *pytensor.grad(None, inputs, known_grads={loss: pt.constant(asked)})]

    by_python = pytensor.function(inputs, outputs, mode=PYTHON)(*values.values())
    # compiled code never comes back to Python
    with monkeypatch.context() as patch:
        for op in (ops.LawOp, ops.LawPullbackOp):
            patch.setattr(op, "perform", None)
        by_numba = pytensor.function(inputs, outputs, mode="NUMBA")(*values.values())

    def scalar(values):
        loss = evaluated(values, at, variant)
        return (np.where(asked != 0, loss, 0) * asked).sum()

    for found, rtol in ((by_python, 0), (by_numba, 1e-12)):
        np.testing.assert_allclose(found[0], expected, rtol=rtol)
        for key, gradient in zip(values, found[1:], strict=True):
            np.testing.assert_allclose(
                gradient, central(scalar, values, key), rtol=1e-8, atol=1e-9, err_msg=key
            )


def test_variants_compiled_together_differ():
    at, values, variables = swarm(), parameters(), symbols()
    losses = [ops.losses(variables, at.arrays, variant) for variant in law.LAWS.values()]
    found = pytensor.function(list(variables.values()), losses, mode="NUMBA")(*values.values())
    for loss, variant in zip(found, law.LAWS.values(), strict=True):
        np.testing.assert_allclose(loss, evaluated(values, at, variant), rtol=1e-13)
    assert not np.array_equal(found[0], found[2])


def test_pytensor_keeps_no_kernel_on_disk():
    """What it keeps it knows by the Op alone: an edited kernel would meet its old code."""
    for variant in law.LAWS.values():
        node = ops.losses(symbols(), swarm().arrays, variant).owner
        assert numba_funcify_and_cache_key(node.op, node=node)[1] is None


@pytest.mark.parametrize("mode", [Mode(linker="py"), "NUMBA"])
def test_without_trend_is_the_residual_of_least_squares(mode):
    rng = np.random.default_rng(0)
    regressors, vector, bar = rng.normal(size=(9, 3)), *rng.normal(size=(2, 9))
    columns = np.linalg.qr(regressors)[0]
    symbol = pt.dvector()
    left = ops.without_trend(symbol, columns)
    gradient = pytensor.grad((bar * left).sum(), symbol)
    residual, found = pytensor.function([symbol], [left, gradient], mode=mode)(vector)
    fitted = regressors @ np.linalg.lstsq(regressors, vector)[0]
    np.testing.assert_allclose(residual, vector - fitted, rtol=1e-12)
    assert found @ vector == pytest.approx(bar @ residual, rel=1e-12)  # a linear map's adjoint


def test_only_losses_can_be_differentiated():
    variables = symbols()
    inputs = [*variables.values(), *map(pt.as_tensor_variable, swarm().arrays)]
    loss, log_x, *_ = ops.LawOp(law.LAWS["transfer"])(*inputs)
    with pytest.raises(NotImplementedError, match="only the losses"):
        pytensor.grad(loss.sum() + log_x.sum(), variables["E"])


def test_the_noise_gives_no_second_derivative():
    arguments = [pt.dmatrix(), pt.dmatrix()]
    arguments += [pt.dvector() for _ in range(6)] + [pt.dscalar() for _ in range(4)]
    assert len(arguments) == ops.N_NOISE
    constant = [pt.dmatrix(), pt.dmatrix(), *(pt.lvector() for _ in range(5))]
    value, by_loss, *_ = ops.NoiseOp()(*arguments, *constant)
    with pytest.raises(NotImplementedError, match="only the log likelihood"):
        pytensor.grad(value + by_loss.sum(), arguments[0])


REFERENCE = {
    "b": np.array([0.1, 0.4, 0.3, 0.6]),
    "log_capacity": np.log([0.2, 0.8, 0.01, 0.6]),
    "log_H": np.array(np.log(2e7)),
}
WEIGHTS, N_PARAMS = np.array([0.4, 0.3, 0.1, 0.2]), 2e8


def reference():
    variables = {name: pt.tensor(name, shape=v.shape) for name, v in REFERENCE.items()}
    log_x = ops.reference_log_x(
        pt.constant(WEIGHTS), variables["b"], variables["log_capacity"],
        np.log(N_PARAMS), variables["log_H"],
    )  # fmt: skip
    return variables, log_x


@pytest.mark.parametrize("mode", [PYTHON, "NUMBA"], ids=["python", "numba"])
def test_reference_is_the_allocation_whose_capacity_terms_are_given(mode, monkeypatch):
    variables, log_x = reference()
    inputs = list(variables.values())
    bars = pytensor.grad(None, inputs, known_grads={log_x: pt.constant(weighting(4))})
    if mode == "NUMBA":
        for op in (ops.ReferenceOp, ops.ReferencePullbackOp):
            monkeypatch.setattr(op, "perform", None)
    found, *gradients = pytensor.function(inputs, [log_x, *bars], mode=mode)(*REFERENCE.values())

    # with c chosen so that c x^-b is what was given, the optimum is the x that was found
    b, given = REFERENCE["b"], REFERENCE["log_capacity"]
    c = np.exp(given + b * found)
    optimum = allocation.allocate(
        *(xr.DataArray(v, dims="domain") for v in (WEIGHTS, c, b)), N_PARAMS, floor=2e7
    )
    np.testing.assert_allclose(np.exp(found), optimum, rtol=1e-13)
    assert (found <= np.log(2e7)).tolist() == [True, False, True, False]

    # h b s of what is off the floor divides what the floors leave
    def stated(values):
        share = WEIGHTS * values["b"] * np.exp(values["log_capacity"])
        floor = np.exp(values["log_H"])
        left = N_PARAMS + (4 - 1) * floor - 2 * floor
        off = np.array([False, True, False, True])
        x = np.where(off, left * share / share[off].sum(), floor)
        return (np.log(x) * weighting(4)).sum()

    for name, gradient in zip(REFERENCE, gradients, strict=True):
        np.testing.assert_allclose(
            gradient, central(stated, REFERENCE, name), rtol=1e-8, atol=1e-9, err_msg=name
        )
