"""The mechanistic law: value and vector-Jacobian product, one kernel for every caller.

Loss of component i (a domain, or a target that is not a training domain) at mixture h, N
parameters and D tokens, in nats per token (Dai & Zheng, arXiv 2606.08167, Theorem 4.1, with
effective tokens and a shared head)::

    L_i = E_i + c_i x_i*(h, N)^(-b_i) + A_i T_i^(-a_i) + G_i N^(-g) + Q_i D^(-q),
    T_i = D^fade sum_j tau_ij h_j.

Targets have no capacity term. In the paper ``fade`` is 1; below, what a mixture does to a loss
fades less as D grows, and at 0 not at all, as in the law of Shukor et al. (arXiv 2507.09404).
`LAWS` names the variants: the same kernel, terms switched off.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numba
import numpy as np

from bayesmix.allocation import solve, solve_vjp
from bayesmix.elementary import exp, exp_each, log, log_each, taken


class Variant(NamedTuple):
    """The terms that a variant of the law has beside E and the capacity term."""

    noise: bool
    transfer: bool
    head: bool


LAWS: Mapping[str, Variant] = {
    "quantization": Variant(noise=False, transfer=False, head=False),
    "regression": Variant(noise=True, transfer=False, head=False),
    "transfer": Variant(noise=True, transfer=True, head=True),
}


def variant(law: str) -> Variant:
    """The variant of a name in `LAWS`.

    Raises
    ------
    ValueError
        If there is none.

    Examples
    --------
    >>> variant("regression").transfer
    False
    """
    if law not in LAWS:
        raise ValueError(f"unknown law {law!r}; valid names: {', '.join(LAWS)}")
    return LAWS[law]


# order of the kernel's parameters; C components (domains, then targets), K domains
PARAMETERS = ("E", "log_c", "b", "log_A", "a", "tau", "log_G", "g", "log_Q", "q", "log_H", "fade")


@dataclass(frozen=True)
class Points:
    """Where the law is evaluated, with what rows share factored out.

    Attributes
    ----------
    mixtures : array, shape (M, K)
        Distinct mixtures, fractions.
    problem_mixture, problem_log_n : array, shape (P,)
        Distinct (mixture, N): row of `mixtures`, and log N (parameters).
    row_problem, row_log_d : array, shape (R,)
        For each row its (mixture, N), and log D (tokens).
    """

    mixtures: np.ndarray
    problem_mixture: np.ndarray
    problem_log_n: np.ndarray
    row_problem: np.ndarray
    row_log_d: np.ndarray

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """The five arrays, in the kernel's order."""
        return (
            self.mixtures,
            self.problem_mixture,
            self.problem_log_n,
            self.row_problem,
            self.row_log_d,
        )


def points(weights: np.ndarray, n_params: np.ndarray, n_tokens: np.ndarray) -> Points:
    """Factor rows of (mixture, N, D) into distinct mixtures and capacity problems.

    Parameters
    ----------
    weights : array, shape (R, K)
        Fractions that sum to 1.
    n_params, n_tokens : array, shape (R,)
        N in parameters, D in tokens.

    Examples
    --------
    >>> at = points(np.array([[0.5, 0.5], [0.5, 0.5]]), np.array([1e8, 1e8]), np.array([1e9, 2e9]))
    >>> at.mixtures.shape, at.problem_log_n.shape, at.row_log_d.shape
    ((1, 2), (1,), (2,))
    """
    weights = np.ascontiguousarray(weights, dtype=float)
    mixtures, row_mixture = np.unique(weights, axis=0, return_inverse=True)
    pairs = np.column_stack([row_mixture.reshape(-1), np.log(n_params)])
    problems, row_problem = np.unique(pairs, axis=0, return_inverse=True)
    return Points(
        mixtures,
        problems[:, 0].astype(np.int64),
        np.ascontiguousarray(problems[:, 1]),
        row_problem.reshape(-1).astype(np.int64),
        np.log(np.asarray(n_tokens, dtype=float)),
    )


# sums may be taken in any order, so that their loops are vectorised; inside, rows, problems and
# mixtures are the last axis, which is the longest
@numba.njit(cache=True, error_model="numpy", fastmath={"contract", "reassoc"})
def forward(
    E, log_c, b, log_A, a, tau, log_G, g, log_Q, q, log_H, fade,
    mixtures, problem_mixture, problem_log_n, row_problem, row_log_d,
    noise, head,
):  # fmt: skip
    """Loss of every row and component, with what the pullback needs again.

    Returns
    -------
    loss : array, shape (R, C)
        Nats per token.
    log_x, capacity : array, shape (K, P)
        log x*, and the capacity term.
    log_t : array, shape (C, M)
        log of ``sum_j tau_ij h_j``.
    noise_term : array, shape (C, R)
        The data-noise term.
    """
    n_problems, n_rows = problem_mixture.shape[0], row_problem.shape[0]
    n_mixtures, n_domains = mixtures.shape
    n_components = E.shape[0]
    row_mixture = taken(problem_mixture, row_problem)
    loss = np.empty((n_rows, n_components))
    log_x = np.empty((n_domains, n_problems))
    capacity = np.empty((n_domains, n_problems))
    log_t = np.zeros((n_components, n_mixtures))
    noise_term = np.zeros((n_components, n_rows))

    of_domain = mixtures.T.copy()
    log_h = of_domain.copy()
    log_each(log_h)
    r = np.empty(n_domains)
    gains = np.empty((n_domains, n_problems))
    for i in range(n_domains):
        r[i] = 1.0 / (b[i] + 1.0)
        offset = log_c[i] + log(b[i])
        for p in range(n_problems):
            gains[i, p] = log_h[i, problem_mixture[p]] + offset
    solve(gains, r, problem_log_n, log_H, log_x)
    for i in range(n_domains):
        for p in range(n_problems):
            capacity[i, p] = exp(log_c[i] - b[i] * log_x[i, p])
    if noise:
        for i in range(n_components):
            for j in range(n_domains):
                worth = tau[i, j]
                for m in range(n_mixtures):
                    log_t[i, m] += worth * of_domain[j, m]
        log_each(log_t)
        for i in range(n_components):
            for row in range(n_rows):
                log_tokens = fade * row_log_d[row] + log_t[i, row_mixture[row]]
                noise_term[i, row] = log_A[i] - a[i] * log_tokens
        exp_each(noise_term)
    n_power, d_power = _powers(g, q, problem_log_n, row_problem, row_log_d, head)
    of_component = np.empty(n_rows)
    for i in range(n_components):
        G, Q = exp(log_G[i]), exp(log_Q[i])
        for row in range(n_rows):
            head_term = G * n_power[row] + Q * d_power[row]
            of_component[row] = E[i] + noise_term[i, row] + head_term
        if i < n_domains:
            for row in range(n_rows):
                of_component[row] += capacity[i, row_problem[row]]
        for row in range(n_rows):
            loss[row, i] = of_component[row]
    return loss, log_x, capacity, log_t, noise_term


@numba.njit(cache=True, error_model="numpy")
def _powers(g, q, problem_log_n, row_problem, row_log_d, head):
    """``N^(-g)`` and ``D^(-q)`` of each row; 0 without the head."""
    n_rows = row_problem.shape[0]
    n_power, d_power = np.zeros(n_rows), np.zeros(n_rows)
    if head:
        for row in range(n_rows):
            n_power[row] = exp(-g * problem_log_n[row_problem[row]])
            d_power[row] = exp(-q * row_log_d[row])
    return n_power, d_power


@numba.njit(cache=True, error_model="numpy", fastmath={"contract", "reassoc"})
def pullback(
    E, log_c, b, log_A, a, tau, log_G, g, log_Q, q, log_H, fade,
    mixtures, problem_mixture, problem_log_n, row_problem, row_log_d,
    noise, head,
    log_x, capacity, log_t, noise_term, loss_bar,
):  # fmt: skip
    """Vector-Jacobian product of `forward`: cotangents of the parameters and of the mixtures."""
    n_problems, n_rows = problem_mixture.shape[0], row_problem.shape[0]
    n_mixtures, n_domains = mixtures.shape
    n_components = E.shape[0]
    row_mixture = taken(problem_mixture, row_problem)
    E_bar, log_A_bar, a_bar = np.zeros(n_components), np.zeros(n_components), np.zeros(n_components)
    log_c_bar, b_bar = np.zeros(n_domains), np.zeros(n_domains)
    G_bar, Q_bar = np.zeros(n_components), np.zeros(n_components)
    g_bar, q_bar, fade_bar = 0.0, 0.0, 0.0
    tau_bar = np.zeros((n_components, n_domains))
    of_domain = mixtures.T.copy()
    of_domain_bar = np.zeros((n_domains, n_mixtures))
    capacity_bar = np.zeros((n_domains, n_problems))

    bars = np.empty((n_components, n_rows))
    for row in range(n_rows):
        for i in range(n_components):
            bars[i, row] = loss_bar[row, i]
    for i in range(n_components):
        total = 0.0
        for row in range(n_rows):
            total += bars[i, row]
        E_bar[i] = total
    for i in range(n_domains):
        for row in range(n_rows):
            capacity_bar[i, row_problem[row]] += bars[i, row]
    if head:
        n_power, d_power = _powers(g, q, problem_log_n, row_problem, row_log_d, head)
        for i in range(n_components):
            by_n, by_d, by_log_n, by_log_d = 0.0, 0.0, 0.0, 0.0
            for row in range(n_rows):
                from_n, from_d = bars[i, row] * n_power[row], bars[i, row] * d_power[row]
                by_n += from_n
                by_d += from_d
                by_log_n += from_n * problem_log_n[row_problem[row]]
                by_log_d += from_d * row_log_d[row]
            G, Q = exp(log_G[i]), exp(log_Q[i])
            G_bar[i], Q_bar[i] = G * by_n, Q * by_d
            g_bar -= G * by_log_n
            q_bar -= Q * by_log_d
    if noise:
        scaled, by_t, per_t = np.empty(n_rows), np.empty(n_mixtures), -log_t
        exp_each(per_t)
        for i in range(n_components):
            by_A, by_log_d, by_log_t = 0.0, 0.0, 0.0
            for row in range(n_rows):
                # a cell nobody asks for may be infinite (T_i = 0), and 0 times that is no number
                asked = bars[i, row] != 0.0
                here = bars[i, row] * noise_term[i, row] if asked else 0.0
                scaled[row] = here
                by_A += here
                by_log_d += here * row_log_d[row]
                by_log_t += here * log_t[i, row_mixture[row]] if asked else 0.0
            log_A_bar[i] = by_A
            a_bar[i] = -(fade * by_log_d + by_log_t)
            fade_bar -= a[i] * by_log_d
            for m in range(n_mixtures):
                by_t[m] = 0.0
            for row in range(n_rows):
                by_t[row_mixture[row]] -= a[i] * scaled[row]
            for m in range(n_mixtures):
                by_t[m] *= per_t[i, m] if by_t[m] != 0.0 else 0.0
            for j in range(n_domains):
                worth, total = tau[i, j], 0.0
                for m in range(n_mixtures):
                    total += by_t[m] * of_domain[j, m]
                    of_domain_bar[j, m] += by_t[m] * worth
                tau_bar[i, j] = total

    r = np.empty(n_domains)
    u_bar, gain_bar = np.empty((n_domains, n_problems)), np.empty((n_domains, n_problems))
    for i in range(n_domains):
        r[i] = 1.0 / (b[i] + 1.0)
        by_c, by_b = 0.0, 0.0
        for p in range(n_problems):
            scaled_bar = capacity_bar[i, p] * capacity[i, p]
            u_bar[i, p] = -b[i] * scaled_bar
            by_c += scaled_bar
            by_b -= log_x[i, p] * scaled_bar
        log_c_bar[i], b_bar[i] = by_c, by_b
    log_H_bar = solve_vjp(u_bar, log_x, r, problem_log_n, log_H, gain_bar)
    for i in range(n_domains):
        total, by_b = 0.0, 0.0
        for p in range(n_problems):
            total += gain_bar[i, p]
            by_b -= gain_bar[i, p] * log_x[i, p]
        log_c_bar[i] += total
        b_bar[i] += by_b + total / b[i]
        for p in range(n_problems):
            weight = of_domain[i, problem_mixture[p]]
            if weight > 0.0:
                of_domain_bar[i, problem_mixture[p]] += gain_bar[i, p] / weight
    return (
        E_bar, log_c_bar, b_bar, log_A_bar, a_bar, tau_bar, G_bar, g_bar, Q_bar, q_bar, log_H_bar,
        fade_bar, of_domain_bar.T.copy(),
    )  # fmt: skip


def evaluate(parameters: Mapping[str, np.ndarray], at: Points, variant: Variant) -> np.ndarray:
    """Losses at the points, for one set of parameters.

    Parameters
    ----------
    parameters : mapping
        The names in `PARAMETERS`: E, log_A, a, log_G, log_Q of shape (C,), log_c and b of shape
        (K,), tau of shape (C, K), and the scalars g, q, log_H, fade.
    at : Points
        R rows.
    variant : Variant
        Which terms are on.

    Returns
    -------
    array, shape (R, C)
        Nats per token.
    """
    values = [parameters[name] for name in PARAMETERS]
    return forward(*values, *at.arrays, variant.noise, variant.head)[0]


@numba.njit(cache=True, parallel=True, error_model="numpy")
def evaluate_draws(
    E, log_c, b, log_A, a, tau, log_G, g, log_Q, q, log_H, fade,
    mixtures, problem_mixture, problem_log_n, row_problem, row_log_d,
    noise, head,
):  # fmt: skip
    """`forward`'s losses for every draw: parameters lead with the axis S; returns (S, R, C)."""
    n_draws = E.shape[0]
    loss = np.empty((n_draws, row_problem.shape[0], E.shape[1]))
    n_rows, n_components = loss.shape[1:]
    for s in numba.prange(n_draws):
        values = forward(
            E[s], log_c[s], b[s], log_A[s], a[s], tau[s], log_G[s], g[s], log_Q[s], q[s], log_H[s],
            fade[s],
            mixtures, problem_mixture, problem_log_n, row_problem, row_log_d,
            noise, head,
        )[0]  # fmt: skip
        # not `loss[s] = values`: code for the message of a shape that differs takes seconds
        for row in range(n_rows):
            for i in range(n_components):
                loss[s, row, i] = values[row, i]
    return loss


@numba.njit(cache=True, parallel=True, error_model="numpy")
def objective_draws(
    E, log_c, b, log_A, a, tau, log_G, g, log_Q, q, log_H, fade,
    mixtures, log_n, log_d, objective,
    noise, head,
):  # fmt: skip
    """Objective ``sum_i w_i L_i``, its gradient in h and the losses, each draw at its own mixture.

    Parameters
    ----------
    E, ..., log_H
        Parameters with a leading axis of S draws.
    mixtures : array, shape (S, K)
        The mixture of each draw.
    log_n, log_d : float
        Logs of N (parameters) and D (tokens).
    objective : array, shape (S, C)
        Weights over domains and targets.

    Returns
    -------
    value : array, shape (S,)
    gradient : array, shape (S, K)
    loss : array, shape (S, C)
    """
    n_draws, n_domains = mixtures.shape
    value, gradient = np.empty(n_draws), np.empty((n_draws, n_domains))
    losses = np.empty(objective.shape)
    zero = np.zeros(1, dtype=np.int64)
    one_n, one_d = np.array([log_n]), np.array([log_d])
    for s in numba.prange(n_draws):
        h = mixtures[s : s + 1]
        loss, log_x, capacity, log_t, noise_term = forward(
            E[s], log_c[s], b[s], log_A[s], a[s], tau[s], log_G[s], g[s], log_Q[s], q[s], log_H[s],
            fade[s],
            h, zero, one_n, zero, one_d,
            noise, head,
        )  # fmt: skip
        value[s] = 0.0
        for i in range(objective.shape[1]):
            losses[s, i] = loss[0, i]
            if objective[s, i] != 0.0:
                value[s] += objective[s, i] * loss[0, i]
        slope = pullback(
            E[s], log_c[s], b[s], log_A[s], a[s], tau[s], log_G[s], g[s], log_Q[s], q[s], log_H[s],
            fade[s],
            h, zero, one_n, zero, one_d,
            noise, head,
            log_x, capacity, log_t, noise_term, objective[s : s + 1],
        )[-1]  # fmt: skip
        for j in range(n_domains):
            gradient[s, j] = slope[0, j]
    return value, gradient, losses
