"""The fit of a law to a swarm, what it predicts, and the mixture it prefers."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from bayesmix import law as laws
from bayesmix.constraints import Bounds
from bayesmix.feasible import FeasibleSet, feasible_set
from bayesmix.model import components, observed_domains
from bayesmix.objective import check_sizes, resolve_objective
from bayesmix.optima import many_starts
from bayesmix.optimise import minimise, project
from bayesmix.pointfit import (
    additive,
    bimix,
    chinchilla,
    exponential,
    joint,
    linear,
    loglinear,
    mean,
    mechanistic,
    regmix,
)
from bayesmix.pointfit.search import Fitted
from bayesmix.predict import mixture_table, named_losses
from bayesmix.runs import Runs, floor_weights

if TYPE_CHECKING:
    from bayesmix.pointfit.bootstrap import Bootstrap

_STEP = 1e-30  # complex: exact to rounding
_LEAST_WEIGHT = 1e-9  # at which slopes are taken: some are infinite at 0
_CANDIDATES, _TOP = 20_000, 100  # random mixtures that rank trees, and how many are averaged


class PointLaw(NamedTuple):
    """One law.

    Attributes
    ----------
    fit : callable
        ``(runs, rng, warm)`` to `Fitted`.
    evaluate : callable
        ``(parameters, weights (R, K), n_params (R,), n_tokens (R,))`` to losses (R, C).
    smooth : bool
        Whether losses have a slope in the mixture.
    """

    fit: Callable[[Runs, np.random.Generator, xr.Dataset | None], Fitted]
    evaluate: Callable[[xr.Dataset, np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    smooth: bool = True


POINT_LAWS: Mapping[str, PointLaw] = {
    **{
        f"point:{law}": PointLaw(
            partial(mechanistic.fit, law=law), partial(mechanistic.evaluate, law=law)
        )
        for law in ("transfer", "regression", "quantization")
    },
    "additive": PointLaw(additive.fit, additive.evaluate),
    "joint": PointLaw(joint.fit, joint.evaluate),
    "exponential": PointLaw(exponential.fit, exponential.evaluate),
    "log-linear": PointLaw(loglinear.fit, loglinear.evaluate),
    "bimix": PointLaw(bimix.fit, bimix.evaluate),
    "regmix": PointLaw(regmix.fit, regmix.evaluate, smooth=False),
    "linear": PointLaw(linear.fit, linear.evaluate),
    "chinchilla": PointLaw(chinchilla.fit, chinchilla.evaluate, smooth=False),
    "mean": PointLaw(mean.fit, mean.evaluate),
}


@dataclass(frozen=True, repr=False)
class PointFit:
    """A law fitted to a swarm: one set of parameters.

    Attributes
    ----------
    law : str
        A name in `POINT_LAWS`.
    runs : Runs
        The rows that were fitted.
    parameters : Dataset
        Dims ``component``, ``domain``, ``source``, ``mixture``; losses in nats per token.
    n_parameters : int
        How many were fitted.
    converged : bool
        Whether every optimiser met its own tolerance.
    message : str
        What the optimiser said; of a failure, if there was one.
    at_bounds : tuple of str
        Parameters on a bound, as in ``E[github]``: no estimates.
    seconds : float
        What the fit took.
    loss : float
        Mean training loss per cell: Huber's of log losses, squares of losses for `regmix`,
        `linear` and `mean`.

    Examples
    --------
    What `point_fit` returns:

    >>> from bayesmix import load_dataset
    >>> fitted = point_fit(load_dataset("simulated").checkpoints("last"), "log-linear")
    >>> even = dict.fromkeys(fitted.runs.domains, 0.2)
    >>> fitted.predict(even, n_params=4e8, n_tokens=8e9).sizes
    Frozen({'row': 1, 'domain': 7})
    >>> round(fitted.optimum(n_params=4e8, n_tokens=8e9).sum().item(), 6)
    1.0
    """

    law: str
    runs: Runs
    parameters: xr.Dataset
    n_parameters: int
    converged: bool
    message: str
    at_bounds: tuple[str, ...]
    seconds: float
    loss: float

    @property
    def components(self) -> tuple[str, ...]:
        """What has a loss: the domains, then ``target:<name>``."""
        return components(self.runs)

    def evaluate(self, weights: np.ndarray, n_params: Any, n_tokens: Any) -> np.ndarray:
        """Losses (R, C) in nats per token, at exact weights (R, K); NaN without a prediction."""
        n_params, n_tokens = (np.broadcast_to(x, len(weights)) for x in (n_params, n_tokens))
        return POINT_LAWS[self.law].evaluate(self.parameters, weights, n_params, n_tokens)

    def predict(
        self,
        weights: pd.DataFrame | xr.DataArray | Mapping[str, float],
        n_params: float | None = None,
        n_tokens: float | None = None,
    ) -> xr.DataArray:
        """Losses at any mixture, N and D; arguments as in `bayesmix.predict.predict`.

        Returns
        -------
        DataArray
            Nats per token; dims ``row``, ``domain`` (domains, then ``target:<name>``, then
            ``mean`` over the domains with observed losses); NaN where the law has no prediction.
        """
        mixtures = mixture_table(self.runs.domains, weights, n_params, n_tokens)
        loss = self.evaluate(*prediction_points(self.runs, mixtures))
        return named_losses(self.runs, loss[None], mixtures).isel(draw=0)

    def optimum(
        self,
        n_params: float,
        n_tokens: float,
        objective: Mapping[str, float] | None = None,
        bounds: Bounds | None = None,
    ) -> xr.DataArray:
        """The mixture of least loss; dim ``domain``, weights that sum to 1.

        A law without slopes is ranked on random
        mixtures and those of the swarm, and the mean of the best is taken, as RegMix does.

        Raises
        ------
        ValueError
            As `bayesmix.recommend`, and if the law predicts the objective nowhere or the objective
            is a `Worst`.
        """
        check_sizes(n_params, n_tokens)
        wanted, worst = resolve_objective(self.components, observed_domains(self.runs), objective)
        if worst:
            raise ValueError("a point fit minimises a weighted sum of losses, not the worst domain")
        allowed = feasible_set([bounds] if bounds else [], self.runs.domains, n_tokens)
        weights = np.array([wanted.get(name, 0.0) for name in self.components])
        of = _Objective(self, float(n_params), float(n_tokens), weights)
        rng = np.random.default_rng(0)
        if POINT_LAWS[self.law].smooth:
            best = _best_minimum(of, self.runs, allowed, rng)
        else:
            best = _best_ranked(of, self.runs, allowed.lower, allowed.upper, rng)
        return xr.DataArray(best, {"domain": list(self.runs.domains)}, "domain", "weights")

    def bootstrap(self, n: int = 50, seed: int = 0, n_jobs: int = 1) -> "Bootstrap":
        """Refits to resampled runs: see `bayesmix.pointfit.bootstrap.bootstrap`."""
        # points up the map, so that users find it on the fit
        from bayesmix.pointfit.bootstrap import bootstrap

        return bootstrap(self, n, seed, n_jobs)

    def __repr__(self) -> str:
        bounds = f"; {len(self.at_bounds)} on a bound" if self.at_bounds else ""
        state = "converged" if self.converged else f"NOT converged: {self.message}"
        return (
            f"PointFit of {self.law}: {self.n_parameters} parameters{bounds}; training loss "
            f"{self.loss:.3g}; {state}; {self.seconds:.1f} s"
        )


def point_fit(runs: Runs, law: str, *, seed: int = 0, warm: PointFit | None = None) -> PointFit:
    """Fit a law to every row of a swarm.

    Parameters
    ----------
    runs : Runs
        Choose checkpoints first.
    law : str
        A name in `POINT_LAWS`.
    seed : int
        Of the starts.
    warm : PointFit, optional
        An earlier fit of the law, whose parameters are the only start of what they are starts of:
        trends and Chinchilla's curves have their own.

    Returns
    -------
    PointFit

    Raises
    ------
    ValueError
        If the law is unknown.
    ImportError
        For ``regmix`` without LightGBM.

    Examples
    --------
    >>> from bayesmix import load_dataset
    >>> point_fit(load_dataset("simulated").checkpoints("last"), "mean").n_parameters
    6
    """
    if law not in POINT_LAWS:
        raise ValueError(f"unknown law {law!r}; valid names: {', '.join(POINT_LAWS)}")
    start = time.perf_counter()
    rng = np.random.default_rng(seed)
    found = POINT_LAWS[law].fit(runs, rng, None if warm is None else warm.parameters)
    return PointFit(law, runs, seconds=time.perf_counter() - start, **found._asdict())


def prediction_points(
    runs: Runs, mixtures: pd.DataFrame
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights (R, K), printed zeros floored, N and D (R,) of a table of mixtures."""
    raw = mixtures[[f"weight_{domain}" for domain in runs.domains]].to_numpy(float)
    n_params, n_tokens = (mixtures[name].to_numpy(float) for name in ("n_params", "n_tokens"))
    return floor_weights(raw, runs.weight_resolution), n_params, n_tokens


@dataclass(frozen=True)
class _Objective:
    """A weighted sum of a fit's losses at one N and D."""

    fit: PointFit
    n_params: float
    n_tokens: float
    weights: np.ndarray

    def slopes(self, points: np.ndarray, _: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values (P,) and gradients (P, K) at mixtures (P, K): what `minimise` asks for."""
        if self.fit.law.startswith("point:"):
            return self._kernel(points)
        size = points.shape[1]
        inner = np.repeat(np.maximum(points, _LEAST_WEIGHT), size, axis=0).astype(complex)
        inner += 1j * _STEP * np.tile(np.eye(size), (len(points), 1))
        gradient = self.value(inner).imag.reshape(points.shape) / _STEP
        return self.value(points), gradient

    def value(self, points: np.ndarray) -> np.ndarray:
        wanted = self.weights != 0
        loss = self.fit.evaluate(points, self.n_params, self.n_tokens)[:, wanted]
        return np.where(np.isnan(loss), np.inf, loss) @ self.weights[wanted]

    def _kernel(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        variant = laws.LAWS[self.fit.law.removeprefix("point:")]
        values = [self.fit.parameters[name].values for name in laws.PARAMETERS]
        every = [np.broadcast_to(v, (len(points), *v.shape)).copy() for v in values]
        # a loss outside the objective may be infinite at weight 0, and 0 x inf is no number
        every[laws.PARAMETERS.index("tau")][:, self.weights == 0] = 1.0
        sizes = np.log(self.n_params), np.log(self.n_tokens)
        points = np.ascontiguousarray(points)
        weights = np.tile(self.weights, (len(points), 1))
        arguments = (*every, points, *sizes, weights, variant.noise, variant.head)
        return laws.objective_draws(*arguments)[:2]


def _best_minimum(
    of: _Objective, runs: Runs, allowed: FeasibleSet, rng: np.random.Generator
) -> np.ndarray:
    """The best of the minima reached from near every vertex, the swarm's mean and at random."""
    known = runs.effective_weights().values.mean(axis=0, keepdims=True)
    starts = many_starts(known, allowed, rng)
    if not np.isfinite(of.value(starts)).all():
        raise ValueError(f"the law {of.fit.law} predicts the objective at no mixture within bounds")
    found = minimise(of.slopes, starts, allowed.lower, allowed.upper)
    return found.points[found.values.argmin()]


def _best_ranked(
    of: _Objective, runs: Runs, low: np.ndarray, high: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The mean of the best candidates; the best alone, where few have a prediction."""
    tried = runs.effective_weights().values
    random = rng.dirichlet(np.ones(tried.shape[1]), _CANDIDATES)
    tried = tried[((low <= tried) & (tried <= high)).all(axis=1)]
    candidates = np.concatenate([tried, project(random, low, high)])
    values = of.value(candidates)
    known = np.isfinite(values)
    if not known.any():
        raise ValueError(f"the law {of.fit.law} predicts the objective at no mixture within bounds")
    order = np.argsort(np.where(known, values, np.inf))
    return candidates[order[: _TOP if known.sum() > _CANDIDATES // 2 else 1]].mean(axis=0)
