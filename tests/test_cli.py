"""The commands: exit codes, what they write, and what they say when they refuse."""

import importlib
import json
import os
import signal
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from synthetic import fit_of, parameters, swarm

import bayesmix as bm
from bayesmix._choices import read_objective
from bayesmix.cli import main
from bayesmix.datasets import load_dataset
from bayesmix.recommend import recommend

COLUMNS = ["row", "run_id", "n_params", "n_tokens", "domain"]
NUMBERS = ["mean", "sd", "lower", "upper", "expected_lower", "expected_upper"]
COLUMNS += [*NUMBERS, "prob"]
SCALE = ["--n-params", "7e9", "--n-tokens", "1.4e11"]
DOMAINS = ("web", "code", "books")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A swarm, a fit of it whose chains agree, one whose chains do not, and mixtures."""
    folder = tmp_path_factory.mktemp("cli")
    runs = swarm(DOMAINS, ("chat",))
    runs.frame.to_csv(folder / "swarm.csv", index=False)
    for name, n_draws in (("fit.nc", 2000), ("few.nc", 8)):
        draws = parameters(DOMAINS, ("chat",), n_draws=n_draws)
        fit_of(draws | {"bend_scale": np.full(n_draws, 0.01)}, runs).save(folder / name)
    (folder / "mixtures.csv").write_text(
        "run_id,weight_books,weight_code,weight_web,n_params,n_tokens,note\n"
        "x,0.2,0.3,0.5,1e9,2e10,kept\n"
        "y,0,0.5,0.5,2e9,4e10,kept\n"
    )
    return folder


@pytest.fixture
def run(capsys):
    """Run a command: exit code, standard output, standard error."""

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def sampled(monkeypatch):
    """Calls that reached the sampler, which is replaced by draws that pass the diagnostics."""
    calls = []

    def stub(runs, law, **options):
        calls.append((runs, law, options))
        draws = parameters(runs.domains, runs.targets, n_draws=2000)
        return fit_of(draws, runs, law=law)

    monkeypatch.setattr(bm, "fit", stub)
    return calls


def refused(said, place):
    """One plain message, and nothing on standard output."""
    code, out, err = said
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert str(place) in err
    assert "Traceback" not in err
    return err


def test_version_and_help(run):
    code, out, _ = run("--version")
    assert (code, out) == (0, f"bayesmix {version('bayesmix')}\n")
    code, out, _ = run("--help")
    assert code == 0
    for command in ("fit", "predict", "recommend", "design", "import", "demo", "data"):
        assert f" {command} " in out


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        ([], "Missing command"),
        (["data"], "Missing command"),
        (["fitt"], "fitt"),
        (["fit"], "RUNS.csv"),
        (["fit", "swarm.csv"], "--out"),
        (["fit", "swarm.csv", "--out", "x.nc", "--checkpoints", "first"], "first"),
        (["fit", "swarm.csv", "--out", "x.nc", "--draws", "0"], "--draws"),
        (["fit", "swarm.csv", "--out", "x.nc", "--chains", "two"], ": --chains two"),
        (["fit", "swarm.csv", "--out", "x.nc", "--chains=two"], ": --chains two"),
        (["fit", "swarm.csv", "--out", "x.nc", "--seed", "-1"], "--seed"),
        (["fit", "swarm.csv", "--out", "x.nc", "--seed", f"{2**63}"], "--seed"),
        (["fit", "swarm.csv", "--out", "x.nc", "--law", "powerlaw"], "unknown law 'powerlaw'"),
        (["fit", "swarm.csv", "--out", "x.nc", "--weight-resolution", "0.2"], "swarm.csv: weight_"),
        (["fit", "swarm.csv", "--out", "x.nc", "--weight-resolution", "nan"], "between 0 and 0.05"),
        (
            ["fit", "swarm.csv", "--out", "x.nc", "--weight-resolution", "few"],
            "--weight-resolution",
        ),
        (["predict", "fit.nc", "mixtures.csv", "--out", "x.csv", "--prob", "1"], "--prob"),
        (["predict", "fit.nc", "mixtures.csv", "--out", "x.csv", "--prob", "90%"], "--prob"),
        (["recommend", "fit.nc", "--out", "x.json", "--n-params", "7e9"], "--n-tokens"),
    ],
)
def test_usage_errors(arguments, place, run, sampled, folder, monkeypatch):
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    refused(run(*arguments), place)
    assert sorted(folder.iterdir()) == before
    assert not sampled


@pytest.mark.parametrize("option", ["--n-params", "--n-tokens"])
@pytest.mark.parametrize("value", ["0", "-7e9", "seven", "7B", "nan", "inf", "1e999", ""])
def test_sizes_that_are_no_positive_number(option, value, run, folder, tmp_path):
    out = tmp_path / "predictions.csv"
    said = run("predict", folder / "fit.nc", folder / "mixtures.csv", option, value, "--out", out)
    assert option in refused(said, repr(value))
    assert not out.exists()


COMMANDS = {
    "fit": ["fit", "absent.csv"],
    "predict": ["predict", "absent.nc", "absent.csv", *SCALE],
    "recommend": ["recommend", "absent.nc", *SCALE],
    "design": ["design", "absent.nc", "absent.csv", *SCALE],
    "import": ["import", "paper", "absent.csv"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_an_output_that_cannot_be_written_is_refused_first(command, run, tmp_path):
    # the inputs are absent, so a message about the output shows that it was looked at first
    refused(run(*COMMANDS[command], "--out", tmp_path / "no" / "x.csv"), tmp_path / "no")
    refused(run(*COMMANDS[command], "--out", tmp_path), f"{tmp_path}: a directory")
    (tmp_path / "file").touch()
    refused(run(*COMMANDS[command], "--out", tmp_path / "file" / "x"), "no such directory")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a directory nobody can write")
@pytest.mark.parametrize("command", [*COMMANDS, "demo"])
def test_a_directory_that_cannot_be_written_is_refused_first(command, run):
    refused(run(*COMMANDS.get(command, [command]), "--out", "/proc/x.csv"), "/proc: cannot be")


def test_an_input_is_never_overwritten(run, folder, tmp_path, sampled):
    path = tmp_path / "swarm.csv"
    path.write_bytes((folder / "swarm.csv").read_bytes())
    before = path.read_bytes()
    refused(run("fit", path, "--out", tmp_path / "." / "swarm.csv"), "overwritten")
    refused(run("predict", folder / "fit.nc", path, *SCALE, "--out", path), "overwritten")
    assert path.read_bytes() == before


def test_fit_passes_its_options_on_and_reports(run, folder, tmp_path, sampled):
    out = tmp_path / "fit.nc"
    numbers = {"draws": 30, "tune": 20, "chains": 2, "seed": 5}
    options = [text for name, value in numbers.items() for text in (f"--{name}", value)]
    condition = "n_params < 1.5e8"
    code, said, err = run(
        "fit",
        folder / "swarm.csv",
        "--out",
        out,
        "--where",
        condition,
        "--law",
        "regression",
        *options,
    )
    assert (code, err) == (0, "")
    ((runs, law, passed),) = sampled
    assert runs == bm.read_runs(folder / "swarm.csv").where(condition)
    assert law == "regression"
    assert passed.items() >= numbers.items()
    assert repr(runs) in said
    assert bm.load(out).diagnose().text in said
    assert f"wrote {out}" in said


@pytest.mark.parametrize(("which", "tokens"), [("last", [4e9]), ("all", [1e8, 2e9, 3e9, 4e9])])
def test_fit_chooses_checkpoints(which, tokens, run, tmp_path, sampled):
    path = tmp_path / "swarm.csv"
    rows = "".join(
        f"a,1e8,{count},0.5,0.5,{4 - i / 9}\n" for i, count in enumerate([1e8, 2e9, 3e9, 4e9])
    )
    path.write_text(f"run_id,n_params,n_tokens,weight_web,weight_code,loss_web\n{rows}")
    out = tmp_path / "fit.nc"
    assert run("fit", path, "--out", out, "--checkpoints", which)[0] == 0
    np.testing.assert_array_equal(bm.load(out).runs.n_tokens, tokens)
    assert run("fit", path, "--out", out)[0] == 0
    np.testing.assert_array_equal(bm.load(out).runs.n_tokens, [2e9, 3e9, 4e9])


def test_fit_is_told_how_weights_were_printed(run, folder, tmp_path, sampled):
    path = tmp_path / "swarm.csv"
    table = bm.read_runs(folder / "swarm.csv").frame
    weights = [f"weight_{domain}" for domain in DOMAINS]
    table[weights] = table[weights].round(3)
    table.loc[0, weights] = [0.999, 0.0, 0.0]
    table.to_csv(path, index=False)
    arguments = ["fit", path, "--out", tmp_path / "fit.nc"]
    for options in ([], ["--weight-resolution", 0], ["--weight-resolution", 0.002]):
        assert run(*arguments, *options)[0] == 0
    assert [runs.weight_resolution for runs, *_ in sampled] == [0.0005, 0.0, 0.002]


def test_fit_is_quiet_when_asked(run, folder, tmp_path, sampled):
    said = run("fit", folder / "swarm.csv", "--out", tmp_path / "fit.nc", "--quiet")
    assert said == (0, "", "")
    assert sampled[0][2]["progressbar"] is False


@pytest.mark.parametrize("condition", ["n_params > 1e30", "n_params <", "size > 1", "n_params"])
def test_conditions_that_are_refused(condition, run, folder, tmp_path, sampled):
    out = tmp_path / "fit.nc"
    said = run("fit", folder / "swarm.csv", "--out", out, "--where", condition)
    refused(said, repr(condition))
    assert not out.exists()
    assert not sampled


def test_failed_diagnostics_are_said_and_the_fit_is_written(run, folder, tmp_path, monkeypatch):
    few = bm.load(folder / "few.nc")
    monkeypatch.setattr(bm, "fit", lambda *arguments, **options: few)
    out = tmp_path / "fit.nc"
    code, _, err = run("fit", folder / "swarm.csv", "--out", out, "--quiet")
    assert code == 3
    assert err == f"warning: the sampler's diagnostics failed. {few.diagnose().text}\n"
    xr.testing.assert_identical(
        bm.load(out).posterior["posterior"].to_dataset(), few.posterior["posterior"].to_dataset()
    )


def test_warnings_about_tables_are_one_line_each(run, folder, tmp_path, sampled):
    lines = (folder / "swarm.csv").read_text().splitlines()
    path = tmp_path / "swarm.csv"
    path.write_text("\n".join([*lines, lines[-1]]) + "\n")
    code, _, err = run("fit", path, "--out", tmp_path / "fit.nc")
    assert code == 0
    assert err.startswith(f"warning: {path}: dropped 1 duplicate row")
    assert err.count("\n") == 1


def test_predictions_are_those_of_the_fit(run, folder, tmp_path):
    out = tmp_path / "predictions.csv"
    code, said, err = run(
        "predict", folder / "fit.nc", folder / "mixtures.csv", *SCALE, "--prob", "0.5", "--out", out
    )
    assert code == 0
    *instead, far, further = err.splitlines()
    for line, name in zip(instead, ("n_params", "n_tokens"), strict=True):
        assert f"column '{name}' is not used, the option is" in line
    # log(7e9 / 2e8) and log(1.4e11 / 6e9)
    assert far == (
        "warning: N = 7e+09 parameters is 3.6 e-folds above the largest that was fitted, 2e+08."
    )
    assert further == (
        "warning: D = 1.4e+11 tokens is 3.1 e-folds above the largest that was fitted, 6e+09."
    )
    assert f"wrote {out}" in said
    table = pd.read_csv(out)
    assert list(table.columns) == COLUMNS
    components = [*DOMAINS, "target:chat", "mean"]
    assert table["domain"].tolist() == components * 2
    assert table["row"].tolist() == [0] * 5 + [1] * 5
    assert table["run_id"].tolist() == ["x"] * 5 + ["y"] * 5
    assert set(table["n_params"]) == {7e9}
    assert set(table["n_tokens"]) == {1.4e11}
    assert set(table["prob"]) == {0.5}
    mixtures = pd.DataFrame(
        {"weight_web": [0.5, 0.5], "weight_code": [0.3, 0.5], "weight_books": [0.2, 0.0]}
    )
    expected = bm.load(folder / "fit.nc").predict(mixtures, 7e9, 1.4e11).summary(0.5)
    np.testing.assert_allclose(table[NUMBERS], expected[NUMBERS], rtol=1e-12)


def test_predictions_take_scales_from_the_table(run, folder, tmp_path):
    out = tmp_path / "predictions.csv"
    arguments = ["predict", folder / "fit.nc", folder / "mixtures.csv", "--out", out]
    assert run(*arguments)[0] == 0
    table = pd.read_csv(out)
    assert table.groupby("row")["n_params"].unique().tolist() == [[1e9], [2e9]]
    assert table.groupby("row")["n_tokens"].unique().tolist() == [[2e10], [4e10]]
    assert run(*arguments, "--n-tokens", "3e12")[0] == 0
    assert set(pd.read_csv(out)["n_tokens"]) == {3e12}
    code, _, err = run(*arguments, "--n-params", "2e8", "--n-tokens", "6e9")
    assert (code, "e-folds" in err) == (0, False)  # within the fitted range


def test_predictions_need_a_scale(run, folder, tmp_path):
    path, out = tmp_path / "mixtures.csv", tmp_path / "predictions.csv"
    path.write_text("weight_web,weight_code,weight_books\n0.5,0.3,0.2\n")
    arguments = ["predict", folder / "fit.nc", path, "--out", out]
    assert f"{path}: no column 'n_params', and no --n-params" in refused(run(*arguments), path)
    refused(run(*arguments, "--n-params", "7e9"), "'n_tokens'")
    assert not out.exists()
    assert run(*arguments, *SCALE)[0] == 0


def test_the_discrepancy_can_be_left_out(run, folder, tmp_path):
    out, fit = tmp_path / "predictions.csv", bm.load(folder / "fit.nc")
    arguments = ["predict", folder / "fit.nc", folder / "mixtures.csv", *SCALE, "--out", out]
    mixtures = bm.read_mixtures(folder / "mixtures.csv", DOMAINS)
    widths = []
    for options in ([], ["--no-discrepancy"]):
        assert run(*arguments, *options)[0] == 0
        table = pd.read_csv(out)
        expected = fit.predict(mixtures, 7e9, 1.4e11, discrepancy=not options).summary()
        np.testing.assert_allclose(table[NUMBERS], expected[NUMBERS], rtol=1e-12)
        widths.append(table["expected_upper"] - table["expected_lower"])
    # 35 times the largest size, where the law's own misfit counts
    assert (widths[1] < widths[0]).all()


def test_any_number_of_mixtures_is_predicted(run, folder, tmp_path, monkeypatch):
    module, fit = importlib.import_module("bayesmix.predict"), bm.load(folder / "fit.nc")
    path, out = tmp_path / "mixtures.csv", tmp_path / "predictions.csv"
    weights = np.random.default_rng(0).dirichlet(np.ones(3), 7)
    table = pd.DataFrame(weights, columns=[f"weight_{domain}" for domain in DOMAINS])
    table.assign(run_id=[f"r{i}" for i in range(7)]).to_csv(path, index=False)
    # all draws of 3 rows, or 100 draws of 60
    monkeypatch.setattr(module, "_MOST_CELLS", 3 * 4 * 2000)
    monkeypatch.setattr(module, "_DRAWS_OF_BLOCK", 2000)
    assert run("predict", folder / "fit.nc", path, *SCALE, "--out", out)[0] == 0
    found = pd.read_csv(out)
    assert list(found.columns) == COLUMNS
    assert found["row"].tolist() == [row for row in range(7) for _ in range(5)]
    assert found["run_id"].tolist() == [f"r{row}" for row in range(7) for _ in range(5)]
    pieces = [table.iloc[:3], table.iloc[3:6], table.iloc[6:]]
    expected = pd.concat([fit.predict(piece, 7e9, 1.4e11).summary() for piece in pieces])
    np.testing.assert_allclose(found[NUMBERS], expected[NUMBERS], rtol=1e-12)
    # where the blocks begin is no matter to what is expected
    monkeypatch.undo()
    whole = fit.predict(table, 7e9, 1.4e11).summary()
    same = ["mean", "sd", "expected_lower", "expected_upper"]
    np.testing.assert_allclose(found[same], whole[same], rtol=1e-12)


def test_options_stand_for_columns_that_are_blank(run, folder, tmp_path):
    path, out = tmp_path / "mixtures.csv", tmp_path / "predictions.csv"
    table = pd.read_csv(folder / "mixtures.csv").assign(n_params="", n_tokens=2e10)
    table.to_csv(path, index=False)
    said = run("predict", folder / "fit.nc", path, "--out", out)
    assert "column 'n_params', row 1: blank" in refused(said, path)
    assert run("predict", folder / "fit.nc", path, "--n-params", "7e9", "--out", out)[0] == 0
    assert set(pd.read_csv(out)["n_params"]) == {7e9}
    assert set(pd.read_csv(out)["n_tokens"]) == {2e10}


def test_domains_without_losses_are_said(run, tmp_path):
    runs = swarm(DOMAINS)
    blank = bm.runs_from_frame(runs.frame.assign(loss_code=np.nan))
    fit_of(parameters(DOMAINS), blank).save(tmp_path / "fit.nc")
    (tmp_path / "m.csv").write_text("weight_books,weight_code,weight_web\n0.2,0.3,0.5\n")
    out = tmp_path / "p.csv"
    code, _, err = run("predict", tmp_path / "fit.nc", tmp_path / "m.csv", *SCALE, "--out", out)
    assert code == 0
    assert "The swarm has no losses of code: predictions of these come from the priors" in err


def test_names_that_a_terminal_has_no_letters_for(folder, tmp_path):
    runs = swarm(("wéb", "コード", "books"))
    fit_of(parameters(runs.domains), runs).save(tmp_path / "fit.nc")
    command = [sys.executable, "-m", "bayesmix", "recommend", "fit.nc", "--out", "r.json", *SCALE]
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    made = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert made.returncode == 0, made.stderr
    assert b"w\xe9b" in made.stdout
    assert b"\\u30b3" in made.stdout


def test_models_too_small_for_the_law_are_said(run, folder, tmp_path):
    path = tmp_path / "mixtures.csv"
    path.write_text((folder / "mixtures.csv").read_text().replace("2e9,4e10", "2e5,4e9"))
    code, _, err = run("predict", folder / "fit.nc", path, "--out", tmp_path / "p.csv")
    assert code == 0
    assert "warning: N = 2e+05 parameters is at or below the law's floor H" in err.splitlines()[-1]


def test_predict_and_recommend_warn_of_failed_diagnostics(run, folder, tmp_path):
    few, text = folder / "few.nc", bm.load(folder / "few.nc").diagnose().text
    for arguments in (["predict", few, folder / "mixtures.csv"], ["recommend", few]):
        out = tmp_path / f"{arguments[0]}.out"
        code, _, err = run(*arguments, *SCALE, "--out", out)
        assert code == 0
        assert "warning: " in err
        assert text in err
        assert err.count(text) == 1
        assert out.is_file()


def _other_version(path, source):
    tree = xr.open_datatree(source, engine="h5netcdf").load()
    tree.attrs["model_version"] = 0
    tree.to_netcdf(path, engine="h5netcdf")


def _other_runs(path, source):
    tree = xr.open_datatree(source, engine="h5netcdf").load()
    tree.attrs["runs_hash"] = "0" * 64
    tree.to_netcdf(path, engine="h5netcdf")


NO_FITS = {
    "absent": (lambda path, source: None, "no such file"),
    "text": (lambda path, source: path.write_text("run_id,n_params\n"), "not a NetCDF file"),
    "empty": (lambda path, source: path.touch(), "not a NetCDF file"),
    "torn": (lambda path, source: path.write_bytes(source.read_bytes()[:9000]), "not a NetCDF"),
    "another netcdf": (
        lambda path, source: xr.Dataset({"x": 1}).to_netcdf(path, engine="h5netcdf"),
        "not a fit of bayesmix",
    ),
    "another version": (_other_version, "model version 0"),
    "other runs": (_other_runs, "damaged"),
}


@pytest.mark.parametrize("command", ["predict", "recommend"])
@pytest.mark.parametrize("kind", NO_FITS)
def test_files_that_are_no_fit(kind, command, run, folder, tmp_path):
    make, place = NO_FITS[kind]
    path, out = tmp_path / "fit.nc", tmp_path / "out"
    make(path, folder / "fit.nc")
    mixtures = [folder / "mixtures.csv"] if command == "predict" else []
    err = refused(run(command, path, *mixtures, *SCALE, "--out", out), place)
    assert str(path) in err
    assert not out.exists()


@pytest.fixture
def recommended(run, folder, tmp_path):
    """The JSON that `recommend` writes with some options."""

    def recommended(*options):
        out = tmp_path / "recommendation.json"
        code, said, _ = run("recommend", folder / "few.nc", *SCALE, *options, "--out", out)
        assert code == 0
        assert f"wrote {out}" in said
        return json.loads(out.read_text()), said

    return recommended


def test_recommendations_are_those_of_the_fit(recommended, folder):
    made, said = recommended()
    expected = recommend(bm.load(folder / "few.nc"), 7e9, 1.4e11)
    assert list(made["weights"]) == list(DOMAINS)
    np.testing.assert_allclose(list(made["weights"].values()), expected.weights, atol=1e-6)
    for domain, weight in made["weights"].items():
        assert domain in said
        assert f"{weight:.3f}" in said


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("o.json", '{"code": 0.7, "target:chat": 0.3}'),
        ("o.toml", 'code = 0.7\n"target:chat" = 0.3\n'),
        ("o.csv", "name,weight\ncode,0.7\ntarget:chat,0.3\n"),
    ],
)
def test_every_kind_of_objective_file(name, text, tmp_path):
    path = tmp_path / name
    path.write_text(text)
    assert read_objective(path, [*DOMAINS, "target:chat"]) == {"code": 0.7, "target:chat": 0.3}


def test_an_objective_is_what_is_minimised(recommended, folder, tmp_path):
    path, objective = tmp_path / "objective.json", {"code": 0.7, "target:chat": 0.3}
    path.write_text(json.dumps(objective))
    made, _ = recommended("--objective", path)
    assert made["objective"] == objective
    expected = recommend(bm.load(folder / "few.nc"), 7e9, 1.4e11, objective=objective)
    np.testing.assert_allclose(list(made["weights"].values()), expected.weights, atol=1e-6)


def test_bounds_hold(recommended, tmp_path):
    path = tmp_path / "constraints.toml"
    path.write_text("[bounds]\nweb = [0.05, 0.1]\nbooks = [0.0, 0.15]\n")
    free, _ = recommended()
    assert free["weights"]["web"] > 0.1
    made, _ = recommended("--constraints", path)
    assert 0.05 <= made["weights"]["web"] <= 0.1 + 1e-9
    assert made["weights"]["books"] <= 0.15 + 1e-9
    assert sum(made["weights"].values()) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "text", "place"),
    [
        ("o.json", "{", "cannot be read"),
        ("o.json", "[1, 2]", "a mapping"),
        ("o.json", '{"web": 1, "web": 2}', "'web' appears twice"),
        ("o.json", '{"poems": 1}', "unknown name 'poems'; valid names: web, code, books, target:c"),
        ("o.json", '{"web": -1}', "'web': -1"),
        ("o.json", '{"web": "much"}', "'web': 'much'"),
        ("o.json", '{"web": true}', "'web': True"),
        ("o.json", '{"web": NaN}', "'web': nan"),
        ("o.json", '{"web": 0}', "no weight is above 0"),
        ("o.json", "{}", "no weight is above 0"),
        ("o.toml", "web 1", "line 1"),
        ("o.csv", "name,weight\nweb,1\nweb,2\n", "column 'name', row 2"),
        ("o.csv", "name,weight\nweb,-1\n", "column 'weight', row 1"),
        ("o.csv", "domain,weight\nweb,1\n", "column 'name' is missing"),
        ("o.txt", "web 1", ".json, .toml or .csv"),
        ("o.json", "\0\0", "a binary file"),
        ("o.json", None, "no such file"),
    ],
)
def test_objectives_that_are_refused(name, text, place, run, folder, tmp_path):
    path, out = tmp_path / name, tmp_path / "recommendation.json"
    if text is not None:
        path.write_text(text)
    said = run("recommend", folder / "fit.nc", *SCALE, "--objective", path, "--out", out)
    assert refused(said, place).startswith(f"error: {path}: ")
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[bounds", "cannot be read"),
        ("bounds = 3", "bounds is a table"),
        ("[groups]\ndomains = ['web']", "[groups.NAME]; 'domains' is in none"),
        ("[bounds]\npoems = [0, 1]", "unknown name 'poems'; valid names: web, code, books"),
        ("[bounds]\nweb = 0.1", "bounds: 'web': 0.1 is not [lower, upper]"),
        ("[bounds]\nweb = [0.2, 0.1]", "constraints.toml: bounds: out of range: web (0.2, 0.1)"),
        ("[bounds]\nweb = [0, 1.5]", "bounds: out of range: web (0, 1.5)"),
        ("[bounds]\nweb = [0, nan]", "'web': [0, nan]"),
        ("[kl]\nradius = 1", "kl: unknown key 'radius'"),
        ("[limits]\nweb = 1", "unknown table 'limits'; valid tables: [bounds]"),
        ("[groups.g]\ndomains = ['poems']", "groups.g.domains: unknown name 'poems'"),
        ("[token_budget.available]\nweb = 1e9\ncode = 1e9\nbooks = 1e9", "(token budget)"),
        ("[bounds]\nweb = [0.6, 1]\ncode = [0.6, 1]", "code"),
        ("[bounds]\nweb = [0, 0.1]\ncode = [0, 0.1]\nbooks = [0, 0.1]", "books"),
    ],
)
def test_constraints_that_are_refused(text, place, run, folder, tmp_path):
    path, out = tmp_path / "constraints.toml", tmp_path / "recommendation.json"
    path.write_text(text)
    said = run("recommend", folder / "fit.nc", *SCALE, "--constraints", path, "--out", out)
    assert str(path) in refused(said, place)
    assert not out.exists()


@pytest.mark.parametrize("risk", ["max", "cvar", "cvar:2", "quantile:x", "prob-below:"])
def test_risks_that_are_refused(risk, run, folder, tmp_path):
    out = tmp_path / "recommendation.json"
    said = run("recommend", folder / "fit.nc", *SCALE, "--risk", risk, "--out", out)
    assert "none of mean, quantile:Q, cvar:A" in refused(said, repr(risk))
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (None, "no such file"),
        ("weight_web,weight_code\n0.5,0.5\n", "weight_books"),
        ("weight_web,weight_code,weight_books\n1,0,0\n0,1,0\n", "one row is needed"),
    ],
)
def test_mixtures_to_beat_that_are_refused(text, place, run, folder, tmp_path):
    path, out = tmp_path / "present.csv", tmp_path / "recommendation.json"
    if text is not None:
        path.write_text(text)
    risk = f"prob-below:{path}"
    said = run("recommend", folder / "fit.nc", *SCALE, "--risk", risk, "--out", out)
    assert str(path) in refused(said, place)
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "risk"),
    [
        ("quantile:0.9", bm.Quantile(0.9)),
        ("cvar:0.9", bm.CVaR(0.9)),
        ("regret", bm.Regret()),
        ("regret:0.9", bm.Regret(0.9)),
    ],
)
def test_a_risk_is_what_is_minimised(text, risk, recommended, folder):
    made, _ = recommended("--risk", text)
    expected = recommend(bm.load(folder / "few.nc"), 7e9, 1.4e11, risk=risk)
    assert made["risk"] == text
    assert made["loss"]["risk"] == pytest.approx(expected.risk_value, rel=1e-9)
    np.testing.assert_allclose(list(made["weights"].values()), expected.weights, atol=1e-6)


def test_the_chance_to_beat_a_mixture(recommended, tmp_path):
    path = tmp_path / "present.csv"
    path.write_text("weight_books,weight_code,weight_web\n0.2,0.3,0.5\n")
    made, _ = recommended("--risk", f"prob-below:{path}")
    assert made["risk"] == "prob-below"
    assert 0 <= made["loss"]["risk"] <= 1


def test_objectives_without_a_value_are_refused(run, tmp_path):
    out, path = tmp_path / "o.json", tmp_path / "limits.toml"
    draws = parameters(DOMAINS, ("chat",), n_draws=8)
    fit_of(draws, swarm(DOMAINS, ("chat",), unobserved=DOMAINS)).save(tmp_path / "targets.nc")
    said = run("recommend", tmp_path / "targets.nc", *SCALE, "--out", out)
    refused(said, "no domain has observed losses: give an objective over web")
    draws = parameters(DOMAINS, n_draws=8)
    fit_of(draws, swarm(DOMAINS), law="regression").save(tmp_path / "regression.nc")
    path.write_text("[fixed]\nweb = 0\n")
    limits = ["--constraints", path, "--out", out]
    refused(run("recommend", tmp_path / "regression.nc", *SCALE, *limits), "infinite at every")
    assert not out.exists()


def test_the_mixture_to_beat_is_not_overwritten(run, folder, tmp_path):
    path = tmp_path / "present.csv"
    path.write_text("weight_books,weight_code,weight_web\n0.2,0.3,0.5\n")
    risk = f"prob-below:{path}"
    said = run("recommend", folder / "few.nc", *SCALE, "--risk", risk, "--out", path)
    refused(said, "an input, which would be overwritten")
    assert path.read_text().startswith("weight_books")


def test_names_with_brackets_are_printed_as_they_are(run, tmp_path):
    names = ("[/code]", "web[en]")
    draws = parameters(names, n_draws=8)
    fit_of(draws, swarm(names)).save(tmp_path / "fit.nc")
    code, out, _ = run("recommend", tmp_path / "fit.nc", *SCALE, "--out", tmp_path / "o.json")
    assert code == 0
    assert all(name in out for name in names)
    code, out, _ = run("recommend", "--help")
    assert "[token_budget]" in out


def test_constraints_hold_and_are_reported(recommended, tmp_path):
    path = tmp_path / "constraints.toml"
    path.write_text(
        "[groups.text]\ndomains = ['web', 'books']\nmax = 0.15\n"
        "[token_budget]\nmax_epochs = 2\n[token_budget.available]\nbooks = 7e9\n"
    )
    made, _ = recommended("--constraints", path)
    weights = made["weights"]
    assert weights["web"] + weights["books"] <= 0.15 + 1e-8
    assert weights["books"] <= 0.1 + 1e-8
    asked = {one["constraint"]: one for one in made["constraints"]["asked"]}
    assert asked["group text at most 0.15"]["binding"]
    assert asked["group text at most 0.15"]["price"] > 0
    assert "unconstrained" in made["baselines"]
    assert sum(made["p_best"].values()) == pytest.approx(1)


@pytest.fixture
def olmix(tmp_path):
    (tmp_path / "ratios.csv").write_text("run_id,web,code\nr1,0.5,0.5\nr2,0.9,0.1\n")
    (tmp_path / "metrics.csv").write_text("run_id,web,exam\nr2,3.0,1.5\nr1,3.1,1.6\n")
    return ["import", "olmix", tmp_path / "ratios.csv", tmp_path / "metrics.csv"]


@pytest.mark.parametrize("name", ["runs.csv", "runs.parquet"])
def test_import(name, run, olmix, tmp_path):
    out = tmp_path / name
    code, said, _ = run(*olmix, "--n-params", "3e7", "--n-tokens", "3e9", "--out", out)
    assert code == 0
    assert f"wrote {out}" in said
    runs = bm.read_runs(out)
    assert runs.domains == ("web", "code")
    assert runs.targets == ("exam",)
    assert set(runs.n_params.values) == {3e7}
    assert set(runs.n_tokens.values) == {3e9}
    assert dict(zip(runs.run_ids.values, runs.losses.sel(domain="web").values, strict=True)) == {
        "r1": 3.1,
        "r2": 3.0,
    }


def test_import_takes_domains_that_files_do_not_name(run, tmp_path):
    log = tmp_path / "log.txt"
    log.write_text(
        "x/70M-0.25-0.75/1000\tvalid.Github.bin\t2.5\nx/70M-0.25-0.75/1000\tvalid.Pile-CC.bin\t3.5\n"
    )
    out = tmp_path / "runs.csv"
    assert run("import", "mixinglaws", log, "--domains", "Github, Pile-CC", "--out", out)[0] == 0
    runs = bm.read_runs(out)
    assert runs.domains == ("github", "pile_cc")
    np.testing.assert_array_equal(runs.losses, [[2.5, 3.5]])


def test_imports_that_are_refused(run, olmix, tmp_path):
    out = tmp_path / "runs.csv"
    before = sorted(tmp_path.iterdir())
    err = refused(run(*olmix, "--out", out), "olmix needs n_params")
    assert "olmix needs n_tokens" in err
    refused(run("import", "excel", "a.xls", "--out", out), "unknown format 'excel'")
    refused(run("import", "paper", "absent.csv", "--out", out), "absent.csv: no such file")
    refused(run("import", "paper", "a.csv", "--out", tmp_path / "runs.txt"), ".csv or .parquet")
    assert sorted(tmp_path.iterdir()) == before


def test_data_list(run):
    code, said, _ = run("data", "list")
    assert code == 0
    assert "simulated" in said
    assert "mixinglaws_2mix" in said


def raises_at_once(*arguments, **options):
    raise KeyboardInterrupt


def answers_with_fewer_draws(runs, law, **options):
    """As nutpie does."""
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        return fit_of(parameters(runs.domains, runs.targets, n_draws=8), runs, law=law)


def fails_after(runs, law, **options):
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        raise ValueError("no draws") from None


@pytest.mark.parametrize("sampler", [raises_at_once, answers_with_fewer_draws, fails_after])
def test_an_interrupt_while_sampling_leaves_nothing(sampler, run, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(bm, "fit", sampler)
    handler = signal.getsignal(signal.SIGINT)
    code, _, err = run("fit", folder / "swarm.csv", "--out", tmp_path / "fit.nc")
    assert code == 130
    assert err == "error: interrupted; nothing was written\n"
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGINT) is handler


def test_an_interrupt_while_writing_leaves_what_was_there(
    run, folder, tmp_path, sampled, monkeypatch
):
    out = tmp_path / "fit.nc"
    out.write_text("an older fit")

    def half(self, path, **options):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(xr.DataTree, "to_netcdf", half)
    assert run("fit", folder / "swarm.csv", "--out", out)[0] == 130
    assert [path.name for path in tmp_path.iterdir()] == ["fit.nc"]
    assert out.read_text() == "an older fit"


def test_an_interrupt_after_writing_says_so(run, folder, tmp_path, sampled, monkeypatch):
    out = tmp_path / "fit.nc"
    monkeypatch.setattr("bayesmix.replicates.noise_sentence", raises_at_once)
    code, _, err = run("fit", folder / "swarm.csv", "--out", out)
    assert (code, err) == (130, f"error: interrupted; {out} was written\n")
    assert len(bm.load(out).runs) == 24


def test_a_full_disk_is_said_plainly(run, folder, tmp_path, sampled, monkeypatch):
    def full(self, path, **options):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(xr.DataTree, "to_netcdf", full)
    code, _, err = run("fit", folder / "swarm.csv", "--out", tmp_path / "fit.nc")
    assert code == 2
    assert err.endswith("No space left on device\n")
    assert not list(tmp_path.iterdir())


def test_a_fault_of_our_own_is_not_called_bad_input(run, folder, tmp_path, monkeypatch):
    def faulty(*arguments, **options):
        raise ValueError("shapes do not match")

    monkeypatch.setattr(bm, "fit", faulty)
    with pytest.raises(ValueError, match="shapes do not match"):
        run("fit", folder / "swarm.csv", "--out", tmp_path / "fit.nc")


def test_as_a_program(folder, tmp_path):
    """Two starts of the interpreter: exit codes reach the shell."""
    done = subprocess.run(
        [sys.executable, "-m", "bayesmix", "predict", folder / "few.nc", folder / "mixtures.csv",
         *SCALE, "--out", tmp_path / "predictions.csv"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert "warning: " in done.stderr
    assert list(pd.read_csv(tmp_path / "predictions.csv").columns) == COLUMNS
    script = os.path.join(os.path.dirname(sys.executable), "bayesmix")
    done = subprocess.run(
        [script, "fit", tmp_path / "absent.csv", "--out", tmp_path / "fit.nc"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path / 'absent.csv'}: no such file\n"


def test_from_a_table_to_a_recommendation(run, tmp_path):
    """Every command on half of the bundled runs: the one fit that is sampled."""
    path, fit = tmp_path / "swarm.csv", tmp_path / "fit.nc"
    # as many rows as in test_fit.py, so that one compilation serves both
    small = load_dataset("simulated").checkpoints("last").frame.iloc[::2]
    larger = small.head(3).assign(run_id=["a", "b", "c"], n_params=5e9)
    pd.concat([small, larger]).to_csv(path, index=False)
    few = ["--draws", 200, "--tune", 200, "--chains", 2, "--checkpoints", "last"]
    code, said, err = run("fit", path, "--where", "n_params < 1e9", *few, "--out", fit)
    assert code in (0, 3)  # so few draws may miss the bounds on effective draws
    assert ("the sampler's diagnostics failed" in err) == (code == 3)
    loaded = bm.load(fit)
    assert repr(loaded.runs) in said
    assert dict(loaded.posterior["posterior"].sizes).items() >= {"chain": 2, "draw": 200}.items()

    runs, predictions = loaded.runs, tmp_path / "predictions.csv"
    mixtures = tmp_path / "mixtures.csv"
    runs.frame.filter(regex="run_id|n_params|n_tokens|weight_").to_csv(mixtures, index=False)
    assert run("predict", fit, mixtures, "--out", predictions)[0] == 0
    table = pd.read_csv(predictions)
    at_domains = table[table["domain"].isin(runs.domains)]
    observed = runs.losses.values.ravel()
    # the swarm's noise is 0.4%
    assert np.mean(abs(at_domains["mean"] - observed) / observed) < 0.005
    inside = (at_domains["lower"] <= observed) & (observed <= at_domains["upper"])
    assert inside.mean() > 0.9

    out = tmp_path / "recommendation.json"
    scale = ["--n-params", 4e8, "--n-tokens", 8e9]
    assert run("recommend", fit, *scale, "--out", out)[0] == 0
    made = json.loads(out.read_text())
    means = table.loc[table["domain"] == "mean", "mean"]
    assert made["loss"]["mean"] < means.min()
