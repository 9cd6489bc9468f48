"""Importers, on small files in the formats as published."""

import io
import json

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings

from bayesmix.readers import FORMATS, import_runs, mixinglaws, olmix, paper, regmix
from bayesmix.runs import RunsError, RunsWarning, read_runs, write_runs

MIXTURES = """\
index,train_the_pile_arxiv,train_the_pile_pile_cc,train_the_pile_europarl
3,0.2,0.8,0.0
10,0.5,0.25,0.25
1,0.1,0.6,0.3
"""
LOSSES = """\
index,metric/the_pile_pile_cc_val_loss,metric/the_pile_arxiv_val_loss
1,3.1,2.1
3,3.3,2.3
10,3.9,2.9
"""
EXTRA = [
    {"index": 2, "domain": "EuroParl", "avg_loss": 4.1},
    {"index": 11, "domain": "EuroParl", "avg_loss": 4.9},
]
RATIOS = "run_id,name,dclm:web,dclm:code\nb7,x,0.9,0.1\na1,y,0.4,0.6\n"
METRICS = "name,run_id,dclm:web,mmlu_bpb\ny,a1,3.4,0.9\nx,b7,3.0,0.8\n"
PAPER = """\
model_size,weight_web,weight_code,web_loss,code_loss,chat_loss,n_tokens
122M,0.5,0.5,3.0,2.0,2.5,2B
122M,0.5,0.5,2.9,1.9,2.4,20B
122000000,0.2,0.8,2.8,1.8,,2e9
1.3B,0.5,0.5,2.7,1.7,2.2,20b
"""
SIZES = {"n_params": 1e9, "n_tokens": 2e10}


def log_line(run, step, domain, loss):
    return f"/a/ckpts/base2//{run}/{step}\t/b/pythia-pile.valid.{domain}.bin\t{loss}\n"


LOG = (
    log_line("160M_1-0.25-0.75", 2000, "Github", 1.2)
    + log_line("70M_base_10-0.5-0.5", 1000, "Pile-CC", 3.5)
    + log_line("70M_base_9-0.25-0.75", 1000, "Pile-CC", 3.6)
    + log_line("70M_base_9-0.25-0.75", 1000, "Github", 1.6)
    + log_line("70M_base_9-0.25-0.75", 1000, "Github", 1.6)
)


def files(folder, **texts):
    paths = []
    for name, text in texts.items():
        path = folder / f"{name.replace('__', '.')}"
        path.write_text(text)
        paths.append(path)
    return paths


def jsonl(records):
    return "".join(json.dumps(record) + "\n" for record in records)


def shuffled(text, random):
    header, *rows = text.splitlines()
    random.shuffle(rows)
    return "\n".join([header, *rows]) + "\n"


def test_regmix(tmp_path):
    mixtures, losses = files(tmp_path, m__csv=MIXTURES, l__csv=LOSSES)
    runs = regmix(mixtures, losses, prefix="model_", **SIZES)
    assert runs.domains == ("arxiv", "pile_cc", "europarl")
    assert runs.run_ids.values.tolist() == ["model_1", "model_3", "model_10"]
    assert runs.weights.values.tolist() == [[0.1, 0.6, 0.3], [0.2, 0.8, 0.0], [0.5, 0.25, 0.25]]
    np.testing.assert_array_equal(
        runs.losses, [[2.1, 3.1, np.nan], [2.3, 3.3, np.nan], [2.9, 3.9, np.nan]]
    )
    assert set(runs.n_params.values) == {1e9}
    assert set(runs.n_tokens.values) == {2e10}


def test_regmix_extra_losses_count_from_one(tmp_path):
    paths = files(tmp_path, m__csv=MIXTURES, l__csv=LOSSES, e__jsonl=jsonl(EXTRA))
    with pytest.warns(RunsWarning, match=r"e\.jsonl: no losses for 1 runs: 3"):
        runs = regmix(*paths, **SIZES)
    np.testing.assert_array_equal(runs.losses.sel(domain="europarl"), [4.1, np.nan, 4.9])


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"index": 5, "domain": "EuroParl", "avg_loss": 4.1}, "index 5"),
        ({"index": 2, "domain": "Europe", "avg_loss": 4.1}, "'Europe'"),
        ({"index": 2, "domain": "ArXiv", "avg_loss": 4.1}, "has losses already"),
        ({"index": 2, "domain": "EuroParl", "avg_loss": 4.2}, "appears twice"),
        ({"index": 4, "domain": "EuroParl", "avg_loss": -4.2}, "-4.2"),
        ({"index": 4, "domain": "EuroParl", "avg_loss": "x"}, "'x'"),
        ({"index": 4, "domain": "EuroParl"}, "needs index, domain and avg_loss"),
        (["no record"], "needs index, domain and avg_loss"),
    ],
)
def test_regmix_extra_losses_refused(record, expected, tmp_path):
    paths = files(tmp_path, m__csv=MIXTURES, l__csv=LOSSES, e__jsonl=jsonl([*EXTRA, record]))
    with pytest.raises(RunsError) as caught:
        regmix(*paths, **SIZES)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{paths[2]}: line 3: ")
    assert expected in problem


@given(st.randoms())
@settings(max_examples=20)
def test_rows_in_any_order_give_the_same_runs(tmp_path_factory, random):
    folder = tmp_path_factory.mktemp("shuffled")
    for reader, first, second in ((regmix, MIXTURES, LOSSES), (olmix, RATIOS, METRICS)):
        plain = reader(*files(folder, a__csv=first, b__csv=second), **SIZES)
        mixed = files(folder, c__csv=shuffled(first, random), d__csv=shuffled(second, random))
        assert reader(*mixed, **SIZES) == plain
    lines = LOG.splitlines(keepends=True)
    random.shuffle(lines)
    plain = mixinglaws(*files(folder, e__txt=LOG), domains=["github", "pile_cc"])
    half = files(folder, f__txt="".join(lines[:2]), g__txt="".join(lines[2:]))
    assert mixinglaws(*half, domains=["github", "pile_cc"]) == plain


def test_olmix(tmp_path):
    runs = olmix(*files(tmp_path, r__csv=RATIOS, m__csv=METRICS), **SIZES)
    assert runs.domains == ("dclm:web", "dclm:code")
    assert runs.targets == ("mmlu_bpb",)
    assert runs.run_ids.values.tolist() == ["a1", "b7"]
    assert runs.weights.values.tolist() == [[0.4, 0.6], [0.9, 0.1]]
    assert runs.losses.sel(domain="dclm:web").values.tolist() == [3.4, 3.0]
    assert runs.target_losses.values.tolist() == [[0.9], [0.8]]


def test_runs_in_one_table_only(tmp_path):
    paths = files(tmp_path, m__csv=MIXTURES + "4,1,0,0\n5,1,0,0\n", l__csv=LOSSES)
    with pytest.warns(RunsWarning, match=r"l\.csv: no losses for 2 runs, left out: 4, 5"):
        assert len(regmix(*paths, **SIZES)) == 3
    paths = files(tmp_path, m__csv=MIXTURES, l__csv=LOSSES + "4,3,3\n")
    with pytest.raises(RunsError, match=r"l\.csv: column 'index', row 4: '4' is not in .*m\.csv"):
        regmix(*paths, **SIZES)
    paths = files(tmp_path, r__csv=RATIOS, m__csv=METRICS + "z,c3,3,3\n")
    with pytest.raises(RunsError, match=r"m\.csv: column 'run_id', row 3: 'c3'"):
        olmix(*paths, **SIZES)


def test_repeated_ids(tmp_path):
    paths = files(tmp_path, m__csv=MIXTURES + "3.0,1,0,0\n", l__csv=LOSSES + "1,3,3\n")
    with pytest.raises(RunsError) as caught:
        regmix(*paths, **SIZES)
    assert caught.value.problems == (
        f"{paths[0]}: column 'index', row 4: '3' is in row 1 already",
        f"{paths[1]}: column 'index', row 4: '1' is in row 1 already",
    )


WRONG = {"id": [""], "weight": ["", "-0.1", "1.5", "inf", "x"], "loss": ["0", "-1", "inf", "x"]}


@given(st.data())
@settings(max_examples=60)
def test_any_broken_cell_of_a_pair_is_named(tmp_path_factory, data):
    reader, texts = data.draw(
        st.sampled_from([(regmix, [MIXTURES, LOSSES]), (olmix, [RATIOS, METRICS])])
    )
    which = data.draw(st.integers(0, 1))
    frame = pd.read_csv(io.StringIO(texts[which]), dtype=str)
    column = data.draw(st.sampled_from([name for name in frame if name != "name"]))
    row = data.draw(st.integers(0, len(frame) - 1))
    kind = "id" if column in ("index", "run_id") else ("weight", "loss")[which]
    frame.loc[row, column] = data.draw(st.sampled_from(WRONG[kind]))
    texts = list(texts)
    texts[which] = frame.to_csv(index=False)
    paths = files(tmp_path_factory.mktemp("pair"), a__csv=texts[0], b__csv=texts[1])
    with pytest.raises(RunsError) as caught:
        reader(*paths, **SIZES)
    place = f"{paths[which]}: column {column!r}, row {row + 1}: "
    assert any(problem.startswith(place) for problem in caught.value.problems)


def test_sums_are_checked_where_they_are(tmp_path):
    paths = files(tmp_path, m__csv=MIXTURES.replace("0.6", "0.5"), l__csv=LOSSES)
    with pytest.raises(RunsError) as caught:
        regmix(*paths, **SIZES)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{paths[0]}: columns 'train_the_pile_arxiv' to ")
    assert problem.endswith("row 3: weights sum to 0.9, not 1")


def test_regmix_columns(tmp_path):
    strange = LOSSES.replace("arxiv", "arctic")
    paths = files(tmp_path, m__csv=MIXTURES, l__csv=strange)
    with pytest.raises(RunsError, match=r"'metric/the_pile_arctic_val_loss'.*no such domain"):
        regmix(*paths, **SIZES)
    with pytest.raises(RunsError, match="'train_<domain>' are missing"):
        regmix(paths[1], paths[1], **SIZES)
    with pytest.raises(RunsError, match="_val_loss' are missing"):
        regmix(paths[0], paths[0], **SIZES)
    noted = MIXTURES.replace("\n", ",note\n", 1).replace("0.0\n", "0.0,x\n")
    with pytest.warns(RunsWarning, match=r"m\.csv: ignored unknown columns: 'note'"):
        regmix(*files(tmp_path, m__csv=noted, l__csv=LOSSES), **SIZES)


def test_paper(tmp_path):
    runs = paper(*files(tmp_path, p__csv=PAPER))
    assert runs.domains == ("web", "code")
    assert runs.targets == ("chat",)
    assert runs.run_ids.values.tolist() == ["m00_122M", "m00_122M", "m01_122M", "m00_1300M"]
    assert runs.n_params.values.tolist() == [122e6, 122e6, 122e6, 1.3e9]
    assert runs.n_tokens.values.tolist() == [2e9, 2e10, 2e9, 2e10]
    assert runs.losses.values.tolist() == [[3.0, 2.0], [2.9, 1.9], [2.8, 1.8], [2.7, 1.7]]
    np.testing.assert_array_equal(runs.target_losses.values[:, 0], [2.5, 2.4, np.nan, 2.2])


def test_paper_with_seeds(tmp_path):
    seeds = "\n".join(
        f"{line},{end}"
        for line, end in zip(
            PAPER.splitlines(), ["seed,group", "0,a", "1,b", "0,a", "7,a"], strict=True
        )
    )
    runs = paper(*files(tmp_path, p__csv=seeds))
    names = ["m00_122M_s0", "m00_122M_s1", "m01_122M_s0", "m00_1300M_s7"]
    assert runs.run_ids.values.tolist() == names
    assert runs.frame["seed"].tolist() == [0, 1, 0, 7]
    assert runs.frame["group"].tolist() == ["a", "b", "a", "a"]


def test_paper_with_names_of_runs(tmp_path):
    named = "\n".join(
        f"{line},{name}"
        for line, name in zip(PAPER.splitlines(), ["run_id", "p", "p", "q", "r"], strict=True)
    )
    assert paper(*files(tmp_path, p__csv=named)).run_ids.values.tolist() == ["p", "p", "q", "r"]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("1.3B", "1.3G", "column 'model_size', row 4: '1.3G' is not a number"),
        ("1.3B", "B", "column 'model_size', row 4: 'B' is not a number"),
        ("1.3B", "0M", "column 'model_size', row 4: '0M' is not positive"),
        ("20b", "", "column 'n_tokens', row 4: blank"),
        ("2.7,", "nought,", "column 'web_loss', row 4: 'nought'"),
        ("0.2,0.8", "0.2,0.9", "row 3: weights sum to 1.1"),
        ("model_size", "size", "column 'model_size' is missing"),
    ],
)
def test_paper_refuses(old, new, expected, tmp_path):
    (path,) = files(tmp_path, p__csv=PAPER.replace(old, new))
    with pytest.raises(RunsError) as caught:
        paper(path)
    assert all(problem.startswith(f"{path}: ") for problem in caught.value.problems)
    assert any(expected in problem for problem in caught.value.problems)


def test_mixinglaws(tmp_path):
    (log,) = files(tmp_path, log__txt=LOG)
    runs = mixinglaws(log, domains=["Github", "Pile-CC"])
    assert runs.domains == ("github", "pile_cc")
    assert runs.run_ids.values.tolist() == ["70M_base_9", "70M_base_10", "160M_1"]
    assert runs.n_params.values.tolist() == [18_915_328, 18_915_328, 85_056_000]
    assert runs.n_tokens.values.tolist() == [1_048_576_000, 1_048_576_000, 2_097_152_000]
    assert runs.weights.values.tolist() == [[0.25, 0.75], [0.5, 0.5], [0.25, 0.75]]
    np.testing.assert_array_equal(runs.losses, [[1.6, 3.6], [np.nan, 3.5], [1.2, np.nan]])


def test_mixinglaws_drops_last(tmp_path):
    (log,) = files(tmp_path, log__txt=LOG + log_line("70M_base_9-0.25-0.75", "last", "Github", 1))
    with pytest.warns(RunsWarning, match="dropped 1 lines of checkpoints named 'last'"):
        runs = mixinglaws(log, domains=["github", "pile_cc"])
    assert runs == mixinglaws(*files(tmp_path, log__txt=LOG), domains=["github", "pile_cc"])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (log_line("70M_base_9-0.25-0.75", 1000, "Github", 1.7), "another loss"),
        (log_line("70M_base_9-0.5-0.5", 1000, "Github", 1.6), "other proportions"),
        (log_line("70M_a-0.5-0.6", 1000, "Github", 1.6), "sum to 1.1"),
        (log_line("70M_a-0.5-0.25-0.25", 1000, "Github", 1.6), "3 proportions for 2 domains"),
        (log_line("90M_a-0.5-0.5", 1000, "Github", 1.6), "sizes 70M"),
        (log_line("70M_a-0.5-0.5", 0, "Github", 1.6), "step 0"),
        (log_line("70M_a-0.5-0.5", "new", "Github", 1.6), "does not end in"),
        (log_line("70M_a-0.5-0.5", 1000, "Books3", 1.6), "'books3'"),
        (log_line("70M_a-0.5-0.5", 1000, "Github", "nan"), "'nan' is not a positive"),
        (log_line("70M_a-0.5-0.5", 1000, "Github", -1), "is not a positive number"),
        ("only one field\n", "1 fields"),
    ],
)
def test_mixinglaws_refuses(line, expected, tmp_path):
    (log,) = files(tmp_path, log__txt=LOG + line)
    with pytest.raises(RunsError) as caught:
        mixinglaws(log, domains=["github", "pile_cc"])
    (problem,) = caught.value.problems
    assert problem.startswith(f"{log}: line 6: ")
    assert expected in problem


def test_mixinglaws_domains(tmp_path):
    (log,) = files(tmp_path, log__txt=LOG)
    for domains in (["github"], ["github", "Github"]):
        with pytest.raises(RunsError, match="two or more different"):
            mixinglaws(log, domains=domains)


@pytest.mark.parametrize("name", FORMATS)
def test_absent_empty_and_binary_files(name, tmp_path):
    kind = FORMATS[name]
    stated = {"n_params": 1e9, "n_tokens": 1e9, "domains": ["a", "b"]}
    stated = {key: stated[key] for key in kind.required}
    path = tmp_path / "file.csv"
    for content, expected in ((None, "no such file"), (b"", "empty"), (b"\0\1" * 9, "binary")):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(RunsError, match=expected):
            import_runs(name, [path] * kind.n_files[0], **stated)


def test_import_runs(tmp_path):
    paths = files(tmp_path, m__csv=MIXTURES, l__csv=LOSSES)
    runs = import_runs("regmix", paths, prefix="x", domains=None, **SIZES)
    assert runs == regmix(*paths, prefix="x", **SIZES)
    write_runs(runs, tmp_path / "runs.csv")
    assert read_runs(tmp_path / "runs.csv") == runs
    with pytest.raises(RunsError) as caught:
        import_runs("regmix", paths[:1], n_params=1e9, domains=["a"])
    assert caught.value.problems == (
        "regmix takes MIXTURES.csv LOSSES.csv [EXTRA_LOSSES.jsonl], not 1 files",
        "regmix needs n_tokens",
        "regmix has no use for domains",
    )
    with pytest.raises(RunsError, match="known: regmix, paper, olmix, mixinglaws"):
        import_runs("json", paths)
    with pytest.raises(RunsError, match="n_tokens must be a positive number"):
        import_runs("regmix", paths, n_params=1e9, n_tokens=-1)
