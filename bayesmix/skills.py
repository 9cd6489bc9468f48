"""Swarms drawn from the model of skills behind the law, where the law itself is an approximation.

A domain needs skills with power-law frequencies (Michaud et al., arXiv 2303.13506; Dai & Zheng,
arXiv 2606.08167): the most frequent are shared by all domains, each in an order of its own, the
rest is the domain's alone. A model of N parameters holds so many skills, those most frequent in
its mixture; one that it holds is learned once it has been seen often enough.
"""

import numpy as np
import xarray as xr

from bayesmix._design import stream
from bayesmix.model import components
from bayesmix.runs import Runs
from bayesmix.simulate import Simulated, with_noise

_TAIL = 30_000  # skills of one domain's own
_HEAD = 1_000  # skills that all share
_PARAMETERS_PER_SKILL = 20_000.0
_TIMES_SEEN = 3e4  # tokens of its kind, at which a skill's loss has fallen by a factor of e


def simulate_skills(
    design: Runs, *, noise: float = 0.004, dof: float = 5.0, rho: float = 0.5, seed: int = 0
) -> Simulated:
    """Draw a swarm from the model of skills, to see how a fit fares when the law is not the truth.

    Parameters
    ----------
    design : Runs
        Its losses are ignored; it may have no targets.
    noise, dof, rho : float
        As in `bayesmix.simulate.draw_parameters`.
    seed : int
        The same seed gives the same swarm.

    Returns
    -------
    Simulated
        Parameters ``E`` (nats per token), ``gain`` (nats per token that all skills are worth),
        ``exponent`` (of the frequencies), ``sigma, dof, rho``.

    Examples
    --------
    >>> from bayesmix.simulate import draw_design
    >>> swarm = simulate_skills(draw_design(["web", "code"], [5e7, 2e8]))
    >>> bool((swarm.losses[swarm.runs.n_params.values > 1e8].mean() < swarm.losses.mean()))
    True
    """
    rng = stream(seed, "parameters")
    n = len(design.domains)
    E, gain = rng.uniform(1.0, 2.0, n), rng.uniform(2.0, 4.0, n)
    exponent = rng.uniform(0.2, 0.4, n)
    rank = np.arange(1, _HEAD + _TAIL + 1)
    frequencies = rank ** -(1 + exponent[:, None])
    frequencies /= frequencies.sum(axis=1, keepdims=True)
    # skills by column: the head, in an order near to the common one, then every domain's tail
    order = np.argsort(np.log(rank[:_HEAD]) + rng.normal(0, 0.5, (n, _HEAD)), axis=1)
    needed = np.zeros((n, _HEAD + n * _TAIL))
    for i in range(n):
        needed[i, order[i]] = frequencies[i, :_HEAD]
        needed[i, _HEAD + i * _TAIL : _HEAD + (i + 1) * _TAIL] = frequencies[i, _HEAD:]
    losses = np.empty((design.n_params.size, n))
    points = zip(
        design.effective_weights().values,
        design.n_params.values,
        design.n_tokens.values,
        strict=True,
    )
    for row, (h, n_params, n_tokens) in enumerate(points):
        seen = h @ needed
        held = max(int(min(n_params / _PARAMETERS_PER_SKILL, seen.size - 1)), 1)
        least = np.partition(seen, -held)[-held]
        learned = np.where(seen >= least, -np.expm1(-n_tokens * seen / _TIMES_SEEN), 0.0)
        losses[row] = E + gain * (needed @ (1 - learned))
    each = "component"
    parameters = xr.Dataset(
        {
            "E": (each, E),
            "gain": (each, gain),
            "exponent": (each, exponent),
            "sigma": (each, np.full(n, noise)),
            "dof": ((), dof),
            "rho": ((), rho),
        },
        {each: list(components(design))},
    )
    return with_noise(design, losses, parameters, seed)
