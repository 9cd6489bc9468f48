"""The fit: sampling, diagnostics, saving and loading."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import h5py
import numpy as np
import nutpie
import pandas as pd
import pymc as pm
import pytest
import xarray as xr
from pymc.initial_point import make_initial_point_fn
from synthetic import fit_of, parameters, swarm

import bayesmix as bm
from bayesmix.compiling import code_key, compiled, unconstrained
from bayesmix.diagnostics import diagnose
from bayesmix.model import build_model
from bayesmix.natural import in_natural_units
from bayesmix.posterior import fitted_losses
from bayesmix.simulate import draw_design, draw_parameters, observe


def _chains(*offsets: float, n_draws: int = 1000, seed: int = 0) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(len(offsets), n_draws, 3)) + np.array(offsets)[:, None, None]
    coords = {"domain": ["code", "web", "books"]}
    return xr.Dataset({"b": (("chain", "draw", "domain"), values)}, coords=coords)


def _stats(posterior: xr.Dataset, diverging: int = 0) -> xr.Dataset:
    flags = np.zeros((posterior.sizes["chain"], posterior.sizes["draw"]), bool)
    flags.ravel()[:diverging] = True
    return xr.Dataset({"diverging": (("chain", "draw"), flags)})


def test_independent_chains_pass() -> None:
    posterior = _chains(0, 0, 0, 0)
    diagnosis = diagnose(posterior, _stats(posterior))
    assert diagnosis.passed
    assert "The chains agree" in diagnosis.text
    # 4,000 independent draws
    assert 3000 < diagnosis.table.loc["b", "ess_bulk"] < 5000


def test_a_chain_that_sits_elsewhere_is_named() -> None:
    posterior = _chains(0, 0, 9, 0)
    diagnosis = diagnose(posterior, _stats(posterior))
    assert not diagnosis.passed
    assert "multimodal: chain 2 settled elsewhere for b" in diagnosis.text


def test_chains_that_all_sit_elsewhere() -> None:
    posterior = _chains(0, 9)
    text = diagnose(posterior, _stats(posterior)).text
    assert "multimodal: each chain settled elsewhere for b." in text


def test_too_few_effective_draws_fail_and_say_so() -> None:
    rng = np.random.default_rng(0)
    walk = np.cumsum(rng.normal(size=(4, 1000, 1)), axis=1)
    posterior = xr.Dataset({"level": (("chain", "draw", "component"), walk)})
    posterior = posterior.assign_coords(component=["web"])
    diagnosis = diagnose(posterior, _stats(posterior))
    assert not diagnosis.passed
    assert "level [web]" in diagnosis.text
    assert "have not converged" in diagnosis.text
    # the least of bulk and tail
    least = diagnosis.table.loc["level", ["ess_bulk", "ess_tail"]].min()
    assert f" and {least:.0f} effective draws" in diagnosis.text


def test_one_chain_cannot_agree() -> None:
    posterior = _chains(0, n_draws=4000)
    diagnosis = diagnose(posterior, _stats(posterior))
    assert not diagnosis.passed
    assert diagnosis.text == "One chain cannot show that chains agree: sample at least two."


@pytest.mark.parametrize(("diverging", "passed"), [(4, True), (5, False)])
def test_divergences_may_be_a_thousandth_of_the_draws(diverging: int, passed: bool) -> None:
    posterior = _chains(0, 0, 0, 0)
    diagnosis = diagnose(posterior, _stats(posterior, diverging))
    assert diagnosis.passed is passed
    assert ("diverged" in diagnosis.text) is not passed


def test_constant_entries_such_as_tau_ii_do_not_fail() -> None:
    posterior = _chains(0, 0, 0, 0)
    posterior["b"][:, :, 1] = 1.0
    assert diagnose(posterior, _stats(posterior)).passed


@pytest.fixture
def made() -> bm.Fit:
    runs = swarm(("web", "code", "books"))
    return fit_of(parameters(runs.domains, n_draws=80), runs)


def test_save_and_load_keep_everything(made: bm.Fit, tmp_path: Path) -> None:
    made = replace(made, groups={"web": "text", "books": "text"})
    made.save(tmp_path / "fit.nc")
    read = bm.load(tmp_path / "fit.nc")
    assert read.groups == made.groups
    assert read.runs == made.runs
    assert read.law == made.law
    assert read.priors == made.priors
    assert read.diagnose().text == made.diagnose().text
    assert read.diagnose().passed is made.diagnose().passed
    pd.testing.assert_frame_equal(read.diagnose().table, made.diagnose().table, check_dtype=False)
    for group in ("posterior", "sample_stats", "observed_data"):
        xr.testing.assert_identical(
            read.posterior[group].to_dataset().drop_attrs(),
            made.posterior[group].to_dataset().drop_attrs(),
        )
    assert [p.name for p in tmp_path.iterdir()] == ["fit.nc"]


@pytest.mark.parametrize("labels", [("01", "02"), ("1.50", "NA"), ("1e3", "None"), ("", "1")])
def test_labels_that_look_like_something_else_come_back(
    labels: tuple[str, str], tmp_path: Path
) -> None:
    frame = swarm(("web", "code")).frame
    frame["group"] = [labels[i % 2] for i in range(len(frame))]
    frame.loc[:1, "run_id"] = ["NA", "null"]
    frame.to_csv(tmp_path / "runs.csv", index=False)
    runs = bm.read_runs(tmp_path / "runs.csv", weight_resolution=0.0)
    fit_of(parameters(runs.domains, n_draws=8), runs).save(tmp_path / "fit.nc")
    assert bm.load(tmp_path / "fit.nc").runs == runs


def test_a_failed_save_leaves_the_old_file(
    made: bm.Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "fit.nc"
    path.write_text("old")

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(xr.DataTree, "to_netcdf", fail)
    with pytest.raises(OSError, match="disk full"):
        made.save(path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["fit.nc"]


def test_load_refuses_what_is_not_a_fit(made: bm.Fit, tmp_path: Path) -> None:
    with pytest.raises(bm.FitFileError, match=r"absent\.nc: no such file"):
        bm.load(tmp_path / "absent.nc")
    (tmp_path / "text.nc").write_text("not a netcdf file")
    with pytest.raises(bm.FitFileError, match=r"text\.nc: not a NetCDF file"):
        bm.load(tmp_path / "text.nc")
    xr.Dataset({"x": ("i", [1.0])}).to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    with pytest.raises(bm.FitFileError, match="not a fit of bayesmix"):
        bm.load(tmp_path / "other.nc")


def test_load_refuses_a_damaged_file(made: bm.Fit, tmp_path: Path) -> None:
    path = tmp_path / "fit.nc"
    made.save(path)
    with h5py.File(path, "r+") as file:
        file.attrs["priors"] = "{torn"
    with pytest.raises(bm.FitFileError, match=r"fit\.nc: the file is damaged"):
        bm.load(path)
    made.save(path)
    with h5py.File(path, "r+") as file:
        file.attrs["runs_hash"] = "0"
    with pytest.raises(bm.FitFileError, match="do not match their hash"):
        bm.load(path)
    with h5py.File(path, "r+") as file:
        del file.attrs["model_version"]
    with pytest.raises(bm.FitFileError, match="a fit of model version None; this bayesmix reads"):
        bm.load(path)


def test_load_refuses_another_model_version(
    made: bm.Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.save(tmp_path / "fit.nc")
    monkeypatch.setitem(bm.load.__globals__, "MODEL_VERSION", 999)
    with pytest.raises(bm.FitFileError, match="this bayesmix reads version 999: fit again"):
        bm.load(tmp_path / "fit.nc")


def test_unknown_choices_are_errors() -> None:
    runs = swarm(("web", "code", "books"))
    with pytest.raises(ValueError, match="draws must be at least 1"):
        bm.fit(runs, draws=0)
    for seed in (-1, 2**63):
        with pytest.raises(ValueError, match="seed is from 0 to"):
            bm.fit(runs, seed=seed)
    with pytest.raises(TypeError, match="integer"):
        bm.fit(runs, seed=1.5)
    with pytest.raises(TypeError, match=r"bm\.Runs, such as bm\.read_runs gives, not DataFrame"):
        bm.fit(runs.frame)
    with pytest.raises(ValueError, match="unknown law"):
        bm.fit(runs, "chinchilla")


@pytest.fixture(scope="module")
def small() -> bm.Runs:
    runs = bm.load_dataset("simulated").checkpoints("last")
    return runs.select(np.arange(0, len(runs), 2))


def test_the_same_seed_gives_the_same_posterior(small: bm.Runs) -> None:
    options = {"draws": 20, "tune": 60, "chains": 2, "progressbar": False}
    first, second = (bm.fit(small, seed=7, **options) for _ in range(2))
    other = bm.fit(small, seed=8, **options)
    name = "level"
    one, two, three = (f.posterior["posterior"][name].values for f in (first, second, other))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, three)


def scaled(runs: bm.Runs, factor: float) -> bm.Runs:
    """The same swarm with all losses times a factor."""
    frame = runs.frame
    losses = [name for name in frame if name.startswith(("loss_", "target_"))]
    return bm.runs_from_frame(frame.assign(**{name: factor * frame[name] for name in losses}))


def test_a_shared_compiled_model_takes_the_data_of_each_swarm(small: bm.Runs) -> None:
    options = {"draws": 20, "tune": 200, "chains": 1, "progressbar": False}
    levels = [
        bm.fit(runs, **options).posterior["posterior"]["level"].mean(("chain", "draw"))
        for runs in (small, scaled(small, 1.3))
    ]
    # a level is known to half a percent or so
    np.testing.assert_allclose(levels[1] / levels[0], 1.3, rtol=0.02)


def test_trajectories_are_of_one_length(small: bm.Runs) -> None:
    def steps(runs: bm.Runs) -> np.ndarray:
        fit = bm.fit(runs, draws=20, tune=200, chains=1, progressbar=False)
        stats = fit.posterior["sample_stats"]
        whole = stats["n_steps"].values[~stats["diverging"].values]  # those end early
        assert whole.size > 10
        return whole

    simulated = bm.load_dataset("simulated")
    np.testing.assert_array_equal(steps(simulated.checkpoints("last")), 255)
    np.testing.assert_array_equal(steps(small), 511)  # of 180 losses
    of_one_d = build_model(small.where(f"n_params < {1.01 * small.n_params.values.min()}"))
    without_tau = build_model(small, "regression")
    rule = import_module("bayesmix.fit")._depth_and_acceptance
    assert rule(build_model(simulated.checkpoints("late")), 60, 1000) == (9, 0.9)
    assert [rule(build_model(small), 500, losses) for losses in (500, 499)] == [(8, 0.9), (9, 0.9)]
    assert [rule(of_one_d, unknowns, 1000) for unknowns in (400, 401)] == [(8, 0.9), (8, 0.7)]
    assert [rule(without_tau, unknowns, 1000) for unknowns in (400, 401)] == [(8, 0.9), (9, 0.9)]


def test_slow_chains_are_drawn_again_by_trajectories_twice_as_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = import_module("bayesmix.fit")
    runs = bm.load_dataset("simulated").checkpoints("last")
    options = {"tune": 20, "chains": 2, "progressbar": False}

    def steps(draws: int) -> float:
        made = bm.fit(runs, draws=draws, **options)
        return float(made.posterior["sample_stats"]["n_steps"].max())

    monkeypatch.setattr(module, "_DEPTH", 3)
    monkeypatch.setattr(module, "_ENOUGH", 400)
    monkeypatch.setattr(module, "_APART", np.inf)
    assert steps(199) == 7  # too few to judge
    assert steps(200) == 15
    monkeypatch.setattr(module, "_APART", 1.0)
    assert steps(200) == 7  # chains that are apart would be so by any steps


def test_most_of_the_warm_up_is_of_short_trajectories(
    small: bm.Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = import_module("bayesmix.fit")
    warmed, asked = module.warmed, []
    monkeypatch.setattr(
        module, "warmed", lambda *args, **named: asked.append(named) or warmed(*args, **named)
    )
    monkeypatch.setattr(module, "_FULL", 20)
    bm.fit(small, draws=5, tune=20, chains=1, progressbar=False)
    assert not asked
    bm.fit(small, draws=5, tune=30, chains=1, progressbar=False)
    [named] = asked
    assert named["tune"] == 10
    assert (named["settings"]["mindepth"], named["settings"]["maxdepth"]) == (7, 7)  # of 9


def test_swarms_of_one_shape_and_other_groups_share_a_model_and_not_their_tau() -> None:
    design = draw_design(["a", "b", "c", "d"], [1e8], n_mixtures=12, seed=1)
    runs = observe(design, draw_parameters(design.domains, seed=2), seed=3).runs
    shared = set()
    for one, other in (("ab", "cd"), ("ac", "bd")):
        groups = dict.fromkeys(one, "1") | dict.fromkeys(other, "2")
        model = build_model(runs, groups=groups)
        shared.add(code_key(model))
        tau = pm.draw(model["tau"], random_seed=1, mode="FAST_COMPILE")
        of_pair: dict[tuple[str, str], set[float]] = {}
        for i, x in enumerate("abcd"):
            for j, y in enumerate("abcd"):
                if x != y:
                    of_pair.setdefault((groups[x], groups[y]), set()).add(tau[i, j])
        assert [len(values) for values in of_pair.values()] == [1, 1, 1, 1]
    assert len(shared) == 1


def test_groups_are_kept_as_text(small: bm.Runs) -> None:
    """Numbers do as labels."""
    groups = dict.fromkeys(small.domains[:2], 1)
    fit = bm.fit(small, groups=groups, backend="jax", draws=2, tune=2, chains=1, progressbar=False)
    assert fit.groups == dict.fromkeys(sorted(small.domains[:2]), "1")


def test_one_wrong_record_does_not_widen_the_others() -> None:
    """A run whose losses are off by a fifth is an outlier; noise and intervals stay as they are."""
    right = bm.load_dataset("simulated").checkpoints("last")
    frame = right.frame
    losses = [name for name in frame if name.startswith(("loss_", "target_"))]
    wrong = frame.copy()
    wrong.loc[3, losses] *= np.exp(np.random.default_rng(0).normal(0, 0.2, len(losses)))
    at = frame.drop(columns=losses).iloc[[0, 7, 12]]
    widths, sigmas = [], []
    for runs in (right, bm.runs_from_frame(wrong, weight_resolution=right.weight_resolution)):
        fit = bm.fit(runs, draws=200, tune=400, chains=1, progressbar=False)
        summary = fit.predict(at).summary()
        widths.append(((summary["upper"] - summary["lower"]) / summary["mean"]).median())
        sigmas.append(float(fit.posterior["posterior"]["sigma"].median()))
    assert widths[1] < 1.5 * widths[0]
    assert sigmas[1] < 1.5 * sigmas[0]


def swarm_with_a_domain_of_one_run(seed: int) -> bm.Runs:
    """A swarm of which one run alone has mail, whose loss at printed zeros is 0.3 higher in log."""
    design = draw_design(["web", "code", "mail"], [1e8], n_mixtures=25, seed=seed)
    frame = design.frame.copy()
    frame.loc[1:, "weight_mail"] = 0.0
    frame.loc[0, "weight_mail"] = 0.01
    weights = frame[[f"weight_{d}" for d in design.domains]]
    frame[weights.columns] = weights.div(weights.sum(axis=1), axis=0)
    design = bm.runs_from_frame(frame, weight_resolution=0.001)
    truth = draw_parameters(design.domains, noise=0.002, seed=seed + 1)
    truth = truth.assign(zero_shift=("component", [0.0, 0.0, 0.3]))
    return observe(design, truth, seed=seed + 2).runs


def test_a_domain_of_one_run_is_not_taken_for_noise() -> None:
    """Where one run alone has a domain, and all others lack it, chains once had two modes.

    Either that run was noise, or the law was bent for all; a shift at printed zeros fits both.
    """
    runs = swarm_with_a_domain_of_one_run(3)
    fit = bm.fit(runs, draws=200, tune=400, chains=3, progressbar=False)
    posterior = fit.posterior["posterior"]
    with_mail = fitted_losses(fit).isel(row=0).sel(component="mail")
    error = np.log(with_mail / runs.losses.values[0, 2]).median("draw")
    assert abs(error).max() < 0.02  # in every chain
    # 98%: the truth is near the 7% quantile of this swarm's posterior
    low, high = posterior["zero_shift"].sel(component="mail").quantile([0.01, 0.99])
    assert low < 0.3 < high


def test_starts_are_of_the_swarm_that_is_fitted() -> None:
    """With those of the swarm compiled first, draws depended on what was fitted before."""
    starts = []
    for seed in (3, 13, 3):
        runs = swarm_with_a_domain_of_one_run(seed)
        starts.append(compiled(build_model(runs)).initial_point_func(0))
    assert not np.array_equal(starts[0], starts[1])
    np.testing.assert_array_equal(starts[0], starts[2])


def test_chains_leave_the_spurious_mode(small: bm.Runs) -> None:
    """With unbounded exponents one domain's b ran off while its x sat on the floor H.

    A chain that starts there, with b of one domain at its bound and next to no capacity, a high
    floor, and the data noise out of the way, must come back to where the others are.
    """
    model = build_model(small)
    start = {name: value.copy() for name, value in model.initial_point().items()}
    bad = {
        "own_total_log": np.r_[-7.0, start["own_total_log"][1:]],
        "capacity_curvature_logit": np.r_[-5.0, start["capacity_curvature_logit"][1:]],
        "floor_logit": np.array(-1.0),
    }
    by_nutpie, posteriors = compiled(model), []
    order = dict.fromkeys(unconstrained(by_nutpie))
    for points in ({}, bad):
        starts = make_initial_point_fn(
            model=model, overrides=points, jitter_rvs=set(model.free_RVs), return_transformed=True
        )

        def flat(seed: int, starts=starts) -> np.ndarray:
            point = starts(seed)
            return np.concatenate([np.ravel(point[name]) for name in order])

        if not points:  # the names are in nutpie's order
            np.testing.assert_array_equal(flat(5), by_nutpie.initial_point_func(5))
        tree = nutpie.sample(
            replace(by_nutpie, initial_point_func=flat), draws=250, tune=200, chains=1, seed=3,
            progress_bar=False, save_warmup=False, target_accept=0.9, mindepth=8, maxdepth=8,
        )  # fmt: skip
        unknowns = {name: values.values for name, values in tree["posterior"].data_vars.items()}
        posteriors.append(in_natural_units(model, unknowns))
    both = xr.concat(posteriors, dim="chain").assign_coords(chain=[0, 1])
    diagnosis = diagnose(both, _stats(both))
    # 250 draws of two chains: not yet converged to 1.01, but in one place
    assert diagnosis.table["r_hat"].max() < 1.1


def test_pymcs_sampler_is_pymcs_own() -> None:
    """PyMC takes nutpie by itself where that is installed."""
    web = np.linspace(0.1, 0.9, 5)
    columns = {"weight_web": web, "weight_code": 1 - web, "loss_web": 3 * web**-0.05}
    at = {"run_id": list("abcde"), "n_params": 1e8, "n_tokens": 2e9}
    runs = bm.runs_from_frame(pd.DataFrame({**at, **columns}))
    fit = bm.fit(
        runs, "quantization", sampler="pymc", draws=5, tune=10, chains=1, progressbar=False
    )
    stats = fit.posterior["sample_stats"]
    assert "tree_depth" in stats  # nutpie's is called depth
    assert np.isfinite(fit.posterior["posterior"]["level"]).all()


def test_compilation_is_said_on_a_terminal(monkeypatch, capsys) -> None:
    """It may take longer than two seconds, and nutpie's bar is of the sampling alone."""
    said = import_module("bayesmix.fit")._said  # `bm.fit` is the function
    monkeypatch.setenv("TERM", "xterm")
    for terminal, shown in (("1", True), ("1", False), ("0", True)):
        monkeypatch.setenv("TTY_COMPATIBLE", terminal)
        with said("compiling the model", shown=shown):
            pass
        assert ("compiling the model" in capsys.readouterr().err) == (terminal == "1" and shown)
