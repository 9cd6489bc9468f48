"""The data contract: what is accepted, what is mended, and what is refused, naming the place."""

import io
import pickle

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings

from bayesmix._files import atomic_path
from bayesmix.runs import (
    RunsError,
    RunsWarning,
    floor_weights,
    read_mixtures,
    read_runs,
    runs_from_frame,
    write_runs,
)

SWARM = """\
run_id,n_params,n_tokens,weight_web,weight_code,weight_books,loss_web,loss_code,target_chat,seed
a,1e8,2e9,0.5,0.25,0.25,3.1,2.1,2.9,1
a,1e8,4e9,0.5,0.25,0.25,3.0,2.0,,1
b,4e8,4e9,0.2,0.8,0,2.9,,2.7,2
"""


def cells(text=SWARM):
    return pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)


def changed(column, row, value):
    """The swarm with one cell replaced (`row` counted from 1)."""
    frame = cells()
    frame.loc[row - 1, column] = value
    return frame.to_csv(index=False)


def written(path, content):
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        path.write_text(content)
    return path


def without(*columns):
    return cells().drop(columns=list(columns)).to_csv(index=False)


# each breaks SWARM in one way: what the message must name, beside the file
BROKEN = {
    "weights that do not sum": (changed("weight_web", 3, "0.3"), ["'weight_web'", "row 3", "1.1"]),
    "negative weight": (changed("weight_code", 2, "-0.25"), ["'weight_code'", "row 2", "-0.25"]),
    "weight above 1": (changed("weight_code", 3, "1.8"), ["'weight_code'", "row 3", "1.8"]),
    "blank weight": (changed("weight_books", 3, ""), ["'weight_books'", "row 3", "blank"]),
    "blank size": (changed("n_params", 1, ""), ["'n_params'", "row 1", "blank"]),
    "zero size": (changed("n_params", 3, "0"), ["'n_params'", "row 3", "'0'"]),
    "negative size": (changed("n_params", 3, "-4e8"), ["'n_params'", "row 3", "'-4e8'"]),
    "blank tokens": (changed("n_tokens", 2, " "), ["'n_tokens'", "row 2", "blank"]),
    "zero tokens": (changed("n_tokens", 2, "0.0"), ["'n_tokens'", "row 2", "'0.0'"]),
    "text": (changed("loss_web", 2, "three"), ["'loss_web'", "row 2", "'three'"]),
    "thousands": (changed("n_params", 3, "400_000_000"), ["'n_params'", "row 3", "'400_000_000'"]),
    "infinite loss": (changed("loss_code", 1, "inf"), ["'loss_code'", "row 1", "infinite"]),
    "infinite tokens": (changed("n_tokens", 1, "1e999"), ["'n_tokens'", "row 1", "infinite"]),
    "zero loss": (changed("loss_web", 3, "0"), ["'loss_web'", "row 3", "not positive"]),
    "negative loss": (changed("target_chat", 3, "-2"), ["'target_chat'", "row 3", "'-2'"]),
    "blank run": (changed("run_id", 2, ""), ["'run_id'", "row 2", "blank"]),
    "fractional seed": (changed("seed", 2, "1.5"), ["'seed'", "row 2", "'1.5'"]),
    "two sizes in a run": (changed("n_params", 2, "2e8"), ["'n_params'", "row 2", "row 1", "'a'"]),
    "two mixtures in a run": (
        changed("run_id", 3, "a").replace("4e8", "1e8"),
        ["'weight_web'", "row 3", "row 1", "'a'"],
    ),
    "mixtures a little apart": (
        changed("weight_web", 2, "0.501"),
        ["'weight_web'", "row 2", "row 1", "'a'"],
    ),
    "no run_id": (without("run_id"), ["'run_id' is missing"]),
    "no n_params": (without("n_params"), ["'n_params' is missing"]),
    "no n_tokens": (without("n_tokens"), ["'n_tokens' is missing"]),
    "no weights": (
        without("weight_web", "weight_code", "weight_books", "loss_web", "loss_code"),
        ["'weight_<domain>' are missing"],
    ),
    "loss without weight": (
        SWARM.replace("loss_code", "loss_cod"),
        ["'loss_cod'", "'weight_cod'"],
    ),
    "one domain": (
        "run_id,n_params,n_tokens,weight_web,loss_web\na,1e8,2e9,1,3\n",
        ["'weight_web' is the only weight"],
    ),
    "no losses": (without("loss_web", "loss_code", "target_chat"), ["'loss_<domain>'", "missing"]),
    "blank losses": (
        without("loss_code", "target_chat").replace(",3.1,", ",,").replace(",3.0,", ",,")
        .replace(",2.9,", ",,"),
        ["every loss is blank"],
    ),
    "unnamed domain": (SWARM.replace("weight_books", "weight_"), ["'weight_'"]),
    "reserved name": (SWARM.replace("weight_books", "weight_mean"), ["'weight_mean'"]),
    "repeated column": (SWARM.replace("loss_code", "loss_web"), ["'loss_web' appears 2 times"]),
    "no rows": (SWARM.splitlines()[0] + "\n", ["no rows"]),
    "long row": (SWARM + "c,1,2,3,4,5,6,7,8,9,10,11\n", ["line 5"]),
    "open quote": (SWARM + '"c,1e8', ["cannot be read as CSV"]),
    "empty file": ("", ["empty"]),
    "blank file": ("\n \n", ["empty"]),
    "binary file": (b"\x00\x01\x02" * 50, ["binary"]),
    "latin text": ("run_id,n_params\ncaf\u00e9,1\n".encode("latin-1"), ["line 2 has byte 0xe9"]),
    "absent file": (None, ["no such file"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_table_is_one_error_that_names_the_place(kind, tmp_path):
    content, expected = BROKEN[kind]
    path = written(tmp_path / "swarm.csv", content)
    with pytest.raises(RunsError) as caught:
        read_runs(path)
    assert all(problem.startswith(f"{path}: ") for problem in caught.value.problems)
    hits = [p for p in caught.value.problems if all(part in p for part in expected)]
    assert hits, str(caught.value)


@pytest.mark.parametrize("kind", BROKEN)
def test_mended_it_is_accepted(kind, tmp_path):
    path = written(tmp_path / "swarm.csv", BROKEN[kind][0])
    with pytest.raises(RunsError):
        read_runs(path)
    path.write_text(SWARM)
    assert len(read_runs(path)) == 3


def test_a_cell_is_reported_once_and_alone(tmp_path):
    path = written(tmp_path / "swarm.csv", changed("weight_code", 2, "-0.25"))
    with pytest.raises(RunsError) as caught:
        read_runs(path)
    # the sum of row 2 is wrong too, for no other reason
    assert caught.value.problems == (f"{path}: column 'weight_code', row 2: '-0.25' is negative",)


def test_a_directory_and_torn_parquet(tmp_path):
    with pytest.raises(RunsError, match="a directory"):
        read_runs(tmp_path)
    write_runs(runs_from_frame(cells()), tmp_path / "swarm.parquet")
    whole = (tmp_path / "swarm.parquet").read_bytes()
    with pytest.raises(RunsError, match=r"torn\.parquet: cannot be read as Parquet"):
        read_runs(written(tmp_path / "torn.parquet", whole[:-20]))
    with pytest.raises(RunsError, match=r"named\.csv: a binary file"):
        read_runs(written(tmp_path / "named.csv", whole))
    with pytest.raises(RunsError, match=r"empty\.parquet: the file is empty"):
        read_runs(written(tmp_path / "empty.parquet", b""))


def test_every_problem_at_once_and_long_lists_cut():
    frame = pd.concat([cells()] * 10, ignore_index=True)
    frame["loss_web"] = "x"
    frame.loc[4, "n_tokens"] = ""
    with pytest.raises(RunsError) as caught:
        runs_from_frame(frame.drop(columns="run_id"), source="swarm")
    problems = caught.value.problems
    assert "swarm: column 'run_id' is missing" in problems
    assert "swarm: column 'n_tokens', row 5: blank" in problems
    assert sum("loss_web" in problem for problem in problems) == 10
    assert "swarm: 20 more cells that are not numbers" in problems
    assert str(caught.value) == "\n".join(problems)
    assert pickle.loads(pickle.dumps(caught.value)).problems == problems


def test_arrays():
    runs = runs_from_frame(cells())
    assert runs.domains == ("web", "code", "books")
    assert runs.targets == ("chat",)
    assert (len(runs), runs.n_runs) == (3, 2)
    assert runs.run_ids.values.tolist() == ["a", "a", "b"]
    assert runs.n_params.values.tolist() == [1e8, 1e8, 4e8]
    assert runs.weights.sel(domain="code").values.tolist() == [0.25, 0.25, 0.8]
    assert runs.losses.dims == ("row", "domain")
    np.testing.assert_array_equal(
        runs.losses, [[3.1, 2.1, np.nan], [3.0, 2.0, np.nan], [2.9, np.nan, np.nan]]
    )
    np.testing.assert_array_equal(runs.target_losses, [[2.9], [np.nan], [2.7]])
    assert runs.target_losses.coords["target"].values.tolist() == ["chat"]
    assert runs.losses.coords["row"].values.tolist() == [0, 1, 2]
    assert runs.losses.coords["run_id"].dims == ("row",)
    assert runs.frame["seed"].tolist() == [1, 1, 2]
    bare = runs_from_frame(cells().drop(columns="target_chat"))
    assert bare.target_losses.sizes == {"row": 3, "target": 0}


def test_columns_come_in_the_order_of_the_contract():
    shuffled = cells()[sorted(cells().columns)]
    assert list(runs_from_frame(shuffled).frame) == [
        *("run_id", "n_params", "n_tokens", "weight_books", "weight_code", "weight_web"),
        *("loss_code", "loss_web", "target_chat", "seed"),
    ]


def test_immutable():
    runs = runs_from_frame(cells())
    before = runs.hash
    for array in (runs.weights, runs.losses, runs.target_losses, runs.n_params, runs.run_ids):
        with pytest.raises(ValueError, match="read-only"):
            array.values[...] = 1
    frame = runs.frame
    frame.loc[0, "n_params"] = 7
    with pytest.raises(AttributeError):
        runs.domains = ("x",)
    with pytest.raises((AttributeError, TypeError)):
        runs.extra = 1
    assert runs.hash == before


def test_the_frame_given_is_not_changed():
    frame = cells()
    frame.loc[2, "weight_code"] = "0.801"
    before = frame.copy()
    with pytest.warns(RunsWarning, match="1 of 3 rows"):
        runs = runs_from_frame(frame)
    pd.testing.assert_frame_equal(frame, before)
    np.testing.assert_allclose(runs.weights.values[2], np.array([0.2, 0.801, 0]) / 1.001, 1e-15)


def test_weights_off_by_rounding_are_renormalised_silently():
    frame = cells()
    frame.loc[2, "weight_code"] = "0.8000005"
    runs = runs_from_frame(frame)
    np.testing.assert_allclose(runs.weights.sum("domain"), 1, rtol=1e-15)


@pytest.mark.parametrize(("total", "accepted"), [(0.995, True), (1.005, True), (1.0051, False)])
def test_tolerance_of_sums(total, accepted):
    frame = cells()
    frame.loc[2, "weight_code"] = str(total - 0.2)
    if accepted:
        with pytest.warns(RunsWarning, match="renormalised"):
            runs_from_frame(frame)
    else:
        with pytest.raises(RunsError, match=r"row 3: weights sum to 1\.0051"):
            runs_from_frame(frame)


def test_unknown_columns_are_ignored_with_a_warning():
    with pytest.warns(RunsWarning, match="ignored unknown columns: 'note'"):
        runs = runs_from_frame(cells().assign(note="x"))
    assert runs == runs_from_frame(cells())


def test_duplicates_are_dropped_and_counted():
    frame = runs_from_frame(cells()).frame
    again = frame.assign(n_tokens=frame["n_tokens"] * 1.0019)
    apart = frame.iloc[:1].assign(n_tokens=frame["n_tokens"][0] * 0.9979)
    other = frame.iloc[2:].assign(run_id="c")
    with pytest.warns(RunsWarning, match="dropped 5 duplicate rows"):
        # two exact, three again under more tokens; 0.21% fewer tokens or another run are none
        runs = runs_from_frame(pd.concat([frame, frame.iloc[:2], again, apart, other]))
    assert sorted(zip(runs.run_ids.values.tolist(), runs.n_tokens.values, strict=True)) == sorted(
        [
            ("a", 2e9 * 0.9979),
            ("a", 2e9 * 1.0019),
            ("a", 4e9 * 1.0019),
            ("b", 4e9 * 1.0019),
            ("c", 4e9),
        ]
    )


def test_of_exact_duplicates_the_first_stays():
    frame = runs_from_frame(cells()).frame
    with pytest.warns(RunsWarning, match="dropped 2 duplicate rows"):
        runs = runs_from_frame(pd.concat([frame, frame.iloc[[2, 0]]]))
    assert runs == runs_from_frame(frame)


def test_a_checkpoint_near_another_with_other_losses_stays():
    frame = runs_from_frame(cells()).frame
    near = frame.iloc[:1].assign(n_tokens=2.001e9, loss_web=3.0999)
    assert len(runs_from_frame(pd.concat([frame, near]))) == 4


def test_a_checkpoint_with_two_sets_of_losses_is_said():
    frame = runs_from_frame(cells()).frame
    other = frame.iloc[:1].assign(loss_web=3.0999)
    with pytest.warns(RunsWarning, match="several rows of one run, n_tokens and seed.*: 'a'"):
        assert len(runs_from_frame(pd.concat([frame, other]))) == 4


def test_seeds_under_one_run_id_are_runs_of_their_own():
    """As checkpoints of one run, `last` would keep the seed with the most tokens."""
    frame = runs_from_frame(cells()).frame.iloc[[1, 1, 1, 2]]
    frame = frame.assign(seed=[0, 1, 2, 5], n_tokens=[2e9, 2.001e9, 2e9, 4e9])
    frame["loss_web"] *= [1.0, 1.01, 0.99, 1.0]
    one, other = frame["run_id"].iloc[[0, 3]]
    with pytest.warns(RunsWarning, match=f"one run_id with several seeds .* '{one}'"):
        runs = runs_from_frame(frame)
    assert runs.run_ids.values.tolist() == [f"{one}_s{seed}" for seed in range(3)] + [other]
    assert len(runs.checkpoints("last")) == 4
    assert runs_from_frame(runs.frame) == runs
    with pytest.raises(RunsError, match=f"run '{one}_s1' is there beside a run of that name"):
        runs_from_frame(frame.replace({"run_id": {other: f"{one}_s1"}}))
    frame.loc[frame["seed"] == 1, ["weight_web", "weight_code"]] = [0.35, 0.65]
    with pytest.raises(RunsError, match=f"of the same run '{one}'"):
        runs_from_frame(frame)


def test_rounding_does_not_part_the_checkpoints_of_a_run():
    frame = runs_from_frame(cells()).frame
    frame.loc[1, ["weight_web", "weight_code"]] += [2e-9, -2e-9]
    runs = runs_from_frame(frame)
    assert (runs.weights.values[0] == runs.weights.values[1]).all()
    assert (runs.weights.values[0] != runs.weights.values[2]).any()


@pytest.mark.parametrize("dtype", ["float32", "Float32"])
def test_single_precision_is_read_as_it_was_printed(dtype):
    """Widened, 0.333 is no number of three decimals, and its zeros are none that were printed."""
    printed = np.array([[0.333, 0.668, 0.0], [0.214, 0.417, 0.368], [0.25, 0.35, 0.4]])
    frame = pd.DataFrame(printed, columns=["weight_a", "weight_b", "weight_c"])
    frame = frame.assign(run_id=list("xyz"), n_params=1e8, n_tokens=2e9, loss_a=[3.1, 3.2, 3.3])
    numbers = frame.columns.drop("run_id")
    with pytest.warns(RunsWarning, match="renormalised"):
        double = runs_from_frame(frame)
    with pytest.warns(RunsWarning, match="renormalised"):
        single = runs_from_frame(frame.astype(dict.fromkeys(numbers, dtype)))
    assert single == double
    assert single.weight_resolution == 0.0005


def test_hash_and_equality():
    runs = runs_from_frame(cells())
    assert runs == runs_from_frame(cells()[sorted(cells().columns)])
    assert hash(runs) == hash(runs_from_frame(runs.frame, source="elsewhere"))
    assert runs == pickle.loads(pickle.dumps(runs))
    assert runs != runs_from_frame(cells(), weight_resolution=0.001)
    assert runs != "swarm"
    for column, value in {"loss_web": "3.2", "run_id": "z", "loss_code": "", "seed": ""}.items():
        frame = cells()
        frame.loc[0, column] = value
        assert runs != runs_from_frame(frame), column
    assert runs != runs_from_frame(cells().rename(columns={"loss_code": "loss_books"}))
    assert runs != runs.select([1, 0, 2])
    assert len(runs.hash) == 64


def test_floor_weights():
    floored = floor_weights(np.array([[0.6, 0.4, 0.0, 0.0], [0.25] * 4]), 0.001)
    np.testing.assert_allclose(floored[0], np.array([0.6, 0.4, 0.0005, 0.0005]) / 1.001, 1e-15)
    np.testing.assert_array_equal(floored[1], [0.25] * 4)
    runs = runs_from_frame(cells(), weight_resolution=0.001)
    np.testing.assert_array_equal(
        runs.effective_weights().values, floor_weights(runs.weights.values, 0.001)
    )
    exact = runs_from_frame(cells())
    np.testing.assert_array_equal(exact.effective_weights().values, exact.weights.values)


def swarm_of(weights):
    weights = np.asarray(weights)
    columns = {f"weight_{i}": column for i, column in enumerate(weights.T)}
    return pd.DataFrame(
        {"run_id": [f"r{i}" for i in range(len(weights))], "n_params": 1e8, "n_tokens": 1e9}
        | columns
        | {"loss_0": 3.0}
    )


def printed_weights(decimals):
    printed = np.random.default_rng(decimals).dirichlet(np.full(8, 0.2), size=40).round(decimals)
    off = np.abs(printed.sum(axis=1) - 1)
    assert (printed == 0).any()
    assert (off > 10**-decimals / 2).mean() > 0.1
    return printed[off < 1.01 * 10**-decimals]


@pytest.mark.parametrize(("decimals", "resolution"), [(2, 0.005), (3, 0.0005), (4, 0.00005)])
def test_resolution_is_seen_in_printed_weights(decimals, resolution):
    printed = printed_weights(decimals)
    runs = runs_from_frame(swarm_of(printed / printed.sum(axis=1, keepdims=True)))
    assert runs.weight_resolution == pytest.approx(resolution, rel=1e-15)


def test_resolution_is_seen_before_renormalising():
    with pytest.warns(RunsWarning, match="renormalised"):
        assert runs_from_frame(swarm_of(printed_weights(3))).weight_resolution == 0.0005


@pytest.mark.parametrize(("rounded", "resolution"), [(18, 0), (22, 0.0005)])
def test_a_tenth_of_the_mixtures_must_show_rounding(rounded, resolution):
    weights = np.random.default_rng(0).multinomial(1000, np.full(5, 0.2), size=200) / 1000
    weights[0] = [0, 0.1, 0.2, 0.3, 0.4]
    weights[1 : 1 + rounded, 0] += 0.001
    weights = np.concatenate([weights, np.repeat(weights[1:2], 50, axis=0)])  # counts once
    weights /= weights.sum(axis=1, keepdims=True)
    assert runs_from_frame(swarm_of(weights)).weight_resolution == resolution


@pytest.mark.parametrize(
    "weights",
    [
        np.random.default_rng(0).dirichlet(np.full(6, 0.1), size=30),  # no zeros
        np.random.default_rng(0).dirichlet(np.ones(6), 30) * (np.arange(6) < 5),  # exact zeros
        np.random.default_rng(0).multinomial(8, np.full(5, 0.2), size=30) / 8,  # a coarse grid
        np.random.default_rng(0).multinomial(100, np.full(9, 1 / 9), size=30) / 100,
        np.random.default_rng(0).multinomial(3, np.full(4, 0.25), size=30) / 3,  # thirds
        np.random.default_rng(0).multinomial(7, np.full(4, 0.25), size=30) / 7,
        np.eye(5),
    ],
)
def test_zeros_are_exact_where_nothing_was_rounded(weights):
    weights = weights / weights.sum(axis=1, keepdims=True)
    assert runs_from_frame(swarm_of(weights)).weight_resolution == 0


def test_resolution_stated_wins_and_is_kept_by_selections():
    runs = runs_from_frame(cells(), weight_resolution=0.002)
    assert runs.weight_resolution == 0.002
    assert runs.where("run_id == 'a'").weight_resolution == 0.002
    assert runs.select([0]).weight_resolution == 0.002
    assert runs.checkpoints("last").weight_resolution == 0.002
    for wrong in (-0.001, 0.2, float("nan")):
        with pytest.raises(RunsError, match="weight_resolution"):
            runs_from_frame(cells(), weight_resolution=wrong)


def test_where():
    runs = runs_from_frame(cells())
    assert runs.where("n_params < 2e8 and n_tokens > 3e9").n_tokens.values.tolist() == [4e9]
    assert runs.where("run_id == 'b'").run_ids.values.tolist() == ["b"]
    assert runs.where("loss_code > 0").losses.coords["row"].values.tolist() == [0, 1]
    assert len(runs.where("seed == 1")) == 2


@pytest.mark.parametrize(
    ("expr", "reason"),
    [
        ("n_params <", "is invalid"),
        ("", "is invalid"),
        ("nothing > 1", "nothing"),
        ("n_params", "not true or false"),
        ("1 < 2", "not true or false"),
        ("n_params = 3", "not true or false"),
        ("run_id > 3", "is invalid"),
        ("n_params < 1", "leaves no rows"),
        ("n_params < @limit", "@ references"),
        ("n_params < limit", "limit"),
    ],
)
def test_where_refuses(expr, reason):
    limit = 1e9  # noqa: F841 (what @limit would find)
    with pytest.raises(RunsError, match=reason) as caught:
        runs_from_frame(cells(), source="swarm.csv").where(expr)
    assert str(caught.value).startswith("swarm.csv: condition")


def test_select():
    runs = runs_from_frame(cells())
    assert runs.select([2, 0]).run_ids.values.tolist() == ["b", "a"]
    assert runs.select(runs.n_params > 2e8).run_ids.values.tolist() == ["b"]
    assert runs.select(np.array([True, False, True])).losses.coords["row"].values.tolist() == [0, 1]
    for none in ([], [False] * 3):
        with pytest.raises(RunsError, match="no rows left"):
            runs.select(none)
    with pytest.raises(IndexError):
        runs.select([True, False])
    with pytest.raises(IndexError):
        runs.select([3])


def learning_curve(tokens):
    loss = 3 - 0.01 * np.arange(len(tokens))
    return pd.DataFrame(
        {"run_id": "a", "n_params": 1e8, "n_tokens": tokens, "weight_x": 0.5, "weight_y": 0.5}
    ).assign(loss_x=loss)


def test_late_checkpoints():
    runs = runs_from_frame(learning_curve(np.arange(1, 33) * 1e9))
    # from 8B to 32B, a factor of 4 in three equal steps: 8, 12.7, 20.2, 32
    assert runs.checkpoints("late").n_tokens.values.tolist() == [8e9, 13e9, 20e9, 32e9]
    assert runs.checkpoints("last").n_tokens.values.tolist() == [32e9]
    assert runs.checkpoints("all") == runs
    with pytest.raises(ValueError, match="late, last or all"):
        runs.checkpoints("first")


def test_checkpoints_without_losses_are_not_chosen():
    frame = learning_curve(np.arange(1, 33) * 1e9)
    frame.loc[frame["n_tokens"] > 28e9, "loss_x"] = np.nan
    runs = runs_from_frame(frame)
    assert runs.checkpoints("last").n_tokens.values.tolist() == [28e9]
    # from 7B to 28B
    assert runs.checkpoints("late").n_tokens.values.tolist() == [7e9, 11e9, 18e9, 28e9]
    assert runs.checkpoints("all") == runs
    for leave in (lambda: runs.where("n_tokens > 3e10"), lambda: runs.select([30, 31])):
        with pytest.raises(RunsError, match="no losses left"):
            leave()


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=60, unique=True), st.randoms())
def test_late_checkpoints_of_any_run(tokens, random):
    frame = learning_curve(np.array(tokens, dtype=float))
    other = learning_curve(np.array([5.0, 50.0])).assign(run_id="b")
    frame = pd.concat([frame, other]).iloc[random.sample(range(len(tokens) + 2), len(tokens) + 2)]
    late = runs_from_frame(frame).checkpoints("late").where("run_id == 'a'")
    kept = late.n_tokens.values
    assert len(kept) <= 4
    assert max(kept) == max(tokens)
    assert min(kept) >= max(tokens) / 4


@st.composite
def swarms(draw):
    domains = draw(st.integers(2, 5))
    runs = draw(st.integers(1, 4))
    rows = []
    for run in range(runs):
        parts = draw(st.lists(st.integers(0, 50), min_size=domains, max_size=domains))
        parts[0] += 1
        size = draw(st.floats(1e3, 1e12))
        for step in range(draw(st.integers(1, 3))):
            row = {"run_id": f"run {run}", "n_params": size, "n_tokens": 1.5**step * 1e9 / 3}
            row |= {f"weight_d{i}": part / sum(parts) for i, part in enumerate(parts)}
            loss = st.one_of(st.none(), st.floats(1e-3, 20))
            row |= {f"loss_d{i}": draw(loss) for i in range(domains - 1)}
            rows.append(row | {"target_t": draw(st.floats(1e-3, 20))})
    return pd.DataFrame(rows).convert_dtypes(dtype_backend="numpy_nullable")


@settings(max_examples=40)
@given(swarms())
def test_round_trip(tmp_path_factory, frame):
    runs = runs_from_frame(frame)
    for suffix in (".csv", ".parquet", ".pq"):
        path = tmp_path_factory.mktemp("round") / f"swarm{suffix}"
        write_runs(runs, path)
        again = read_runs(path)
        assert again == runs
        pd.testing.assert_frame_equal(again.frame, runs.frame, check_exact=True)
        assert [file.name for file in path.parent.iterdir()] == [path.name]


WRONG = {
    "run_id": [""],
    "n_params": ["", "0", "-1", "inf", "x", "1e8 "[:2] + "x"],
    "n_tokens": ["", "0", "-3e9", "-inf", "2e9 tokens"],
    "weight_": ["", "-0.01", "1.2", "inf", "half"],
    "loss_": ["0", "-1", "inf", "--", "3,1"],
    "target_": ["0", "-1", "inf", "#REF!"],
}


@given(swarms(), st.data())
def test_any_broken_cell_is_named(tmp_path_factory, frame, data):
    broken = frame.astype(object).where(frame.notna(), "").astype(str)
    column = data.draw(st.sampled_from(list(broken)))
    row = data.draw(st.integers(0, len(broken) - 1))
    prefix = next(key for key in WRONG if column.startswith(key))
    broken.loc[row, column] = data.draw(st.sampled_from(WRONG[prefix]))
    path = tmp_path_factory.mktemp("broken") / "swarm.csv"
    broken.to_csv(path, index=False)
    with pytest.raises(RunsError) as caught:
        read_runs(path)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{path}: column {column!r}, row {row + 1}: ")


def test_write_runs_refuses_other_suffixes(tmp_path):
    with pytest.raises(RunsError, match=r"swarm\.txt"):
        write_runs(runs_from_frame(cells()), tmp_path / "swarm.txt")
    assert not list(tmp_path.iterdir())


def test_parquet_with_a_named_index(tmp_path):
    frame = runs_from_frame(cells()).frame
    frame.set_index("run_id").to_parquet(tmp_path / "swarm.parquet")
    assert read_runs(tmp_path / "swarm.parquet") == runs_from_frame(frame)
    frame.set_index(["run_id", "n_tokens"], drop=False).to_parquet(tmp_path / "both.parquet")
    assert read_runs(tmp_path / "both.parquet") == runs_from_frame(frame)
    mixed = frame.set_index("run_id", drop=False).set_index("seed", append=True)
    mixed.to_parquet(tmp_path / "mixed.parquet")
    assert read_runs(tmp_path / "mixed.parquet") == runs_from_frame(frame)


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + SWARM,  # a byte-order mark
        SWARM.replace("\n", "\r\n"),
        SWARM.replace(",", " , "),
        SWARM.replace("a,1e8,2e9", '"a","100000000","2e9"') + "\n\n",
        SWARM.replace(",,", ",NaN,"),
        SWARM.replace("0.25,3.1", "0.25000000000000006,3.1").replace("0.8,0,", "0.8,-1e-17,"),
    ],
)
def test_the_same_swarm_in_other_spellings(text, tmp_path):
    path = tmp_path / "swarm.csv"
    path.write_bytes(text.encode())
    read, plain = read_runs(path), runs_from_frame(cells())
    np.testing.assert_allclose(read.weights.values, plain.weights.values, rtol=1e-15)
    np.testing.assert_array_equal(read.losses.values, plain.losses.values)
    assert read.frame["run_id"].tolist() == ["a", "a", "b"]
    assert read.weights.values.min() == 0


def test_an_index_column_is_ignored(tmp_path):
    cells().to_csv(tmp_path / "swarm.csv")
    with pytest.warns(RunsWarning, match="ignored unknown columns: ''"):
        assert read_runs(tmp_path / "swarm.csv") == runs_from_frame(cells())


def test_read_mixtures(tmp_path):
    path = tmp_path / "mixtures.csv"
    path.write_text(
        "weight_code,run_id,note,weight_web,n_params\n0.25,x,hello,0.75,7e9\n1,y,,0,1\n"
    )
    frame = read_mixtures(path, ["web", "code"])
    assert list(frame) == ["weight_web", "weight_code", "run_id", "note", "n_params"]
    assert frame["weight_web"].tolist() == [0.75, 0.0]
    assert frame["note"].tolist() == ["hello", ""]
    assert frame["n_params"].tolist() == [7e9, 1.0]
    path.write_text("weight_code,weight_web\n0.252,0.75\n")
    with pytest.warns(RunsWarning, match="1 of 1 rows"):
        assert read_mixtures(path, ["web", "code"]).sum(axis=1).tolist() == [1.0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("weight_web\n1\n", "column 'weight_code' is missing"),
        ("weight_web,weight_code,weight_art\n0.5,0.4,0.1\n", "'weight_art'"),
        ("weight_web,weight_code\n0.5,0.4\n", "row 1: weights sum to 0.9"),
        ("weight_web,weight_code,n_tokens\n0.5,0.5,0\n", "column 'n_tokens', row 1: '0'"),
        ("weight_web,weight_code\n0.5,\n", "column 'weight_code', row 1: blank"),
        ("weight_web,weight_code\n", "no rows"),
        ("", "empty"),
    ],
)
def test_read_mixtures_refuses(text, expected, tmp_path):
    path = written(tmp_path / "mixtures.csv", text)
    with pytest.raises(RunsError) as caught:
        read_mixtures(path, ["web", "code"])
    assert any(expected in problem for problem in caught.value.problems)
    assert all(problem.startswith(str(path)) for problem in caught.value.problems)


def test_mixtures_may_have_any_other_columns(tmp_path):
    path = written(tmp_path / "mixtures.csv", "self,weight_web,weight_code\na,0.5,0.5\n")
    assert read_mixtures(path, ["web", "code"])["self"].tolist() == ["a"]


def test_repr():
    runs = runs_from_frame(cells(), weight_resolution=0.0005)
    assert repr(runs) == (
        "Runs: 2 runs, 3 rows, 3 domains and 1 target; 100M to 400M parameters; 2B to 4B tokens; "
        "weights below 0.0005 printed as 0"
    )
    assert "<table" in runs._repr_html_()


def test_warnings_point_at_the_caller():
    with pytest.warns(RunsWarning) as caught:
        runs_from_frame(cells().assign(note="x"))
    assert caught[0].filename == __file__


def test_atomic_path(tmp_path):
    target = tmp_path / "out.nc"
    target.write_text("old")

    def fail():
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            assert temporary.suffix == ".nc"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert target.read_text() == "old"
    with atomic_path(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]
