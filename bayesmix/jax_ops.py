"""The Ops of `ops.py` for PyTensor's JAX backend: `bayesmix.fit(..., backend="jax")`.

JAX runs on accelerators and differentiates by itself, so this holds what `law.forward`,
`allocation.solve` and `noise.log_likelihood` compute in array operations, and no gradient. The
formulas are stated there; `tests/test_jax_ops.py` holds both to the same numbers.
"""

import jax
import jax.numpy as jnp
from jax.ops import segment_sum
from pytensor.link.jax.dispatch import jax_funcify

from bayesmix import law, noise, ops

_BISECTIONS = 60
_LEAST_LOG = -700.0  # for the log of 0, whose gradient would be no number


def solve(gains, r, log_n, log_floor):
    """log x (P, K) of P capacity problems: `allocation.solve`, differentiable.

    Bisection finds the price, to which a last step of Newton gives the implicit derivative.

    Parameters
    ----------
    gains : array, shape (P, K)
        ``log(h_i b_i c_i)``.
    r : array, shape (K,)
        ``1 / (b_i + 1)``.
    log_n : array, shape (P,)
        Log of N (parameters).
    log_floor : scalar
        log H.
    """
    n_domains = gains.shape[1]
    total = jnp.exp(log_n) + (n_domains - 1) * jnp.exp(log_floor)

    def log_x(log_price):
        return (gains - log_price[:, None]) * r

    def excess(log_price):
        return jnp.exp(jnp.maximum(log_x(log_price), log_floor)).sum(axis=1) / total - 1

    def halve(_, ends):
        low, high = ends
        middle = (low + high) / 2
        above = excess(middle) > 0
        return jnp.where(above, middle, low), jnp.where(above, high, middle)

    # at the low price one x is more than all there is, at the high one each is less than N / K
    ends = (
        (gains - jnp.log(total)[:, None] / r).max(axis=1) - 1,
        (gains - (log_n - jnp.log(n_domains))[:, None] / r).max(axis=1) + 1,
    )
    low, high = jax.lax.fori_loop(0, _BISECTIONS, halve, jax.lax.stop_gradient(ends))
    price = (low + high) / 2
    x = jnp.where(log_x(price) > log_floor, jnp.exp(log_x(price)), 0.0)
    slope = jax.lax.stop_gradient((x * r).sum(axis=1) / total)
    price = jax.lax.stop_gradient(price)
    return jnp.maximum(log_x(price + excess(price) / slope), log_floor)


def losses(
    variant: law.Variant,
    E, log_c, b, log_A, a, tau, log_G, g, log_Q, q, log_H, fade,
    mixtures, problem_mixture, problem_log_n, row_problem, row_log_d,
):  # fmt: skip
    """Losses (R, C), nats per token: `law.forward`."""
    n_domains = mixtures.shape[1]
    log_h = jnp.maximum(jnp.log(mixtures), _LEAST_LOG)[problem_mixture]
    log_x = solve(log_h + log_c + jnp.log(b), 1 / (b + 1), problem_log_n, log_H)
    capacity = jnp.exp(log_c - b * log_x)[row_problem]
    loss = jnp.broadcast_to(E, (row_problem.shape[0], E.shape[0]))
    loss = loss.at[:, :n_domains].add(capacity)
    if variant.noise:
        log_t = jnp.maximum(jnp.log(mixtures @ tau.T), _LEAST_LOG)
        log_t = fade * row_log_d[:, None] + log_t[problem_mixture[row_problem]]
        loss += jnp.exp(log_A - a * log_t)
    if variant.head:
        loss += jnp.exp(log_G - g * problem_log_n[row_problem][:, None])
        loss += jnp.exp(log_Q - q * row_log_d[:, None])
    return loss


def log_likelihood(
    loss, offset, sigma, kappa, kappa_unseen, common, effect, outlier, dof, dof_unseen, rho, phi,
    observed, doubt, row_cell, row_run, rows, run_start, group_start,
):  # fmt: skip
    """Log likelihood less its constants: the value of `noise.log_likelihood`."""
    n_blocks, n_groups = run_start.shape[0] - 1, group_start.shape[0] - 1
    block = jnp.searchsorted(run_start, jnp.arange(rows.shape[0]), side="right") - 1
    group = jnp.searchsorted(group_start, jnp.arange(n_blocks), side="right") - 1
    seen = jnp.isfinite(observed)
    unseen = doubt == noise.UNSEEN
    kappa_of = jnp.where(unseen, kappa_unseen, kappa)
    scale = jnp.sqrt(sigma**2 + (kappa_of * doubt) ** 2) * jnp.exp(outlier[row_run][:, None])
    error = jnp.where(seen, observed, 0.0) - jnp.log(loss) - offset[row_cell]
    error = (error - common * effect[row_run][:, None]) / scale
    error = jnp.where(seen, error, 0.0)[rows]

    def by_block(values):
        return segment_sum(values, block, n_blocks)

    def by_group(values):
        return segment_sum(values, group, n_groups)

    # of each block: count and sums; of each group the closed form of the inverse, see `noise.py`
    count = by_block(seen[rows].astype(error.dtype))
    sums = by_block(error)
    within = 1 - rho + count * (rho - phi)
    squares = by_group(by_block(error**2) - (rho - phi) / within * sums**2)
    weight = by_group(count / within)
    between = 1 + phi * weight
    distance = squares / (1 - rho) - phi / between * by_group(sums / within) ** 2
    # a block without errors has no determinant
    log_det = jnp.log(jnp.where(count > 0, within, 1.0)) + (
        jnp.maximum(count - 1, 0.0) * jnp.log1p(-rho)
    )
    log_det = by_group(log_det) + jnp.log(between)
    size = by_group(count)
    first = rows[run_start[group_start[:-1]]]
    freedom = jnp.where(unseen[first], dof_unseen, dof)
    value = -0.5 * (log_det + (freedom + size) * jnp.log1p(distance / freedom))
    return jnp.where(size > 0, value, 0.0).sum() - jnp.where(seen, jnp.log(scale), 0.0).sum()


@jax_funcify.register(ops.LawOp)
def _law_jax(op, **kwargs):
    def law_forward(*inputs):
        # the further outputs are for a pullback that JAX does not need
        return (losses(op.variant, *inputs), *(jnp.zeros((0, 0)) for _ in range(4)))

    return law_forward


@jax_funcify.register(ops.NoiseOp)
def _noise_jax(op, **kwargs):
    def noise_likelihood(*inputs):
        return (log_likelihood(*inputs), *map(jnp.zeros_like, inputs[: ops.N_NOISE]))

    return noise_likelihood


@jax_funcify.register(ops.ReferenceOp)
def _reference_jax(op, **kwargs):
    def reference(gains, log_n, log_floor):
        return solve(gains[None], jnp.ones_like(gains), jnp.reshape(log_n, (1,)), log_floor)[0]

    return reference


@jax_funcify.register(ops.WithoutTrendOp)
def _without_trend_jax(op, **kwargs):
    return lambda vector, columns: vector - columns @ (columns.T @ vector)
