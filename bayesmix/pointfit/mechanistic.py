"""Point fits of this package's own law (Dai & Zheng, arXiv 2606.08167, Theorem 4.1).

All components share the capacity competition, and are fitted together by multi-start L-BFGS-B
with the exact gradients of `bayesmix.law`. The terms are searched by their size at a reference
point, which separates scales from exponents. ``fade`` is 1, as in the paper.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from scipy.optimize import minimize

from bayesmix import law as laws
from bayesmix.model import components, observed_log_loss, usable_cells
from bayesmix.pointfit.search import HUBER, Bounds, Fitted, Minimum, Space, Values, best_of, huber
from bayesmix.reference import reference
from bayesmix.runs import Runs

N_STARTS = 4
_MAX_STEPS = 5000
BOUNDS: Bounds = {
    "E": (1e-3, 20.0),
    "capacity": (1e-4, 20.0),
    "b": (1e-2, 3.0),
    "noise": (1e-4, 20.0),
    "a": (1e-2, 3.0),
    "tau": (1e-5, 1.0),
    "head_n": (1e-4, 20.0),
    "g": (1e-2, 3.0),
    "head_d": (1e-4, 20.0),
    "q": (1e-2, 3.0),
    "floor": (1e-6, 0.5),
}
_DIMS: dict[str, Any] = (
    {"log_c": "domain", "b": "domain"}
    | dict.fromkeys(("E", "log_A", "a", "log_G", "log_Q"), "component")
    | {"tau": ("component", "source")}
)


class _Searched:
    """The searched parameters of a swarm and a variant, as the kernel's and back.

    ``capacity``, ``noise``, ``head_n`` and ``head_d`` are the terms, in nats per token, where
    ``x_i = N h_i`` and ``T_i = D h_i`` at the reference point; ``tau`` the free entries of the
    kernel's; ``floor`` H as a share of the smallest N.
    """

    def __init__(self, runs: Runs, variant: laws.Variant) -> None:
        ref = reference(runs)
        self.variant = variant
        self.n_domains = len(runs.domains)
        self.n_components = self.n_domains + len(runs.targets)
        self.log_n, self.log_d = np.log(ref.n_params), np.log(ref.n_tokens)
        self.log_x = self.log_n + np.log(ref.weights)
        self.log_t = np.full(self.n_components, self.log_d)
        self.log_t[: self.n_domains] += np.log(ref.weights)
        self.log_least_n = np.log(runs.n_params.values.min())
        # targets have a row of tau under every variant with noise; the domains' diagonal is 1
        free = np.zeros((self.n_components, self.n_domains), bool)
        free[: self.n_domains] = variant.transfer & ~np.eye(self.n_domains, dtype=bool)
        free[self.n_domains :] = variant.noise
        self.free = np.nonzero(free)
        self.heads = {
            "head_n": variant.head and np.ptp(runs.n_params.values) > 0,
            "head_d": variant.head and np.ptp(runs.n_tokens.values) > 0,
        }

    def start(self, losses: np.ndarray, rng: np.random.Generator) -> Values:
        """A start that splits the median losses (C,) among the terms at random."""
        share = rng.dirichlet([8.0, 4.0, 2.0, 1.0, 1.0], self.n_components).T * losses
        k, c = self.n_domains, self.n_components
        start = {
            "E": share[0],
            "capacity": share[1, :k],
            "b": rng.uniform(0.1, 0.5, k),
            "floor": np.exp(rng.uniform(-8, -4)),
        }
        if self.variant.noise:
            start |= {"noise": share[2], "a": rng.uniform(0.1, 0.5, c)}
        if self.free[0].size:
            start["tau"] = np.exp(rng.normal(-3.0, 1.0, self.free[0].size))
        if self.heads["head_n"]:
            start |= {"head_n": share[3], "g": np.array(rng.uniform(0.2, 0.4))}
        if self.heads["head_d"]:
            start |= {"head_d": share[4], "q": np.array(rng.uniform(0.2, 0.4))}
        return start

    def kernel(self, p: Values) -> Values:
        """The kernel's parameters, in its order."""
        c = self.n_components
        tau = np.eye(c, self.n_domains)
        if "tau" in p:
            tau[self.free] = p["tau"]
        elif c > self.n_domains:
            tau[self.n_domains :] = 1.0
        off = {"noise": np.ones(c), "a": np.ones(c), "g": np.array(1.0), "q": np.array(1.0)}
        p = off | p
        absent = np.full(c, -np.inf)
        return {
            "E": p["E"],
            "log_c": np.log(p["capacity"]) + p["b"] * self.log_x,
            "b": p["b"],
            "log_A": np.log(p["noise"]) + p["a"] * self.log_t,
            "a": p["a"],
            "tau": tau,
            "log_G": np.log(p["head_n"]) + p["g"] * self.log_n if "head_n" in p else absent,
            "g": p["g"],
            "log_Q": np.log(p["head_d"]) + p["q"] * self.log_d if "head_d" in p else absent,
            "q": p["q"],
            "log_H": np.asarray(np.log(p["floor"]) + self.log_least_n),
            "fade": np.array(1.0),
        }

    def searched(self, kernel: Mapping[str, np.ndarray]) -> Values:
        """The searched parameters of the kernel's: the inverse of `kernel`."""
        return {
            "E": kernel["E"],
            "capacity": np.exp(kernel["log_c"] - kernel["b"] * self.log_x),
            "b": kernel["b"],
            "floor": np.exp(kernel["log_H"] - self.log_least_n),
            "noise": np.exp(kernel["log_A"] - kernel["a"] * self.log_t),
            "a": kernel["a"],
            "tau": kernel["tau"][self.free],
            "head_n": np.exp(kernel["log_G"] - kernel["g"] * self.log_n),
            "g": kernel["g"],
            "head_d": np.exp(kernel["log_Q"] - kernel["q"] * self.log_d),
            "q": kernel["q"],
        }

    def count(self, p: Values, seen: np.ndarray) -> int:
        """How many of the parameters a loss depends on: not what components without one have."""
        names = p.keys() & {"E", "noise", "a", "head_n", "head_d"}
        own = {name: p[name][seen].size for name in names}
        if "tau" in p:
            own["tau"] = int(seen[self.free[0]].sum())
        return sum(own.values()) + sum(np.size(p[name]) for name in p if name not in own)

    def pullback(self, p: Values, bar: Mapping[str, np.ndarray]) -> Values:
        """Cotangents of the searched parameters from those of the kernel's."""
        found = {
            "E": bar["E"],
            "capacity": bar["log_c"] / p["capacity"],
            "b": bar["b"] + bar["log_c"] * self.log_x,
            "floor": bar["log_H"] / p["floor"],
        }
        if "noise" in p:
            found["noise"] = bar["log_A"] / p["noise"]
            found["a"] = bar["a"] + bar["log_A"] * self.log_t
        if "tau" in p:
            found["tau"] = bar["tau"][self.free]
        for head, log_scale, exponent, log_size in (
            ("head_n", "log_G", "g", self.log_n),
            ("head_d", "log_Q", "q", self.log_d),
        ):
            if head in p:
                found[head] = bar[log_scale] / p[head]
                found[exponent] = bar[exponent] + bar[log_scale].sum() * log_size
        return found


def fit(
    runs: Runs, rng: np.random.Generator, warm: xr.Dataset | None = None, *, law: str
) -> Fitted:
    """Fit a variant by Huber's loss of the log losses that it predicts.

    Parameters
    ----------
    runs : Runs
    rng : Generator
        Of the starts.
    warm : Dataset, optional
        Parameters of an earlier fit: the only start.
    law : str
        A name in `bayesmix.law.LAWS`. The head's terms are left out where N or D does not vary.
    """
    variant = laws.LAWS[law]
    searched = _Searched(runs, variant)
    observed, usable = observed_log_loss(runs), usable_cells(runs, variant)
    weights = runs.effective_weights().values
    at = laws.points(weights, runs.n_params.values, runs.n_tokens.values).arrays
    flags = variant.noise, variant.head

    def objective(p: Values) -> tuple[float, Values]:
        kernel = [value[()] for value in searched.kernel(p).values()]
        loss, *kept = laws.forward(*kernel, *at, *flags)
        value, slope = huber(np.log(loss[usable]) - observed[usable])
        bar = np.zeros_like(loss)
        bar[usable] = slope / loss[usable]
        bars = laws.pullback(*kernel, *at, *flags, *kept, bar)
        return value, searched.pullback(p, dict(zip(laws.PARAMETERS, bars, strict=False)))

    known = np.isfinite(observed)
    seen = known.any(axis=0)
    level = np.exp(
        [np.median(x[k]) if k.any() else 0.0 for x, k in zip(observed.T, known.T, strict=True)]
    )
    starts = [searched.start(level, rng) for _ in range(N_STARTS)]
    if warm is not None:
        before = searched.searched({name: warm[name].values for name in laws.PARAMETERS})
        starts = [{name: before[name] for name in starts[0]}]
    end = _minimise(objective, starts)
    names = components(runs)
    parameters = xr.Dataset(
        {n: (_DIMS.get(n, ()), v) for n, v in searched.kernel(end.values).items()},
        {"component": list(names), "domain": list(runs.domains), "source": list(runs.domains)},
    ).assign(observed=("component", seen))
    return Fitted(
        parameters,
        searched.count(end.values, seen),
        end.converged,
        end.message,
        tuple(_label(at, searched, runs) for at in end.at_bounds),
        end.loss,
    )


def evaluate(
    parameters: xr.Dataset,
    weights: np.ndarray,
    n_params: np.ndarray,
    n_tokens: np.ndarray,
    *,
    law: str,
) -> np.ndarray:
    """Losses (R, C), nats per token; NaN where the law's is infinite."""
    values = {name: parameters[name].values[()] for name in laws.PARAMETERS}
    at = laws.points(weights, n_params, n_tokens)
    loss = laws.evaluate(values, at, laws.LAWS[law])
    return np.where(np.isfinite(loss) & parameters["observed"].values, loss, np.nan)


def _minimise(
    objective: Callable[[Values], tuple[float, Values]], starts: Sequence[Values]
) -> Minimum:
    """The best of the ends of L-BFGS-B."""
    space = Space(starts[0], BOUNDS)

    def function(point: np.ndarray) -> tuple[float, np.ndarray]:
        value, slopes = objective(space.values(point))
        slope = np.concatenate([np.ravel(slopes[name]) for name in space.shapes])
        return value / HUBER**2, slope * space.slope(point) / HUBER**2

    ends = []
    for start in starts:
        end = minimize(
            function,
            space.point(start),
            jac=True,
            method="L-BFGS-B",
            bounds=np.column_stack([space.low, space.high]),
            options={"maxiter": _MAX_STEPS, "maxfun": 2 * _MAX_STEPS, "ftol": 1e-9, "maxcor": 30},
        )
        ends.append(
            Minimum(
                space.values(end.x),
                float(end.fun) * HUBER**2,
                bool(end.success),
                str(end.message),
                space.on_bounds(end.x),
            )
        )
    return best_of(ends)


def _label(at: str, searched: _Searched, runs: Runs) -> str:
    """``b[0]`` as ``b[github]``, ``tau[3]`` as ``tau[github,books]``."""
    name, _, index = at.rstrip("]").partition("[")
    if not index:
        return name
    names = components(runs)
    if name != "tau":
        return f"{name}[{names[int(index)]}]"
    i, j = (int(entry[int(index)]) for entry in searched.free)
    return f"tau[{names[i]},{runs.domains[j]}]"
