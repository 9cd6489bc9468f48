"""The law's own misfit beyond the fitted sizes and horizons: none inside, growing outside.

Every law is wrong, and outside the data the misfit of its slopes dominates. The log loss of
component i is off by ``u_i e_N + v_i e_D``, with e_N and e_D the e-folds by which log N and log D
lie outside the fitted range and u, v normal with scale `PER_EFOLD` each, correlated across
components by `CORRELATION`, since kin domains err together. Both are assumptions: the scale is
a rough figure, the correlation a guess, and neither is learned or calibrated yet.
"""

import numpy as np

from bayesmix.runs import Runs

PER_EFOLD = 0.006
CORRELATION = 0.5


def efolds_outside(values: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """By how many e-folds positive values lie outside the range of the fitted ones.

    Examples
    --------
    >>> efolds_outside(np.array([1e8, 2e8, 1e9 * np.e]), np.array([1e8, 1e9])).round(3).tolist()
    [0.0, 0.0, 1.0]
    """
    log_values, log_fitted = np.log(values), np.log(fitted)
    above, below = log_values - log_fitted.max(), log_fitted.min() - log_values
    # a hair's breadth is rounding
    return np.where(np.maximum(above, below) > 1e-9, np.maximum(above, below), 0.0)


def discrepancy_draws(
    runs: Runs,
    n_params: np.ndarray,
    n_tokens: np.ndarray,
    n_draws: int,
    n_components: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draws of the error in log loss.

    Parameters
    ----------
    runs : Runs
        What was fitted: the range of N and D.
    n_params, n_tokens : array, shape (R,)
        N (parameters) and D (tokens) of the rows predicted.
    n_draws, n_components : int
        S and C.
    rng : Generator

    Returns
    -------
    array, shape (S, R, C)
        One slope a draw, component and direction, so rows of one draw err together.
    """
    distances = (
        efolds_outside(n_params, runs.n_params.values),
        efolds_outside(n_tokens, runs.n_tokens.values),
    )
    error = np.zeros((n_draws, len(n_params), n_components))
    for distance in distances:
        common = rng.normal(size=(n_draws, 1))
        own = rng.normal(size=(n_draws, n_components))
        slope = np.sqrt(CORRELATION) * common + np.sqrt(1 - CORRELATION) * own
        error += PER_EFOLD * slope[:, None, :] * distance[:, None]
    return error
