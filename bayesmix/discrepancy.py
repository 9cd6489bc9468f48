"""The law's own misfit over scales: small at the data, growing outside.

Every law is wrong. Its log loss of component i at N parameters and D tokens is off by three parts,
each with mean 0, whose components err together (``discrepancy_correlation``):

- *offset*: all mixtures trained or evaluated at one (N, D), a *cell*, are off together: a
  validation batch, a misfit of the law's curves, before a run's end its schedule. Independent over
  cells, with scale ``offset_scale``, to which ``transient_scale`` adds for every e-fold of tokens
  from there to the last D of that N; less the regression on (1, log N, log D) over the
  cells, since a mean and slopes over the data are the law's business. At a new cell what the
  regression has swallowed comes back as the error of its slopes, as in a prediction of least
  squares. The scales are learned where cells outnumber regressors, and else are their priors.
- *bend*: beyond the data the law's slopes wander, by ``bend_scale`` in one e-fold: twice-integrated
  white noise in log N and log D, given none at the cells. Data hold next to nothing about it.
- *slope*: where the cells hardly spread, as over the N of a swarm of one size, or over D at one N
  where D is 20 N throughout, the law's slope is its priors' alone, and off by ``slope_scale`` for
  every e-fold that way.

All of it is Gaussian given the scales, so this module holds only linear algebra: the bases of the
offsets that data can see, for `model.py`, and draws of the rest given those, for `predict.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bayesmix.runs import Runs

SAME_SCALE = 0.02  # rows of one N whose log D differ by less were evaluated at one scale
_HALF_WEIGHT = 0.5  # e-folds to the last D of an N at which a cell counts half in the regression
# e-folds, the root of the sum of squares over cells: what an offset does to a slope over less is
# beyond what `slope_scale` allows for
_SEEN = 0.2
_SAME_SIZE = 1e-9
_AXIS = 0.99  # cosine to an axis from which a direction is called by its name
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Scales:
    """The distinct (N, D) of a swarm, its *cells*.

    Attributes
    ----------
    log_scale : array, shape (M, 2)
        log N (parameters) and log D (tokens) of the cells.
    row_cell : array, shape (R,)
        Cell of each row of the swarm.
    """

    log_scale: np.ndarray
    row_cell: np.ndarray

    @property
    def to_go(self) -> np.ndarray:
        """E-folds of D from each cell to the last of its N, shape (M,)."""
        same_n = abs(self.log_scale[:, :1] - self.log_scale[:, 0]) <= _SAME_SIZE
        last = np.where(same_n, self.log_scale[:, 1], -np.inf).max(axis=1)
        return last - self.log_scale[:, 1]

    @property
    def _weight(self) -> np.ndarray:
        """What each cell counts in the regression, shape (M,): early ones count less."""
        return 1 / (1 + (self.to_go / _HALF_WEIGHT) ** 2)

    @property
    def centre(self) -> np.ndarray:
        """Weighted mean of log N and log D, shape (2,)."""
        return self._weight @ self.log_scale / self._weight.sum()

    def _directions(self) -> tuple[np.ndarray, np.ndarray]:
        """Squared spread of the cells in two directions, shape (2,), and these as columns."""
        away = self.log_scale - self.centre
        spread, directions = np.linalg.eigh(away.T * self._weight @ away)
        return spread, directions

    @property
    def unseen(self) -> np.ndarray:
        """Directions of (log N, log D) over which the cells do not show a slope, shape (2, n)."""
        spread, directions = self._directions()
        return directions[:, spread <= _SEEN**2]

    def hat(self, log_scale: np.ndarray) -> np.ndarray:
        """Weights of the cells in a regression's prediction at other scales, shape (R, M).

        The regressors are 1 and the directions in which the cells spread.
        """
        spread, directions = self._directions()
        seen = spread > _SEEN**2
        slopes = directions[:, seen] / spread[seen] @ directions[:, seen].T
        from_centre = (log_scale - self.centre) @ slopes @ (self.log_scale - self.centre).T
        return (1 / self._weight.sum() + from_centre) * self._weight

    def fitted(self, log_scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whether other scales are cells, and the cell of those that are, both of shape (R,)."""
        gap = abs(log_scale[:, None, :] - self.log_scale[None, :, :])
        same = (gap[:, :, 0] <= _SAME_SIZE) & (gap[:, :, 1] <= SAME_SCALE)
        return same.any(axis=1), np.where(same, gap[:, :, 1], np.inf).argmin(axis=1)

    def offset_bases(self) -> dict[str, np.ndarray]:
        """Bases of what the regression leaves, each of shape (M, rank), by their scale's name."""
        left = np.eye(len(self.log_scale)) - self.hat(self.log_scale)
        return {
            "offset_scale": _root(left @ left.T),
            "transient_scale": _root(left * self.to_go**2 @ left.T),
        }


def scales(runs: Runs) -> Scales:
    """The cells of a swarm.

    Examples
    --------
    >>> from bayesmix.datasets import load_dataset
    >>> scales(load_dataset("simulated")).log_scale.shape
    (6, 2)
    """
    log_n, log_d = np.log(runs.n_params.values), np.log(runs.n_tokens.values)
    size, size_of_row = np.unique((log_n / _SAME_SIZE).round(), return_inverse=True)
    row_cell = np.empty(len(log_n), dtype=int)
    n_cells = 0
    for s in range(len(size)):
        rows = size_of_row == s
        row_cell[rows] = n_cells + _groups(log_d[rows])
        n_cells = row_cell[rows].max() + 1
    count = np.bincount(row_cell)
    centres = [np.bincount(row_cell, values) / count for values in (log_n, log_d)]
    return Scales(np.column_stack(centres), row_cell)


def _groups(values: np.ndarray) -> np.ndarray:
    """Code of each value, in their order: equal within `SAME_SCALE` of the least of a group."""
    codes = np.empty(len(values), dtype=int)
    code, least = -1, -np.inf
    for position in np.argsort(values, kind="stable"):
        if values[position] - least > SAME_SCALE:
            code, least = code + 1, values[position]
        codes[position] = code
    return codes


def evidence(runs: Runs) -> str:
    """Say whether data or priors tell how wrong the law is over scales.

    Examples
    --------
    >>> from bayesmix.datasets import load_dataset
    >>> evidence(load_dataset("simulated"))
    "The scale of the law's misfit over N and D is learned, from 6 pairs of them."
    """
    cells = scales(runs)
    n_cells = len(cells.log_scale)
    free = cells.offset_bases()["offset_scale"].shape[1]
    if free:
        said = f"learned, from {n_cells} pairs of them."
    elif n_cells == 1:
        said = "the prior's: one pair of them does not show it."
    else:
        said = f"the prior's: {n_cells} pairs of them do not show it."
    slope = ""
    if cells.unseen.size:
        along = abs(cells.unseen).max(axis=1) > _AXIS
        one = " and ".join(name for name, on in zip("ND", along, strict=True) if on)
        if cells.unseen.shape[1] == 2:
            one = "N and D"
        slope = f" Runs of one {one} do not show the slope over it."
        if not one:
            slope = " N and D rise together: runs do not show what each does alone."
    return f"The scale of the law's misfit over N and D is {said}{slope}"


def discrepancy_draws(
    runs: Runs,
    posterior: Mapping[str, np.ndarray],
    n_params: np.ndarray,
    n_tokens: np.ndarray,
    rng: np.random.Generator,
    *,
    path: bool = False,
) -> np.ndarray:
    """Draws of the misfit in log loss, given that at the fitted scales.

    Parameters
    ----------
    runs : Runs
        What was fitted.
    posterior : mapping
        Draws on one leading axis S: ``offset_scale``, ``transient_scale``, ``bend_scale``,
        ``slope_scale``, ``discrepancy_correlation`` (S,), and ``offset`` (S, M, C) at the fitted
        cells.
    n_params, n_tokens : array, shape (R,)
        N (parameters) and D (tokens) of the rows predicted.
    rng : Generator
    path : bool
        Whether the rows are points of one curve, which outside the fitted cells share one offset,
        not places of their own.

    Returns
    -------
    array, shape (S, R, C)
        Rows of one draw err together, as do components.
    """
    cells = scales(runs)
    rows = np.log(np.column_stack([n_params, n_tokens]).astype(float))
    log_scale, place = np.unique(rows, axis=0, return_inverse=True)
    error = _offsets(cells, posterior, log_scale, rng, path)
    for axis in range(2):
        covariance = _bend_covariance(cells.log_scale[:, axis], log_scale[:, axis])
        bend = _correlated(_root(covariance), posterior, rng)
        error += posterior["bend_scale"][:, None, None] * bend
    new = ~cells.fitted(log_scale)[0]
    for direction in cells.unseen.T:
        far = new * ((log_scale - cells.centre) @ direction)
        error += posterior["slope_scale"][:, None, None] * _correlated(far[:, None], posterior, rng)
    return error[:, place.reshape(-1), :]


def _offsets(
    cells: Scales,
    posterior: Mapping[str, np.ndarray],
    log_scale: np.ndarray,
    rng: np.random.Generator,
    path: bool,
) -> np.ndarray:
    """Of a fitted cell its own; elsewhere a new one, less what the regression has swallowed."""
    fitted, nearest = cells.fitted(log_scale)
    hat = cells.hat(log_scale)
    new = np.ones((len(hat), len(hat))) if path else np.eye(len(hat))
    own = _correlated(_root(hat @ hat.T + new), posterior, rng)
    early = _correlated(_root(hat * cells.to_go**2 @ hat.T), posterior, rng)
    fresh = posterior["offset_scale"][:, None, None] * own
    fresh += posterior["transient_scale"][:, None, None] * early
    return np.where(fitted[:, None], posterior["offset"][:, nearest, :], fresh)


def _bend_covariance(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Covariance at `new` of twice-integrated white noise whose regression on the line is law.

    That is the process behind cubic splines, given that it is 0 at `old` and, if there is but one
    such point, flat there.
    """
    old = np.sort(old)
    knots = old[np.unique(_groups(old), return_index=True)[1]]
    if len(knots) == 1:
        return twice_integrated(new - knots[0], new - knots[0])
    a, b = knots[[0, -1]]

    def bridge(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        # from the first knot; less the line through the outermost, where the law fits
        def line(z: np.ndarray) -> np.ndarray:
            return ((z - a) / (b - a))[:, None]

        ends = twice_integrated(np.array([b - a]), y - a)
        cross = twice_integrated(x - a, np.array([b - a]))
        edge = twice_integrated(np.array([b - a]), np.array([b - a]))
        return (
            twice_integrated(x - a, y - a)
            - line(x) * ends
            - cross * line(y).T
            + edge * line(x) * line(y).T
        )

    inner = knots[1:-1]
    weights = bridge(new, inner) @ np.linalg.pinv(bridge(inner, inner), hermitian=True)
    return bridge(new, new) - weights @ bridge(inner, new)


def twice_integrated(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Covariance of twice-integrated white noise that starts flat at 0 and runs both ways.

    Examples
    --------
    >>> twice_integrated(np.array([0.0, 3.0]), np.array([3.0, -3.0])).tolist()
    [[0.0, 0.0], [9.0, 0.0]]
    """
    low = np.minimum(abs(x[:, None]), abs(y[None, :]))
    high = np.maximum(abs(x[:, None]), abs(y[None, :]))
    return np.where(x[:, None] * y[None, :] > 0, low**2 * (3 * high - low) / 6, 0.0)


def _correlated(
    root: np.ndarray, posterior: Mapping[str, np.ndarray], rng: np.random.Generator
) -> np.ndarray:
    """Normal draws (S, R, C), covariance ``root root'`` over rows, correlated over components."""
    n_draws, _, n_components = posterior["offset"].shape
    common = rng.normal(size=(n_draws, root.shape[1], 1))
    own = rng.normal(size=(n_draws, root.shape[1], n_components))
    shared = posterior["discrepancy_correlation"][:, None, None]
    z = np.sqrt(shared) * common + np.sqrt(1 - shared) * own
    return np.einsum("rk,skc->src", root, z)


def _root(covariance: np.ndarray) -> np.ndarray:
    """A factor F with F F' = covariance, directions that are rounding left out."""
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    kept = values > _ROUNDING * max(values.max(initial=0.0), 1e-3)
    return vectors[:, kept] * np.sqrt(values[kept])
