"""Swarms as published: the shared ones read, and raw files import to the same numbers."""

import json
import warnings

import numpy as np
import pytest

from bayesmix import published
from bayesmix.datasets import fetch_dataset
from bayesmix.readers import mixinglaws, regmix
from bayesmix.runs import RunsWarning, read_runs, write_runs
from tests.mirror import mirror

# rows, runs, duplicates dropped, resolution of weights
SWARMS = {
    "slimpajama7": (1398, 128, 128, 0),
    "pile17_1b": (64, 64, 0, 0.0005),
    "regmix_1m": (640, 640, 0, 0.0005),
    "regmix_60m": (128, 128, 0, 0.0005),
    "pile4": (85, 42, 0, 0),
    "mixinglaws_pile2": (110, 10, 0, 0),
    "mixinglaws_pile3": (1048, 9, 0, 0),
}


@pytest.mark.parametrize("name", SWARMS)
def test_every_shared_swarm_reads(shared, name):
    entry = json.loads((shared / "data" / "MANIFEST.json").read_text())[name]
    rows, n_runs, dropped, resolution = SWARMS[name]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        runs = read_runs(shared / "data" / f"{name}.csv")
    messages = [str(warning.message) for warning in caught]
    assert [f"dropped {dropped} duplicate rows" in message for message in messages] == (
        [True] if dropped else []
    )
    assert (entry["rows"], entry["runs"]) == (rows, n_runs)
    assert (len(runs) + dropped, runs.n_runs) == (rows, n_runs)
    assert list(runs.domains) == entry["domains"]
    assert list(runs.targets) == entry["targets"]
    assert runs.weight_resolution == resolution


@pytest.mark.parametrize("name", SWARMS)
def test_written_swarms_read_back_equal(shared, name, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RunsWarning)
        runs = read_runs(shared / "data" / f"{name}.csv")
    for suffix in (".csv", ".parquet"):
        write_runs(runs, tmp_path / f"swarm{suffix}")
        assert read_runs(tmp_path / f"swarm{suffix}") == runs


def test_slimpajama_keeps_the_later_of_a_double_log(shared):
    with pytest.warns(RunsWarning, match="dropped 128"):
        runs = read_runs(shared / "data" / "slimpajama7.csv")
    last = runs.checkpoints("last")
    assert len(last) == 128
    small = last.where("n_params < 4e8")
    assert set(small.n_tokens.values) == {20e9}
    late = runs.checkpoints("late").frame
    assert late.groupby("run_id").size().eq(4).all()


def assert_same(imported, expected):
    assert imported.domains == expected.domains
    for name in ("weights", "losses", "n_params", "n_tokens"):
        np.testing.assert_allclose(
            getattr(imported, name).values, getattr(expected, name).values, rtol=1e-12, atol=0
        )
    assert imported.weight_resolution == expected.weight_resolution


def test_regmix_1b_with_extra_losses_is_pile17(shared):
    with pytest.warns(RunsWarning) as caught:
        imported = regmix(
            shared / "upstream" / "regmix" / "test_mixture_1B.csv",
            shared / "upstream" / "regmix" / "test_pile_loss_1B.csv",
            shared / "upstream" / "explaining-data-mixing" / "eval.jsonl",
            n_params=1_130_364_928,
            n_tokens=26_214_400_000,
        )
    messages = [str(warning.message) for warning in caught]
    assert any("eval.jsonl: no losses for 2 runs: 4, 12" in message for message in messages)
    assert any("did not sum to 1" in message for message in messages)
    expected = read_runs(shared / "data" / "pile17_1b.csv")
    assert_same(imported, expected)
    # the same run on each row: pairs were joined, not lined up
    names = [f"model_{int(name):03d}" for name in imported.run_ids.values]
    assert names == expected.run_ids.values.tolist()


def test_regmix_1m_is_the_training_half_of_regmix_1m(shared):
    with pytest.warns(RunsWarning, match="did not sum to 1"):
        imported = regmix(
            shared / "upstream" / "regmix" / "train_mixture_1m.csv",
            shared / "upstream" / "regmix" / "train_pile_loss_1m.csv",
            n_params=1_310_720,
            n_tokens=1_048_576_000,
            prefix="train_",
        )
    everything = read_runs(shared / "data" / "regmix_1m.csv")
    expected = everything.where("run_id.str.startswith('train_')")
    assert len(imported) == len(expected) == 512
    assert_same(imported, expected)
    names = ["train_" + name.removeprefix("train_").zfill(3) for name in imported.run_ids.values]
    assert names == [f"train_{name[6:].zfill(3)}" for name in expected.run_ids.values]


def test_mixinglaws_logs_are_pile2(shared):
    folder = shared / "upstream" / "mixinglaws" / "2Mix"
    imported = mixinglaws(folder / "70M.txt", folder / "160M.txt", domains=["Github", "Pile-CC"])
    assert imported == read_runs(shared / "data" / "mixinglaws_pile2.csv")


def test_hashes_of_published_files_are_the_shared_ones(shared):
    entries = json.loads((shared / "data" / "MANIFEST.json").read_text())
    known = {}
    for entry in entries.values():
        for kind in ("", "extra_"):
            repository = entry.get(f"{kind}source_repository", "").rpartition("/")[2].lower()
            name = repository.removesuffix("-scaling-laws")
            for file in entry.get(f"{kind}source_files", []):
                path = file["path"].removeprefix("data/")
                commit = entry["extra_commit" if kind else "commit"]
                known[f"{name}/{path}"] = (commit, file["sha256"])
    for file, sha256 in published._SHA256.items():
        commit, theirs = known[file]
        assert sha256 == theirs, file
        assert f"/{commit}/" in published._origin(file)


@pytest.mark.parametrize(
    ("name", "expected"), [("pile17_1b", "pile17_1b"), ("mixinglaws_2mix", "mixinglaws_pile2")]
)
def test_fetched_swarms_are_the_shared_ones(name, expected, shared, tmp_path, monkeypatch):
    monkeypatch.setenv("BAYESMIX_CACHE", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def upstream(path):
        file = shared / "upstream" / path
        return file.read_bytes() if file.is_file() else None

    with mirror(upstream) as (address, asked), warnings.catch_warnings():
        warnings.simplefilter("ignore", RunsWarning)
        monkeypatch.setenv("BAYESMIX_MIRROR", address)
        fetched = fetch_dataset(name, say=str)
        with pytest.raises(OSError, match="404"):  # not among the files kept there
            fetch_dataset("regmix_60m", say=str)
    assert len(asked) == len(published.PUBLISHED[name].files) + 1
    stated = published.PUBLISHED[name]
    assert (len(fetched), fetched.n_runs) == (stated.rows, stated.runs)
    assert len(fetched.domains) == stated.domains
    assert_same(fetched, read_runs(shared / "data" / f"{expected}.csv"))
