"""Where chains start: dispersed, but not where a first trajectory leads astray."""

from collections.abc import Callable
from dataclasses import replace
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
