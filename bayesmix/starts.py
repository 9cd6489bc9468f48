"""Where chains start: dispersed, but not where a first trajectory leads astray."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.optimize import minimize

from bayesmix.compiling import log_density

Density = Callable[[np.ndarray], tuple[float, np.ndarray]]
_CLIMB = 50  # iterations: to where losses are near, far from a mode
_TRIES = 20
_WILD = 1e300  # nats: of a density that is not finite


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
        As in `nutpie.sample`: with the same number of chains and seed they start there.
    settings : mapping
        Of the sampler, by the names of `nutpie.sample`.

    Raises
    ------
    KeyboardInterrupt
        If it was interrupted, which nutpie takes for an end.
    """
    import nutpie

    seeds: list[int] = []
    begin: Callable[[int], np.ndarray] = by_nutpie.initial_point_func
    down = downhill(log_density(by_nutpie))

    def noted(seed: int) -> np.ndarray:
        seeds.append(seed)
        for more in range(_TRIES):
            point = begin(seed + more)
            # else nutpie would ask again, by another number
            if down(point)[0] < _WILD:
                break
        return point

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
    posterior = tree["posterior"].to_dataset()
    if posterior.sizes["draw"] < chains or posterior.sizes["chain"] < chains:
        raise KeyboardInterrupt
    last = [posterior[name].values[:, -1].reshape(chains, -1) for name in by_nutpie.shape_info[0]]
    # chains ask in any order, each by a number that is its own
    end_of = dict(zip(sorted(seeds), np.concatenate(last, axis=1), strict=True))
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
            return _WILD, np.zeros(point.size)
        return -value, -gradient

    return down
