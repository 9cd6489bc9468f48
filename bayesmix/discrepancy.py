"""The law's own misfit over scales: small at the data, growing outside.

Every law is wrong. Its log loss of component i at N parameters and D tokens is off by three parts,
each with mean 0, whose components err together (``discrepancy_correlation``):

- *offset*: all mixtures trained or evaluated at one (N, D), a *cell*, are off together: a
  validation batch, before a run's end its schedule. Independent over cells, with scale
  ``offset_scale``, to which ``transient_scale`` adds for every e-fold of tokens from there to the
  last D of that N.
- *bend*: the law's slopes wander, by ``bend_scale`` in one e-fold: a surface over (log N, log D)
  as smooth as a cubic spline. Cells at which runs end show it; of earlier ones it is not told from
  the transient, and counts as a part of that. Beyond the data it goes on from what they show. In
  a direction in which the cells do not spread it has a slope of its own, of 1.2 ``bend_scale``.
- *slope*: where the cells hardly spread, as over the N of a swarm of one size, or over D at one N
  where D is 20 N throughout, the law's slope is its priors' alone, and off by ``slope_scale`` for
  every e-fold that way.

Offset and bend are less their regression on (1, log N, log D) over the cells, since a mean and
slopes over the data are the law's business. At a new cell what the regression has swallowed comes
back as the error of its slopes, as in a prediction of least squares. The scales are learned where
cells outnumber regressors, and else are their priors.

The law is fitted with offsets that are independent over cells; how much of them is a bend is asked
of their draws afterwards (`misfit.py`). In the fit a surface would take on what the law is
there to explain (docs/calibration.md).

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
# e-folds within which bends would return to none: far more than any swarm spans, so that it is a
# spline that is learned
_LENGTH = 10.0
# of the misfit's parts that cells can show
SCALES = ("bend_scale", "offset_scale", "transient_scale")
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
    ended : array, shape (M,)
        Whether a run has its last row at each cell.
    """

    log_scale: np.ndarray
    row_cell: np.ndarray
    ended: np.ndarray

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

    def bend_covariance(self, log_scale: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Covariance of the bends at two sets of scales, less regression, shape (R, S)."""
        cells = self.log_scale
        hat, other_hat = self.hat(log_scale), self.hat(other)
        return (
            _smooth(log_scale, other)
            - hat @ _smooth(cells, other)
            - _smooth(log_scale, cells) @ other_hat.T
            + hat @ _smooth(cells, cells) @ other_hat.T
        )

    @property
    def left(self) -> np.ndarray:
        """What the regression leaves of values at the cells, shape (M, M)."""
        return np.eye(len(self.log_scale)) - self.hat(self.log_scale)

    def basis(self) -> np.ndarray:
        """Orthonormal basis of what the regression leaves, shape (M, rank)."""
        vectors, sizes, _ = np.linalg.svd(self.left)
        return vectors[:, sizes > _ROUNDING]

    def covariances(self) -> np.ndarray:
        """In that basis, of the parts in `SCALES` at a scale of 1, shape (3, rank, rank)."""
        project = self.basis().T @ self.left
        return np.array([project @ part @ project.T for part in self._parts()])

    def _parts(self) -> np.ndarray:
        """Covariances at the cells of the parts in `SCALES`, before the regression, (3, M, M)."""
        shown = np.outer(self.ended, self.ended)
        bend = shown * self.bend_covariance(self.log_scale, self.log_scale)
        return np.array([bend, np.eye(len(shown)), np.diag(self.to_go**2)])

    def told(self, log_scale: np.ndarray) -> np.ndarray:
        """Covariances of the parts there and in the basis at the cells, shape (3, R, rank)."""
        across = -self.hat(log_scale) @ self._parts()
        across[0] += self.ended * self.bend_covariance(log_scale, self.log_scale)
        return across @ self.left.T @ self.basis()

    def offset_bases(self) -> dict[str, np.ndarray]:
        """Bases of the offsets in a fit, each of shape (M, rank), by their scale's name."""
        left = self.left
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
    run = np.unique(runs.run_ids.values, return_inverse=True)[1]
    end = np.full(run.max() + 1, -np.inf)
    np.maximum.at(end, run, log_d)
    ended = np.zeros(n_cells, bool)
    np.logical_or.at(ended, row_cell, log_d == end[run])
    return Scales(np.column_stack(centres), row_cell, ended)


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
    fitted, nearest = cells.fitted(log_scale)
    error = posterior["offset"][:, nearest, :]
    if not fitted.all():
        error[:, ~fitted] = _beyond(cells, posterior, log_scale[~fitted], rng, path)
    for direction in cells.unseen.T:
        far = ~fitted * ((log_scale - cells.centre) @ direction)
        error += posterior["slope_scale"][:, None, None] * _correlated(far[:, None], posterior, rng)
    return error[:, place.reshape(-1), :]


def bend_draws(
    runs: Runs, posterior: Mapping[str, np.ndarray], rng: np.random.Generator
) -> np.ndarray:
    """Prior draws of what bends add to the offsets of the fitted cells, in log loss.

    Parameters
    ----------
    runs, posterior, rng
        As in `discrepancy_draws`; of ``offset`` (S, M, C) the shape is used.

    Returns
    -------
    array, shape (S, M, C)
        Less its regression over the cells, as offsets are.
    """
    cells = scales(runs)
    shown = cells.ended[:, None] * _root(cells.bend_covariance(cells.log_scale, cells.log_scale))
    return posterior["bend_scale"][:, None, None] * _correlated(cells.left @ shown, posterior, rng)


def _beyond(
    cells: Scales,
    posterior: Mapping[str, np.ndarray],
    log_scale: np.ndarray,
    rng: np.random.Generator,
    path: bool,
) -> np.ndarray:
    """Offset and bend where nothing was fitted, given all offsets of the cells.

    By Matheron's rule: drawn at cells and new scales together, the draw's error at the cells taken
    back as far as it tells of the new ones.
    """
    hat, n_cells = cells.hat(log_scale), len(cells.log_scale)
    bend_scale, offset_scale, transient_scale = (posterior[n][:, None, None] for n in SCALES)
    # what is independent first: of a path its draws do not depend on how many points it has
    at_cells = _correlated(np.eye(n_cells), posterior, rng) * offset_scale
    at_cells += _correlated(np.diag(cells.to_go), posterior, rng) * transient_scale
    new = np.ones((len(hat), 1)) if path else np.eye(len(hat))
    fresh = _correlated(new, posterior, rng) * offset_scale
    both = np.concatenate([cells.log_scale, log_scale])
    bend = _correlated(_root(cells.bend_covariance(both, both)), posterior, rng) * bend_scale
    at_cells += cells.ended[:, None] * bend[:, :n_cells]
    fresh += bend[:, n_cells:] - np.einsum("rm,smc->src", hat, at_cells)

    basis = cells.basis()
    off = posterior["offset"] - np.einsum("rm,smc->src", cells.left, at_cells)
    gap = np.einsum("mk,smc->skc", basis, off)
    # draws of many cells share their scales, see `misfit.py`
    squares, place = np.unique(
        np.column_stack([posterior[name] ** 2 for name in SCALES]), axis=0, return_inverse=True
    )
    known = np.tensordot(squares, cells.covariances(), 1)
    # where no scale is above 0 nothing is told
    inverse = np.linalg.pinv(known, rcond=_ROUNDING, hermitian=True)
    told = cells.told(log_scale)
    for square, of_scales, draws in zip(squares, inverse, _members(place.reshape(-1)), strict=True):
        fresh[draws] += np.tensordot(square, told, 1) @ of_scales @ gap[draws]
    return fresh


def _members(codes: np.ndarray) -> list[np.ndarray]:
    """Places of each code, in the order of the codes, all of which are there."""
    ends = np.cumsum(np.bincount(codes))[:-1]
    return np.split(np.argsort(codes, kind="stable"), ends)


def _smooth(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Matérn-3/2 covariance between scales (R, 2) and (S, 2).

    Its first term that is not of a line is |r|^3 / 12, that of twice-integrated white noise.
    """
    away = np.linalg.norm(a[:, None, :] - b[None, :, :], axis=2)
    r = np.sqrt(3) * away / _LENGTH
    return _LENGTH**3 / (12 * np.sqrt(3)) * (1 + r) * np.exp(-r)


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
