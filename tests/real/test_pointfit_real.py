"""The rivals on published swarms, at unseen mixtures and at an unseen size, as measured."""

from pathlib import Path

import pytest

import bayesmix as bm
from bayesmix.pointfit import point_fit
from benchmarks.heldout import Random70
from benchmarks.pointfits import mre

pytestmark = pytest.mark.filterwarnings("ignore::bayesmix.RunsWarning")


# law, seed, bounds on the MRE over h > 0 and over all cells
PILE17 = [
    ("additive", 20, 1.05, 1.8),
    ("additive", 42, 1.45, 2.45),
    ("bimix", 20, 1.5, 3.6),
    ("bimix", 42, 1.5, 3.6),
    ("exponential", 20, 2.5, 3.5),
    ("exponential", 42, 2.5, 3.5),
    # the authors' code: 1.71 / 2.33 and 1.52 / 2.07; 1.58 and 1.57
    ("point:quantization", 20, 1.71, 2.33),
    ("point:quantization", 42, 1.52, 2.07),
    ("point:regression", 20, 1.58, 2.33),
    ("point:regression", 42, 1.57, 2.07),
    ("regmix", 20, 2.2, 2.6),
    ("regmix", 42, 2.2, 2.6),
]


@pytest.mark.parametrize(("law", "seed", "most_pos", "most"), PILE17)
def test_pile17(shared: Path, law: str, seed: int, most_pos: float, most: float) -> None:
    (fold,) = Random70(seed).folds(bm.read_runs(shared / "data" / "pile17_1b.csv"))
    fit = point_fit(fold.fitted, law)
    # 35 parameters for 43 losses: one start in a long valley may stop short, and says so
    assert fit.converged or law == "additive", fit.message
    positive, every = mre(fit, fold.held_out)
    assert positive <= most_pos
    assert every <= most
