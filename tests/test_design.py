"""Designs against quadrature, hand-made posteriors, and what must be refused."""

import dataclasses
import importlib
import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats.qmc import MultivariateNormalQMC
from synthetic import fit_of, parameters, swarm
from test_information import two_states

import bayesmix as bm
from bayesmix.feasible import feasible_set
from bayesmix.model import weight_doubt
from bayesmix.objective import problem
from bayesmix.outlook import candidate_table, outlook, towards_optima, with_runs
from bayesmix.predict import predict_at

module = importlib.import_module("bayesmix.design")
outlook_module = importlib.import_module("bayesmix.outlook")

THREE = ("web", "code", "books")
N, D = 1.5e8, 4e9  # within what `swarm` has, where the law has no discrepancy
S = 400
NOISE = 0.15  # of log losses, at which one run does not settle between two states


def candidates(*weights, n_params=N, n_tokens=D, **others):
    table = pd.DataFrame(np.array(weights), columns=[f"weight_{d}" for d in THREE])
    return table.assign(n_params=n_params, n_tokens=n_tokens, **others)


def states(apart=0.3, noise=NOISE, seed=4):
    """Draws that take one of two values, two of each in turn, and a swarm."""
    two = parameters(THREE, n_draws=2, spread=apart, seed=seed)
    which = np.arange(S) // 2 % 2
    draws = {name: value[which] for name, value in two.items()}
    draws["sigma"], draws["dof"] = np.full((S, 3), noise), np.full(S, 1e9)
    return draws, swarm(THREE)


@pytest.fixture(scope="module")
def two():
    draws, runs = states()
    return fit_of(draws, runs), draws, runs


@pytest.fixture(scope="module")
def fit():
    draws = parameters(THREE, n_draws=600, spread=0.1)
    return fit_of(draws, swarm(THREE))


def quiet(*arguments, **options):
    return bm.design(*arguments, progressbar=False, **options)


def separation(fit, table):
    """How far apart the two states' log losses are for each candidate, in standard deviations."""
    weights = table[[f"weight_{d}" for d in THREE]].to_numpy()
    expected = predict_at(fit, weights, table).draws["expected"].sel(domain=list(THREE)).values
    gaps = np.log(expected[2]) - np.log(expected[0])
    return np.sqrt(((gaps / NOISE) ** 2).sum(axis=1))


def decided(fit, made):
    """The objective of the design's choices in both states, (2, M)."""
    expected = predict_at(
        fit,
        made.choices.values,
        pd.DataFrame({"n_params": np.full(made.choices.shape[0], N), "n_tokens": D}),
    )
    return expected.draws["expected"].sel(domain="mean").values[[0, 2]]


def test_values_of_a_posterior_of_two_states(two):
    fit, *_ = two
    table = candidates((0.2, 0.3, 0.5), (0.5, 0.3, 0.2), (0.1, 0.1, 0.8), n_params=[1e8, N, 2e8])
    made = quiet(fit, table, N, D, batch=1)
    objective = decided(fit, made)
    truth = [two_states(objective, gap) for gap in separation(fit, made.table)]
    assert min(truth) > 1e-5
    assert max(truth) > 1.1 * min(truth)
    # the noise of 400 simulated outcomes, the same for all
    np.testing.assert_allclose(made.table["value"], truth, rtol=0.15)
    assert made.table["value"].argmax() == np.argmax(truth)
    best = objective.mean(axis=0).argmin()
    assert best == 0
    assert made.regret == pytest.approx(
        objective[:, 0].mean() - objective.min(axis=1).mean(), rel=1e-6
    )


def test_equal_runs_are_worth_what_repeats_tell(two):
    fit, *_ = two
    h = (0.2, 0.3, 0.5)
    made = quiet(fit, candidates(h, h, h), N, D, batch=3)
    objective, apart = decided(fit, made), separation(fit, made.table)[0]
    # half of the noise repeats: n runs tell as much as 2 n / (n + 1)
    truth = [two_states(objective, apart * np.sqrt(2 * n / (n + 1))) for n in (1, 2, 3)]
    np.testing.assert_allclose(made.batch["value"], truth, rtol=0.15)
    np.testing.assert_allclose(made.table["value"], made.table["value"].iloc[0])


def test_a_run_that_the_swarm_has_tells_less(two):
    fit, draws, runs = two
    row = runs.frame.iloc[[3]]
    made = quiet(fit, row, N, D, batch=1)
    n_params = float(row["n_params"].iloc[0])
    look = outlook(fit, candidate_table(THREE, row), N, D, {"web": 1.0})
    assert look.before.tolist() == [1]
    # the second of two: of 4/3 in all it adds 1/3
    np.testing.assert_allclose(look.outcomes([0])[1], 3 * NOISE**2 * np.eye(3), rtol=1e-6)
    other = row.assign(n_params=1.01 * n_params)
    assert outlook(fit, candidate_table(THREE, other), N, D, {"web": 1.0}).before.tolist() == [0]
    assert quiet(fit, other, N, D, batch=1).table["value"][0] > made.table["value"][0]
    # how much repeats is learned where the swarm repeats
    learned = fit_of(draws | {"phi": np.full(S, 0.9)}, runs)
    share = outlook(learned, candidate_table(THREE, row), N, D, {"web": 1.0}).outcomes([0])[1]
    np.testing.assert_allclose(share, 19 * NOISE**2 * np.eye(3), rtol=1e-6)


def test_noise_is_that_of_the_model():
    draws = parameters(THREE, n_draws=S)
    rng = np.random.default_rng(0)
    draws["common"] = rng.uniform(0.002, 0.004, (S, 3))
    draws["sigma_unseen"] = rng.uniform(0.01, 0.02, (S, 3))
    draws["outlier_scale"] = rng.uniform(0.02, 0.1, S)
    runs = swarm(THREE, unobserved=("books",))
    fit = fit_of(draws, runs)
    table = candidate_table(THREE, candidates((0.5, 0.5, 0.0), (0.0, 0.5, 0.5)))
    look = outlook(fit, table, N, D, {"web": 1.0}, draws=S)
    losses, noise = look.outcomes([0, 1])
    assert losses.shape == (S, 4)  # books are not evaluated
    own = draws["sigma"][:, :2] ** 2
    common = np.sqrt((draws["common"][:, :2] ** 2).mean(axis=0))
    # weight 0 is in doubt; a t error tells of its centre as a normal of larger variance
    unseen = own + np.array([1.0, 0.0]) * draws["sigma_unseen"][:, :2] ** 2
    seen_dof, unseen_dof = (draws[name][:, None] for name in ("dof", "dof_unseen"))
    for block, variance, dof in (
        (noise[:2, :2], own, np.hstack([seen_dof, seen_dof])),
        (noise[2:, 2:], unseen, np.hstack([unseen_dof, seen_dof])),
    ):
        # a run that may be an outlier tells less
        told = 1 + 2 * draws["outlier_scale"][:, None]
        each = np.diag((variance * (dof + 3) / (dof + 1) * told).mean(axis=0))
        np.testing.assert_allclose(block, each + np.outer(common, common), rtol=1e-10)
    np.testing.assert_array_equal(noise[:2, 2:], 0)
    # what is simulated has that centre, and these scales
    rng = np.random.default_rng(1)
    simulated = np.stack([look.simulated(7, [0], rng)[0] for _ in range(4000)])
    assert np.isnan(simulated[:, 2]).all()
    error = np.log(simulated[:, :2]) - look.log_losses[7, 0, :2]
    sd = np.sqrt(
        draws["sigma"][7, :2] ** 2
        * draws["dof"][7]
        / (draws["dof"][7] - 2)
        / (1 - 2 * draws["outlier_scale"][7])
        + draws["common"][7, :2] ** 2
    )
    np.testing.assert_allclose(error.std(axis=0), sd, rtol=0.08)
    np.testing.assert_allclose(error.mean(axis=0), 0, atol=4 * sd.max() / np.sqrt(4000))


def test_candidates_that_repeat_each_other_share_their_misfit():
    draws = {**parameters(THREE, n_draws=S), "phi": np.full(S, 0.8)}
    draws["dof"] = np.full(S, 9.0)
    runs = swarm(THREE)
    frame = runs.frame
    again = frame.assign(run_id=frame["run_id"] + "b")
    both = bm.runs_from_frame(pd.concat([frame, again]), weight_resolution=0.0)
    fit = fit_of(draws, both)
    new = (0.11, 0.22, 0.67)
    look = outlook(fit, candidate_table(THREE, candidates(new, new)), N, D, {"web": 1.0}, draws=S)
    assert look.misfit_share == pytest.approx(0.8)
    rng = np.random.default_rng(1)
    drawn = np.log([look.simulated(3, [0, 1], rng) for _ in range(4000)])
    error = drawn - look.log_losses[3, :2]
    for i in range(3):
        # of 4,000 pairs with heavy tails: measured to 0.01
        assert np.corrcoef(error[:, :, i].T)[0, 1] == pytest.approx(0.8, abs=0.02)


def test_losses_are_predictions_and_share_the_targets_misfit():
    draws = parameters(THREE, n_draws=S) | {"bend_scale": np.full(S, 0.05)}
    fit = fit_of(draws, swarm(THREE))
    table = candidate_table(THREE, candidates((0.2, 0.3, 0.5), n_params=8e9, n_tokens=2e11))
    objective = dict.fromkeys(THREE, 1.0)
    look = outlook(fit, table, 8e9, 2e11, objective, draws=S)
    # a candidate at the target's own N and D: what is off there is off here
    mixture = table[[f"weight_{d}" for d in THREE]].to_numpy()
    there = look.problem.values(mixture)[:, 0]
    np.testing.assert_allclose(np.exp(look.log_losses[:, 0]).sum(axis=1), there, rtol=1e-10)
    alone = fit.predict(table, discrepancy=False).draws["expected"].sel(domain=list(THREE))
    misfit = look.log_losses[:, 0] - np.log(alone.values[:, 0])
    assert misfit.std() > 0.05


def test_candidates_of_a_swarm_with_printed_weights_are_predicted_as_it_is_read():
    draws = parameters(THREE, n_draws=S)
    rng = np.random.default_rng(2)
    draws["zero_shift"] = rng.normal(0.1, 0.05, (S, 3))
    draws["sigma_weight"], draws["sigma_unseen"] = rng.uniform(0.1, 0.2, (2, S, 3))
    printed = bm.runs_from_frame(swarm(THREE).frame, weight_resolution=0.01)
    fit = fit_of(draws, printed)
    table = candidate_table(THREE, candidates((0.5, 0.5, 0.0), (0.2, 0.3, 0.5)))
    look = outlook(fit, table, N, D, {"web": 1.0}, draws=S)
    expected = fit.predict(table, discrepancy=False).draws["expected"].sel(domain=list(THREE))
    np.testing.assert_allclose(np.exp(look.log_losses), expected, rtol=1e-12)
    # of which the model would be as much in doubt
    more = with_runs(printed, table, np.full((2, 3), 3.0))
    doubt = weight_doubt(more.weights.values[-2:], more.weight_resolution, 3)
    np.testing.assert_array_equal(look.doubt, doubt)
    assert (look.outcomes([1])[1].diagonal() > 1.001 * (draws["sigma"] ** 2).mean(axis=0)).all()
    # the mixtures among which is chosen are exact
    exact = fit_of(draws, swarm(THREE))
    mixture = np.array([[0.5, 0.5, 0.0]])
    other = outlook(exact, table, N, D, {"web": 1.0}, draws=S)
    np.testing.assert_array_equal(look.problem.values(mixture), other.problem.values(mixture))


def test_choices_that_break_a_constraint_are_dropped(fit, monkeypatch):
    allowed = feasible_set([bm.Bounds({"web": (0.5, 0.6)})], THREE, D)
    found = outlook_module.draw_optima

    def strays(*given):
        optima = found(*given)
        return optima._replace(points=optima.points + np.array([5e-8, 0.0, 0.0]))

    monkeypatch.setattr(outlook_module, "draw_optima", strays)
    of = problem(fit, N, D, dict.fromkeys(THREE, 1.0)).thinned(100)
    choices, regret = towards_optima(fit, of, allowed, np.random.default_rng(0))
    assert (allowed.violation(choices) <= 1e-8).all()
    assert len(choices) >= 25  # the present best, and an eighth of the way to 24 optima
    assert of.values(choices).mean(axis=0).argmin() == 0
    assert regret >= 0


def test_a_batch_is_bought_by_what_it_adds_per_flop(fit):
    spread = MultivariateNormalQMC(np.zeros(3), seed=1).random(8)
    weights = np.exp(spread) / np.exp(spread).sum(axis=1, keepdims=True)
    table = candidates(*weights, run_id=[f"c{i}" for i in range(8)])
    made = quiet(fit, table, 2e9, 4e10, batch=3)
    np.testing.assert_allclose(made.table["flops"], 6 * N * D)
    per = made.table["value"] / made.table["flops"] * 1e18
    np.testing.assert_allclose(made.table["value_per_flop"], per)
    first = int(made.batch["candidate"][0])
    assert first == made.table["value"].argmax()
    assert made.batch["value"][0] == made.table["value"][first]
    assert (
        made.table["bought"].dropna().sort_values().index.tolist()
        == made.batch["candidate"].tolist()
    )
    assert made.batch["run_id"].tolist() == [f"c{i}" for i in made.batch["candidate"]]
    # more runs are worth more together, and less than to know all
    assert (np.diff(made.batch["value"]) > 0).all()
    assert made.batch["value"].iloc[-1] < made.regret
    # a dear run is not bought first, nor is its value another's
    dear = table.assign(flops=np.where(np.arange(8) == first, 1e25, 1e18))
    again = quiet(fit, dear, 2e9, 4e10, batch=1)
    assert again.batch["candidate"][0] != first
    np.testing.assert_allclose(again.table["value"], made.table["value"])
    np.testing.assert_allclose(again.table["flops"], dear["flops"])
    # a design may be made of another's table
    assert list(quiet(fit, again.table, 2e9, 4e10, batch=1).table) == list(again.table)


def test_choices_meet_the_constraints(fit):
    limits = [bm.Bounds({"web": (0.5, 0.6)}), bm.KL(dict.fromkeys(THREE, 1 / 3), 0.2)]
    made = quiet(fit, candidates((0.2, 0.3, 0.5)), N, D, constraints=limits, draws=200)
    choices = made.choices.values
    assert (choices[:, 0] >= 0.5 - 1e-8).all()
    divergence = (choices * np.log(np.maximum(3 * choices, 1e-300))).sum(axis=1)
    assert (divergence <= 0.2 + 1e-8).all()
    rec = bm.recommend(fit, N, D, constraints=limits)
    np.testing.assert_allclose(choices[0], rec.weights, atol=2e-3)  # of other draws
    worst = quiet(fit, candidates((0.2, 0.3, 0.5)), N, D, objective=bm.Worst(), draws=200)
    assert worst.worst
    assert not np.allclose(worst.choices[0], made.choices[0], atol=0.01)


def test_choices_that_are_given(two):
    fit, *_ = two
    pool = candidates((0.1, 0.1, 0.8), (0.8, 0.1, 0.1), (0.3, 0.4, 0.3)).iloc[:, :3]
    made = quiet(fit, candidates((0.2, 0.3, 0.5)), N, D, choices=pool)
    assert sorted(map(tuple, made.choices.values)) == sorted(map(tuple, pool.to_numpy()))
    objective = decided(fit, made)
    assert objective.mean(axis=0).argmin() == 0
    known = objective[:, 0].mean() - objective.min(axis=1).mean()
    assert made.regret == pytest.approx(known, rel=1e-6)
    limits = [bm.Bounds({"web": (0.5, 1.0)})]
    some = quiet(fit, candidates((0.2, 0.3, 0.5)), N, D, choices=pool, constraints=limits)
    np.testing.assert_allclose(some.choices, [[0.8, 0.1, 0.1]])
    assert some.batch.empty
    limits = [bm.Bounds({"web": (0.9, 1.0)})]
    with pytest.raises(ValueError, match="none of the choices"):
        quiet(fit, candidates((0.2, 0.3, 0.5)), N, D, choices=pool, constraints=limits)


def test_what_is_not_finite_is_not_seen():
    # without transfer a domain at weight 0 has no finite loss
    draws = parameters(THREE, n_draws=S)
    fit = fit_of(draws, swarm(THREE), law="regression")
    table = candidates((0.0, 0.4, 0.6), (0.3, 0.3, 0.4))
    made = quiet(fit, table, N, D)
    assert np.isfinite(made.table["value"]).all()
    assert (made.choices > 0).all()


def test_what_is_printed_and_written(fit, tmp_path):
    made = quiet(fit, candidates((0.2, 0.3, 0.5), (0.6, 0.2, 0.2)), 2e9, 4e10, batch=2)
    made.to_json(tmp_path / "design.json")
    read = json.loads((tmp_path / "design.json").read_text())
    assert read["stopping"] == made.stopping
    assert read["batch"][0]["value"] == made.batch["value"][0]
    assert [row["bought"] for row in read["candidates"]] == made.table["bought"].tolist()
    assert sum(read["present"].values()) == pytest.approx(1)
    saved, cost = made.batch["value"].iloc[-1], 2 * 6 * N * D
    assert made.stopping.startswith("Another 2 runs at 150M are expected to save ")
    assert f" {saved:.2g} nats" in made.stopping
    assert f"for {cost:.2g} FLOPs" in made.stopping
    for shown in (repr(made), made._repr_html_()):
        assert made.stopping in shown
        assert "e-folds above the largest" in shown
    sizes = quiet(fit, candidates((0.2, 0.3, 0.5), (0.6, 0.2, 0.2), n_params=[1e8, N]), 2e9, 4e10)
    assert "(1 at 100M, 1 at 150M)" in sizes.stopping
    nothing = quiet(
        fit_of(parameters(THREE, n_draws=S, spread=0), swarm(THREE)),
        candidates((0.2, 0.3, 0.5)),
        N,
        D,
    )
    assert nothing.batch.empty
    assert "None of these runs" in nothing.stopping
    nothing.to_json(tmp_path / "design.json")
    assert json.loads((tmp_path / "design.json").read_text())["candidates"][0]["bought"] is None


def test_weights_that_fail_are_said():
    draws = parameters(THREE, n_draws=S, spread=0.3) | {"sigma": np.full((S, 3), 1e-5)}
    made = quiet(fit_of(draws, swarm(THREE)), candidates((0.2, 0.3, 0.5)), N, D)
    assert not made.table["trusted"].any()
    said = "The weights of 1 of 1 candidates and of the batch from run 1 on fail"
    assert sum(said in warning for warning in made.warnings) == 1


def test_refits_find_the_value(two):
    fit, draws, runs = two
    made = quiet(fit, candidates((0.2, 0.3, 0.5), (0.5, 0.3, 0.2)), N, D, batch=2)
    seen = []

    def refit(swarm):
        """The posterior of the two states, which is that of the likelihoods, without sampling."""
        new = swarm.frame.iloc[len(runs.frame) :]
        seen.append(new)
        expected = fit.predict(new, discrepancy=False).draws["expected"].sel(domain=list(THREE))
        error = np.log(new[[f"loss_{d}" for d in THREE]].to_numpy()) - np.log(
            expected.values[[0, 2]]
        )
        log_odds = -0.5 * (error[1] ** 2 - error[0] ** 2).sum() / NOISE**2
        first = round(S / (1 + np.exp(log_odds)))
        which = np.where(np.arange(S) < first, 0, 2)
        return fit_of({name: value[which] for name, value in draws.items()}, runs)

    found = bm.refit_value(made, fit, outcomes=40, refit=refit, seed=3)
    assert len(found.gains) == len(seen) == 40
    # after the 24 of the swarm
    assert seen[0]["run_id"].tolist() == ["simulated 25", "simulated 26"]
    bought = made.table.loc[made.batch["candidate"], [f"weight_{d}" for d in THREE]]
    np.testing.assert_allclose(seen[0][[f"weight_{d}" for d in THREE]], bought)
    apart = np.sqrt((separation(fit, made.table) ** 2).sum())
    truth = two_states(decided(fit, made), apart)
    assert found.value == pytest.approx(truth, abs=3 * found.standard_error)
    assert 0 < found.standard_error < 0.3 * truth
    one = bm.refit_value(made, fit, [1], outcomes=2, refit=refit)
    assert len(seen[-1]) == 1
    assert one.gains.shape == (2,)
    with pytest.raises(ValueError, match="2 outcomes and 1 run"):
        bm.refit_value(made, fit, [], refit=refit)


def test_the_refit_is_of_the_same_law_and_priors(two, monkeypatch):
    fit, _, runs = two
    calls = []
    monkeypatch.setattr(module, "sample", lambda *a, **o: calls.append((a, o)) or fit)
    made = quiet(fit, candidates((0.2, 0.3, 0.5)), N, D)
    assert bm.refit_value(made, fit, [0], outcomes=2).value == 0
    (added, law), options = calls[0]
    assert law == fit.law
    assert added.n_runs == runs.n_runs + 1
    # the defaults are those of what is fitted
    assert options["priors"] == {}
    assert options["groups"] == fit.groups == {}
    assert options["checkpoints"] == "all"
    replaced = {"g": bm.Normal(0.0, 2.0)}
    own = dataclasses.replace(fit, priors={**fit.priors, **replaced})
    bm.refit_value(made, own, [0], outcomes=2)
    assert calls[-1][1]["priors"] == replaced


def test_a_cost_that_is_not_given_is_six_n_d():
    table = candidates((0.2, 0.3, 0.5), (0.6, 0.2, 0.2))
    # a table read from CSV holds text
    for flops in ([np.nan, 1e15], ["", "1e15"], [" ", " 1e15 "], [None, 10**15], ["NA", "1E15"]):
        given = table.assign(flops=pd.Series(flops))
        assert candidate_table(THREE, given)["flops"].tolist() == [6 * N * D, 1e15]


def test_runs_that_are_added(two):
    _, _, runs = two
    table = candidate_table(THREE, candidates((0.2, 0.3, 0.5)))
    more = with_runs(runs, table, np.array([[2.0, np.nan, 3.0]]))
    assert more.n_runs == runs.n_runs + 1
    last = more.frame.iloc[-1]
    assert (last["loss_web"], last["loss_books"]) == (2.0, 3.0)
    assert np.isnan(last["loss_code"])
    assert more.weight_resolution == runs.weight_resolution
    # and again, under other names
    assert with_runs(more, table, np.array([[2.0, 1.0, 3.0]])).n_runs == runs.n_runs + 2


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda t: t.iloc[:0], {}, "there is no candidate"),
        (lambda t: t.drop(columns="n_params"), {}, "n_params is neither given nor a column"),
        (lambda t: t.drop(columns="weight_web"), {}, "the mixtures' domains are books, code"),
        (lambda t: t.assign(flops=[1e18, 0]), {}, "candidate 2: flops must be positive"),
        (lambda t: t.assign(flops=["much", 1]), {}, "candidate 1: flops must be positive"),
        (lambda t: t.assign(flops=[np.nan, -1]), {}, "candidate 2: flops must be positive"),
        (lambda t: t.assign(weight_web=0.9), {}, "weights must be non-negative and sum to 1"),
        (lambda t: t, {"batch": 0}, "batch must be 1 or more"),
        (lambda t: t, {"draws": 50}, "takes 100 draws or more, got 50"),
        (lambda t: t, {"objective": {"poems": 1.0}}, "unknown name 'poems'"),
    ],
)
def test_designs_that_are_refused(fit, change, options, message):
    table = candidates((0.2, 0.3, 0.5), (0.6, 0.2, 0.2))
    with pytest.raises(ValueError, match=message):
        quiet(fit, change(table), N, D, **options)
    with pytest.raises(ValueError, match="n_params must be positive"):
        quiet(fit, table, 0.0, D)


def test_a_bar_shows_when_it_takes_long(fit, monkeypatch, capsys):
    table = candidates((0.2, 0.3, 0.5), (0.6, 0.2, 0.2))
    bm.design(fit, table, N, D, batch=2, draws=100)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(module, "_PATIENCE", 0.0)
    bm.design(fit, table, N, D, batch=2, draws=100)
    assert "values" in capsys.readouterr().err
    quiet(fit, table, N, D, batch=2, draws=100)
    assert capsys.readouterr().err == ""
