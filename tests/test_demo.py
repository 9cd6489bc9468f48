"""What `bayesmix demo` makes, with the sampler replaced: the files, and the exit codes."""

import json
import os

import numpy as np
import pandas as pd
import pytest
from synthetic import N_PARAMS, fit_of, parameters

import bayesmix as bm
from bayesmix import demo
from bayesmix.cli import main
from bayesmix.datasets import load_dataset

FILES = [
    "fit.nc",
    "fit.png",
    "predictions.csv",
    "recommendation.json",
    "recommendation.png",
    "transfer.png",
]


@pytest.fixture
def sampled(monkeypatch):
    """Replace the sampler by draws, as many as the test asks for."""
    settings = {"n_draws": 2000}

    def stub(runs, **options):
        # default settings but for a shorter warm-up
        assert set(options) == {"progressbar", "tune"}
        draws = parameters(runs.domains, runs.targets, **settings)
        draws["log_H"] += np.log(runs.n_params.values.min() / N_PARAMS)
        return fit_of(draws, runs)

    monkeypatch.setattr(demo, "fit", stub)
    return settings


def test_the_demonstration_makes_what_it_says(sampled, tmp_path, capsys):
    out = tmp_path / "demo-out"
    assert main(["demo", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["demo-out"]
    assert sorted(path.name for path in out.iterdir()) == FILES
    assert "tinyswarm" in said.splitlines()[0]
    for name in FILES:
        assert f"wrote {out / name}\n" in said
    for name in ("fit.png", "recommendation.png", "transfer.png"):
        content = (out / name).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) > 10_000

    runs = load_dataset("tinyswarm")
    assert bm.load(out / "fit.nc").runs == runs
    recommendation = json.loads((out / "recommendation.json").read_text())
    weights = recommendation["weights"]
    assert list(weights) == list(runs.domains)
    for domain, weight in weights.items():
        assert f"{weight:.3f}" in next(line for line in said.splitlines() if f" {domain} " in line)

    # ten times the largest run, as the file says
    table = pd.read_csv(out / "predictions.csv")
    assert set(table["n_params"]) == {10 * runs.n_params.values.max()}
    assert set(table["n_tokens"]) == {10 * runs.n_tokens.values.max()}
    assert table["run_id"].unique().tolist() == ["recommended", "uniform", "swarm mean"]
    average = runs.weights.values.mean(axis=0)
    mixtures = pd.DataFrame(
        [list(weights.values()), np.full(len(weights), 1 / len(weights)), average / average.sum()],
        columns=[f"weight_{domain}" for domain in weights],
    )
    scale = 10 * runs.n_params.values.max(), 10 * runs.n_tokens.values.max()
    fit = bm.load(out / "fit.nc")
    expected = fit.predict(mixtures, *scale).summary()
    np.testing.assert_allclose(table["mean"], expected["mean"], rtol=1e-9)
    # of the three, the law prefers what it recommends
    law_only = fit.predict(mixtures, *scale, discrepancy=False).draws["expected"]
    means = law_only.sel(domain="mean").mean("draw").values
    assert means.argmin() == 0
    first = expected[(expected["row"] == 0) & (expected["domain"] == "mean")]
    np.testing.assert_allclose(first["mean"], recommendation["loss"]["mean"], rtol=1e-9)


def test_failed_diagnostics_are_exit_code_3(sampled, tmp_path, capsys):
    sampled["n_draws"] = 8
    out = tmp_path / "demo-out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    (out / "fit.nc").write_text("an older fit")
    assert main(["demo", "--out", str(out)]) == 3
    assert "the sampler's diagnostics failed" in capsys.readouterr().err
    # what is there is replaced, what is not the demonstration's stays
    assert sorted(path.name for path in out.iterdir()) == sorted([*FILES, "notes.txt"])
    assert len(bm.load(out / "fit.nc").posterior["posterior"]["draw"]) == 2


@pytest.mark.parametrize("out", ["no/demo-out", "file"])
def test_a_folder_that_cannot_be_made_is_refused_first(out, sampled, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["demo", "--out", str(tmp_path / out)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a link from another disk")
def test_a_folder_on_another_disk(sampled, tmp_path, monkeypatch):
    # the working directory seen from /proc, where nothing can be written beside it
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--out", "/proc/self/cwd"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES


@pytest.mark.parametrize("name", ["fit", "recommend", "_save_figure"])
def test_an_interrupt_leaves_nothing(name, sampled, monkeypatch, tmp_path, capsys):
    reached = []

    def interrupt(*arguments, **options):
        reached.append(name)
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, name, interrupt)
    assert main(["demo", "--out", str(tmp_path / "demo-out")]) == 130
    assert reached == [name]
    # past the sampler, unless it is that which is interrupted
    assert ("Predicting" in capsys.readouterr().out) == (name != "fit")
    assert not list(tmp_path.iterdir())
