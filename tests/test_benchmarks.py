"""Benchmarks that follow the kernel's signature: they must not stop working unseen."""

import pytest

from bayesmix import law as laws
from bayesmix.simulate import draw_design
from benchmarks import speed


def test_the_kernel_takes_no_less_than_its_exponentials() -> None:
    design = draw_design(7, [1.2e8, 3.1e8], n_mixtures=100)
    assert len(speed.kernel_parameters(7)) == len(laws.PARAMETERS)
    assert 0 < speed.kernel_bound(design) < speed.kernel_milliseconds(design, repeats=20)


def test_the_bound_counts_each_exponential(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the rows, each of a mixture of its own, have twice the exponentials."""
    monkeypatch.setattr(speed, "exp_each", lambda values: None)
    monkeypatch.setattr(speed.np, "median", lambda seconds: 1.0)
    one, two = (draw_design(5, [1e8], n_mixtures=n, seed=3) for n in (400, 800))
    assert speed.kernel_bound(two) == pytest.approx(2 * speed.kernel_bound(one), rel=0.02)
