"""Designs of simulated swarms: which mixtures, sizes and checkpoints."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from bayesmix.runs import Runs, runs_from_frame

# nats per token, in a design before its losses are drawn
PLACEHOLDER_LOSS = 2.5


def stream(seed: int, step: Literal["design", "parameters", "noise"]) -> np.random.Generator:
    """A stream of its own for each step: one seed must not tie noise to mixtures."""
    return np.random.default_rng([seed, *step.encode()])


def draw_design(
    domains: Sequence[str] | int,
    sizes: Sequence[float],
    *,
    tokens_per_parameter: float = 20.0,
    tokens: Sequence[float] | None = None,
    n_mixtures: int | Sequence[int] = 20,
    concentration: float = 1.0,
    zeros: float = 0.0,
    checkpoints: int = 1,
    targets: Sequence[str] = (),
    seed: int = 0,
) -> Runs:
    """Choose a swarm's mixtures, sizes and checkpoints; every loss is `PLACEHOLDER_LOSS`.

    Mixtures are Dirichlet, rounded to four decimals that add up to 1; larger sizes train the
    first so many of them.

    Parameters
    ----------
    domains : sequence of str or int
        Names, or how many.
    sizes : sequence of float
        N of each size, parameters.
    tokens_per_parameter : float
        D / N of a finished run.
    tokens : sequence of float, optional
        D of a finished run of each size, in tokens, instead of `tokens_per_parameter`.
    n_mixtures : int or sequence of int
        Runs of each size.
    concentration : float
        Of the Dirichlet distribution, the same for every domain.
    zeros : float
        Probability that a mixture leaves a domain out; at least one domain stays.
    checkpoints : int
        Evaluations of a run, evenly spaced in tokens, the last at its end.
    targets : sequence of str
        Evaluation losses that are not training domains.
    seed : int
        The same seed gives the same design.

    Returns
    -------
    Runs
        Run ids are ``m<mixture>_<size in millions>M``.

    Raises
    ------
    ValueError
        If `tokens` or `n_mixtures` does not go with `sizes`, or two sizes are equal.

    Examples
    --------
    >>> draw_design(["web", "code"], [5e7, 2e8], n_mixtures=[8, 4], checkpoints=2)
    Runs: 12 runs, 24 rows, 2 domains; 50M to 200M parameters; 500M to 4B tokens
    """
    names = [f"domain{i}" for i in range(domains)] if isinstance(domains, int) else list(domains)
    counts = [n_mixtures] * len(sizes) if isinstance(n_mixtures, int) else list(n_mixtures)
    horizons = [tokens_per_parameter * n for n in sizes] if tokens is None else list(tokens)
    if not len(counts) == len(horizons) == len(sizes):
        raise ValueError(
            f"{len(sizes)} sizes, {len(horizons)} token counts and {len(counts)} numbers of "
            "mixtures do not go together"
        )
    if len(set(sizes)) < len(sizes):
        raise ValueError(f"sizes must differ, got {', '.join(f'{n:g}' for n in sizes)}")
    rng = stream(seed, "design")
    shape = (max(counts), len(names))
    parts = rng.gamma(concentration, size=shape)
    left_out = rng.uniform(size=shape) < zeros
    left_out[np.arange(shape[0]), rng.integers(shape[1], size=shape[0])] = False
    parts[left_out] = 0.0
    mixtures = _rounded(parts / parts.sum(axis=1, keepdims=True))
    rows = [
        {
            "run_id": f"m{m:02d}_{n / 1e6:g}M",
            "n_params": float(n),
            "n_tokens": float(horizon * k / checkpoints),
            **dict(zip((f"weight_{name}" for name in names), mixtures[m], strict=True)),
        }
        for n, horizon, count in zip(sizes, horizons, counts, strict=True)
        for m in range(count)
        for k in range(1, checkpoints + 1)
    ]
    losses = [f"loss_{name}" for name in names] + [f"target_{name}" for name in targets]
    placeholders = pd.DataFrame(PLACEHOLDER_LOSS, range(len(rows)), losses)
    frame = pd.concat([pd.DataFrame(rows), placeholders], axis=1)
    return runs_from_frame(frame, source="design", weight_resolution=0.0)


def _rounded(mixtures: np.ndarray, unit: int = 10_000) -> np.ndarray:
    """Mixtures in whole parts of `unit` that add up to 1 (largest remainders); zeros stay."""
    scaled = mixtures * unit
    parts = np.floor(scaled)
    missing = (unit - parts.sum(axis=1)).round().astype(int)
    order = np.argsort(parts - scaled, axis=1, kind="stable")
    for row, count in enumerate(missing):
        parts[row, order[row, :count]] += 1
    return parts / unit
