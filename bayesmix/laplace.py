"""The posterior's mode and a Gaussian around it: quick, not sampled, and to be doubted.

The mode is that of the density of the model's unconstrained variables (logs of spreads, logits),
which is what a Gaussian can approximate (Tierney & Kadane, JASA 1986; Gelman et al., *Bayesian
Data Analysis*, 3rd edition, Section 13.3). Hierarchical models may have no useful mode: with many
parameters for the data, the density can grow without end where a spread or a noise scale shrinks.
The search then does not converge, and says so.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from scipy.optimize import minimize

from bayesmix.compiling import compiled, log_density, unconstrained
from bayesmix.diagnostics import Diagnosis
from bayesmix.misfit import with_learned_scales
from bayesmix.model import build_model
from bayesmix.natural import in_natural_units
from bayesmix.posterior import Fit, with_observed
from bayesmix.priors import LogNormal, Normal, Prior
from bayesmix.reference import swarm_priors
from bayesmix.runs import Runs
from bayesmix.starts import Density, downhill

TOLERANCE = 1e-6  # nats below the mode, by Newton's decrement
N_STARTS = 4

_FIRST_STEPS, _STEPS, _ROUNDS = 1000, 300, 20
_DIFFERENCE = 1e-3  # in standard deviations, once the first round has found them
_LEAST_CURVATURE = 1e-2
_ROUND = 1.1  # curvatures between this and its inverse are 1
_NO_EFFECT_OF_RUNS: dict[str, Prior] = {
    "common_mean": Normal(-8.0, 0.1),
    "outlier_scale": LogNormal(-8.0, 0.1),
}


class Mode(NamedTuple):
    """A maximum of a log density, and the Gaussian there.

    Attributes
    ----------
    point : array, shape (P,)
    root : array, shape (P, P)
        ``root @ root.T`` is the Gaussian's covariance: the inverse of the negative Hessian, its
        curvatures made positive where they are not.
    log_density : float
        Nats, at the point.
    decrement : float
        Nats that a Newton step would still gain.
    least_curvature : float
        The least eigenvalue of the negative Hessian, in the units of the round before: 1 where
        that found the same; not above 0 at no maximum.
    converged : bool
        Whether the point is a maximum to `TOLERANCE`.
    """

    point: np.ndarray
    root: np.ndarray
    log_density: float
    decrement: float
    least_curvature: float
    converged: bool

    @property
    def log_mass(self) -> float:
        """Log of the Gaussian's integral, less a constant."""
        return self.log_density + float(np.linalg.slogdet(self.root)[1])


def find_mode(density: Density, starts: Sequence[np.ndarray]) -> tuple[Mode, int]:
    """The highest mode that is reached from some starts.

    L-BFGS in coordinates that the Hessian, by central differences of the gradient, makes round:
    renewed until a Newton step has nothing left to gain.

    Parameters
    ----------
    density : callable
        Of a point (P,): log density, nats, and its gradient (P,).
    starts : sequence of array, shape (P,)

    Returns
    -------
    mode : Mode
        Of those that converged, if any did, the one with the largest mass under its Gaussian: a
        spike may be higher and hold nothing.
    agreed : int
        How many starts reached that density.

    Examples
    --------
    >>> mode, agreed = find_mode(lambda x: (-2 * (x @ x), -4 * x), [np.ones(3)])
    >>> mode.converged, agreed, (mode.root @ mode.root.T).round(3).diagonal()
    (True, 1, array([0.25, 0.25, 0.25]))
    """
    ends = [_climb(density, start) for start in starts]
    best = max(ends, key=lambda end: (end.converged, end.log_mass))
    agreed = sum(bool(abs(end.log_density - best.log_density) < 1e-3) for end in ends)
    return best, agreed


def _climb(density: Density, start: np.ndarray) -> Mode:
    size = start.size
    point, root, down = start, np.eye(size), downhill(density)

    def slope(step: np.ndarray) -> np.ndarray:
        return -root.T @ density(point + root @ step)[1]

    def negative(step: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = down(point + root @ step)
        return value, root.T @ gradient

    best = None
    for turn in range(_ROUNDS):
        steps = _STEPS if turn else _FIRST_STEPS
        end = minimize(
            negative,
            np.zeros(size),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": steps, "maxfun": 2 * steps, "maxcor": 30, "ftol": 1e-13},
        )
        point = point + root @ end.x
        differences = [slope(_DIFFERENCE * e) - slope(-_DIFFERENCE * e) for e in np.eye(size)]
        hessian = np.array(differences) / (2 * _DIFFERENCE)
        if not np.isfinite(hessian).all():
            break
        curvature, axes = np.linalg.eigh((hessian + hessian.T) / 2)
        root = root @ axes / np.sqrt(np.maximum(abs(curvature), _LEAST_CURVATURE))
        value, gradient = density(point)
        decrement = float(np.sum((root.T @ gradient) ** 2) / 2)
        least = float(curvature[0])
        best = Mode(point, root, value, decrement, least, decrement <= TOLERANCE and least > 0)
        # differences are good where the units are the standard deviations that they find
        if best.converged and curvature[-1] < _ROUND and least > 1 / _ROUND:
            break
    if best is None:
        raise ValueError("the log density is not finite near the start")
    return best


def laplace(
    runs: Runs,
    law: str = "transfer",
    *,
    priors: Mapping[str, Prior] | None = None,
    checkpoints: Literal["late", "last", "all"] = "late",
    draws: int = 2000,
    seed: int = 0,
) -> Fit:
    """Draws from a Gaussian at the mode of a law's posterior: seconds instead of minutes.

    Two things differ from `bayesmix.fit`, both because a joint mode is a poor summary of effects
    and their scales: what a run's errors have in common is left out (the effect that its components
    share, which a mode spends on fitting one component, and how much wider they are, so that a
    wrong record widens the noise of all); and positive variables (spreads, scales, degrees of
    freedom) stay at the mode, so that intervals lack their part.

    Parameters
    ----------
    runs : Runs
        The swarm.
    law : str
        ``transfer`` (default), ``regression`` or ``quantization``.
    priors : mapping, optional
        Replacements for `default_priors`, by name.
    checkpoints : str
        As in `bayesmix.fit`.
    draws : int
        Independent draws, in one chain.
    seed : int
        Of the starts and the draws.

    Returns
    -------
    Fit
        Predictions and recommendations take it as they take a sampled one. Its diagnosis never
        passes: it says that nothing was sampled, and whether a mode was found. The attributes of
        its ``sample_stats`` say the same: ``method``, ``converged`` (0 or 1), ``decrement`` (nats).

    Raises
    ------
    ValueError
        If the law, a prior's name or the choice of checkpoints is unknown.

    Examples
    --------
    >>> from bayesmix import runs_from_frame
    >>> web = np.linspace(0.1, 0.9, 5)
    >>> runs = runs_from_frame(pd.DataFrame({
    ...     "run_id": list("abcde"), "n_params": 1e8, "n_tokens": 2e9, "weight_web": web,
    ...     "weight_code": 1 - web, "loss_web": 3.2 * web**-0.05}))
    >>> made = laplace(runs, "regression", draws=20)
    >>> made.posterior["posterior"]["b"].sizes
    Frozen({'chain': 1, 'draw': 20, 'domain': 2})
    >>> made.posterior["sample_stats"].attrs["converged"], made.diagnose().passed
    (1, False)
    """
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    runs = runs.checkpoints(checkpoints)
    priors = {**_NO_EFFECT_OF_RUNS, **(priors or {})}
    model = build_model(runs, law, priors, centre=False)
    used = swarm_priors(runs, law, priors)
    by_nutpie = compiled(model)
    density = log_density(by_nutpie)
    names = unconstrained(by_nutpie)
    start = model.initial_point()
    initial = np.concatenate([np.ravel(start[name]) for name in dict.fromkeys(names)])

    rng = np.random.default_rng(seed)
    around = rng.uniform(-1, 1, (N_STARTS - 1, initial.size))
    mode, agreed = find_mode(density, [initial, *(initial + around)])
    # what is the log of something positive stays at the mode
    root = conditional_root(mode, np.array([not name.endswith("_log__") for name in names]))
    z = rng.standard_normal((draws, initial.size))
    points = mode.point + z @ root.T
    unknowns = {
        name: points[:, np.array(names) == name].reshape(1, draws, *np.shape(value))
        for name, value in start.items()
    }

    flags = np.zeros((1, draws), bool)
    attrs = {
        "method": "laplace",
        "converged": int(mode.converged),
        "decrement": mode.decrement,
    }
    posterior = in_natural_units(model, unknowns)
    groups = {
        "posterior": with_learned_scales(posterior, runs, used, seed),
        "sample_stats": xr.Dataset({"diverging": (("chain", "draw"), flags)}, attrs=attrs),
    }
    fit = Fit(with_observed(xr.DataTree.from_dict(groups), runs), runs, law, used)
    columns = ["r_hat", "ess_bulk", "ess_tail", "where", "strict", "ok"]
    none = pd.DataFrame(columns=columns).rename_axis("variable")
    fit.__dict__["_diagnosis"] = Diagnosis(False, none, _words(mode, agreed))
    return fit


def found_mode(fit: Fit) -> bool:
    """Whether a fit is such an approximation, at a mode that was found."""
    return bool(fit.posterior["sample_stats"].attrs.get("converged", False))


def is_laplace(fit: Fit) -> bool:
    """Whether a fit is such an approximation, not sampled."""
    return fit.posterior["sample_stats"].attrs.get("method") == "laplace"


def conditional_root(mode: Mode, free: np.ndarray) -> np.ndarray:
    """A root (P, P) of the covariance of some entries given the others, which have none.

    Examples
    --------
    >>> mode = Mode(np.zeros(2), np.linalg.cholesky([[1.0, 0.6], [0.6, 1.0]]), 0.0, 0.0, 1.0, True)
    >>> root = conditional_root(mode, np.array([True, False]))
    >>> (root @ root.T).round(2).tolist()
    [[0.64, 0.0], [0.0, 0.0]]
    """
    inverse = np.linalg.inv(mode.root)[:, free]
    # precision inverse.T @ inverse; of its QR factors the triangle is the root of that
    triangle = np.linalg.qr(inverse, mode="r")
    root = np.zeros_like(mode.root)
    root[np.ix_(free, free)] = np.linalg.inv(triangle)
    return root


def _words(mode: Mode, agreed: int) -> str:
    if mode.converged:
        found = (
            f"The mode was found to {mode.decrement:.1g} nats from {agreed} of {N_STARTS} starts"
        )
    else:
        found = (
            f"NO mode was found: the least curvature at the best point is "
            f"{mode.least_curvature:.2g}, and a Newton step would gain {mode.decrement:.1g} nats"
        )
    return f"Laplace approximation at the MAP: not sampled. {found}."
