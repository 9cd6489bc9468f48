"""The promises on published swarms: chains that agree, and errors at unseen mixtures."""

from pathlib import Path

import pytest

import bayesmix as bm
from benchmarks.heldout import Random70

pytestmark = pytest.mark.filterwarnings("ignore::bayesmix.RunsWarning")


@pytest.mark.parametrize("seed", [20, 42])
def test_pile17(shared: Path, seed: int) -> None:
    """17 domains, one scale: the default fit passes its diagnostics and predicts what it claims."""
    runs = bm.read_runs(shared / "data" / "pile17_1b.csv")
    made = bm.evaluate(runs, ["transfer"], Random70(seed), progressbar=False)
    got = made.summary().iloc[0]
    print(got)  # with -s: the figures of the README
    assert made.refits["converged"].all(), made.refits["diagnosis"].iloc[0]
    # measured 0.54 and 0.56, 1.25 and 1.20, 0.87 and 0.89, 4.5 and 5.3
    assert got["mre_pos"] <= 0.6
    assert got["mre"] <= 1.3
    assert got["coverage"] >= 0.86
    assert got["width"] <= 5.6


def test_slimpajama7_up_to_310m(shared: Path) -> None:
    runs = bm.read_runs(shared / "data" / "slimpajama7.csv").where("n_params < 4e8")
    fit = bm.fit(runs, progressbar=False)
    assert fit.diagnose().passed, fit.diagnose().text
