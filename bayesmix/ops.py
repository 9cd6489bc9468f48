"""The kernels of the law and of the noise as PyTensor Ops: Numba dispatch, exact pullbacks.

Nothing is computed here: `LawOp` calls `law.forward`, its pullback `law.pullback`, `NoiseOp`
`noise.log_likelihood`, and `ReferenceOp` the solver of `allocation`; but for `WithoutTrendOp`, a
projection that is its own pullback. Numba inlines what stands between a model and these functions.
"""

import numpy as np
import pytensor.tensor as pt
from pytensor.gradient import DisconnectedType, disconnected_type
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.link.numba.dispatch.basic import numba_funcify, numba_njit

from bayesmix import allocation, law, noise

_N_PARAMETERS = len(law.PARAMETERS)
_SCALARS = ("g", "q", "log_H", "fade")
_TYPES = tuple(
    pt.dscalar if name in _SCALARS else pt.dmatrix if name == "tau" else pt.dvector
    for name in law.PARAMETERS
)
N_NOISE = 12  # what `noise.log_likelihood` is differentiated by: all but the data
_POINT_TYPES = (pt.dmatrix, pt.lvector, pt.dvector, pt.lvector, pt.dvector)


class LawOp(Op):
    """Losses (R, C) of the law; the further outputs are what its pullback needs again."""

    __props__ = ("variant",)

    def __init__(self, variant: law.Variant):
        self.variant = variant

    def make_node(self, *values):
        inputs = [pt.as_tensor_variable(value) for value in values]
        return Apply(self, inputs, [pt.dmatrix() for _ in range(5)])

    def perform(self, node, inputs, output_storage):
        outputs = law.forward(*map(_scalar, inputs), self.variant.noise, self.variant.head)
        for storage, output in zip(output_storage, outputs, strict=True):
            storage[0] = output

    def pullback(self, inputs, outputs, cotangents):
        if not all(isinstance(c.type, DisconnectedType) for c in cotangents[1:]):
            raise NotImplementedError("only the losses of the law can be differentiated")
        bars = LawPullbackOp(self.variant)(*inputs, *outputs[1:], cotangents[0])
        return [*bars, *(disconnected_type() for _ in inputs[_N_PARAMETERS:])]

    def connection_pattern(self, node):
        n_points = len(node.inputs) - _N_PARAMETERS
        return [[True] * 5] * _N_PARAMETERS + [[False] * 5] * n_points


class LawPullbackOp(Op):
    """Cotangents of the law's parameters, given that of its losses."""

    __props__ = ("variant",)

    def __init__(self, variant: law.Variant):
        self.variant = variant

    def make_node(self, *values):
        inputs = [pt.as_tensor_variable(value) for value in values]
        return Apply(self, inputs, [kind() for kind in _TYPES])

    def perform(self, node, inputs, output_storage):
        values = [_scalar(value) for value in inputs]
        point_end = _N_PARAMETERS + len(_POINT_TYPES)
        bars = law.pullback(
            *values[:point_end], self.variant.noise, self.variant.head, *values[point_end:]
        )
        for storage, bar in zip(output_storage, bars[:-1], strict=True):
            storage[0] = np.asarray(bar)


class NoiseOp(Op):
    """Log likelihood (scalar); the further outputs are its derivatives by the first inputs.

    Inputs: those of `noise.log_likelihood`.
    """

    __props__ = ()

    def make_node(self, *values):
        inputs = [pt.as_tensor_variable(value) for value in values]
        bars = [value.type() for value in inputs[:N_NOISE]]
        return Apply(self, inputs, [pt.dscalar(), *bars])

    def perform(self, node, inputs, output_storage):
        value, bars = noise.log_likelihood(*map(_scalar, inputs))
        for storage, output in zip(output_storage, (value, *bars), strict=True):
            storage[0] = np.asarray(output)

    def pullback(self, inputs, outputs, cotangents):
        if not all(isinstance(c.type, DisconnectedType) for c in cotangents[1:]):
            raise NotImplementedError("only the log likelihood can be differentiated")
        bars = [cotangents[0] * bar for bar in outputs[1:]]
        return [*bars, *(disconnected_type() for _ in inputs[N_NOISE:])]

    def connection_pattern(self, node):
        n_outputs = len(node.outputs)
        n_constant = len(node.inputs) - N_NOISE
        return [[True] * n_outputs] * N_NOISE + [[False] * n_outputs] * n_constant


class ReferenceOp(Op):
    """log x at the reference, where capacity shares s are given: ``x_i = max(H, h_i b_i s_i / l)``.

    Inputs: ``log(h_i b_i s_i)`` (K,), log N and log H (scalars).
    """

    __props__ = ()

    def make_node(self, gains, log_n, log_floor):
        inputs = [pt.as_tensor_variable(value) for value in (gains, log_n, log_floor)]
        return Apply(self, inputs, [pt.dvector()])

    def perform(self, node, inputs, output_storage):
        gains, log_n, log_floor = map(_scalar, inputs)
        output_storage[0][0] = _at_reference(gains, log_n, log_floor)

    def pullback(self, inputs, outputs, cotangents):
        gains_bar, floor_bar = ReferencePullbackOp()(cotangents[0], outputs[0], *inputs[1:])
        return [gains_bar, disconnected_type(), floor_bar]

    def connection_pattern(self, node):
        return [[True], [False], [True]]


class ReferencePullbackOp(Op):
    """Cotangents of the gains and of log H at the reference."""

    __props__ = ()

    def make_node(self, *values):
        inputs = [pt.as_tensor_variable(value) for value in values]
        return Apply(self, inputs, [pt.dvector(), pt.dscalar()])

    def perform(self, node, inputs, output_storage):
        bar, log_x, log_n, log_floor = map(_scalar, inputs)
        gains_bar, floor_bar = _at_reference_vjp(bar, log_x, log_n, log_floor)
        output_storage[0][0] = gains_bar
        output_storage[1][0] = np.asarray(floor_bar)


class WithoutTrendOp(Op):
    """A vector less its projection on orthonormal columns (n, rank)."""

    __props__ = ()

    def make_node(self, vector, columns):
        inputs = [pt.as_tensor_variable(value) for value in (vector, columns)]
        return Apply(self, inputs, [pt.dvector()])

    def perform(self, node, inputs, output_storage):
        vector, columns = inputs
        output_storage[0][0] = vector - columns @ (columns.T @ vector)

    def pullback(self, inputs, outputs, cotangents):
        return [self(cotangents[0], inputs[1]), disconnected_type()]

    def connection_pattern(self, node):
        return [[True], [False]]


def _at_reference(gains, log_n, log_floor):
    """The one capacity problem of the reference, with exponents 0."""
    log_x, exponents, sizes = np.empty((gains.size, 1)), np.empty(gains.size), np.empty(1)
    exponents[:], sizes[0] = 1.0, log_n
    allocation.solve(gains.copy().reshape((-1, 1)), exponents, sizes, log_floor, log_x)
    return log_x.reshape(-1)


def _at_reference_vjp(bar, log_x, log_n, log_floor):
    """Cotangents of its gains and of log H."""
    gains_bar, exponents, sizes = np.empty((bar.size, 1)), np.empty(bar.size), np.empty(1)
    exponents[:], sizes[0] = 1.0, log_n
    floor_bar = allocation.solve_vjp(
        bar.copy().reshape((-1, 1)), log_x.copy().reshape((-1, 1)), exponents, sizes, log_floor,
        gains_bar,
    )  # fmt: skip
    return gains_bar.reshape(-1), floor_bar


def _scalar(value):
    """A Python float for a 0-d array, which Numba's scalar arguments want."""
    return float(value) if np.ndim(value) == 0 else value


@numba_funcify.register(LawOp)
def _law_numba(op, node, **kwargs):
    noise, head = op.variant.noise, op.variant.head
    forward = law.forward

    @numba_njit(inline="always")
    def law_forward(
        E, log_c, b, log_A, a, tau, log_G, g, log_Q, q, log_H, fade,
        mixtures, problem_mixture, problem_log_n, row_problem, row_log_d,
    ):  # fmt: skip
        return forward(
            E, log_c, b, log_A, a, tau, log_G, g.item(), log_Q, q.item(), log_H.item(), fade.item(),
            mixtures, problem_mixture, problem_log_n, row_problem, row_log_d,
            noise, head,
        )  # fmt: skip

    return law_forward


@numba_funcify.register(LawPullbackOp)
def _law_pullback_numba(op, node, **kwargs):
    noise, head = op.variant.noise, op.variant.head
    pullback = law.pullback

    @numba_njit(inline="always")
    def law_pullback(
        E, log_c, b, log_A, a, tau, log_G, g, log_Q, q, log_H, fade,
        mixtures, problem_mixture, problem_log_n, row_problem, row_log_d,
        log_x, capacity, log_t, noise_term, loss_bar,
    ):  # fmt: skip
        bars = pullback(
            E, log_c, b, log_A, a, tau, log_G, g.item(), log_Q, q.item(), log_H.item(), fade.item(),
            mixtures, problem_mixture, problem_log_n, row_problem, row_log_d,
            noise, head,
            log_x, capacity, log_t, noise_term, loss_bar,
        )  # fmt: skip
        return (
            bars[0], bars[1], bars[2], bars[3], bars[4], bars[5], bars[6],
            np.asarray(bars[7]), bars[8], np.asarray(bars[9]), np.asarray(bars[10]),
            np.asarray(bars[11]),
        )  # fmt: skip

    return law_pullback


@numba_funcify.register(NoiseOp)
def _noise_numba(op, node, **kwargs):
    log_likelihood = noise.log_likelihood

    @numba_njit(inline="always")
    def noise_likelihood(
        loss, offset, sigma, kappa, kappa_unseen, common, effect, outlier, dof, dof_unseen,
        rho, phi, observed, doubt, row_cell, row_run, rows, run_start, group_start,
    ):  # fmt: skip
        value, bars = log_likelihood(
            loss, offset, sigma, kappa, kappa_unseen, common, effect, outlier,
            dof.item(), dof_unseen.item(), rho.item(), phi.item(),
            observed, doubt, row_cell, row_run, rows, run_start, group_start,
        )  # fmt: skip
        return (
            np.asarray(value), bars[0], bars[1], bars[2], bars[3], bars[4], bars[5], bars[6],
            bars[7], np.asarray(bars[8]), np.asarray(bars[9]), np.asarray(bars[10]),
            np.asarray(bars[11]),
        )  # fmt: skip

    return noise_likelihood


@numba_funcify.register(ReferenceOp)
def _reference_numba(op, node, **kwargs):
    at_reference = numba_njit(_at_reference, inline="always")

    @numba_njit(inline="always")
    def reference(gains, log_n, log_floor):
        return at_reference(gains, log_n.item(), log_floor.item())

    return reference


@numba_funcify.register(ReferencePullbackOp)
def _reference_pullback_numba(op, node, **kwargs):
    vjp = numba_njit(_at_reference_vjp, inline="always")

    @numba_njit(inline="always")
    def reference_pullback(bar, log_x, log_n, log_floor):
        gains_bar, floor_bar = vjp(bar, log_x, log_n.item(), log_floor.item())
        return gains_bar, np.asarray(floor_bar)

    return reference_pullback


@numba_funcify.register(WithoutTrendOp)
def _without_trend_numba(op, node, **kwargs):
    @numba_njit(fastmath={"contract", "reassoc"})
    def without_trend(vector, columns):
        n, rank = columns.shape
        along, left = np.zeros(rank), vector.copy()
        for i in range(n):
            for j in range(rank):
                along[j] += columns[i, j] * vector[i]
        for i in range(n):
            fitted = 0.0
            for j in range(rank):
                fitted += columns[i, j] * along[j]
            left[i] -= fitted
        return left

    return without_trend


def losses(parameters, at, variant: law.Variant):
    """Symbolic losses of the law.

    Parameters
    ----------
    parameters : mapping
        PyTensor variables under the names of `law.PARAMETERS`, shapes as in `law.evaluate`.
    at : sequence
        `Points.arrays` of the R rows, as arrays or variables.
    variant : Variant
        Which terms are on.

    Returns
    -------
    TensorVariable, shape (R, C)
        Nats per token.
    """
    inputs = [pt.as_tensor_variable(parameters[name]) for name in law.PARAMETERS]
    return LawOp(variant)(*inputs, *map(pt.as_tensor_variable, at))[0]


def log_likelihood(
    loss, offset, sigma, kappa, kappa_unseen, common, effect, outlier, dof, dof_unseen, rho, phi,
    cells, sizes,
):  # fmt: skip
    """Symbolic log likelihood of a swarm's log losses: see `noise.py`.

    Parameters
    ----------
    loss : TensorVariable, shape (R, C)
        The law's, nats per token.
    offset, sigma, kappa, kappa_unseen, common, effect, outlier : TensorVariable
        Shapes (M, C), (C,), (C,), (C,), (C,), (runs,) and (runs,).
    dof, dof_unseen, rho, phi : TensorVariable
        Scalars.
    cells : sequence
        `Cells.arrays`, as arrays or variables.
    sizes : sequence
        `Cells.sizes`, as arrays or variables.
    """
    varying = (
        loss, offset, sigma, kappa, kappa_unseen, common, effect, outlier,
        dof, dof_unseen, rho, phi,
    )  # fmt: skip
    values = [pt.as_tensor_variable(v, dtype="float64") for v in varying]
    total = NoiseOp()(*values, *map(pt.as_tensor_variable, cells))[0]
    size, count, unseen = sizes
    freedom = dof + unseen * (dof_unseen - dof)
    constant = noise.log_constant(freedom, size, pt.gammaln, pt.log)
    return total + (count * constant).sum()


def without_trend(vector, columns):
    """A symbolic vector (n,) less its projection on orthonormal columns (n, rank)."""
    return WithoutTrendOp()(vector, columns)


def reference_log_x(weights, b, log_capacity, log_n, log_floor):
    """Symbolic log x* at the reference mixture, given the log capacity terms there.

    With ``c_i x_i^(-b_i) = s_i`` the condition ``h_i b_i c_i x_i^(-b_i - 1) = l`` reads
    ``x_i = h_i b_i s_i / l``, so no exponent enters the solve.
    """
    gains = pt.log(weights) + pt.log(b) + log_capacity
    return ReferenceOp()(gains, log_n, log_floor)
