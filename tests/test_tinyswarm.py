"""The small measured swarm: corpus, design, batches, table; nothing here trains or downloads."""

import io
import json
import tarfile
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from benchmarks import tinyswarm_loop as loop
from examples.tinyswarm import corpus, train
from examples.tinyswarm.corpus import DOMAINS
from examples.tinyswarm.design import (
    BATCH,
    CONTEXT,
    SIZES,
    STEPS,
    design,
    largest_remainder,
    mixtures,
    printed,
)
from examples.tinyswarm.table import table


def archive(path, files):
    with tarfile.open(path, "w:gz") as made:
        for name, content in files.items():
            info = tarfile.TarInfo(f"{path.name.removesuffix('.tar.gz')}/{name}")
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    return path


def catalogues(language):
    return {
        f"x{i}/locale/{language}/LC_MESSAGES/django.po": f"{language}{i:03};".encode()
        for i in range(200)
    }


def test_streams_are_split_by_file_and_translations_stay_together(tmp_path):
    files = {f"django/f{i:03}.py": f"<{i:03}>".encode() for i in range(200)}
    files |= catalogues("de") | catalogues("fr") | catalogues("it")
    made = corpus.build_streams({"django": archive(tmp_path / "Django-1.tar.gz", files)})
    sides = [made["python.train"], made["python.heldout"]]
    assert len(sides[0]) + len(sides[1]) == 5 * 200
    parts = [{side[i : i + 5] for i in range(0, len(side), 5)} for side in sides]
    assert not parts[0] & parts[1]
    # binomial(200, 0.1)
    assert 8 <= len(parts[1]) <= 35
    numbers = {
        language: set(made[f"{language}.heldout"].decode().replace(code, "").split(";"))
        for language, code in (("german", "de"), ("french", "fr"))
    }
    assert numbers["german"] == numbers["french"]
    assert len(numbers["german"]) > 8
    assert b"it" not in b"".join(made.values())
    assert made["c.train"] == b""


def test_a_large_file_is_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "FILE_BYTES", 10)
    monkeypatch.setattr(corpus, "TRAIN_BYTES", 25)
    files = {f"f{i}.c": bytes([65 + i]) * 100 for i in range(20)}
    made = corpus.build_streams({"uwsgi": archive(tmp_path / "uwsgi-2.tar.gz", files)})
    assert len(made["c.train"]) == 25
    assert max(Counter(made["c.train"]).values()) == 10


def pinned(folder):
    """A corpus of one small archive, with its manifest."""
    (folder / "sdists").mkdir(parents=True)
    files = {f"f{i}.c": f"int f{i};".encode() for i in range(30)}
    archive(folder / "sdists" / "uWSGI-2.0.tar.gz", files)
    packages = [{"name": "uwsgi", "version": "2.0", "licence": "GPL"}]
    return corpus.rebuild(folder, {"packages": packages, "streams": {}}, pin=True)


def test_rebuilding_checks_archives_and_streams(tmp_path, monkeypatch):
    manifest = pinned(tmp_path)
    assert corpus.rebuild(tmp_path, manifest) == manifest
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(manifest))
    monkeypatch.setattr(corpus, "MANIFEST", path)
    streams = corpus.load_streams(tmp_path)
    assert {name: len(s) for name, s in streams.items()} == {
        name: facts["bytes"] for name, facts in manifest["streams"].items()
    }
    # lost streams are rebuilt, changed ones are refused
    (tmp_path / "c.train.bin").unlink()
    np.testing.assert_array_equal(corpus.load_streams(tmp_path)["c.train"], streams["c.train"])
    (tmp_path / "c.train.bin").write_bytes(b"other")
    with pytest.raises(ValueError, match=r"c\.train\.bin differs from the manifest"):
        corpus.load_streams(tmp_path)
    wrong = json.loads(json.dumps(manifest))
    wrong["streams"]["c.heldout"]["sha256"] = "0"
    with pytest.raises(ValueError, match=r"differ from the manifest: c\.heldout"):
        corpus.rebuild(tmp_path, wrong)
    archive(tmp_path / "sdists" / "uWSGI-2.0.tar.gz", {"f.c": b"x"})
    with pytest.raises(ValueError, match=r"uWSGI-2\.0\.tar\.gz has sha256"):
        corpus.rebuild(tmp_path, manifest)


def test_an_archive_is_fetched_through_pip(tmp_path, monkeypatch):
    commands = []

    def run(command, check):
        commands.append(command)
        if "plone.app.locales==7.0.4" in command:
            archive(tmp_path / "plone_app_locales-7.0.4.tar.gz", {})

    monkeypatch.setattr(corpus.subprocess, "run", run)
    for _ in range(2):
        path = corpus.fetch_archive("plone.app.locales", "7.0.4", tmp_path)
        assert path.name == "plone_app_locales-7.0.4.tar.gz"
    assert len(commands) == 1
    assert {"download", "--no-deps", "--no-binary"} < set(commands[0])
    with pytest.raises(FileNotFoundError, match=r"no archive of django 6\.1\.3"):
        corpus.fetch_archive("django", "6.1.3", tmp_path)


def test_the_manifest_pins_all_that_is_used():
    manifest = json.loads(corpus.MANIFEST.read_text())
    used = {package for sources in DOMAINS.values() for package, _ in sources}
    assert {package["name"] for package in manifest["packages"]} == used
    for package in manifest["packages"]:
        assert len(package["sha256"]) == 64
        assert package["version"]
        assert package["licence"]
    streams = manifest["streams"]
    assert set(streams) == {f"{d}.{side}" for d in DOMAINS for side in ("train", "heldout")}
    for domain in DOMAINS:
        # windows evaluated on do not overlap
        assert streams[f"{domain}.heldout"]["bytes"] > train.EVALUATED * (CONTEXT + 1)
        # no run passes over a domain more than once
        assert streams[f"{domain}.train"]["bytes"] > max(STEPS) * BATCH * CONTEXT


def test_the_design_holds_what_it_promises():
    runs = design()
    assert len(runs) == len({run.run_id for run in runs}) == len({run.seed for run in runs}) == 124
    assert SIZES[-1].n_params / SIZES[0].n_params > 25
    ratios = np.diff(np.log([size.n_params for size in SIZES]))
    assert ratios.max() / ratios.min() < 1.1
    by_size = Counter(run.size.name for run in runs)
    assert by_size["xs"] + by_size["s"] > 62
    assert by_size["l"] >= 8
    cells = Counter((run.size.name, run.weights, run.steps) for run in runs)
    repeated = Counter(name for (name, _, _), count in cells.items() if count >= 3)
    assert repeated == {"xs": 6, "s": 6}
    for size in SIZES:
        assert len({run.n_tokens for run in runs if run.size is size}) >= 3
    # every mixture of a larger size is one of the smallest's
    small = {run.weights for run in runs if run.size is SIZES[0]}
    assert {run.weights for run in runs} == small
    assert [run.size.name for run in runs[:4]] == ["xs", "s", "m", "l"]


def test_mixtures_are_exact_and_have_zeros():
    made = mixtures()
    table = np.array([*made.values()])
    np.testing.assert_allclose(table.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_array_equal(table[1:7], np.eye(6))
    assert Counter((table[7:13] == 0.5).sum(axis=1)) == {2: 6}
    inside = table[13:]
    assert 5 < (inside == 0).sum() < 40
    assert (np.round(table, 4) == table).all()
    assert printed(np.full(6, 1 / 6)) == made["uniform"]


def test_sizes_count_what_the_arrays_hold():
    # 12 d^2 a layer in the matrices, two gains a layer, one at the end
    assert [size.n_params for size in SIZES] == [12_384, 38_600, 113_288, 332_448]


@pytest.mark.parametrize("total", [1, 7, 640])
def test_largest_remainder(total):
    shares = np.random.default_rng(0).dirichlet(np.ones(6))
    counts = largest_remainder(shares, total)
    assert counts.sum() == total
    assert (abs(counts - shares * total) < 1).all()


def numbered_streams(places):
    """Streams whose byte at any place tells the domain and, over windows, the window."""
    rng = np.random.default_rng(3)
    sides = [f"{domain}.{side}" for domain in DOMAINS for side in ("train", "heldout")]
    return {side: rng.integers(0, 256, places * CONTEXT + 1, dtype=np.uint8) for side in sides}


def test_batches_have_exact_shares_and_repeat_only_after_a_pass():
    streams = numbered_streams(40)
    where = {
        streams[f"{domain}.train"][i * CONTEXT : (i + 1) * CONTEXT + 1].tobytes(): (domain, i)
        for domain in DOMAINS
        for i in range(40)
    }
    weights = (0.5, 0.25, 0.0, 0.25, 0.0, 0.0)
    batches = train.training_batches(streams, weights, 10, seed=4)
    assert batches.shape == (10, BATCH, CONTEXT + 1)
    assert batches.dtype == np.uint8
    windows = [where[window.tobytes()] for window in batches.reshape(-1, CONTEXT + 1)]
    assert Counter(domain for domain, _ in windows) == {"python": 80, "c": 40, "german": 40}
    # two passes of 40, one pass of 40
    counts = Counter(windows)
    assert {counts["python", i] for i in range(40)} == {2}
    assert {counts["c", i] for i in range(40)} == {1}
    again = train.training_batches(streams, weights, 10, seed=4)
    np.testing.assert_array_equal(batches, again)
    other = train.training_batches(streams, weights, 10, seed=5)
    assert (batches != other).any()
    # shuffled: no domain keeps to one end
    first = Counter(domain for domain, _ in windows[:80])
    assert 25 <= first["python"] <= 55


def test_heldout_windows_are_the_streams_own():
    streams = numbered_streams(2000)
    found = train.heldout_windows(streams)
    for domain, windows in found.items():
        assert windows.shape == (1024, CONTEXT + 1)
        stream = streams[f"{domain}.heldout"]
        np.testing.assert_array_equal(windows[0], stream[: CONTEXT + 1])
        np.testing.assert_array_equal(windows[-1], stream[-CONTEXT - 1 :])


def line(run, losses=(2.0, 2.1, 2.2, 2.3, 2.4, 2.5)):
    return {
        "run_id": run.run_id,
        "size": run.size.name,
        "n_params": run.size.n_params,
        "n_tokens": run.n_tokens,
        "seed": run.seed,
        "weights": dict(zip(DOMAINS, run.weights, strict=True)),
        "losses": dict(zip(DOMAINS, losses, strict=True)),
        "core_seconds": 1.0,
    }


def test_a_torn_log_goes_on(tmp_path):
    path = tmp_path / "log.jsonl"
    assert train.read_log(path) == []
    whole = json.dumps(line(design()[0])) + "\n"
    path.write_text(whole + whole[:40])
    assert len(train.read_log(path)) == 1
    assert path.read_text() == whole


def test_the_log_becomes_a_swarm():
    runs = design()
    made = table([line(run) for run in runs])
    assert len(made) == made.n_runs == 124
    assert made.domains == tuple(DOMAINS)
    assert made.weight_resolution == 0
    assert made.frame["seed"].nunique() == 124
    assert np.all(np.diff(made.n_params.values) >= 0)
    by_id = {run.run_id: run for run in runs}
    for name, weights in zip(made.run_ids.values, made.weights.values, strict=True):
        np.testing.assert_allclose(weights, by_id[name].weights, atol=1e-12)


def test_best_observed_is_relative_to_uniform_at_the_same_scale():
    def row(run_id, weights, steps, losses):
        return {"run_id": run_id, "n_params": 1e4, "n_tokens": steps} | {
            f"{kind}_{d}": v
            for kind, values in (("weight", weights), ("loss", losses))
            for d, v in zip(DOMAINS, values, strict=True)
        }

    flat = np.full(6, 1 / 6)
    first, second = np.array([0.5, 0.5, 0, 0, 0, 0]), np.array([0, 0, 0, 0.5, 0.5, 0])
    frame = pd.DataFrame(
        [
            row("u1", flat, 1e5, np.full(6, 3.0)),
            row("u2", flat, 1e6, np.full(6, 2.0)),
            # lower at the longer run, but not against uniform there
            row("a", first, 1e6, [1.5, 2.1, 2.1, 2.1, 2.1, 2.1]),
            row("b", second, 1e5, [3.2, 2.9, 2.9, 2.9, 2.9, 2.9]),
        ]
    )
    runs = loop.bm.runs_from_frame(frame, weight_resolution=0.0)
    mean = dict.fromkeys(DOMAINS, 1 / 6)
    np.testing.assert_allclose(loop.best_observed(runs, mean), second)
    np.testing.assert_allclose(loop.best_observed(runs, {"python": 1.0}), first)


def test_the_loop_reports_measured_beside_predicted():
    entries = [
        {
            "objective": objective,
            "label": label,
            "weights": dict(zip(DOMAINS, mixtures()["uniform"], strict=True)),
            "predicted_mean": 2.0,
            "predicted_lower": 1.9,
            "predicted_upper": 2.1,
        }
        for objective in loop.OBJECTIVES
        for label in ("recommended", "uniform")
    ]
    # uniform is trained once for both objectives
    ids = {loop.run_of(entry, seed).run_id for entry in entries for seed in loop.SEEDS}
    assert len(ids) == 9
    assert not {run.seed for run in design()} & set(loop.SEEDS)
    lines = [
        line(loop.run_of(entry, seed), np.full(6, 2.0 + seed - 1001))
        for entry in entries
        for seed in loop.SEEDS
    ]
    made = loop.table(entries[:2], lines)
    assert list(made) == [
        "label", "seed", "n_params", "n_tokens",
        *(f"weight_{d}" for d in DOMAINS), *(f"loss_{d}" for d in DOMAINS),
        "predicted_mean", "predicted_lower", "predicted_upper",
    ]  # fmt: skip
    assert len(made) == 6
    assert set(made["n_params"]) == {332_448}
    said = loop.report(made, loop.OBJECTIVES["skewed"])
    assert said["mean"].tolist() == [2.0, 2.0]
    # sd 1 over three seeds
    np.testing.assert_allclose(said["sem"], 3**-0.5)
