"""Where chains start: dispersed, but not where a first trajectory leads astray."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import cycle
from typing import Any

import numpy as np
from scipy.optimize import minimize

from bayesmix.compiling import log_density

Density = Callable[[np.ndarray], tuple[float, np.ndarray]]
_CLIMB = 50  # iterations: to where losses are near, far from a mode


def climbed(by_nutpie: Any) -> Any:
    """A compiled model whose starts have climbed the log density for some iterations of L-BFGS.

    Trajectories of a fixed length do not end where they turn. From a start 100,000 nats down, of
    many runs, one of four chains went to where exponents are 0, and stayed (docs/sampling.md).

    Parameters
    ----------
    by_nutpie : nutpie.compile_pymc.CompiledPyMCModel
        What `compiled` gives.
    """
    down = downhill(log_density(by_nutpie))
    begin: Callable[[int | None], np.ndarray] = by_nutpie.initial_point_func

    def starts(seed: int | None = None) -> np.ndarray:
        found = minimize(
            down, begin(seed), jac=True, method="L-BFGS-B", options={"maxiter": _CLIMB}
        )
        return found.x

    return replace(by_nutpie, initial_point_func=starts)


def warmed(
    by_nutpie: Any,
    *,
    tune: int,
    chains: int,
    cores: int,
    seed: int,
    progress_bar: bool,
    settings: Mapping[str, float],
) -> Any:
    """A compiled model whose chains start where those of a first warm-up ended.

    Parameters
    ----------
    by_nutpie : nutpie.compile_pymc.CompiledPyMCModel
        What `compiled` or `climbed` gives.
    tune : int
        Iterations of that warm-up.
    chains, cores, seed, progress_bar
        As in `nutpie.sample`: with the same of the first three the chains start there.
    settings : mapping
        Of the sampler, by the names of `nutpie.sample`.
    """
    import nutpie

    seeds: list[int] = []
    begin: Callable[[int], np.ndarray] = by_nutpie.initial_point_func

    def noted(seed: int) -> np.ndarray:
        seeds.append(seed)
        return begin(seed)

    tree = nutpie.sample(
        replace(by_nutpie, initial_point_func=noted),
        draws=chains,  # ArviZ warns of fewer
        tune=tune,
        chains=chains,
        cores=cores,
        seed=seed,
        progress_bar=progress_bar,
        save_warmup=False,
        **settings,
    )
    posterior = tree["posterior"].to_dataset().isel(draw=-1)
    names = by_nutpie.shape_info[0]
    ends = np.concatenate([posterior[name].values.reshape(chains, -1) for name in names], axis=1)
    # chains ask in any order, each with a number that is its own by `seed`
    end_of = dict(zip(sorted(seeds), cycle(ends), strict=False))
    return replace(by_nutpie, initial_point_func=end_of.__getitem__)


def downhill(density: Density) -> Density:
    """What a minimiser takes of a log density: a wild step of its line search is a bad one.

    Examples
    --------
    >>> down = downhill(lambda x: (np.log(x[0]), 1 / x) if x[0] > 0 else (np.nan, x))
    >>> down(np.ones(1))[1], down(-np.ones(1))[0]
    (array([-1.]), 1e+300)
    """

    def down(point: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = density(point)
        if not (np.isfinite(value) and np.isfinite(gradient).all()):
            return 1e300, np.zeros(point.size)
        return -value, -gradient

    return down
