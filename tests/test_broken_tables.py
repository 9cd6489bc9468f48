"""Broken tables on the command line: exit code 2, one message that names the place, no output."""

import csv
import io

import pytest
from synthetic import fit_of, parameters

import bayesmix
from bayesmix.cli import main

SWARM = """\
run_id,n_params,n_tokens,weight_web,weight_code,weight_books,loss_web,loss_code,target_chat
a,1e8,2e9,0.5,0.25,0.25,3.1,2.1,2.9
a,1e8,4e9,0.5,0.25,0.25,3.0,2.0,
b,4e8,4e9,0.2,0.8,0,2.9,,2.7
"""


def with_cell(column, row, value):
    """The swarm with one cell replaced (`row` counted from 1, as messages do)."""
    table = list(csv.DictReader(io.StringIO(SWARM)))
    table[row - 1][column] = value
    return as_csv(list(table[0]), table)


def only(*columns):
    return as_csv(columns, csv.DictReader(io.StringIO(SWARM)))


def as_csv(columns, rows):
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


# what is broken: the file's content, and what the line that reports it must say
BROKEN = {
    "weights that do not sum": (
        with_cell("weight_web", 3, "0.3"),
        "columns 'weight_web' to 'weight_books', row 3: weights sum to 1.1, not 1",
    ),
    "negative weight": (with_cell("weight_code", 2, "-0.25"), "column 'weight_code', row 2: "),
    "blank weight": (with_cell("weight_books", 3, ""), "column 'weight_books', row 3: blank"),
    "blank size": (with_cell("n_params", 1, ""), "column 'n_params', row 1: blank"),
    "blank token count": (with_cell("n_tokens", 2, " "), "column 'n_tokens', row 2: blank"),
    "text": (with_cell("loss_web", 2, "three"), "column 'loss_web', row 2: 'three' is not a numb"),
    "infinite loss": (with_cell("loss_code", 1, "inf"), "column 'loss_code', row 1: 'inf' is inf"),
    "infinite size": (with_cell("n_params", 3, "1e999"), "column 'n_params', row 3: '1e999' is in"),
    "zero loss": (with_cell("loss_web", 3, "0"), "column 'loss_web', row 3: '0' is not positive"),
    "zero tokens": (with_cell("n_tokens", 1, "0"), "column 'n_tokens', row 1: '0' is not positive"),
    "missing column": (SWARM.replace("n_tokens", "tokens"), "column 'n_tokens' is missing"),
    "missing weights": (
        only("run_id", "n_params", "n_tokens", "target_chat"),
        "columns 'weight_<domain>' are missing",
    ),
    "loss without a weight": (SWARM.replace("loss_code", "loss_maths"), "column 'loss_maths'"),
    "no rows": (SWARM.splitlines()[0] + "\n", "no rows"),
    "one domain": (
        "run_id,n_params,n_tokens,weight_web,loss_web\na,1e8,2e9,1,3.1\n",
        "column 'weight_web' is the only weight",
    ),
    "empty file": ("", "the file is empty"),
    "binary file": (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" * 9, "a binary file"),
    "absent file": (None, "no such file"),
}


@pytest.fixture
def sampled(monkeypatch):
    """Swarms that reached the sampler, which is replaced: what is tested comes before it."""
    swarms = []

    def stub(runs, law, **options):
        swarms.append(runs)
        return fit_of(parameters(runs.domains, runs.targets, n_draws=8), runs, law=law)

    monkeypatch.setattr(bayesmix, "fit", stub)
    return swarms


@pytest.fixture(params=BROKEN)
def broken(request, tmp_path):
    content, place = BROKEN[request.param]
    path = tmp_path / "swarm.csv"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path, place


def test_a_broken_table_is_refused_in_one_message(broken, sampled, tmp_path, capsys):
    path, place = broken
    before = sorted(tmp_path.iterdir())
    assert main(["fit", str(path), "--out", str(tmp_path / "fit.nc")]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"error: {path}: ")
    assert said.err.count("error: ") == 1
    assert f"{path}: {place}" in said.err
    assert "Traceback" not in said.err
    assert sorted(tmp_path.iterdir()) == before
    assert not sampled


def test_a_mended_table_is_accepted(broken, sampled, tmp_path, capsys):
    path, _ = broken
    out = tmp_path / "fit.nc"
    assert main(["fit", str(path), "--out", str(out)]) == 2
    path.write_text(SWARM)
    # 3: fitted and written, though the stub's few draws pass no diagnostics
    assert main(["fit", str(path), "--out", str(out)]) == 3
    assert [len(runs) for runs in sampled] == [3]
    assert out.is_file()
    assert bayesmix.load(out).runs == bayesmix.read_runs(path)


def test_every_problem_is_in_the_one_message(sampled, tmp_path, capsys):
    path = tmp_path / "swarm.csv"
    path.write_text(SWARM.replace("1e8", "-1").replace("2.9", "x").replace("0.8", ""))
    assert main(["fit", str(path), "--out", str(tmp_path / "fit.nc")]) == 2
    said = capsys.readouterr().err
    for place in (
        "column 'n_params', row 1",
        "column 'n_params', row 2",
        "column 'loss_web', row 3",
        "column 'target_chat', row 1",
        "column 'weight_code', row 3",
    ):
        assert f"{path}: {place}: " in said


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("weight_web,weight_code\n0.5,0.5\n", "column 'weight_books' is missing"),
        ("weight_web,weight_code,weight_books\n0.5,0.5,0.5\n", "row 1: weights sum to 1.5, not 1"),
        (
            "weight_web,weight_code,weight_books\n0.5,half,0\n",
            "column 'weight_code', row 1: 'half'",
        ),
        ("", "the file is empty"),
        (None, "no such file"),
    ],
)
def test_broken_mixtures_are_refused(text, place, sampled, tmp_path, capsys):
    fit, path, out = tmp_path / "fit.nc", tmp_path / "mixtures.csv", tmp_path / "predictions.csv"
    (tmp_path / "swarm.csv").write_text(SWARM)
    assert main(["fit", str(tmp_path / "swarm.csv"), "--out", str(fit), "--quiet"]) == 3
    capsys.readouterr()
    if text is not None:
        path.write_text(text)
    options = ["--n-params", "7e9", "--n-tokens", "1.4e11", "--out", str(out)]
    assert main(["predict", str(fit), str(path), *options]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {path}: ")
    assert place in said
    assert not out.exists()
