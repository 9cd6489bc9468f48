"""Splits by run: no run on both sides, every mixture held out once, whole scales left out."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayesmix import ByMixture, ByScale, LargestScale, RunsError, runs_from_frame
from bayesmix.splits import mixture_groups


def swarm_of(mixtures, sizes, checkpoints=1):
    """A run for each mixture (an index, spread over the simplex) and size (an index)."""
    rows = [
        {
            "run_id": f"m{m}n{n}",
            "n_params": 1e7 * 4.0**n,
            "n_tokens": 1e9 * (c + 1),
            "weight_web": (m + 1) / 40,
            "weight_code": 1 - (m + 1) / 40,
            "loss_web": 3.0 + 0.01 * m - 0.1 * n - 0.02 * c,
        }
        for m, n in sorted(set(zip(mixtures, sizes, strict=True)))
        for c in range(checkpoints)
    ]
    return runs_from_frame(pd.DataFrame(rows), weight_resolution=0.0)


swarms = st.integers(1, 3).flatmap(
    lambda checkpoints: st.lists(
        st.tuples(st.integers(0, 30), st.integers(0, 3)), min_size=2, max_size=30
    ).map(lambda pairs: swarm_of(*zip(*pairs, strict=True), checkpoints=checkpoints))
)


def ids(runs):
    return set(runs.run_ids.values.tolist())


def check(runs, folds):
    """No row is lost, and no run is on both sides."""
    assert len({fold.name for fold in folds}) == len(folds)
    for fold in folds:
        assert not ids(fold.fitted) & ids(fold.held_out)
        assert len(fold.fitted) + len(fold.held_out) == len(runs)
        assert fold.held_out.weight_resolution == runs.weight_resolution


@given(swarms, st.integers(2, 6), st.integers(0, 5))
def test_every_mixture_is_held_out_once_with_all_its_runs(runs, k, seed):
    mixtures = runs.weights.values[:, 0].round(6)
    if len(set(mixtures)) < k:
        with pytest.raises(RunsError, match=f"{k} folds need as many mixtures"):
            ByMixture(k, seed).folds(runs)
        return
    folds = ByMixture(k, seed).folds(runs)
    check(runs, folds)
    held_out = [set(fold.held_out.weights.values[:, 0].round(6)) for fold in folds]
    assert sorted(m for of_fold in held_out for m in of_fold) == sorted(set(mixtures))
    assert max(map(len, held_out)) - min(map(len, held_out)) <= 1
    for fold, of_fold in zip(folds, held_out, strict=True):
        assert not of_fold & set(fold.fitted.weights.values[:, 0].round(6))


@given(swarms)
def test_every_scale_is_held_out_once(runs):
    sizes = np.unique(runs.n_params)
    if len(sizes) == 1:
        for split in (ByScale(), LargestScale()):
            with pytest.raises(RunsError, match="leaves nothing to fit"):
                split.folds(runs)
        return
    folds = ByScale().folds(runs)
    check(runs, folds)
    assert [np.unique(fold.held_out.n_params).tolist() for fold in folds] == [[n] for n in sizes]
    for fold in folds:
        assert not set(fold.fitted.n_params.values) & set(fold.held_out.n_params.values)
    (largest,) = LargestScale().folds(runs)
    assert (largest.name, largest.held_out) == (folds[-1].name, folds[-1].held_out)
    assert largest.fitted.n_params.max() < largest.held_out.n_params.min()


def test_mixtures_printed_to_other_decimals_are_the_same():
    table = pd.DataFrame(
        {
            "run_id": list("abcd"),
            "n_params": 1e7,
            "n_tokens": 1e9,
            "weight_web": [0.3333, 0.333, 0.331, 0.5],
            "weight_code": [0.6667, 0.667, 0.669, 0.5],
            "loss_web": 3.0,
        }
    )
    groups = mixture_groups(runs_from_frame(table))
    assert groups[0] == groups[1]
    assert len(set(groups)) == 3


def test_sizes_that_print_alike_have_names_of_their_own():
    table = pd.DataFrame(
        {
            "run_id": list("ab"),
            "n_params": [1.22001e8, 1.22002e8],
            "n_tokens": 1e9,
            "weight_web": 0.5,
            "weight_code": 0.5,
            "loss_web": 3.0,
        }
    )
    names = [fold.name for fold in ByScale().folds(runs_from_frame(table))]
    assert names == ["122001000", "122002000"]


def test_the_seed_deals_mixtures():
    runs = swarm_of(range(30), [0] * 30)
    first, again, other = (ByMixture(3, seed).folds(runs) for seed in (0, 0, 1))
    assert [f.held_out for f in first] == [f.held_out for f in again]
    assert [f.held_out for f in first] != [f.held_out for f in other]


def test_one_fold_is_refused():
    with pytest.raises(ValueError, match="at least 2, got 1"):
        ByMixture(1)
