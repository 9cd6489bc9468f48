"""Evaluations: what is fitted and scored, what is kept, what is reported, and on a cluster."""

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import joblib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import standin
from dask.distributed import Client, LocalCluster
from synthetic import fit_of, parameters, swarm

import bayesmix as bm
from bayesmix import _refits
from bayesmix._evaluation import paired_differences
from bayesmix.scores import aggregate

DOMAINS = ("web", "code", "books")
FIRST = ["law", "split", "fold", "mre", "mre_pos", "mae", "crps", "coverage", "width"]
FIRST += ["spearman", "regret", "parameters", "seconds"]
DRAWS = parameters(DOMAINS, ("exam",), spread=0.01)


@pytest.fixture(autouse=True)
def _point_fits(monkeypatch):
    monkeypatch.setitem(sys.modules, "bayesmix.pointfit", standin.module())


@pytest.fixture(scope="module")
def runs():
    """Drawn from the first of the draws that stand for every posterior."""
    return swarm(DOMAINS, ("exam",), truth={name: value[0] for name, value in DRAWS.items()})


def with_bends(draws):
    """The draws with a misfit beyond the data."""
    return {**draws, "bend_scale": np.full(len(draws["b"]), 0.01)}


@pytest.fixture
def sampled(monkeypatch):
    """Calls that reached the sampler, which is replaced by draws around the swarm's truth."""
    calls = []

    def stub(runs, law, **options):
        calls.append((runs, law, options))
        draws = DRAWS if runs.targets else parameters(runs.domains)
        return fit_of(with_bends(draws), runs, law=law)

    monkeypatch.setattr(_refits, "sample", stub)
    return calls


def with_checkpoints(runs):
    """Three rows a run, the last one as it was."""
    frame = runs.frame
    losses = [name for name in frame if name.startswith(("loss_", "target_"))]
    tables = []
    for share in (0.1, 0.5, 1.0):
        table = frame.copy()
        table["n_tokens"] *= share
        table[losses] *= share**-0.05
        tables.append(table)
    return bm.runs_from_frame(pd.concat(tables), weight_resolution=0.0)


def test_scores_are_those_of_predictions_at_the_last_checkpoint(runs, sampled):
    many = with_checkpoints(runs)
    made = bm.evaluate(many, ["transfer"], bm.LargestScale(), seed=3, progressbar=False)
    ((fitted, law, options),) = sampled
    assert law == "transfer"
    assert options == {
        "priors": {},
        "checkpoints": "all",
        "cores": None,
        "progressbar": False,
        "draws": 1000,
        "tune": 1000,
        "chains": 4,
        "seed": 3,
    }
    # late checkpoints of the small runs: the one at a tenth of the tokens is not among them
    assert fitted == many.where("n_params < 1.5e8").checkpoints("late")
    assert len(fitted) == 2 * fitted.n_runs
    held_out = many.where("n_params > 1.5e8").checkpoints("last")
    prediction = fit_of(with_bends(DRAWS), fitted).predict(held_out.frame, seed=3)
    table = prediction.summary().set_index(["run_id", "domain"])
    cells = made.cells.set_index(["run_id", "domain"])
    assert len(cells) == len(table) == 12 * 5
    for ours, theirs in {"predicted": "mean", "lower": "lower", "upper": "upper"}.items():
        np.testing.assert_allclose(cells[ours], table.loc[cells.index, theirs], rtol=1e-12)
    observed = held_out.losses.to_series()
    at_domains = cells[cells["weight"].notna()]
    np.testing.assert_array_equal(np.sort(at_domains["loss"]), np.sort(observed))


def test_one_row_a_law_and_fold(runs, sampled):
    made = bm.evaluate(runs, ["transfer", "mean"], bm.ByMixture(3), progressbar=False)
    assert list(made.scores)[: len(FIRST)] == FIRST
    assert made.scores["law"].tolist() == ["transfer"] * 3 + ["mean"] * 3
    assert made.scores["fold"].tolist() == ["1 of 3", "2 of 3", "3 of 3"] * 2
    assert set(made.scores["split"]) == {"mixture"}
    # every run is held out once
    for _, cells in made.cells[made.cells["domain"] == "mean"].groupby("law"):
        assert sorted(cells["run_id"]) == sorted(runs.run_ids.values)
    first = made.cells[(made.cells["law"] == "transfer") & (made.cells["fold"] == "1 of 3")]
    expected = aggregate(first[first["domain"].isin(DOMAINS)])
    row = made.scores.iloc[0]
    assert row["mre"] == expected["mre"]
    assert row["coverage"] == expected["coverage"]
    # parameters spread by 1% move losses by less; noise is at most 1%, with heavy tails
    assert row["mre"] < 2
    point = made.scores[made.scores["law"] == "mean"]
    assert point["coverage"].isna().all()
    assert (point["crps"] == point["mae"]).all()
    assert (point["parameters"] == 3).all()
    assert (point["seconds"] == 0.25).all()


@pytest.mark.parametrize(
    ("law", "count"),
    [
        ("quantization", lambda k: 3 * k + 1),
        ("regression", lambda k: 5 * k + 1),
        ("transfer", lambda k: k**2 + 4 * k + 1 + 2 * k + 3),
    ],
)
def test_parameters_are_counted_as_the_laws_are_described(law, count, sampled):
    made = bm.evaluate(swarm(DOMAINS), [law], bm.LargestScale(), progressbar=False)
    assert made.scores["parameters"].tolist() == [count(3)]


def test_nothing_held_out_reaches_a_fit(runs, sampled):
    """Held-out losses are doubled: neither what is fitted nor what is predicted changes."""
    split = bm.ByMixture(3)
    frame, held_out = runs.frame, split.folds(runs)[0].held_out.run_ids.values
    losses = [name for name in frame if name.startswith(("loss_", "target_"))]
    frame.loc[frame["run_id"].isin(held_out), losses] *= 2
    other = bm.runs_from_frame(frame, weight_resolution=0.0)
    made = [bm.evaluate(r, ["transfer", "mean"], split, progressbar=False) for r in (runs, other)]
    assert sampled[0][0] == sampled[3][0]
    assert not set(sampled[0][0].run_ids.values) & set(held_out)
    first, second = (m.cells[m.cells["fold"] == "1 of 3"] for m in made)
    columns = ["law", "run_id", "domain", "predicted", "lower", "upper"]
    pd.testing.assert_frame_equal(first[columns], second[columns])
    np.testing.assert_array_equal(first["loss"] * 2, second["loss"])
    # while the folds that are fitted to those runs do change
    rest = [m.cells[(m.cells["fold"] != "1 of 3") & (m.cells["law"] == "mean")] for m in made]
    assert (rest[0]["predicted"].dropna() != rest[1]["predicted"].dropna()).all()


def test_discrepancy_widens_what_is_outside(runs, sampled):
    far = runs.frame.assign(n_params=lambda t: np.where(t["n_params"] > 1.5e8, 1e10, 1e8))
    far = bm.runs_from_frame(far, weight_resolution=0.0)
    wide, narrow = (
        bm.evaluate(far, ["transfer"], bm.LargestScale(), discrepancy=on, progressbar=False)
        for on in (True, False)
    )
    assert wide.scores["width"].item() > 1.5 * narrow.scores["width"].item()


def test_finished_refits_are_not_run_again(runs, sampled, tmp_path):
    folder = tmp_path / "kept" / "here"
    options = {"cache": folder, "progressbar": False}
    laws = ["transfer", "mean"]
    split = bm.ByMixture(2)
    made = bm.evaluate(runs, laws, split, **options)
    assert len(sampled) == 2
    files = sorted(folder.iterdir())
    assert len(files) == 4
    again = bm.evaluate(runs, laws, split, **options)
    assert len(sampled) == 2
    for name in ("cells", "pairs", "refits", "scores"):
        pd.testing.assert_frame_equal(getattr(made, name), getattr(again, name))
    files[0].write_text(files[0].read_text()[:100])
    with pytest.raises(bm.RunsError, match=f"{files[0].name}: a damaged refit"):
        bm.evaluate(runs, laws, split, **options)
    files[0].unlink()
    bm.evaluate(runs, laws, split, **options)
    assert sorted(folder.iterdir()) == files
    before = len(sampled)
    for changed in ({"draws": 7}, {"seed": 1}, {"discrepancy": False}, {"tune": 9}, {"chains": 2}):
        bm.evaluate(runs, ["transfer"], bm.LargestScale(), **options, **changed)
        assert len(sampled) == (before := before + 1)
    # sampler options are none of a point fit's
    n_files = len(list(folder.iterdir()))
    bm.evaluate(runs, ["mean"], split, **options, draws=7)
    assert len(list(folder.iterdir())) == n_files
    # and the other way round
    bm.evaluate(runs, ["transfer"], split, **options, bootstrap=5)
    assert len(list(folder.iterdir())) == n_files


def test_an_interrupted_evaluation_keeps_what_is_done(runs, monkeypatch, tmp_path):
    done = []
    run = _refits.run

    def second_fails(job, cores):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(job)
        return run(job, cores)

    monkeypatch.setattr(_refits, "run", second_fails)
    options = {"cache": tmp_path, "progressbar": False}
    with pytest.raises(KeyboardInterrupt):
        bm.evaluate(runs, ["mean"], bm.ByMixture(4), **options)
    assert len(list(tmp_path.iterdir())) == 2
    done.clear()
    monkeypatch.setattr(_refits, "run", lambda job, cores: done.append(job) or run(job, cores))
    bm.evaluate(runs, ["mean"], bm.ByMixture(4), **options)
    assert len(done) == 2


def test_fits_bring_their_runs_law_and_options(runs, sampled):
    fit = fit_of(parameters(DOMAINS, ("exam",), n_draws=60), runs, law="regression", chains=3)
    fit.priors["floor"] = replaced = bm.Normal(-5.0, 0.5)
    made = bm.compare(
        {"ours": fit, "rival": standin.point_fit(runs, "mean"), "also": "transfer"},
        split=bm.LargestScale(),
        progressbar=False,
    )
    assert made.scores["law"].tolist() == ["ours", "rival", "also"]
    (fitted, law, options), (_, second, plain) = sampled
    assert (law, second) == ("regression", "transfer")
    assert fitted == runs.where("n_params < 1.5e8")
    # only the replaced prior: the defaults follow the scale of what is fitted
    assert options["priors"] == {"floor": replaced}
    assert (options["draws"], options["chains"]) == (20, 3)
    assert plain["priors"] == {}
    assert (plain["draws"], plain["chains"]) == (1000, 4)


def test_a_fit_brings_its_groups(runs, sampled):
    fit = fit_of(parameters(DOMAINS, ("exam",), n_draws=60), runs, chains=3)
    fit = replace(fit, groups=dict.fromkeys(DOMAINS, "text"))
    bm.compare({"grouped": fit, "plain": "transfer"}, split=bm.LargestScale(), progressbar=False)
    (*_, grouped), (*_, plain) = sampled
    assert grouped["groups"] == fit.groups
    assert "groups" not in plain


def test_fits_of_different_runs_are_not_compared(runs):
    fits = {
        "one": standin.point_fit(runs, "mean"),
        "other": standin.point_fit(runs.select(range(12)), "mean"),
    }
    with pytest.raises(ValueError, match="different runs"):
        bm.compare(fits, split=bm.ByMixture(2))
    with pytest.raises(ValueError, match="give runs"):
        bm.compare({"mean": "mean"}, split=bm.ByMixture(2))
    made = bm.compare(fits, runs, split=bm.ByMixture(2), progressbar=False)
    assert len(made.scores) == 4


def test_unknown_laws_and_empty_splits_are_refused_before_any_fit(runs, sampled):
    with pytest.raises(bm.RunsError, match="unknown law 'powerlaw'; valid names: quantization"):
        bm.evaluate(runs, ["transfer", "powerlaw"], bm.LargestScale())
    with pytest.raises(bm.RunsError, match="leaves nothing to fit"):
        bm.evaluate(runs.where("n_params < 1.5e8"), ["transfer"], bm.LargestScale())
    with pytest.raises(ValueError, match="there is no law to evaluate"):
        bm.evaluate(runs, [], bm.LargestScale())
    twice = SimpleNamespace(name="twice", folds=lambda r: 2 * bm.LargestScale().folds(r))
    with pytest.raises(ValueError, match="two folds have one name: 200M, 200M"):
        bm.evaluate(runs, ["transfer"], twice)
    assert not sampled


def test_a_law_may_be_a_string_and_a_seed_a_number_of_numpy(runs, sampled, tmp_path):
    made = bm.evaluate(
        runs, "transfer", bm.LargestScale(), seed=np.int64(3), cache=tmp_path, progressbar=False
    )
    assert made.scores["law"].tolist() == ["transfer"]
    assert sampled[0][2]["seed"] == 3


def test_folds_are_asked_for_once(runs, sampled):
    rng = np.random.default_rng(0)

    def folds(runs):
        size = f"{int(rng.integers(1000))}"
        return tuple(replace(fold, name=size) for fold in bm.LargestScale().folds(runs))

    made = bm.evaluate(
        runs, ["transfer", "mean"], SimpleNamespace(name="random", folds=folds), progressbar=False
    )
    assert made.scores["fold"].nunique() == 1


def test_paired_differences_say_what_is_a_tie(runs, sampled):
    laws = {"ours": "transfer", "same": "transfer", "rival": "mean", "holes": "blank"}
    made = bm.evaluate(runs, laws, bm.ByMixture(3), progressbar=False)
    table = made.differences().set_index(["law", "other", "score"]).sort_index()
    assert len(table) == 6 * 4
    same = table.loc[("ours", "same")]
    assert (same["difference"] == 0).all()
    assert same["tie"].all()
    cells = made.cells[made.cells["weight"].notna()]
    error = abs(cells["predicted"] - cells["loss"]).groupby([cells["law"], cells["run_id"]]).mean()
    gap = error["ours"] - error["rival"]
    row = table.loc[("ours", "rival", "mae")]
    assert row["difference"] == pytest.approx(gap.mean())
    assert row["se"] == pytest.approx(gap.std() / np.sqrt(24))
    assert row["runs"] == 24
    assert not row["tie"]
    # a law that leaves cells blank has no average to be compared
    assert table.loc[("ours", "holes"), "difference"].isna().all()
    assert table.loc[("ours", "holes"), "tie"].all()  # nothing is decided


def test_a_run_without_a_cell_that_counts_is_left_out_of_differences():
    table = pd.DataFrame({"law": list("aaabbb"), "run_id": list("xyzxyz")})
    table[["mre", "mae", "crps"]] = np.arange(18.0).reshape(6, 3)
    table["mre_pos"] = [1.0, 2.0, np.nan, 2.0, 5.0, np.nan]
    found = paired_differences(table).set_index("score")
    assert found.loc["mre_pos", ["difference", "runs"]].tolist() == [-2.0, 2]
    assert found.loc["mre", "runs"] == 3
    one = paired_differences(table[table["run_id"] == "x"]).set_index("score")
    assert one["tie"].all()


def test_coverage_and_domains_are_tables(runs, sampled):
    made = bm.evaluate(runs, ["transfer", "mean"], bm.ByMixture(3), progressbar=False)
    table = made.coverage().set_index(["law", "of", "nominal"]).sort_index()
    assert table.loc[("transfer", "domains", 0.9), "count"] == 24 * 3
    assert table.loc[("transfer", "mean", 0.9), "count"] == 24
    inside = made.cells[(made.cells["law"] == "transfer") & made.cells["weight"].notna()]
    inside = (inside["lower"] <= inside["loss"]) & (inside["loss"] <= inside["upper"])
    assert table.loc[("transfer", "domains", 0.9), "observed"] == inside.mean()
    assert (table.loc["mean", "count"] == 0).all()
    domains = made.by_domain()
    assert domains["domain"].tolist() == [*DOMAINS, "target:exam", "mean"] * 2
    assert set(domains["cells"]) == {24}
    assert domains.loc[domains["domain"] == "target:exam", "mre"].isna().tolist() == [False, True]


def test_scores_as_json_are_finite_or_null(runs, sampled, tmp_path):
    made = bm.evaluate(runs, ["transfer", "mean"], bm.LargestScale(), progressbar=False)
    made.to_json(tmp_path / "scores.json")
    text = (tmp_path / "scores.json").read_text()
    assert "NaN" not in text
    lines = json.loads(text)["scores"]
    assert list(lines[0])[: len(FIRST)] == FIRST
    assert lines[0]["mre"] == made.scores.loc[0, "mre"]
    assert (lines[1]["law"], lines[1]["coverage"], lines[1]["parameters"]) == ("mean", None, 3)
    assert lines[1]["converged"] is True


def test_an_evaluation_shows_one_line_a_law(runs, sampled):
    made = bm.evaluate(runs, ["transfer", "mean"], bm.ByMixture(3), progressbar=False)
    summary = made.summary()
    assert summary["law"].tolist() == ["transfer", "mean"]
    assert summary["seconds"].tolist()[1] == 0.75
    # folds have 8 runs each, so the average over cells is that over folds
    np.testing.assert_allclose(
        summary["mre"], made.scores.groupby("law", sort=False)["mre"].mean(), rtol=1e-12
    )
    assert "Held out by mixture, 3 folds, 24 runs" in repr(made)
    assert made._repr_html_().count("<tr") == 3


def test_calibration_plot_shows_coverage_and_pit(runs, sampled):
    made = bm.evaluate(runs, ["mean", "transfer"], bm.ByMixture(3), progressbar=False)
    covered, histogram = bm.plots.plot_calibration(made, bins=4)
    table = made.coverage().query("law == 'transfer' and of == 'difference'")
    line = covered.get_lines()[3]
    np.testing.assert_array_equal(line.get_xdata(), table["nominal"])
    np.testing.assert_array_equal(line.get_ydata(), table["observed"])
    cells = made.cells[(made.cells["law"] == "transfer") & made.cells["weight"].notna()]
    heights = [patch.get_height() for patch in histogram.patches]
    np.testing.assert_allclose(heights, np.histogram(cells["pit"], 4, (0, 1), density=True)[0])
    assert covered.get_title() == "transfer"
    with pytest.raises(ValueError, match="'mean' has no intervals"):
        bm.plots.plot_calibration(made, law="mean")
    plt.close("all")


def test_a_cluster_takes_the_refits(runs, monkeypatch):
    """The same scores from two worker processes of Dask as from this one."""
    expected = bm.evaluate(runs, ["mean", "blank"], bm.ByMixture(3), progressbar=False)
    monkeypatch.setattr(_refits, "run", None)  # here, so that only workers can
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        client.run(standin.install)
        with joblib.parallel_config(backend="dask"):
            made = bm.evaluate(runs, ["mean", "blank"], bm.ByMixture(3), progressbar=False)
    pd.testing.assert_frame_equal(made.scores, expected.scores)
    pd.testing.assert_frame_equal(made.cells, expected.cells)


def test_a_sampled_law_is_really_refitted():
    """Tiny NUTS: two sizes, three domains, the larger size held out."""
    runs = swarm(DOMAINS, n_runs=16)
    made = bm.evaluate(
        runs,
        ["quantization"],
        bm.LargestScale(),
        draws=50,
        tune=50,
        chains=2,
        progressbar=False,
    )
    row = made.scores.iloc[0]
    assert row["parameters"] == 10
    assert row["mre"] < 15
    assert 0 <= row["coverage"] <= 1
    assert row["r_hat"] >= 1
