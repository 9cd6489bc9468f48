"""Fits of parametric curves, one component (domain or target) at a time.

A *curve* is a function of named parameters and rows: losses (R,) in nats per token, and their
slopes in every parameter, (R,) or (R, size). Log losses are fitted by bounded nonlinear least
squares (trust region, exact Jacobian) under Huber's loss, from several seeded starts of which the
training loss alone settles the best.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy.optimize import least_squares

from bayesmix.model import components, observed_log_loss
from bayesmix.pointfit.search import (
    HUBER,
    N_STARTS,
    Bounds,
    Fitted,
    Minimum,
    Space,
    Values,
    best_of,
)
from bayesmix.runs import Runs

_MAX_STEPS = 500


class Rows(NamedTuple):
    """Where curves are evaluated: R rows.

    Attributes
    ----------
    weights : array, shape (R, K)
        Mixtures, fractions; complex where a derivative is taken by a complex step.
    log_n, log_d : array, shape (R,)
        Logs of N and D, relative to the reference of the fit.
    """

    weights: np.ndarray
    log_n: np.ndarray
    log_d: np.ndarray


Curve = Callable[[Mapping[str, np.ndarray], Rows], tuple[np.ndarray, Values]]
# draws a start, for losses (R,) in nats per token
Start = Callable[[np.ndarray, np.random.Generator], Values]


def rows_at(
    parameters: xr.Dataset, weights: np.ndarray, n_params: np.ndarray, n_tokens: np.ndarray
) -> Rows:
    """Rows relative to the ``n_params_reference``, ``n_tokens_reference`` of a dataset."""
    n_reference, d_reference = (
        float(parameters[f"{name}_reference"]) for name in ("n_params", "n_tokens")
    )
    return Rows(weights, np.log(n_params / n_reference), np.log(n_tokens / d_reference))


def blank_parameters(runs: Runs) -> xr.Dataset:
    """Coords, and the reference of curves: geometric mean N (parameters) and D (tokens)."""
    return xr.Dataset(
        {
            f"{values.name}_reference": float(np.exp(np.log(values).mean()))
            for values in (runs.n_params, runs.n_tokens)
        },
        {"component": list(components(runs)), "source": list(runs.domains)},
    )


def fit_curve(
    curve: Curve, starts: Sequence[Values], bounds: Bounds, rows: Rows, log_loss: np.ndarray
) -> Minimum:
    """Fit one curve to log losses (R,), from starts with the same names and shapes."""
    space = Space(starts[0], bounds)

    def residuals(point: np.ndarray) -> np.ndarray:
        return np.log(curve(space.values(point), rows)[0]) - log_loss

    def jacobian(point: np.ndarray) -> np.ndarray:
        loss, slopes = curve(space.values(point), rows)
        columns = [slopes[name].reshape(loss.size, -1) for name in space.shapes]
        return np.concatenate(columns, axis=1) * space.slope(point) / loss[:, None]

    ends = []
    for start in starts:
        end = least_squares(
            residuals,
            space.point(start),
            jacobian,
            bounds=(space.low, space.high),
            loss="huber",
            f_scale=HUBER,
            ftol=1e-6,
            max_nfev=_MAX_STEPS,
        )
        ends.append(
            Minimum(
                space.values(end.x),
                float(end.cost) / log_loss.size,
                bool(end.success),
                str(end.message),
                space.on_bounds(end.x),
            )
        )
    return best_of(ends)


def fit_curves(
    runs: Runs,
    curve: Curve,
    start: Start,
    bounds: Bounds,
    rng: np.random.Generator,
    *,
    warm: xr.Dataset | None = None,
    usable: np.ndarray | None = None,
) -> Fitted:
    """Fit a curve to every component.

    Parameters
    ----------
    runs : Runs
    curve, start, bounds
        As the law's file has them.
    rng : Generator
        Of the starts.
    warm : Dataset, optional
        Parameters of an earlier fit of the law: the only start, where it has any.
    usable : array of bool, shape (R, C), optional
        Cells to fit, all that were observed by default; a component without any is left blank.
    """
    blank = blank_parameters(runs)
    weights = runs.effective_weights().values
    rows = rows_at(blank, weights, runs.n_params.values, runs.n_tokens.values)
    observed = observed_log_loss(runs)
    usable = np.isfinite(observed) if usable is None else usable
    found: dict[str, Minimum] = {}
    for i, (name, chosen) in enumerate(zip(components(runs), usable.T, strict=True)):
        if not chosen.any():
            continue
        log_loss = observed[chosen, i]
        starts = [start(np.exp(log_loss), rng) for _ in range(N_STARTS)]
        known = {}
        # a fit of one size has no slope over N
        if warm is not None and all(key in warm for key in starts[0]):
            known = {key: warm[key].values[i] for key in starts[0]}
        if known and all(np.isfinite(value).all() for value in known.values()):
            starts = [known]
        here = Rows(*(part[chosen] for part in rows))
        found[name] = fit_curve(curve, starts, bounds, here, log_loss)
    return gather(runs, found, blank, usable, "source")


def gather(
    runs: Runs,
    found: Mapping[str, Minimum],
    parameters: xr.Dataset,
    usable: np.ndarray,
    dim: str,
) -> Fitted:
    """Add the components' minima to `parameters`; those that are arrays have the dimension `dim`.

    A component that is not among them is left blank.
    """
    names = components(runs)
    if not found:
        return Fitted(parameters, 0, False, "no cell that this law can fit", (), np.nan)
    for key, value in next(iter(found.values())).values.items():
        blank = np.full(value.shape, np.nan)
        stacked = np.stack([found[n].values[key] if n in found else blank for n in names])
        parameters[key] = (("component", dim)[: stacked.ndim], stacked)
    failed = [f"{name}: {end.message}" for name, end in found.items() if not end.converged]
    counts = usable.sum(axis=0)
    labels = runs.domains if dim == "source" else range(usable.shape[0])
    return Fitted(
        parameters,
        sum(value.size for end in found.values() for value in end.values.values()),
        not failed,
        failed[0] if failed else next(iter(found.values())).message,
        tuple(_label(at, name, labels) for name, end in found.items() for at in end.at_bounds),
        float(np.average([end.loss for end in found.values()], weights=counts[counts > 0])),
    )


def _label(at: str, component: str, others: Sequence) -> str:
    """``E`` of github as ``E[github]``, and its third ``C`` as ``C[github,wikipedia]``."""
    name, _, index = at.rstrip("]").partition("[")
    return f"{name}[{component}{f',{others[int(index)]}' if index else ''}]"


def evaluate_curves(
    curve: Curve,
    parameters: xr.Dataset,
    weights: np.ndarray,
    n_params: np.ndarray,
    n_tokens: np.ndarray,
) -> np.ndarray:
    """Losses (R, C) of fitted curves; NaN for a component without parameters."""
    rows = rows_at(parameters, weights, n_params, n_tokens)
    fitted = {
        str(name): value.values
        for name, value in parameters.items()
        if value.dims[:1] == ("component",)
    }
    return np.stack(
        [
            curve({name: value[i] for name, value in fitted.items()}, rows)[0]
            for i in range(parameters.sizes["component"])
        ],
        axis=1,
    )
