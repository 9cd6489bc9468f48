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

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numba
import numpy as np

from bayesmix.allocation import solve, solve_vjp


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


@numba.njit(cache=True, error_model="numpy")
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
    log_x, capacity : array, shape (P, K)
        log x*, and the capacity term.
    log_t : array, shape (M, C)
        log of ``sum_j tau_ij h_j``.
    noise_term : array, shape (R, C)
        The data-noise term.
    """
    n_problems, n_rows = problem_mixture.shape[0], row_problem.shape[0]
    n_mixtures, n_domains = mixtures.shape
    n_components = E.shape[0]
    loss = np.empty((n_rows, n_components))
    log_x = np.empty((n_problems, n_domains))
    capacity = np.empty((n_problems, n_domains))
    log_t = np.zeros((n_mixtures, n_components))
    noise_term = np.zeros((n_rows, n_components))

    r = 1.0 / (b + 1.0)
    offset = log_c + np.log(b)
    log_h = np.log(mixtures)
    gains = np.empty(n_domains)
    for p in range(n_problems):
        m = problem_mixture[p]
        for i in range(n_domains):
            gains[i] = log_h[m, i] + offset[i]
        solve(gains, r, problem_log_n[p], log_H, log_x[p])
        for i in range(n_domains):
            capacity[p, i] = math.exp(log_c[i] - b[i] * log_x[p, i])
    if noise:
        for m in range(n_mixtures):
            for i in range(n_components):
                total = 0.0
                for j in range(n_domains):
                    total += tau[i, j] * mixtures[m, j]
                log_t[m, i] = math.log(total)
    G, Q = np.exp(log_G), np.exp(log_Q)
    for row in range(n_rows):
        p = row_problem[row]
        m = problem_mixture[p]
        for i in range(n_components):
            value = E[i]
            if i < n_domains:
                value += capacity[p, i]
            if noise:
                noise_term[row, i] = math.exp(
                    log_A[i] - a[i] * (fade * row_log_d[row] + log_t[m, i])
                )
                value += noise_term[row, i]
            loss[row, i] = value
        if head:
            n_power = math.exp(-g * problem_log_n[p])
            d_power = math.exp(-q * row_log_d[row])
            for i in range(n_components):
                loss[row, i] += G[i] * n_power + Q[i] * d_power
    return loss, log_x, capacity, log_t, noise_term


@numba.njit(cache=True, error_model="numpy")
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
    E_bar, log_A_bar, a_bar = np.zeros(n_components), np.zeros(n_components), np.zeros(n_components)
    log_c_bar, b_bar = np.zeros(n_domains), np.zeros(n_domains)
    G_bar, Q_bar = np.zeros(n_components), np.zeros(n_components)
    g_bar, q_bar, log_H_bar, fade_bar = 0.0, 0.0, 0.0, 0.0
    tau_bar = np.zeros((n_components, n_domains))
    mixtures_bar = np.zeros((n_mixtures, n_domains))
    capacity_bar = np.zeros((n_problems, n_domains))
    log_t_bar = np.zeros((n_mixtures, n_components))

    G, Q = np.exp(log_G), np.exp(log_Q)
    for row in range(n_rows):
        p = row_problem[row]
        m = problem_mixture[p]
        sum_G, sum_Q = 0.0, 0.0
        n_power, d_power = 0.0, 0.0
        if head:
            n_power = math.exp(-g * problem_log_n[p])
            d_power = math.exp(-q * row_log_d[row])
        for i in range(n_components):
            bar = loss_bar[row, i]
            # a cell nobody asks for may be infinite (T_i = 0), and 0 times infinity is no number
            if bar == 0.0:
                continue
            E_bar[i] += bar
            if i < n_domains:
                capacity_bar[p, i] += bar
            if noise:
                scaled = bar * noise_term[row, i]
                log_A_bar[i] += scaled
                a_bar[i] -= scaled * (fade * row_log_d[row] + log_t[m, i])
                fade_bar -= scaled * a[i] * row_log_d[row]
                log_t_bar[m, i] -= scaled * a[i]
            if head:
                from_G, from_Q = bar * G[i] * n_power, bar * Q[i] * d_power
                G_bar[i] += from_G
                Q_bar[i] += from_Q
                sum_G += from_G
                sum_Q += from_Q
        if head:
            g_bar -= sum_G * problem_log_n[p]
            q_bar -= sum_Q * row_log_d[row]

    r = 1.0 / (b + 1.0)
    u_bar, gain_bar = np.empty(n_domains), np.empty(n_domains)
    for p in range(n_problems):
        m = problem_mixture[p]
        for i in range(n_domains):
            scaled = capacity_bar[p, i] * capacity[p, i]
            log_c_bar[i] += scaled
            b_bar[i] -= log_x[p, i] * scaled
            u_bar[i] = -b[i] * scaled
        log_H_bar += solve_vjp(u_bar, log_x[p], r, problem_log_n[p], log_H, gain_bar)
        for i in range(n_domains):
            log_c_bar[i] += gain_bar[i]
            b_bar[i] += gain_bar[i] * (1.0 / b[i] - log_x[p, i])
            if mixtures[m, i] > 0.0:
                mixtures_bar[m, i] += gain_bar[i] / mixtures[m, i]
    if noise:
        for m in range(n_mixtures):
            for i in range(n_components):
                if log_t_bar[m, i] == 0.0:
                    continue
                scaled = log_t_bar[m, i] * math.exp(-log_t[m, i])
                for j in range(n_domains):
                    tau_bar[i, j] += scaled * mixtures[m, j]
                    mixtures_bar[m, j] += scaled * tau[i, j]
    return (
        E_bar, log_c_bar, b_bar, log_A_bar, a_bar, tau_bar, G_bar, g_bar, Q_bar, q_bar, log_H_bar,
        fade_bar, mixtures_bar,
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
