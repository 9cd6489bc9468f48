"""`bayesmix evaluate`: what it passes on, what it writes, exit codes, and what it refuses."""

import json
import sys

import pytest
import standin
from synthetic import fit_of, parameters, swarm

import bayesmix as bm
from bayesmix import _refits
from bayesmix.cli import main

DOMAINS = ("web", "code", "books")


@pytest.fixture(autouse=True)
def _point_fits(monkeypatch):
    monkeypatch.setitem(sys.modules, "bayesmix.pointfit", standin.module())


@pytest.fixture
def run(capsys):
    """Run a command: exit code, standard output, standard error."""

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def sampled(monkeypatch):
    """Calls that reached the sampler; its draws fail the diagnostics unless there are 2000."""
    calls = []

    def stub(runs, law, *, n_draws=2000, **options):
        calls.append((runs, law, options))
        draws = parameters(runs.domains, n_draws=8 if options["draws"] == 8 else 2000)
        return fit_of(draws, runs, law=law)

    monkeypatch.setattr(_refits, "sample", stub)
    return calls


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "swarm.csv"
    swarm(DOMAINS).frame.to_csv(path, index=False)
    return path


def test_scores_are_written(run, path, tmp_path, sampled):
    out = tmp_path / "scores.json"
    code, said, err = run("evaluate", path, "--split", "largest-scale", "--out", out)
    assert (code, err) == (0, "")
    (line,) = json.loads(out.read_text())["scores"]
    expected = bm.evaluate(
        bm.read_runs(path), ["transfer"], bm.LargestScale(), progressbar=False
    ).scores.iloc[0]
    assert (line["law"], line["split"], line["fold"]) == ("transfer", "largest-scale", "200M")
    for name in ("mre", "mre_pos", "crps", "coverage", "width", "spearman", "regret"):
        assert line[name] == expected[name]
    assert "Held out by largest-scale" in said
    assert f"wrote {out}" in said


def test_options_are_passed_on(run, path, tmp_path, sampled):
    out, folder = tmp_path / "scores.json", tmp_path / "kept"
    arguments = ["evaluate", path, "--split", "mixture", "--folds", 2, "--law", "regression"]
    arguments += ["--law", "mean", "--draws", 30, "--tune", 20, "--chains", 2, "--seed", 5]
    arguments += ["--where", "n_params < 1.5e8", "--checkpoints", "last", "--no-discrepancy"]
    arguments += ["--resume", folder, "--out", out]
    assert run(*arguments)[0] == 0
    assert [law for _, law, _ in sampled] == ["regression"] * 2
    for runs, _, options in sampled:
        assert (runs.n_params.values < 1.5e8).all()
        assert options.items() >= {"draws": 30, "tune": 20, "chains": 2, "seed": 5}.items()
    lines = json.loads(out.read_text())["scores"]
    assert [(line["law"], line["fold"]) for line in lines] == [
        ("regression", "1 of 2"),
        ("regression", "2 of 2"),
        ("mean", "1 of 2"),
        ("mean", "2 of 2"),
    ]
    written = out.read_bytes()
    assert run(*arguments)[0] == 0
    assert len(sampled) == 2
    assert out.read_bytes() == written


def test_an_interrupt_keeps_what_is_finished(run, path, tmp_path, sampled, monkeypatch):
    out, folder = tmp_path / "scores.json", tmp_path / "kept"
    arguments = ["evaluate", path, "--split", "each-scale", "--resume", folder, "--out", out]
    finishes = _refits.sample

    def interrupted(*given, **options):
        if sampled:
            raise KeyboardInterrupt
        return finishes(*given, **options)

    monkeypatch.setattr(_refits, "sample", interrupted)
    code, _, err = run(*arguments)
    assert code == 130
    assert err == (
        f"error: interrupted; {out} was not written (finished refits are kept in {folder})\n"
    )
    assert not out.exists()
    assert len(list(folder.iterdir())) == 1
    code, _, err = run(*arguments[:4], "--out", out)
    assert (code, err) == (130, f"error: interrupted; {out} was not written\n")
    monkeypatch.setattr(_refits, "sample", finishes)
    assert run(*arguments)[0] == 0
    assert len(sampled) == 2


def test_the_resolution_of_weights_is_passed_on(run, path, tmp_path, sampled):
    arguments = ["evaluate", path, "--split", "largest-scale", "--out", tmp_path / "scores.json"]
    assert run(*arguments, "--weight-resolution", 0.001)[0] == 0
    assert [runs.weight_resolution for runs, *_ in sampled] == [0.001]


def test_failed_diagnostics_are_said_and_the_scores_are_written(run, path, tmp_path, sampled):
    out = tmp_path / "scores.json"
    arguments = ["--split", "each-scale", "--draws", 8, "--law", "transfer", "--law", "mean"]
    code, _, err = run("evaluate", path, *arguments, "--out", out)
    assert code == 3
    assert err.count("warning: transfer, fold ") == 2
    assert "The chains have not converged" in err
    assert "warning: the sampler's diagnostics failed in 2 of the refits" in err
    assert len(json.loads(out.read_text())["scores"]) == 4


def test_point_fits_are_resampled(run, path, tmp_path, monkeypatch):
    counts = []

    def stub(job, _):
        counts.append(job.options["bootstrap"])
        return point(job, _)

    point = _refits._point
    monkeypatch.setattr(_refits, "_point", stub)
    monkeypatch.setattr(standin.MeanFit, "bootstrap", standin.bootstrap, raising=False)
    arguments = ["evaluate", path, "--split", "largest-scale", "--law", "mean", "--bootstrap", 3]
    assert run(*arguments, "--out", tmp_path / "scores.json")[0] == 0
    assert counts == [3]
    (line,) = json.loads((tmp_path / "scores.json").read_text())["scores"]
    assert line["coverage"] is not None
    assert line["seconds"] == 4 * 0.25


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ([], "--split"),
        (["--split", "rows"], "rows"),
        (["--split", "mixture", "--folds", "1"], "--folds"),
        (["--split", "mixture", "--folds", "99"], "99 folds need as many mixtures"),
        (["--split", "mixture", "--law", "powerlaw"], "unknown law 'powerlaw'"),
        (["--split", "mixture", "--draws", "0"], "--draws"),
        (["--split", "mixture", "--jobs", "0"], "--jobs"),
        (["--split", "mixture", "--jobs", "-2"], "--jobs -2"),
        (["--split", "mixture", "--bootstrap", "-1"], "--bootstrap"),
        (["--split", "mixture", "--where", "size > 1"], "'size > 1'"),
        (["--split", "largest-scale", "--where", "n_params < 1.5e8"], "leaves nothing to fit"),
        (["--split", "each-scale", "--where", "n_params < 1.5e8"], "leaves nothing to fit"),
        (["--split", "mixture", "--weight-resolution", "0.2"], "weight_resolution 0.2 is not"),
        (["--split", "mixture", "--resume", "swarm.csv"], "swarm.csv: a file"),
    ],
)
def test_what_is_refused(options, place, run, path, tmp_path, sampled, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, said, err = run("evaluate", path, *options, "--out", "scores.json")
    assert (code, said) == (2, "")
    assert err.startswith("error: ")
    assert place in err
    assert "Traceback" not in err
    assert [file.name for file in tmp_path.iterdir()] == ["swarm.csv"]
    assert not sampled


def test_outputs_are_checked_first(run, path, tmp_path, sampled):
    absent = tmp_path / "absent.csv"
    arguments = ["evaluate", absent, "--split", "mixture", "--out"]
    assert "no such directory" in run(*arguments, tmp_path / "no" / "scores.json")[2]
    code, _, err = run("evaluate", path, "--split", "mixture", "--out", path)
    assert (code, "overwritten" in err) == (2, True)
    out = tmp_path / "scores.json"
    code, _, err = run(*arguments[:1], path, *arguments[2:], out, "--resume", out)
    assert (code, err) == (2, f"error: {out}: the folder of --resume too\n")
    assert not out.exists()
