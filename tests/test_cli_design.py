"""The command that says what to train next: what it writes, and what it refuses."""

import datetime
import decimal
import json

import numpy as np
import pandas as pd
import pytest
from synthetic import fit_of, parameters, swarm

import bayesmix as bm
from bayesmix.cli import main

SCALE = ["--n-params", "7e9", "--n-tokens", "1.4e11"]
DOMAINS = ("web", "code", "books")
CANDIDATES = (
    "run_id,weight_books,weight_code,weight_web,n_params,n_tokens,note\n"
    "x,0.2,0.3,0.5,1e8,2e9,kept\n"
    "y,0,0.5,0.5,2e8,4e9,kept\n"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("design")
    runs = swarm(DOMAINS)
    for name, n_draws in (("fit.nc", 200), ("few.nc", 40)):
        fit_of(parameters(DOMAINS, n_draws=n_draws, spread=0.2), runs).save(folder / name)
    (folder / "candidates.csv").write_text(CANDIDATES)
    return folder


@pytest.fixture
def run(folder, capsys):
    """Run the command on the folder's fit: exit code, standard output, standard error."""

    def run(*arguments, fit="fit.nc"):
        code = main(["design", *map(str, [folder / fit, *arguments])])
        return code, *capsys.readouterr()

    return run


def test_what_is_written_is_the_design(run, folder, tmp_path):
    out, table = tmp_path / "design.json", folder / "candidates.csv"
    limits, goal = tmp_path / "limits.toml", tmp_path / "goal.json"
    limits.write_text("[bounds]\nweb = [0.4, 0.5]\n")
    goal.write_text('{"code": 1.0}')
    options = ["--constraints", limits, "--objective", goal, "--batch", 1, "--seed", 3]
    code, said, err = run(table, *SCALE, *options, "--out", out)
    assert code == 0
    made = json.loads(out.read_text())
    expected = bm.design(
        bm.load(folder / "fit.nc"),
        pd.read_csv(table),
        7e9,
        1.4e11,
        objective={"code": 1.0},
        constraints=[bm.Bounds({"web": (0.4, 0.5)})],
        batch=1,
        seed=3,
        progressbar=False,
    )
    assert made == json.loads(json.dumps(expected.to_dict()))
    assert 0.4 <= made["present"]["web"] <= 0.5
    assert expected.stopping in said
    assert all(sentence in err for sentence in expected.warnings)


def test_a_table_is_written(run, folder, tmp_path):
    out = tmp_path / "design.csv"
    assert run(folder / "candidates.csv", *SCALE, "--draws", 100, "--out", out)[0] == 0
    table = pd.read_csv(out)
    assert table["run_id"].tolist() == ["x", "y"]
    assert table["note"].tolist() == ["kept", "kept"]
    np.testing.assert_allclose(table["flops"], [6 * 1e8 * 2e9, 6 * 2e8 * 4e9])
    assert {"value", "standard_error", "value_per_flop", "ess", "pareto_k", "bought"} < set(table)


def test_a_cost_that_is_left_blank_is_six_n_d(run, folder, tmp_path):
    path, out = tmp_path / "candidates.csv", tmp_path / "design.csv"
    path.write_text(
        CANDIDATES.replace("note", "flops").replace("kept\ny", "\ny").replace("kept", "5e18")
    )
    assert run(path, *SCALE, "--draws", 100, "--out", out)[0] == 0
    np.testing.assert_allclose(pd.read_csv(out)["flops"], [6 * 1e8 * 2e9, 5e18])


def test_whatever_a_table_holds_is_carried_through(run, folder, tmp_path):
    path, out = tmp_path / "candidates.parquet", tmp_path / "design.json"
    table = pd.read_csv(folder / "candidates.csv")
    table["day"] = [datetime.date(2026, 7, 1), None]
    table["at"] = [pd.Timestamp("2026-07-01 12:00"), pd.NaT]
    table["key"], table["sizes"] = [b"ab", b"c"], [[1, 2], [3]]
    table["price"], table["count"] = [decimal.Decimal("1.50"), None], [True, False]
    table.to_parquet(path)
    assert run(path, *SCALE, "--draws", 100, "--out", out)[0] == 0
    first, second = json.loads(out.read_text())["candidates"]
    assert (first["day"], first["at"]) == ("2026-07-01", "2026-07-01 12:00:00")
    assert (second["day"], second["at"], second["price"]) == (None, None, None)
    assert (first["key"], first["sizes"], first["price"]) == ("b'ab'", "[1 2]", "1.50")
    assert (first["count"], first["note"]) == (True, "kept")
    assert first["flops"] == 6 * 1e8 * 2e9


def test_models_too_small_for_the_law_are_said(run, folder, tmp_path):
    path, out = tmp_path / "candidates.csv", tmp_path / "design.csv"
    path.write_text(CANDIDATES.replace("1e8,2e9", "2e5,2e9"))
    code, _, err = run(path, *SCALE, "--draws", 100, "--out", out)
    assert code == 0
    # the floor is at exp(-6) of 1e8, and 10% wide
    assert "warning: N = 2e+05 parameters is at or below the law's floor H" in err


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (CANDIDATES.replace("n_params", "size"), "column 'n_params' is missing"),
        (CANDIDATES.replace(",4e9,", ",soon,"), "n_tokens"),
        (CANDIDATES.replace("weight_web", "weight_poems"), "weight_poems"),
        (CANDIDATES.replace("0.2,0.3,0.5", "0.2,0.3,0.9"), "row 1"),
        (
            CANDIDATES.replace("note", "flops").replace("kept\ny", "1e18\ny"),
            "column 'flops', row 2: 'kept'",
        ),
        (CANDIDATES.splitlines()[0] + "\n", "no"),
    ],
)
def test_candidates_that_are_refused(text, place, run, tmp_path):
    path, out = tmp_path / "candidates.csv", tmp_path / "design.csv"
    path.write_text(text)
    code, said, err = run(path, *SCALE, "--out", out)
    assert (code, said) == (2, "")
    assert err.startswith(f"error: {path}")
    assert place in err
    assert not out.exists()


def test_what_else_is_refused(run, folder, tmp_path):
    table, out = folder / "candidates.csv", tmp_path / "design.csv"
    for place, said in (
        (".csv or .json", run(table, *SCALE, "--out", tmp_path / "design.txt")),
        ("overwritten", run(table, *SCALE, "--out", table)),
        ("few.nc: a value of information", run(table, *SCALE, "--out", out, fit="few.nc")),
        ("error: Invalid value for '--draws'", run(table, *SCALE, "--draws", 50, "--out", out)),
        ("--batch", run(table, *SCALE, "--batch", 0, "--out", out)),
        ("--n-tokens", run(table, *SCALE[:2], "--out", out)),
    ):
        assert said[0] == 2
        assert place in said[2]
        assert "Traceback" not in said[2]
    assert not list(tmp_path.iterdir())
