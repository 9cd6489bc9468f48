"""Splits of a swarm by run: what is fitted, and what is held out and scored."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from bayesmix.runs import Runs, RunsError, _count

__all__ = ["ByMixture", "ByScale", "Fold", "LargestScale", "Split", "mixture_groups"]

SAME_MIXTURE = 1e-3  # weights this close are one mixture, printed twice


@dataclass(frozen=True)
class Fold:
    """Runs to fit, and runs held out.

    Attributes
    ----------
    name : str
        Unique within its split.
    fitted, held_out : Runs
        Whole runs, all their checkpoints; no run is in both.
    """

    name: str
    fitted: Runs
    held_out: Runs


class Split(Protocol):
    """Anything with a name and folds: splits of your own work where the ones here do."""

    @property
    def name(self) -> str:
        """What tables call it."""

    def folds(self, runs: Runs) -> tuple[Fold, ...]:
        """Each with whole runs, no run both fitted and held out."""


@dataclass(frozen=True)
class ByMixture:
    """k folds over mixtures: all runs of a mixture, at every size, are held out together.

    Attributes
    ----------
    k : int
        Number of folds, at least 2.
    seed : int
        Of the order in which mixtures are dealt out.

    Raises
    ------
    ValueError
        If `k` is less than 2.

    Examples
    --------
    >>> from bayesmix.datasets import load_dataset
    >>> runs = load_dataset("simulated")
    >>> [fold.held_out.n_runs for fold in ByMixture(k=4).folds(runs)]
    [15, 15, 16, 14]
    """

    k: int = 5
    seed: int = 0
    name = "mixture"

    def __post_init__(self) -> None:
        """Refuse a number of folds that leaves nothing to fit."""
        if self.k < 2:
            raise ValueError(f"k must be at least 2, got {self.k}")

    def folds(self, runs: Runs) -> tuple[Fold, ...]:
        """The folds.

        Raises
        ------
        RunsError
            If there are fewer than `k` mixtures.
        """
        groups = mixture_groups(runs)
        distinct = np.unique(groups)
        if len(distinct) < self.k:
            raise RunsError(
                f"{runs.source}: {self.k} folds need as many mixtures; there are {len(distinct)}"
            )
        dealt = np.array_split(np.random.default_rng(self.seed).permutation(distinct), self.k)
        return tuple(
            _fold(runs, f"{i} of {self.k}", np.isin(groups, held_out))
            for i, held_out in enumerate(dealt, start=1)
        )


@dataclass(frozen=True)
class ByScale:
    """Leave one scale out: a fold for each model size, fitted on all the other sizes.

    Examples
    --------
    >>> from bayesmix.datasets import load_dataset
    >>> [fold.name for fold in ByScale().folds(load_dataset("simulated"))]
    ['50M', '150M', '400M']
    """

    name = "each-scale"

    def folds(self, runs: Runs) -> tuple[Fold, ...]:
        """The folds, from the smallest size to the largest.

        Raises
        ------
        RunsError
            If there is one size only.
        """
        return tuple(_scale_folds(runs))


@dataclass(frozen=True)
class LargestScale:
    """Leave the largest scale out: fitted on all smaller sizes, as a decision on a large run is.

    Examples
    --------
    >>> from bayesmix.datasets import load_dataset
    >>> (fold,) = LargestScale().folds(load_dataset("simulated"))
    >>> bool(fold.fitted.n_params.max() < fold.held_out.n_params.min())
    True
    """

    name = "largest-scale"

    def folds(self, runs: Runs) -> tuple[Fold, ...]:
        """The one fold.

        Raises
        ------
        RunsError
            If there is one size only.
        """
        return (list(_scale_folds(runs))[-1],)


def mixture_groups(runs: Runs) -> np.ndarray:
    """Number of the mixture of each row: rows whose weights differ by 0.001 at most share one.

    Returns
    -------
    array of int, shape (rows,)
    """
    mixtures, row_mixture = np.unique(runs.weights.values, axis=0, return_inverse=True)
    near = KDTree(mixtures).query_pairs(SAME_MIXTURE, p=np.inf, output_type="ndarray")
    links = coo_array((np.ones(len(near)), tuple(near.T)), shape=(len(mixtures),) * 2)
    _, groups = connected_components(links, directed=False)
    return groups[row_mixture.ravel()]


def _scale_folds(runs: Runs) -> Iterator[Fold]:
    n_params = runs.n_params.values
    sizes = np.unique(n_params)
    if len(sizes) < 2:
        raise RunsError(
            f"{runs.source}: every run has {_count(sizes[0])} parameters: holding that size out "
            "leaves nothing to fit"
        )
    names = [_count(size) for size in sizes]
    if len(set(names)) < len(names):
        names = [f"{size:.12g}" for size in sizes]
    for name, size in zip(names, sizes, strict=True):
        yield _fold(runs, name, n_params == size)


def _fold(runs: Runs, name: str, held_out: np.ndarray) -> Fold:
    return Fold(name, runs.select(~held_out), runs.select(held_out))
