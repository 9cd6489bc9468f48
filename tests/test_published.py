"""Published swarms: fetched from a mirror on this machine, checked, cached, imported."""

import hashlib
import re

import numpy as np
import pandas as pd
import pytest

from bayesmix import published
from bayesmix.cli import main
from bayesmix.datasets import fetch_dataset, list_datasets, load_dataset
from bayesmix.published import PUBLISHED
from bayesmix.runs import read_runs
from tests.mirror import mirror

TRAINED = b"index,train_pile_web,train_pile_code\n1,0.9,0.1\n2,0.4,0.6\n"
TESTED = b"index,train_pile_web,train_pile_code\n1,0.2,0.8\n"
FILES = {
    "regmix/train_mixture_1m.csv": TRAINED,
    "regmix/train_pile_loss_1m.csv": (
        b"index,metric/pile_web_val_loss,metric/pile_code_val_loss\n2,5.2,4.9\n1,5.1,5.8\n"
    ),
    "regmix/test_mixture_1m.csv": TESTED,
    "regmix/test_pile_loss_1m.csv": b"index,metric/pile_web_val_loss\n1,5.5\n",
    "regmix/test_mixture_60m.csv": TESTED,
    "regmix/test_pile_loss_60m.csv": b"index,metric/pile_web_val_loss\n1,4.5\n",
    "regmix/test_mixture_1B.csv": TESTED,
    "regmix/test_pile_loss_1B.csv": b"index,metric/pile_web_val_loss\n1,3.5\n",
    "explaining-data-mixing/eval.jsonl": b'{"index": 2, "domain": "Code", "avg_loss": 2.5}\n',
    "mixinglaws/2Mix/70M.txt": (
        b"70M_1-0.25-0.75/10000\tvalid.Github.bin\t2.1\n"
        b"70M_1-0.25-0.75/10000\tvalid.Pile-CC.bin\t3.1\n"
    ),
    "mixinglaws/2Mix/160M.txt": (
        b"160M_1-0.5-0.5/10000\tvalid.Github.bin\t1.9\n"
        b"160M_1-0.5-0.5/10000\tvalid.Pile-CC.bin\t2.9\n"
    ),
}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache; the hashes of the small files above in the place of the real ones."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("BAYESMIX_CACHE", str(folder))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    hashes = {file: hashlib.sha256(body).hexdigest() for file, body in FILES.items()}
    monkeypatch.setattr(published, "_SHA256", hashes)
    return folder


def kept(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_every_file_is_pinned_by_commit_and_hash():
    for name, swarm in PUBLISHED.items():
        for file in swarm.files:
            assert re.fullmatch(r"[0-9a-f]{64}", published._SHA256[file]), (name, file)
            url = published._origin(file)
            assert re.match(r"https://[\w.]+/[\w-]+/[\w-]+/[0-9a-f]{40}/data/\w", url), url
    assert {file for swarm in PUBLISHED.values() for file in swarm.files} == set(FILES)


@pytest.mark.parametrize("name", PUBLISHED)
def test_fetched_once_then_from_the_cache(name, cache, monkeypatch):
    said = []
    with mirror(FILES.get) as (address, asked):
        monkeypatch.setenv("BAYESMIX_MIRROR", address + "/")

        def say(text):
            assert not asked  # terms come before the first download
            said.append(text)

        first = fetch_dataset(name, say=say)
        assert sorted(asked) == sorted(PUBLISHED[name].files) == kept(cache)
    # the mirror is gone
    assert fetch_dataset(name, say=said.append) == first
    text = "\n".join(said)
    assert text.count("Licence") == 1
    assert PUBLISHED[name].licence in text
    assert PUBLISHED[name].citation in text


def test_what_the_importers_make(cache, monkeypatch):
    with mirror(FILES.get) as (address, _):
        monkeypatch.setenv("BAYESMIX_MIRROR", address)
        small, large, added, logs = (
            fetch_dataset(name, say=str)
            for name in ("regmix_1m", "regmix_1b", "pile17_1b", "mixinglaws_2mix")
        )
    assert small.run_ids.values.tolist() == ["train_1", "train_2", "test_1"]
    assert small.weights.values.tolist() == [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]]
    np.testing.assert_array_equal(small.losses.values, [[5.1, 5.8], [5.2, 4.9], [5.5, np.nan]])
    np.testing.assert_array_equal(large.losses.values, [[3.5, np.nan]])
    np.testing.assert_array_equal(added.losses.values, [[3.5, 2.5]])
    assert large.n_params.values.tolist() == [1_130_364_928]
    assert large.n_tokens.values.tolist() == [25_000 * 512 * 2048]
    assert logs.domains == ("github", "pile_cc")
    assert logs.n_tokens.values.tolist() == [10_000 * 2**20] * 2
    assert logs.losses.values.tolist() == [[2.1, 3.1], [1.9, 2.9]]


BROKEN = "regmix/test_pile_loss_60m.csv"
CHANGED = FILES | {BROKEN: FILES[BROKEN].replace(b"4.5", b"4.6")}
SHORT = FILES | {BROKEN: FILES[BROKEN][:-4]}
ABSENT = {file: body for file, body in FILES.items() if file != BROKEN}


@pytest.mark.parametrize(
    ("files", "cut", "problem"),
    [
        (CHANGED, 0, "hash"),
        (SHORT, 0, "hash"),
        (FILES, 4, "IncompleteRead"),
        (ABSENT, 0, "404"),
    ],
    ids=["changed", "shorter", "cut off", "absent"],
)
def test_a_bad_file_is_refused_and_not_kept(files, cut, problem, cache, monkeypatch):
    with mirror(files.get, cut) as (address, _):
        monkeypatch.setenv("BAYESMIX_MIRROR", address)
        with pytest.raises(OSError, match=problem) as caught:
            fetch_dataset("regmix_60m", say=str)
        assert address in str(caught.value)
    assert BROKEN not in kept(cache)
    assert kept(cache) == ([] if cut else ["regmix/test_mixture_60m.csv"])
    # a good mirror mends it
    with mirror(FILES.get) as (address, asked):
        monkeypatch.setenv("BAYESMIX_MIRROR", address)
        assert len(fetch_dataset("regmix_60m", say=str)) == 1
        assert BROKEN in asked


def test_a_damaged_cache_is_fetched_again(cache, monkeypatch):
    with mirror(FILES.get) as (address, asked):
        monkeypatch.setenv("BAYESMIX_MIRROR", address)
        before = fetch_dataset("regmix_1b", say=str)
        (cache / "regmix/test_pile_loss_1B.csv").write_bytes(b"index\n")
        assert fetch_dataset("regmix_1b", say=str) == before
    assert asked.count("regmix/test_pile_loss_1B.csv") == 2
    assert asked.count("regmix/test_mixture_1B.csv") == 1


def test_the_command_writes_a_table(cache, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    with mirror(FILES.get) as (address, _):
        monkeypatch.setenv("BAYESMIX_MIRROR", address)
        assert main(["data", "fetch", "regmix_1m"]) == 0
        assert main(["data", "fetch", "regmix_60m", "--out", "other.parquet"]) == 0
    said = capsys.readouterr().out
    assert said.index("MIT, Copyright") < said.index("wrote regmix_1m.csv")
    assert "arXiv 2407.01492" in said
    assert len(read_runs(tmp_path / "regmix_1m.csv")) == 3
    assert len(read_runs(tmp_path / "other.parquet")) == 1


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["simulated"], "unknown dataset 'simulated'; published: regmix_1m"),
        (["regmix_60m", "--out", "runs.txt"], ".csv or .parquet"),
        (["regmix_60m", "--out", "absent/runs.csv"], "no such directory"),
        (["regmix_60m"], "hash"),
    ],
)
def test_the_command_refuses(arguments, problem, cache, monkeypatch, tmp_path, capsys):
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    with mirror(CHANGED.get) as (address, _):
        monkeypatch.setenv("BAYESMIX_MIRROR", address)
        assert main(["data", "fetch", *arguments]) == 2
    assert problem in capsys.readouterr().err
    assert list(work.iterdir()) == []


def test_published_swarms_are_listed_but_not_loaded():
    listed = list_datasets().set_index("name")
    assert set(PUBLISHED) == set(listed.index[listed["source"] == "published"])
    assert listed.loc["pile17_1b", ["rows", "domains"]].tolist() == [64, 17]
    assert not pd.isna(listed).any(axis=None)
    with pytest.raises(ValueError, match=r"fetch_dataset\('regmix_1m'\)"):
        load_dataset("regmix_1m")
