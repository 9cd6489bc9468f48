"""The noise of log losses: log likelihood and its gradient, one kernel.

The error of row k (run r, cell s) and component i is::

    e = (log y - log L_i - offset_si - common_i f_r) / scale,
    scale^2 = (sigma_i^2 + (kappa_i doubt_ki)^2) exp(2 o_r),

where o_r >= 0 says how much wider all errors of a run are than those of a regular one. The errors
of one component in one mixture and N are multivariate t. Where the mixture is without the domain
`kappa` and `dof` are `kappa_unseen` and `dof_unseen`; elsewhere its weight may have been printed to
a resolution only. The correlation is `rho` between checkpoints of a run,
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
from bayesmix.elementary import exp, log, taken

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
        Rows sorted by (mixture, N), then run; those that are alone with theirs come first.
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

    @property
    def sizes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Observed errors of a group and component, how many have so many, and if unseen.

        Three arrays of floats, of one length: all that the likelihood's constants depend on.
        """
        start = self.run_start[self.group_start[:-1]]
        sizes, counts, kinds = [], [], []
        for unseen in (False, True):
            counted = (np.isfinite(self.observed) & (self.unseen == unseen))[self.rows]
            of_group = np.add.reduceat(counted, start, axis=0, dtype=int)
            size, count = np.unique(of_group[of_group > 0], return_counts=True)
            sizes.append(size)
            counts.append(count)
            kinds.append(np.full(len(size), unseen))
        size, count, kind = (np.concatenate(each).astype(float) for each in (sizes, counts, kinds))
        return size, count, kind


def cells(
    observed: np.ndarray,
    doubt: np.ndarray,
    scale: Scales,
    run: np.ndarray,
    repeat: np.ndarray,
) -> Cells:
    """Sort rows by the codes of their run and of their (mixture, N), single ones first."""
    code = np.unique(repeat, return_inverse=True)[1].reshape(-1)
    rows = np.lexsort((run, repeat, np.bincount(code)[code] > 1))
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


def log_constant(freedom, size, gammaln, log):
    """What a multivariate t of a group's size has beside its scale and distance.

    `gammaln` and `log` are those of the library whose numbers the first two are.

    Examples
    --------
    >>> round(log_constant(1.0, 1, math.lgamma, math.log), 12) == round(-math.log(math.pi), 12)
    True
    """
    return gammaln((freedom + size) / 2) - gammaln(freedom / 2) - size / 2 * log(freedom * math.pi)


# component by component, over cells sorted by group and run, in loops that are vectorised: a cell
# without a loss has an error and a scale of 0, so that sums need not ask
@numba.njit(cache=True, error_model="numpy", fastmath={"contract", "reassoc"})
def log_likelihood(
    loss, offset, sigma, kappa, kappa_unseen, common, effect, outlier, dof, dof_unseen, rho, phi,
    observed, doubt, row_cell, row_run, rows, run_start, group_start,
):  # fmt: skip
    """Log likelihood, less what depends on `dof` and the groups' sizes alone, and its gradient.

    Returns
    -------
    value : float
    bars : tuple
        Derivatives by the first twelve arguments, in their shapes.
    """
    n_rows, n_components = loss.shape
    n_runs, n_groups = run_start.shape[0] - 1, group_start.shape[0] - 1
    loss_bar, offset_bar = np.zeros(loss.shape), np.zeros(offset.shape)
    sigma_bar, common_bar = np.zeros(sigma.shape), np.zeros(common.shape)
    kappa_bar, kappa_unseen_bar = np.zeros(kappa.shape), np.zeros(kappa_unseen.shape)
    effect_bar, outlier_bar = np.zeros(effect.shape), np.zeros(outlier.shape)
    dof_bar, dof_unseen_bar, rho_bar, phi_bar, value = 0.0, 0.0, 0.0, 0.0, 0.0
    # a row that is alone with its mixture and N, as all rows of some swarms, is its own group
    alone = 0
    while alone < n_groups and run_start[group_start[alone + 1]] == alone + 1:
        alone += 1
    gap = rho - phi
    # logs and divisions that many cells share are made once
    per_apart, log_apart = 1.0 / (1.0 - rho), log(1.0 - rho)
    most = 0
    for block in range(n_runs):
        most = max(most, run_start[block + 1] - run_start[block])
    per_within, log_within = np.empty(most + 1), np.empty(most + 1)
    for count in range(most + 1):
        per_within[count] = 1.0 / (1.0 - rho + gap * count)
        log_within[count] = log(1.0 - rho + gap * count)

    # of cells: what a row of the swarm, sorted, is for one component
    run, cell = taken(row_run, rows), taken(row_cell, rows)
    per_wider, effect_of = np.empty(n_rows), np.empty(n_rows)
    for k in range(n_rows):
        per_wider[k], effect_of[k] = exp(-outlier[run[k]]), effect[run[k]]
    effect_of_bar, log_wider_bar = np.zeros(n_rows), np.zeros(n_rows)
    seen_of = np.zeros(n_rows)
    seen, error, pulled = np.empty(n_rows), np.empty(n_rows), np.empty(n_rows)
    per_variance, per_scale, by_log_scale = np.empty(n_rows), np.empty(n_rows), np.empty(n_rows)
    doubted, log_loss, here = np.empty(n_rows), np.empty(n_rows), np.empty(n_rows)
    # of runs and of groups
    from_run = np.empty(n_runs)
    size, distance, by_distance = np.empty(n_groups), np.empty(n_groups), np.empty(n_groups)
    doubted_of = np.empty(n_groups)
    for i in range(n_components):
        for k in range(n_rows):
            here[k] = loss[rows[k], i]
            doubted[k] = doubt[rows[k], i]
            seen[k] = 0.0 if observed[rows[k], i] == math.inf else 1.0
            error[k] = observed[rows[k], i] - offset[cell[k], i] - common[i] * effect_of[k]
        total = 0.0
        for k in range(n_rows):
            log_loss[k] = log(here[k])
        for k in range(n_rows):
            width = doubted[k] * (kappa_unseen[i] if doubted[k] == UNSEEN else kappa[i])
            variance = sigma[i] * sigma[i] + width * width
            per_variance[k] = 1.0 / variance
            per_scale[k] = seen[k] * math.sqrt(per_variance[k]) * per_wider[k]
            error[k] = (error[k] - log_loss[k]) * per_scale[k] if seen[k] == 1.0 else 0.0
            total += seen[k] * log(variance)
        value -= 0.5 * total

        # sums over each group of the closed-form inverse of its correlation
        for g in range(alone):
            size[g], distance[g], doubted_of[g] = seen[g], error[g] * error[g], doubted[g]
        for g in range(alone, n_groups):
            # rows of a group have one mixture
            doubted_of[g] = doubted[run_start[group_start[g]]]
            squares, sums, weight = 0.0, 0.0, 0.0
            log_det, det_rho, det_phi, weight_rho, weight_phi = 0.0, 0.0, 0.0, 0.0, 0.0
            size[g] = 0.0
            for block in range(group_start[g], group_start[g + 1]):
                count, run_sum = 0, 0.0
                for k in range(run_start[block], run_start[block + 1]):
                    run_sum += error[k]
                    squares += error[k] * error[k]
                    count += int(seen[k])
                per = per_within[count]
                from_run[block] = gap * per * run_sum
                squares -= from_run[block] * run_sum
                sums += per * run_sum
                weight += count * per
                size[g] += count
                log_det += log_within[count] + (count - 1) * log_apart
                det_rho += (count - 1) * (per - per_apart)
                det_phi -= count * per
                weight_rho -= count * (count - 1) * per * per
                weight_phi += count * count * per * per
            distance[g] = squares * per_apart
            if phi > 0.0:
                per_between = 1.0 / (1.0 + phi * weight)
                distance[g] -= phi * per_between * sums * sums
                log_det -= log(per_between)
                det_rho += phi * weight_rho * per_between
                det_phi += (weight + phi * weight_phi) * per_between
                for block in range(group_start[g], group_start[g + 1]):
                    count = 0
                    for k in range(run_start[block], run_start[block + 1]):
                        count += int(seen[k])
                    # in units of an error less `from_run`
                    from_run[block] += phi * per_between * sums * per_within[count] * (1.0 - rho)
            value -= 0.5 * log_det
            rho_bar -= 0.5 * det_rho
            phi_bar -= 0.5 * det_phi
        of_seen, of_unseen, total = 0.0, 0.0, 0.0
        for g in range(n_groups):
            unseen = doubted_of[g] == UNSEEN
            freedom = dof_unseen if unseen else dof
            ratio = 1.0 + distance[g] / freedom
            log_ratio = log(ratio)
            half = 0.5 * (freedom + size[g])
            by_distance[g] = -half / (freedom * ratio)
            total -= half * log_ratio
            by_freedom = 0.5 * log_ratio + by_distance[g] * distance[g] / freedom
            of_unseen -= by_freedom if unseen else 0.0
            of_seen -= 0.0 if unseen else by_freedom
        value += total
        dof_bar += of_seen
        dof_unseen_bar += of_unseen

        # v = C^-1 e, of which everything else is made
        for k in range(alone):
            pulled[k] = 2.0 * by_distance[k] * error[k]
        for g in range(alone, n_groups):
            total = 0.0
            for block in range(group_start[g], group_start[g + 1]):
                v_sum, v_squares = 0.0, 0.0
                for k in range(run_start[block], run_start[block + 1]):
                    v = seen[k] * (error[k] - from_run[block]) * per_apart
                    v_sum += v
                    v_squares += v * v
                    pulled[k] = 2.0 * by_distance[g] * v
                rho_bar -= by_distance[g] * (v_sum * v_sum - v_squares)
                phi_bar += by_distance[g] * v_sum * v_sum
                total += v_sum
            phi_bar -= by_distance[g] * total * total
        by_sigma, by_common, by_seen, by_unseen = 0.0, 0.0, 0.0, 0.0
        for k in range(n_rows):
            by_log_scale[k] = -(seen[k] + pulled[k] * error[k])
            pulled[k] *= per_scale[k]
            here[k] = -pulled[k] / here[k] if seen[k] == 1.0 else 0.0
            by_common -= pulled[k] * effect_of[k]
            effect_of_bar[k] -= pulled[k] * common[i]
            log_wider_bar[k] += by_log_scale[k]
            seen_of[k] += seen[k]
            by_scale = by_log_scale[k] * per_variance[k]
            by_sigma += by_scale
            by_kappa = by_scale * doubted[k] * doubted[k]
            by_unseen += by_kappa if doubted[k] == UNSEEN else 0.0
            by_seen += 0.0 if doubted[k] == UNSEEN else by_kappa
        sigma_bar[i] = by_sigma * sigma[i]
        kappa_bar[i], kappa_unseen_bar[i] = by_seen * kappa[i], by_unseen * kappa_unseen[i]
        common_bar[i] = by_common
        for k in range(n_rows):
            loss_bar[rows[k], i] = here[k]
            offset_bar[cell[k], i] -= pulled[k]
    for k in range(n_rows):
        value -= seen_of[k] * outlier[run[k]]
        effect_bar[run[k]] += effect_of_bar[k]
        outlier_bar[run[k]] += log_wider_bar[k]
    return value, (
        loss_bar, offset_bar, sigma_bar, kappa_bar, kappa_unseen_bar, common_bar, effect_bar,
        outlier_bar, dof_bar, dof_unseen_bar, rho_bar, phi_bar,
    )  # fmt: skip
