"""The bundled swarm: found, listed, made again from its stated truth."""

import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from bayesmix import datasets
from bayesmix.datasets import list_datasets, load_dataset
from bayesmix.simulate import observe

ROOT = Path(__file__).parent.parent


def test_the_bundled_swarm_is_made_again_as_it_is():
    swarm = runpy.run_path(str(ROOT / "benchmarks" / "bundled.py"))["bundled"]()
    ours, made = load_dataset("simulated").frame, swarm.runs.frame
    assert list(ours) == list(made)
    assert ours["run_id"].tolist() == made["run_id"].tolist()
    numbers = ours.columns.drop("run_id")
    # half a unit of the last decimal of a loss may fall either way on another machine
    np.testing.assert_allclose(ours[numbers], made[numbers], rtol=1e-12, atol=1.01e-5)


def test_the_stated_truth_gives_the_swarm():
    stated = json.loads((ROOT / "data" / "simulated_truth.json").read_text())
    truth, runs = xr.Dataset.from_dict(stated), load_dataset("simulated")
    noiseless = observe(runs, truth, law=stated["law"]).losses.values
    observed = np.concatenate([runs.losses.values, runs.target_losses.values], axis=1)
    errors = np.log(observed / noiseless) / truth["sigma"].values
    # t with 6 degrees of freedom: median of the absolute value 0.718; 720 cells, correlated
    assert np.median(abs(errors)) == pytest.approx(0.718, abs=0.1)
    assert abs(errors.mean()) < 0.15
    assert (np.diagonal(truth["tau"].values) == 1).all()
    assert float(truth["tau"].sel(component="target:exam").sum()) == pytest.approx(1)


def test_the_bundled_swarm_is_what_it_says():
    runs = load_dataset("simulated")
    assert runs.targets == ("exam",)
    assert runs.n_runs == 60
    assert sorted(set(runs.n_params.values)) == [50e6, 150e6, 400e6]
    assert runs.weight_resolution == 0.0
    assert (runs.weights.values == 0).any()
    assert np.isfinite(runs.losses.values).all()
    assert runs.checkpoints("late") == runs


def test_tinyswarm_is_as_designed():
    runs = load_dataset("tinyswarm")
    sizes = runs.n_params.to_series().value_counts().sort_index()
    assert sizes.index.tolist() == [12_384, 38_600, 113_288, 332_448]
    assert sizes.tolist() == [47, 47, 18, 12]
    assert runs.n_runs == 124
    assert (runs.weights.values == 0).any()
    assert np.isfinite(runs.losses.values).all()
    # nats a byte: a run that saw every domain beats guessing among 256 on each
    seen = (runs.weights.values > 0.1).all(axis=1)
    assert seen.any()
    assert (runs.losses.values[seen] < np.log(256)).all()
    cell = [f"weight_{domain}" for domain in runs.domains] + ["n_params", "n_tokens"]
    repeats = runs.frame.groupby(cell)["seed"].nunique().reset_index()
    repeated = repeats[repeats["seed"] >= 3]
    assert repeated.groupby("n_params").size().to_dict() == {12_384: 6, 38_600: 6}
    assert runs.frame["seed"].is_unique


def test_list_counts_what_the_file_holds():
    [entry] = list_datasets().query("name == 'simulated'").to_dict("records")
    lines = (ROOT / "data" / "simulated.csv").read_text().splitlines()
    assert entry["name"] == "simulated"
    assert entry["rows"] == len(lines) - 1
    assert entry["runs"] == len({line.split(",")[0] for line in lines[1:]})
    assert entry["domains"] == sum(c.startswith("weight_") for c in lines[0].split(","))
    assert entry["targets"] == 1
    assert "drawn from" in entry["description"]


def test_every_bundled_table_is_listed():
    # what the loop measured is a report, not a swarm
    tables = {path.stem for path in (ROOT / "data").glob("*.csv") if "_loop" not in path.stem}
    listed = list_datasets()
    assert tables == set(listed["name"][listed["source"] == "bundled"])


@pytest.mark.parametrize("name", ["nothing", "", "../simulated", "simulated.csv"])
def test_an_unknown_name_is_refused_with_the_valid_ones(name):
    with pytest.raises(ValueError, match=r"unknown dataset .*valid names: tinyswarm, simulated"):
        load_dataset(name)


def test_an_installed_package_finds_its_own_copy(tmp_path):
    # as in a wheel: the package alone, data/ inside it as _data
    shutil.copytree(ROOT / "bayesmix", tmp_path / "bayesmix", ignore=lambda *_: ["__pycache__"])
    shutil.copytree(ROOT / "data", tmp_path / "bayesmix" / "_data")
    code = "import bayesmix.datasets as d; print(d.__file__, d.load_dataset().n_runs)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == [str(tmp_path / "bayesmix" / "datasets.py"), "124"], done.stderr
    assert datasets._folder() == ROOT / "data"
