"""The noise of log losses: log likelihood and its gradient, one kernel.

The error of row k (run r, cell s) and component i is::

    e = (log y - log L_i - offset_si - common_i f_r) / scale,
    scale^2 = (sigma_i^2 + (kappa_i doubt_ki)^2) exp(2 o_r),

where o_r >= 0 says how much wider all errors of a run are than those of a regular one. The errors
of one component in one mixture and N are multivariate t. Of `dof` and `kappa`
there are two: the first where the domain has weight, which may be printed to a resolution only,
the second where the mixture is without it. The correlation is `rho` between checkpoints of a run,
`phi` between runs that repeat the mixture and N with another seed: within a run
``A = (1 - rho) I + (rho - phi) 1 1'``, over the group ``diag(A) + phi 1 1'``, both inverted in
closed form.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numba
import numpy as np

from bayesmix.discrepancy import Scales

UNSEEN = 1.0  # doubt about the log of a weight of 0


@dataclass(frozen=True)
class Cells:
    """What is observed, and which errors belong together.

    Attributes
    ----------
    observed : array, shape (R, C)
        Log losses (nats per token), infinite where the likelihood has nothing to say
        (PyMC takes no NaN in data).
    doubt : array, shape (R, C)
        Doubt about the log of each domain's own weight.
    row_cell, row_run : array, shape (R,)
        Cell (N, D) and run of each row.
    rows : array, shape (R,)
        Rows sorted by (mixture, N), then run.
    run_start : array, shape (B + 1,)
        Where in `rows` each run begins.
    group_start : array, shape (G + 1,)
        Where among these runs each (mixture, N) begins.
    """

    observed: np.ndarray
    doubt: np.ndarray
    row_cell: np.ndarray
    row_run: np.ndarray
    rows: np.ndarray
    run_start: np.ndarray
    group_start: np.ndarray

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """In the kernel's order."""
        return (
            self.observed,
            self.doubt,
            self.row_cell,
            self.row_run,
            self.rows,
            self.run_start,
            self.group_start,
        )

    @property
    def unseen(self) -> np.ndarray:
        """Whether each row's mixture is without the component's domain, shape (R, C)."""
        return self.doubt == UNSEEN

    def group_sizes(self, *, unseen: bool) -> np.ndarray:
        """Observed errors of each group and component with any, a flat array."""
        counted = (np.isfinite(self.observed) & (self.unseen == unseen))[self.rows]
        sizes = np.add.reduceat(counted, self.run_start[self.group_start[:-1]], axis=0, dtype=int)
        return sizes[sizes > 0]


def cells(
    observed: np.ndarray,
    doubt: np.ndarray,
    scale: Scales,
    run: np.ndarray,
    repeat: np.ndarray,
) -> Cells:
    """Sort rows by the codes of their run and of their (mixture, N)."""
    rows = np.lexsort((run, repeat))
    new_run = np.r_[True, np.diff(run[rows]) != 0] | np.r_[True, np.diff(repeat[rows]) != 0]
    run_start = np.r_[np.flatnonzero(new_run), len(rows)]
    first = repeat[rows[run_start[:-1]]]
    group_start = np.r_[np.flatnonzero(np.r_[True, np.diff(first) != 0]), len(first)]
    observed = np.where(np.isfinite(observed), observed, np.inf)
    return Cells(observed, doubt, scale.row_cell, run, rows, run_start, group_start)


def scale_and_dof(
    draws: Mapping[str, np.ndarray], doubt: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Scale and degrees of freedom of the t errors of single rows, each of shape (S, R, C).

    Parameters
    ----------
    draws : mapping
        ``sigma, sigma_weight, sigma_unseen`` (S, C), ``dof, dof_unseen`` (S,).
    doubt : array, shape (R, C)

    Examples
    --------
    >>> draws = {"sigma": np.array([[3.0]]), "sigma_weight": np.array([[0.0]])}
    >>> draws |= {"sigma_unseen": np.array([[4.0]])}
    >>> draws |= {"dof": np.array([5.0]), "dof_unseen": np.array([2.0])}
    >>> [x.ravel().tolist() for x in scale_and_dof(draws, np.array([[0.0], [1.0]]))]
    [[3.0, 5.0], [5.0, 2.0]]
    """
    unseen = doubt == UNSEEN
    kappa = np.where(unseen, *(draws[n][:, None, :] for n in ("sigma_unseen", "sigma_weight")))
    scale = np.hypot(draws["sigma"][:, None, :], kappa * doubt)
    dof, dof_unseen = (draws[name][:, None, None] for name in ("dof", "dof_unseen"))
    return scale, np.where(unseen, dof_unseen, np.broadcast_to(dof, scale.shape))


def at_printed_zeros(
    shift: np.ndarray, weights: np.ndarray, resolution: float
) -> np.ndarray | float:
    """What the law's losses are multiplied by where weights were printed as 0.

    Parameters
    ----------
    shift : array, shape (S, C)
        ``zero_shift``; components are the K domains, then the targets.
    weights : array, shape (R, K)
    resolution : float
        That weights were printed to; 0 if they are exact.

    Returns
    -------
    array, shape (S, R, C), or 1
        1 if there is no printed 0.

    Examples
    --------
    >>> shift, weights = np.log([[2.0, 3.0, 4.0]]), np.array([[0.0, 1.0], [0.5, 0.5]])
    >>> at_printed_zeros(shift, weights, 0.001).tolist()
    [[[2.0, 1.0, 1.0], [1.0, 1.0, 1.0]]]
    """
    if resolution == 0:
        return 1.0
    zeros = np.zeros((len(weights), shift.shape[1]))
    zeros[:, : weights.shape[1]] = weights == 0
    return np.exp(shift[:, None, :] * zeros) if zeros.any() else 1.0


@numba.njit(cache=True, error_model="numpy")
def log_likelihood(
    loss, offset, sigma, kappa, common, effect, outlier, dof, rho, phi,
    observed, doubt, row_cell, row_run, rows, run_start, group_start,
):  # fmt: skip
    """Log likelihood, less what depends on `dof` and the groups' sizes alone, and its gradient.

    Returns
    -------
    value : float
    bars : tuple
        Derivatives by the first ten arguments, in their shapes.
    """
    n_rows, n_components = loss.shape
    loss_bar, offset_bar = np.zeros_like(loss), np.zeros_like(offset)
    sigma_bar, kappa_bar = np.zeros_like(sigma), np.zeros_like(kappa)
    common_bar, effect_bar = np.zeros_like(common), np.zeros_like(effect)
    outlier_bar, dof_bar = np.zeros_like(outlier), np.zeros_like(dof)
    rho_bar, phi_bar, value = 0.0, 0.0, 0.0
    wider = np.exp(outlier)
    error, scale = np.empty(n_rows), np.empty(n_rows)
    gap = rho - phi
    # logs cost most: those that many cells share are taken once
    log_sigma, log_apart = np.log(sigma), math.log1p(-rho)
    log_within = np.log(1.0 - rho + gap * np.arange(np.diff(run_start).max() + 1))
    for g in range(group_start.shape[0] - 1):
        first, last = group_start[g], group_start[g + 1]
        for i in range(n_components):
            # rows of a group have one mixture
            kind = 1 if doubt[rows[run_start[first]], i] == UNSEEN else 0
            freedom = dof[kind]
            # the group's errors, and sums over it of the closed-form inverse
            size, squares, sums, weight = 0, 0.0, 0.0, 0.0
            log_det, det_rho, det_phi, weight_rho, weight_phi = 0.0, 0.0, 0.0, 0.0, 0.0
            for block in range(first, last):
                count, block_sum = 0, 0.0
                for k in range(run_start[block], run_start[block + 1]):
                    row = rows[k]
                    y = observed[row, i]
                    if y == math.inf:
                        continue
                    s, log_s = sigma[i], log_sigma[i]
                    if doubt[row, i] > 0.0:
                        s = math.sqrt(s * s + (kappa[kind, i] * doubt[row, i]) ** 2)
                        log_s = math.log(s)
                    s *= wider[row_run[row]]
                    log_s += outlier[row_run[row]]
                    e = y - math.log(loss[row, i]) - offset[row_cell[row], i]
                    e = (e - common[i] * effect[row_run[row]]) / s
                    error[k], scale[k] = e, s
                    value -= log_s
                    block_sum += e
                    squares += e * e
                    count += 1
                if count == 0:
                    continue
                within = 1.0 - rho + count * gap
                squares -= gap / within * block_sum * block_sum
                sums += block_sum / within
                weight += count / within
                size += count
                log_det += log_within[count] + (count - 1) * log_apart
                det_rho += (count - 1) / within
                det_phi -= count / within
                weight_rho -= count * (count - 1) / (within * within)
                weight_phi += count * count / (within * within)
                det_rho -= (count - 1) / (1.0 - rho)
            if size == 0:
                continue
            between = 1.0 + phi * weight
            distance = squares / (1.0 - rho) - phi / between * sums * sums
            if phi > 0.0:
                log_det += math.log(between)
                det_rho += phi * weight_rho / between
                det_phi += (weight + phi * weight_phi) / between
            ratio = 1.0 + distance / freedom
            log_ratio = math.log(ratio)
            value -= 0.5 * (log_det + (freedom + size) * log_ratio)
            by_distance = -0.5 * (freedom + size) / (freedom * ratio)
            dof_bar[kind] -= 0.5 * log_ratio + by_distance * distance / freedom
            rho_bar -= 0.5 * det_rho
            phi_bar -= 0.5 * det_phi

            # v = C^-1 e, of which everything else is made
            total = 0.0
            for block in range(first, last):
                count, block_sum = 0, 0.0
                for k in range(run_start[block], run_start[block + 1]):
                    if observed[rows[k], i] != math.inf:
                        block_sum += error[k]
                        count += 1
                if count == 0:
                    continue
                within = 1.0 - rho + count * gap
                from_block = gap / within * block_sum
                from_group = phi / between * sums / within
                v_sum, v_squares = 0.0, 0.0
                for k in range(run_start[block], run_start[block + 1]):
                    row = rows[k]
                    if observed[row, i] == math.inf:
                        continue
                    v = (error[k] - from_block) / (1.0 - rho) - from_group
                    v_sum += v
                    v_squares += v * v
                    e_bar = 2.0 * by_distance * v
                    per_scale = 1.0 / scale[k]
                    pulled = e_bar * per_scale
                    loss_bar[row, i] = -pulled / loss[row, i]
                    offset_bar[row_cell[row], i] -= pulled
                    common_bar[i] -= pulled * effect[row_run[row]]
                    effect_bar[row_run[row]] -= pulled * common[i]
                    by_log_scale = -(1.0 + e_bar * error[k])
                    outlier_bar[row_run[row]] += by_log_scale
                    by_scale = by_log_scale * (wider[row_run[row]] * per_scale) ** 2
                    sigma_bar[i] += by_scale * sigma[i]
                    kappa_bar[kind, i] += by_scale * kappa[kind, i] * doubt[row, i] ** 2
                rho_bar -= by_distance * (v_sum * v_sum - v_squares)
                phi_bar += by_distance * v_sum * v_sum
                total += v_sum
            phi_bar -= by_distance * total * total
    return value, (
        loss_bar, offset_bar, sigma_bar, kappa_bar, common_bar, effect_bar, outlier_bar,
        dof_bar, rho_bar, phi_bar,
    )  # fmt: skip
