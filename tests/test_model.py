"""The model: anchoring, likelihood, priors; each against an independent statement."""

import numpy as np
import pandas as pd
import pymc as pm
import pytensor.tensor as pt
import pytest
import xarray as xr
from scipy import stats

import bayesmix as bm
from bayesmix import law as laws
from bayesmix import model as models
from bayesmix.compiling import code_key
from bayesmix.discrepancy import scales
from bayesmix.draws import law_draws
from bayesmix.priors import (
    EXPONENT_MAX,
    Gamma,
    LogNormal,
    Normal,
    Prior,
    default_priors,
    replace_priors,
)
from bayesmix.transfer import centring, transfer_pairs

DOMAINS, TARGETS = ("code", "web", "books"), ("exam",)
# a few draws cost less than compiling the graph well
QUICK = "FAST_COMPILE"


def _runs(
    n_runs: int = 8,
    checkpoints: int = 1,
    zeros: bool = False,
    seed: int = 0,
    domains: tuple[str, ...] = DOMAINS,
) -> bm.Runs:
    rng = np.random.default_rng(seed)
    rows = []
    for run in range(n_runs):
        h = rng.dirichlet(np.ones(len(domains)))
        if zeros and run == 0:
            h = np.array([0.0, 0.4, 0.6])
        for k in range(checkpoints):
            losses = rng.uniform(2.0, 3.0, len(domains) + 1)
            rows.append(
                {
                    "run_id": f"r{run}",
                    "n_params": [1e8, 3e8][run % 2],
                    "n_tokens": 1e9 * (1 + k),
                    **{f"weight_{d}": w for d, w in zip(domains, h, strict=True)},
                    **{f"loss_{d}": v for d, v in zip(domains, losses, strict=False)},
                    "target_exam": losses[-1],
                }
            )
    return bm.runs_from_frame(pd.DataFrame(rows))


def _of_one(kind: str) -> bm.Runs:
    """A swarm of one N, of one D, of one of both, or of several."""
    runs = _runs(checkpoints=1 if kind in ("D", "both") else 2)
    return runs.where("n_params < 2e8") if kind in ("N", "both") else runs


@pytest.fixture(scope="module", params=["several", "N", "D", "both"])
def transfer(request: pytest.FixtureRequest) -> tuple[bm.Runs, dict[str, np.ndarray]]:
    """A swarm and 20 draws of its prior."""
    runs = _of_one(request.param)
    model = models.build_model(runs)
    names = models.kept_variables(model)
    values = pm.draw([model[name] for name in names], draws=20, random_seed=1, mode=QUICK)
    drawn = dict(zip(names, values, strict=True))
    return runs, {"fade": np.ones(20), **drawn}  # of one D it is not sampled


def test_at_the_reference_the_law_gives_the_levels_and_shares(transfer) -> None:
    runs, draws = transfer
    ref = models.reference(runs)
    at = laws.points(ref.weights[None], np.array([ref.n_params]), np.array([ref.n_tokens]))
    for k in range(20):
        draw = {name: values[k] for name, values in draws.items()}
        parameters = [
            float(draw[n]) if n in ("g", "q", "log_H", "fade") else draw[n] for n in laws.PARAMETERS
        ]
        loss, log_x, capacity, _, noise = laws.forward(*parameters, *at.arrays, True, True)
        np.testing.assert_allclose(loss[0], draw["level"], rtol=1e-12)
        level = draw["level"]
        np.testing.assert_allclose(draw["E"], level * draw["share_irreducible"], rtol=1e-12)
        np.testing.assert_allclose(capacity[:, 0], level[:3] * draw["share_capacity"], rtol=1e-10)
        np.testing.assert_allclose(noise[:, 0], level * draw["share_noise"], rtol=1e-10)
        head_n = np.exp(draw["log_G"] - draw["g"] * np.log(ref.n_params))
        np.testing.assert_allclose(head_n, level * draw["share_head_n"], rtol=1e-10)
        assert np.exp(log_x[:, 0]).sum() == pytest.approx(
            ref.n_params + 2 * np.exp(draw["log_H"]), rel=1e-12
        )


@pytest.mark.parametrize(("kind", "untold"), [("D", "d"), ("N", "n"), ("both", "nd")])
def test_no_run_tells_a_head_that_is_the_same_in_all_from_the_irreducible(kind, untold) -> None:
    """The likelihood is flat there: split otherwise it had two modes, of like mass."""
    model = models.build_model(_of_one(kind))
    likelihood = model.replace_rvs_by_values([model["log_likelihood"]])[0]
    heads = {f"head_{x}_{part}" for x in untold for part in ("mean", "spread_log__", "z")}
    heads |= {{"n": "g_logit", "d": "q_logit"}[x] for x in untold}
    others = {"level_offset", "own_total_log", "capacity_curvature_logit"}
    values = [value for value in model.value_vars if value.name in heads | others]
    assert {value.name for value in values} == heads | others
    gradient = pt.grad(likelihood, values)
    slopes = model.compile_fn(
        gradient, inputs=model.value_vars, mode=QUICK, on_unused_input="ignore"
    )
    start = {n: v + 0.3 * np.ones_like(v) for n, v in model.initial_point(0).items()}
    steepest = {
        value.name: np.abs(slope).max() for value, slope in zip(values, slopes(start), strict=True)
    }
    assert max(steepest[name] for name in heads) < 1e-11  # measured: 8e-13
    assert min(steepest[name] for name in others) > 0.1  # 0.16


def test_token_counts_that_hardly_differ_are_one() -> None:
    """Heads are sampled against their mean then, as where nothing tells them."""
    frame = _runs().frame
    model = models.build_model(
        bm.runs_from_frame(
            frame.assign(n_tokens=frame["n_tokens"] * np.linspace(1.0, 1.015, len(frame)))
        )
    )
    assert "head_d_z" in model
    assert "head_n_logit" in model
    assert "fade" not in model


@pytest.mark.parametrize("kind", ["several", "both"])
@pytest.mark.parametrize("law", ["quantization", "regression"])
def test_without_a_head_its_part_is_irreducible(kind: str, law: str) -> None:
    """Whatever varies, the centres of the priors are those of one N and D."""
    runs = _of_one(kind)
    ref = models.reference(runs)
    want = default_priors(ref.n_params, ref.n_tokens, one_size=True, one_horizon=True)
    assert models.swarm_priors(runs, law) == want


def test_the_power_of_tokens_is_sampled_where_they_differ() -> None:
    """One D does not show it, and the laws as published have none."""
    many = _runs(checkpoints=2)
    assert "fade" in models.build_model(many)
    for law in ("regression", "quantization"):
        assert "fade" not in models.build_model(many, law)
    assert "fade" not in models.build_model(_runs())


def test_everything_is_positive_and_exponents_are_bounded(transfer) -> None:
    _, draws = transfer
    for name in ("E", "a", "b", "g", "q", "fade", "tau", "level", "sigma"):
        assert (draws[name] > 0).all(), name
    for name in ("a", "b", "g", "q"):
        assert (draws[name] < EXPONENT_MAX).all(), name
    tau = draws["tau"]
    np.testing.assert_array_equal(tau[:, range(3), range(3)], 1.0)
    np.testing.assert_allclose(tau[:, 3].sum(axis=1), 1.0, atol=1e-12)
    assert (tau <= 1).all()


def _log_likelihood(runs: bm.Runs, law: str, seed: int) -> tuple[float, dict[str, np.ndarray]]:
    """The model's log density of `_log_errors` at one draw of the prior, and the draw."""
    model = models.build_model(runs, law)
    kept = [*models.kept_variables(model), "run_z", "outlier_z"]
    values = pm.draw(
        [*(model[n] for n in kept), model["log_likelihood"]], random_seed=seed, mode=QUICK
    )
    draw = dict(zip(kept, values[:-1], strict=True))
    # of the errors as they are, not of those divided by how much wider they are
    widening = models.usable_cells(runs, laws.LAWS[law]).sum(axis=1) @ _wider(runs, draw)
    return float(values[-1]) + widening, draw


def _wider(runs: bm.Runs, draw: dict[str, np.ndarray]) -> np.ndarray:
    """Log of how much wider the errors of each row are than a regular run's."""
    run = np.unique(runs.run_ids.values, return_inverse=True)[1]
    return (draw["outlier_scale"] * draw["outlier_z"])[run]


def _fitted(runs: bm.Runs, law: str, draw: dict[str, np.ndarray]) -> np.ndarray:
    posterior = xr.Dataset(
        {
            n: (
                ("chain", "draw", *_DIMS.get(n, [f"{n}_{i}" for i in range(v.ndim)])),
                v[None, None],
            )
            for n, v in ((n, np.asarray(v)) for n, v in draw.items())
        }
    )
    one = {name: values[0] for name, values in law_draws(posterior).items()}
    at = laws.points(runs.effective_weights().values, runs.n_params.values, runs.n_tokens.values)
    return laws.evaluate(one, at, laws.LAWS[law])


def _log_errors(runs: bm.Runs, law: str, draw: dict[str, np.ndarray]) -> np.ndarray:
    """Log losses less the law's, the cells' offsets and the effect of each run, as if regular."""
    error = np.log(np.column_stack([runs.losses.values, runs.target_losses.values]))
    error -= np.log(_fitted(runs, law, draw)) + draw["offset"][scales(runs).row_cell]
    n_domains = len(runs.domains)
    shift = draw.get("zero_shift", np.zeros(error.shape[1]))[:n_domains]
    error[:, :n_domains] -= shift * (runs.weights.values == 0)
    _, first, run = np.unique(runs.run_ids.values, return_index=True, return_inverse=True)
    # effects of runs are what a regression on scale and mixture leaves
    mixture, log_n = runs.weights.values[first], np.log(runs.n_params.values[first])
    regressors = np.column_stack([mixture, log_n - log_n.mean()])
    slopes = np.linalg.lstsq(regressors, draw["run_z"])[0]
    error -= draw["common"] * (draw["run_z"] - regressors @ slopes)[run, None]
    return error * np.exp(-_wider(runs, draw))[:, None]


_DIMS = {"E": ["component"], "b": ["domain"], "tau": ["component", "source"]}


@pytest.mark.parametrize("law", ["transfer", "regression", "quantization"])
def test_one_checkpoint_is_an_independent_t(law: str) -> None:
    runs = _runs(zeros=True)
    got, draw = _log_likelihood(runs, law, seed=3)
    error = _log_errors(runs, law, draw)
    unseen = np.column_stack([runs.weights.values == 0, np.zeros(len(runs), bool)])
    want = 0.0
    for row in range(len(runs)):
        for i in range(4):
            if law == "regression" and unseen[row, i]:
                continue
            scale = np.hypot(draw["sigma"][i], draw["sigma_unseen"][i] * unseen[row, i])
            dof = draw["dof_unseen" if unseen[row, i] else "dof"]
            want += stats.t.logpdf(error[row, i], dof, scale=scale)
    assert got == pytest.approx(want, rel=1e-10)


def test_printed_weights_have_a_scale_of_their_own() -> None:
    """A weight printed to a resolution errs; a domain left out has another scale than that."""
    frame = _runs(zeros=True).frame
    runs = bm.runs_from_frame(frame, weight_resolution=0.01)
    got, draw = _log_likelihood(runs, "transfer", seed=3)
    weights = np.column_stack([runs.weights.values, np.ones(len(runs))])
    doubt = models.weight_doubt(weights[:, :3], 0.01, 4)
    seen = weights > 0
    scale = np.where(seen, draw["sigma_weight"] * doubt, draw["sigma_unseen"])
    scale = np.hypot(draw["sigma"], scale)
    dof = np.where(seen, draw["dof"], draw["dof_unseen"])
    error = _log_errors(runs, "transfer", draw)
    assert got == pytest.approx(stats.t.logpdf(error, dof, scale=scale).sum(), rel=1e-10)
    # exact weights say nothing about such a scale
    assert "sigma_weight" not in models.build_model(_runs(zeros=True)).named_vars


def test_only_printed_zeros_are_shifted() -> None:
    with_zeros = bm.runs_from_frame(_runs(zeros=True).frame, weight_resolution=0.01)
    assert models.build_model(with_zeros)["zero_shift"].eval().shape == (4,)
    # exact zeros are the law's own
    assert "zero_shift" not in models.build_model(_runs(zeros=True)).named_vars


def test_levels_at_printed_zeros_are_centred_on_the_laws_mean_loss_there() -> None:
    # the run without its first domain, at two token counts
    runs = _runs(checkpoints=2, zeros=True)
    runs = bm.runs_from_frame(runs.frame, weight_resolution=0.01)
    model = models.build_model(runs, priors={"zero_spread": LogNormal(-30.0, 1e-3)})
    kept = [*models.kept_variables(model), "zero_offset"]
    draw = dict(
        zip(kept, pm.draw([model[n] for n in kept], random_seed=3, mode=QUICK), strict=True)
    )
    zeros = np.column_stack([runs.weights.values == 0, np.zeros(len(runs), bool)])
    assert zeros.sum(axis=0).tolist() == [2, 0, 0, 0]
    fitted = _fitted(runs, "transfer", draw)
    # where nothing is printed as 0 the level is of no use, and 1 in the middle
    means = [fitted[z, i].mean() if z.any() else 1.0 for i, z in enumerate(zeros.T)]
    np.testing.assert_allclose(np.exp(draw["zero_offset"]), means, rtol=1e-10)


def test_checkpoints_of_a_run_are_a_correlated_multivariate_t() -> None:
    runs = _runs(checkpoints=3)
    got, draw = _log_likelihood(runs, "transfer", seed=5)
    error = _log_errors(runs, "transfer", draw)
    rho = float(draw["rho"])
    shape = (1 - rho) * np.eye(3) + rho
    want = 0.0
    for run in np.unique(runs.run_ids.values):
        rows = runs.run_ids.values == run
        for i in range(4):
            want += stats.multivariate_t.logpdf(
                error[rows, i], shape=draw["sigma"][i] ** 2 * shape, df=float(draw["dof"])
            )
    assert got == pytest.approx(want, rel=1e-10)


def test_effects_of_runs_have_no_trend_over_scales_and_mixtures() -> None:
    frame = _runs(n_runs=12).frame
    frame["n_tokens"] *= np.random.default_rng(0).uniform(1, 30, len(frame))
    runs = bm.runs_from_frame(frame)
    trend = models.run_trend(runs)
    assert trend.shape == (12, 5)
    np.testing.assert_allclose(trend.T @ trend, np.eye(5), atol=1e-12)
    order = np.argsort(runs.run_ids.values)
    scales_ = np.log([runs.n_params.values[order], runs.n_tokens.values[order]])
    for known in (np.ones(12), *scales_, *runs.weights.values[order].T):
        np.testing.assert_allclose(trend @ (trend.T @ known), known, rtol=1e-9)
    # one size leaves 1, log D and the weights; one run nothing but itself
    assert models.run_trend(runs.where("n_params < 2e8")).shape == (6, 4)
    assert models.run_trend(_runs(n_runs=2).where("n_params < 2e8")).shape == (1, 1)


def test_runs_that_repeat_a_mixture_and_n_share_its_misfit() -> None:
    frame = _runs(n_runs=4).frame
    again = frame.assign(run_id=frame["run_id"] + "_again", loss_code=2.5, target_exam=2.1)
    runs = bm.runs_from_frame(pd.concat([frame, again]))
    got, draw = _log_likelihood(runs, "transfer", seed=7)
    error = _log_errors(runs, "transfer", draw)
    phi = float(draw["phi"])
    assert "rho" not in draw
    want = 0.0
    for run in range(4):
        for i in range(4):
            want += stats.multivariate_t.logpdf(
                error[[run, run + 4], i],
                shape=draw["sigma"][i] ** 2 * np.array([[1.0, phi], [phi, 1.0]]),
                df=float(draw["dof"]),
            )
    assert got == pytest.approx(want, rel=1e-10)


def test_shared_and_own_noise_make_the_scale_of_a_component() -> None:
    model = models.build_model(_runs())
    names = ("sigma", "common", "sigma_logit", "common_mean", "common_spread", "common_z")
    sigma, common, total, mean, spread, z = pm.draw(
        [model[n] for n in names], random_seed=3, mode=QUICK
    )
    np.testing.assert_allclose(np.hypot(sigma, common), np.exp(total), rtol=1e-12)
    np.testing.assert_allclose(common / sigma, np.exp(mean + spread * z), rtol=1e-12)


def test_rows_that_are_there_twice_are_no_evidence_twice() -> None:
    runs = _runs()
    with pytest.raises(ValueError, match="1 rows repeat others in everything"):
        models.build_model(runs.select([*range(len(runs)), 2]))


def test_models_that_differ_in_data_alone_have_one_code() -> None:
    """Whatever the number of runs and domains; and only these."""
    runs = _runs()
    one = code_key(models.build_model(runs))
    same = [
        models.build_model(runs.select(range(len(runs) - 3))),
        models.build_model(_runs(20, domains=("a", "b", "c", "d", "e"))),
        models.build_model(runs, priors={"g": Normal(-1.0, 0.5)}),
        # of a prior that nothing here has: a whole number is a number all the same
        models.build_model(runs, priors={"fade": Normal(3, 1.5)}),
    ]
    assert {code_key(model) for model in same} == {one}
    longer = models.build_model(_runs(checkpoints=2))
    other = models.build_model(runs, "regression")
    priors: list[dict[str, Prior]] = [
        {"g": Normal(0.0, 2.0)},
        # PyMC inverts a rate before the distribution sees it
        {"dof_excess": Gamma(2.0, 1.0)},
        {"dof_excess": Gamma(2.0, 3.0)},
        {"tau_spread": LogNormal(0.3, 0.25)},
        {"tau_spread": Normal(0.3, 0.25)},
    ]
    wider = [models.build_model(runs, priors=replaced) for replaced in priors]
    assert len({one, *map(code_key, (longer, other, *wider))}) == 3 + len(priors)


def test_a_domain_without_losses_still_has_a_level() -> None:
    frame = _runs().frame.drop(columns="loss_web")
    model = models.build_model(bm.runs_from_frame(frame))
    assert np.isfinite(pm.draw(model["level"], random_seed=0, mode=QUICK)).all()


def test_doubt_about_a_weight() -> None:
    weights = np.array([[0.0, 0.001, 0.999], [0.0, 0.5, 0.5]])
    exact = models.weight_doubt(weights, 0.0, 4)
    np.testing.assert_array_equal(exact, [[1, 0, 0, 0], [1, 0, 0, 0]])
    printed = models.weight_doubt(weights, 0.0005, 4)
    # half-width 0.0005 of a uniform error is a standard deviation of 0.0005 / sqrt(3)
    assert printed[1, 1] == pytest.approx(0.0005 / np.sqrt(3) / 0.5, rel=1e-3)
    assert (printed <= 1).all()
    assert (printed[:, 3] == 0).all()


def test_unknown_names_are_errors_that_list_the_valid_ones() -> None:
    with pytest.raises(ValueError, match="unknown law 'mechanistic'; valid names: quantization"):
        models.build_model(_runs(), "mechanistic")
    with pytest.raises(ValueError, match="unknown prior 'b'; valid names: level, capacity_mean"):
        models.build_model(_runs(), priors={"b": Normal(0, 1)})
    with pytest.raises(ValueError, match="must be Normal, LogNormal or Gamma"):
        replace_priors(default_priors(1e9, 1e10), {"g": 3.0})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("prior", "wanted"),
    [
        (Normal(0.0, -1.0), "prior 'g': sigma must be positive and finite, got -1.0"),
        (Normal(np.inf, 1.0), "prior 'g': mu must be finite, got inf"),
        (LogNormal(0.0, 0.0), "prior 'g': sigma must be positive and finite, got 0.0"),
        (Gamma(np.nan, 1.0), "prior 'g': alpha must be positive and finite, got nan"),
        (Normal("0.3", 1.0), "prior 'g': mu must be finite, got '0.3'"),  # type: ignore[arg-type]
    ],
)
def test_numbers_that_are_no_prior_are_refused(prior: Prior, wanted: str) -> None:
    with pytest.raises(ValueError, match=f"^{wanted}$"):
        models.build_model(_runs(), priors={"g": prior})


def test_a_replaced_prior_moves_its_parameter() -> None:
    runs = _runs()
    model = models.build_model(runs, priors={"g": Normal(5.0, 1e-6)})
    want = EXPONENT_MAX / (1 + np.exp(-5.0))
    assert pm.draw(model["g"], random_seed=0, mode=QUICK) == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("size", [(1e6, 1e9), (1e8, 2e9), (1e9, 2e10), (7e10, 1e12)])
@pytest.mark.parametrize("one_size", [False, True])
@pytest.mark.parametrize("one_horizon", [False, True])
def test_default_priors_centre_the_exponents_on_the_literature(size, one_size, one_horizon):
    """At the centres of the priors the exponents a and b are 0.3, inside 0.2 to 0.35.

    And what is irreducible is the same, whether parts of the head are split first or last.
    """
    both = (one_size, one_horizon), (False, False)
    found = [centre(default_priors(*size, one_size=n, one_horizon=d), n, d) for n, d in both]
    for exponent in found[0][:2]:
        assert exponent == pytest.approx(0.3, rel=0.02)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-12)


def centre(prior, one_size: bool, one_horizon: bool) -> tuple[float, ...]:
    """Exponents b and a and the shares of the irreducible and both heads, by the sticks."""

    def odds(name: str) -> float:
        return float(np.exp(prior[f"{name}_mean"].mu))

    rest = 1 / (1 + odds("capacity") + odds("noise"))
    heads = {"n": (odds("head_n") / 0.3, one_size), "d": (odds("head_d") / 0.3, one_horizon)}
    left = rest / (1 + sum(o for o, same in heads.values() if not same))
    constant = left / (1 + odds("capacity_curvature") + odds("noise_curvature"))
    irreducible = constant / (1 + sum(o for o, same in heads.values() if same))
    exponents = (
        EXPONENT_MAX / (1 + constant * odds(f"{name}_curvature") / (rest * odds(name)))
        for name in ("capacity", "noise")
    )
    shares = ((irreducible if same else left) * o for o, same in heads.values())
    return (*exponents, irreducible, *shares)


def test_priors_print_as_what_they_are() -> None:
    assert repr(LogNormal(0.0, 0.4)) == "LogNormal(mu=0.0, sigma=0.4)"


def test_groups_share_tau() -> None:
    runs = _runs()
    groups = {DOMAINS[0]: "text", DOMAINS[1]: "text"}
    model = models.build_model(runs, groups=groups)
    assert model["tau_z"].eval().shape == (3,)  # within text, from text, to text
    tau = pm.draw(model["tau"], random_seed=1, mode=QUICK)
    assert tau[0, 1] == tau[1, 0]
    assert tau[0, 2] == tau[1, 2]
    assert tau[2, 0] == tau[2, 1]
    assert len({tau[0, 1], tau[0, 2], tau[2, 0]}) == 3
    np.testing.assert_array_equal(np.diag(tau), 1.0)
    # groups of one domain each are no groups
    lone = models.build_model(runs, groups={name: f"of {name}" for name in DOMAINS})
    assert code_key(lone) == code_key(models.build_model(runs))


def test_groups_that_are_refused() -> None:
    with pytest.raises(ValueError, match="groups: unknown domain 'cod'; valid names: "):
        models.build_model(_runs(), groups={"cod": "text"})
    with pytest.raises(ValueError, match="groups are of tau, which law 'regression' has not"):
        models.build_model(_runs(), "regression", groups={DOMAINS[0]: "text"})


def test_tau_has_one_density_in_either_coordinate() -> None:
    """The change of variables, by hand: z' = c m + s^c z for mean m, spread s and centring c."""
    runs = bm.load_dataset("simulated").checkpoints("last")
    groups = dict.fromkeys(runs.domains[:2], "one")
    for by_group in (None, groups):
        here, there = (
            models.build_model(runs, groups=by_group, centre=centre) for centre in (True, False)
        )
        point = there.initial_point()
        rng = np.random.default_rng(0)
        point["tau_z"] = rng.normal(size=point["tau_z"].shape)
        point["tau_spread_log__"] = np.array(0.4)
        spread = np.exp(0.4)
        pair = transfer_pairs(runs.domains, by_group or {})
        j = np.nonzero(~np.eye(len(runs.domains), dtype=bool))[1]
        first = np.unique(pair, return_index=True)[1]
        centred = centring(runs, by_group or {})[j[first]]
        mean = point["tau_kin"] - spread
        moved = here.initial_point() | {n: x for n, x in point.items() if n.startswith("tau")}
        moved["tau_z"] = centred * mean + spread**centred * point["tau_z"]
        densities, tau = [], []
        for model, at in ((here, moved), (there, point)):
            sampled = [v for v in model.free_RVs if v.name.startswith("tau")]
            densities.append(model.compile_logp(vars=sampled, mode=QUICK)(at))
            values = {v: at[v.name] for v in model.value_vars}
            natural = model.replace_rvs_by_values([model["tau"]])[0]
            tau.append(natural.eval(values, mode="FAST_COMPILE", on_unused_input="ignore"))
        np.testing.assert_allclose(tau[0], tau[1], rtol=1e-12)
        jacobian = (centred * np.log(spread)).sum()
        assert densities[0] == pytest.approx(densities[1] - jacobian, abs=1e-9)


def test_how_far_tau_is_sampled_as_it_is_is_data() -> None:
    """Swarms share compiled code, whatever weights they have."""
    equal, odd = _runs(), _runs().frame
    odd.loc[0, [f"weight_{d}" for d in DOMAINS]] = np.arange(1, len(DOMAINS) + 1) / sum(
        range(1, len(DOMAINS) + 1)
    )
    made = [code_key(models.build_model(r)) for r in (equal, bm.runs_from_frame(odd))]
    assert made[0] == made[1]
    grouped = centring(equal, dict.fromkeys(DOMAINS, "all"))
    np.testing.assert_allclose(grouped, len(equal) / (len(equal) + 1))
