"""Plots show the numbers they should: positions are read back from the artists."""

import dataclasses
import io
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from matplotlib.patches import Rectangle
from synthetic import fit_of, parameters, swarm

from bayesmix import CVaR, Normal, pareto_front, plots, runs_from_frame, scale_path
from bayesmix import law as laws
from bayesmix.plots.prior_predictive import _falls
from bayesmix.pointfit import point_fit
from bayesmix.prior_predictive import prior_fit
from bayesmix.recommend import recommend
from bayesmix.reference import reference

DOMAINS = ("web", "code", "books")
PILE = [
    "arxiv",
    "dm_mathematics",
    "enron_emails",
    "europarl",
    "freelaw",
    "github",
    "gutenberg_pg_19",
    "hackernews",
    "nih_exporter",
    "philpapers",
    "pile_cc",
    "pubmed_abstracts",
    "pubmed_central",
    "stackexchange",
    "ubuntu_irc",
    "uspto_backgrounds",
    "wikipedia_en",
]


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def small():
    """Three domains, one of them without losses, and a target."""
    draws = parameters(DOMAINS, ("exam",), n_draws=400, spread=0.01)
    truth = {name: value[0] for name, value in draws.items()}
    return fit_of(draws, swarm(DOMAINS, ("exam",), truth=truth, unobserved=("books",)))


@pytest.fixture(scope="module")
def pile():
    return fit_of(parameters(PILE, n_draws=200), swarm(PILE, n_runs=43))


def recommendation(fit, seed=0):
    """What `plot_recommendation` reads of a Recommendation."""
    names = list(fit.runs.domains)
    rng = np.random.default_rng(seed)
    optima = xr.DataArray(
        rng.dirichlet(np.linspace(1, 5, len(names)), 500),
        dims=("draw", "domain"),
        coords={"domain": names},
    )
    return SimpleNamespace(weights=optima.mean("draw"), optima=optima)


def pixels(ax) -> np.ndarray:
    """The saved figure, as an image."""
    file = io.BytesIO()
    np.ravel(ax)[0].figure.savefig(file, format="png", dpi=60)
    file.seek(0)
    return plt.imread(file)[..., :3]


def overlapping(labels) -> list[tuple[str, str]]:
    """Pairs of neighbouring texts whose boxes overlap on the drawn figure."""
    labels = [text for text in labels if text.get_text()]
    labels[0].figure.canvas.draw()
    boxes = [text.get_window_extent() for text in labels]
    return [
        (labels[i].get_text(), labels[i + 1].get_text())
        for i in range(len(boxes) - 1)
        if boxes[i].overlaps(boxes[i + 1])
    ]


def bars(container) -> np.ndarray:
    """Left end, point and right end of horizontal error bars, shape (n, 3)."""
    points, _, (lines,) = container.lines
    ends = np.array(lines.get_segments())[:, :, 0]
    return np.column_stack([ends[:, 0], points.get_xdata(), ends[:, 1]])


def middle_90(values) -> np.ndarray:
    """5%, 50% and 95% of draws that are on the first axis, shape (n, 3)."""
    return np.quantile(values, [0.05, 0.5, 0.95], axis=0).T


# --- fit against observed ---


def test_fit_shows_observed_and_fitted_losses(small):
    axes = plots.plot_fit(small)
    shown = {"web": small.runs.losses.sel(domain="web"), "code": None, "target:exam": None}
    shown["code"] = small.runs.losses.sel(domain="code")
    shown["target:exam"] = small.runs.target_losses.sel(target="exam")
    table = small.predict(small.runs.frame).summary(0.9)
    # no panel for the domain that has no losses
    assert [ax.get_title().rpartition(":")[0] for ax in axes] == list(shown)
    for ax, (name, observed) in zip(axes, shown.items(), strict=True):
        rows = table[table["domain"] == name]
        lines, points = ax.collections
        np.testing.assert_allclose(
            points.get_offsets(), np.column_stack([observed, rows["mean"]]), rtol=1e-12
        )
        segments = np.array(lines.get_segments())
        np.testing.assert_allclose(segments[:, 0, 1], rows["lower"], rtol=1e-12)
        np.testing.assert_allclose(segments[:, 1, 1], rows["upper"], rtol=1e-12)
        np.testing.assert_allclose(segments[:, 0, 0], observed, rtol=1e-12)
        inside = (rows["lower"].values <= observed) & (observed <= rows["upper"].values)
        assert ax.get_title() == f"{name}: {100 * float(inside.mean()):.0f}% inside"


def test_fit_rings_what_is_outside(small):
    # a narrow interval leaves many rows outside
    ax = plots.plot_fit(small, prob=0.2)[0]
    rows = small.predict(small.runs.frame).summary(0.2).query("domain == 'web'")
    observed = small.runs.losses.sel(domain="web").values
    outside = (observed < rows["lower"].values) | (observed > rows["upper"].values)
    assert 0 < outside.sum() < len(outside)
    red = ax.collections[1].get_edgecolors()[:, 3] > 0
    np.testing.assert_array_equal(red, outside)


def test_fit_relative_errors_in_percent(small):
    axes = plots.plot_fit(small, relative=True)
    rows = small.predict(small.runs.frame).summary(0.9).query("domain == 'code'")
    observed = small.runs.losses.sel(domain="code").values
    lines, points = axes[1].collections
    error = 100 * (observed - rows["mean"]) / rows["mean"]
    np.testing.assert_allclose(points.get_offsets()[:, 1], error, rtol=1e-9, atol=1e-12)
    lower = 100 * (rows["lower"] - rows["mean"]) / rows["mean"]
    np.testing.assert_allclose(np.array(lines.get_segments())[:, 0, 1], lower, rtol=1e-9)
    assert axes[0].get_ylabel() == "relative error, %"


def test_fit_labels_units_and_interval(small):
    axes = plots.plot_fit(small, prob=0.8)
    figure = axes[0].figure
    assert axes[0].get_ylabel() == "fitted loss,\nnats per token"
    assert axes[-1].get_xlabel() == "observed loss, nats per token"
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "80% equal-tailed interval of a new run" in said
    assert {"N = 100M", "N = 200M"} <= set(said)


def test_fit_leaves_out_what_the_law_does_not_predict():
    frame = swarm(DOMAINS).frame
    frame.loc[:4, ["weight_web", "weight_code", "weight_books"]] = [0.0, 0.5, 0.5]
    runs = runs_from_frame(frame, weight_resolution=0.0)
    fit = fit_of(parameters(DOMAINS, spread=0.0), runs, law="regression")
    axes = plots.plot_fit(fit)
    assert [len(ax.collections[1].get_offsets()) for ax in axes] == [19, 24, 24]
    observed = runs.losses.sel(domain="web").values[5:]
    np.testing.assert_allclose(axes[0].collections[1].get_offsets()[:, 0], observed, rtol=1e-12)


def test_fit_of_seventeen_domains(pile):
    axes = plots.plot_fit(pile)
    assert [ax.get_title().partition(":")[0] for ax in axes] == PILE
    assert all(len(ax.collections[1].get_offsets()) == 43 for ax in axes)
    assert not overlapping([ax.title for ax in axes[:5]])
    assert not overlapping([ax.yaxis.label for ax in axes[::5]])
    assert not overlapping([ax.xaxis.label for ax in axes[-5:]])


def test_fit_into_given_axes(small):
    given = plt.subplots(1, 3)[1]
    drawn = plots.plot_fit(small, ax=given)
    assert list(drawn) == list(given)
    assert all(ax.get_xlabel() == "observed loss, nats per token" for ax in given)
    with pytest.raises(ValueError, match="3 panels, got 2"):
        plots.plot_fit(small, ax=given[:2])
    with pytest.raises(ValueError, match="between 0 and 1"):
        plots.plot_fit(small, prob=1.0)


# --- transfer ---


def test_transfer_shows_the_median_and_the_width(small):
    ax = plots.plot_transfer(small)
    tau = small.posterior["posterior"]["tau"].values.reshape(-1, 4, 3)
    low, middle, high = np.moveaxis(middle_90(tau), -1, 0).transpose(0, 2, 1)
    (heat,) = ax.collections
    centres = [path.get_extents() for path in heat.get_paths()]
    cells = [(round((b.y0 + b.y1) / 2), round((b.x0 + b.x1) / 2)) for b in centres]
    assert cells == [(i, j) for i in range(4) for j in range(3) if i != j]
    np.testing.assert_allclose(heat.get_array(), [middle[c] for c in cells], rtol=1e-12)
    sides = [1 - (high[c] - low[c]) for c in cells]
    np.testing.assert_allclose([b.width for b in centres], sides, rtol=1e-9)
    np.testing.assert_allclose([b.height for b in centres], sides, rtol=1e-9)
    written = {tuple(map(round, t.get_position()[::-1])): t.get_text() for t in ax.texts}
    assert written == {c: f"{middle[c]:.2f}\n{low[c]:.2f}–{high[c]:.2f}" for c in cells}


def test_transfer_names_domains_and_marks_the_diagonal(small):
    ax = plots.plot_transfer(small)
    assert [t.get_text() for t in ax.get_xticklabels()] == list(DOMAINS)
    assert [t.get_text() for t in ax.get_yticklabels()] == [*DOMAINS, "target:exam"]
    own = [patch.get_xy() for patch in ax.patches if patch.get_hatch()]
    assert own == [(-0.5, -0.5), (0.5, 0.5), (1.5, 1.5)]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("token of", "loss of")
    assert "90% equal-tailed interval" in ax.get_title()


def test_transfer_of_seventeen_domains(pile):
    ax = plots.plot_transfer(pile)
    middle = np.median(pile.posterior["posterior"]["tau"].values.reshape(-1, 17, 17), axis=0)
    worth = (middle >= 0.1) & ~np.eye(17, dtype=bool)
    assert 0 < worth.sum() < 17 * 16
    assert len(ax.texts) == worth.sum()
    assert not overlapping(ax.get_yticklabels())
    assert not overlapping(sorted(ax.texts, key=lambda t: t.get_position()[::-1]))


def test_transfer_needs_a_law_that_has_it():
    fit = fit_of(parameters(DOMAINS), swarm(DOMAINS), law="regression")
    with pytest.raises(ValueError, match="the regression law has no transfer"):
        plots.plot_transfer(fit)
    # nor with targets, whose rows of tau it has
    chat = fit_of(parameters(DOMAINS, ("chat",)), swarm(DOMAINS, ("chat",)), law="regression")
    with pytest.raises(ValueError, match="the regression law has no transfer"):
        plots.plot_transfer(chat)


# --- recommendation ---


def test_recommendation_shows_weights_and_optima(small):
    rec = recommendation(small)
    ax = plots.plot_recommendation(rec, runs=small.runs)
    diamonds = next(line for line in ax.lines if line.get_marker() == "D")
    np.testing.assert_array_equal(diamonds.get_xdata(), rec.weights.values)
    np.testing.assert_array_equal(diamonds.get_ydata(), [0, 1, 2])
    np.testing.assert_allclose(bars(ax.containers[0]), middle_90(rec.optima.values), rtol=1e-12)
    clouds = [c for c in ax.collections if c.get_offsets().shape[0] > 100]
    assert len(clouds) == 3
    for i, cloud in enumerate(clouds):
        x, y = cloud.get_offsets().T
        assert set(x) <= set(rec.optima.values[:, i])
        assert np.all(abs(y - i) <= 0.3)
    tried = small.runs.weights
    ranges = [p for p in ax.patches if isinstance(p, Rectangle)]
    np.testing.assert_array_equal([r.get_x() for r in ranges], tried.min("row"))
    np.testing.assert_allclose(
        [r.get_x() + r.get_width() for r in ranges], tried.max("row"), rtol=1e-12
    )


def test_recommendation_as_recommended(small):
    rec = recommend(small, n_params=1e9, n_tokens=2e10)
    ax = plots.plot_recommendation(rec)
    diamonds = next(line for line in ax.lines if line.get_marker() == "D")
    np.testing.assert_array_equal(diamonds.get_xdata(), rec.weights.values)
    np.testing.assert_allclose(bars(ax.containers[0]), middle_90(rec.optima.values), rtol=1e-12)


def test_recommendation_labels(small):
    ax = plots.plot_recommendation(recommendation(small), prob=0.5)
    assert [t.get_text() for t in ax.get_yticklabels()] == list(DOMAINS)
    assert ax.get_xlabel() == "weight, fraction of the tokens"
    said = [text.get_text() for text in ax.get_legend().get_texts()]
    assert "their median and 50% equal-tailed interval" in said
    assert "weights that the swarm tried" not in said
    assert not ax.patches


def test_recommendation_of_another_swarm_is_refused(small, pile):
    with pytest.raises(ValueError, match="the recommendation's are web, code, books"):
        plots.plot_recommendation(recommendation(small), runs=pile.runs)


# --- choices ---


def test_risk_return_shows_means_and_tails(small):
    recs = {
        "mean": recommend(small, 1e9, 2e10),
        "cautious": recommend(small, 1e9, 2e10, risk=CVaR(0.9)),
    }
    ax = plots.plot_risk_return(recs)
    shown = np.array([line.get_xydata()[0] for line in ax.lines if line.get_marker() == "D"])
    for (mean, tail), rec in zip(shown, recs.values(), strict=True):
        draws = np.sort(rec.loss.values)
        assert mean == pytest.approx(draws.mean(), rel=1e-12)
        assert tail == pytest.approx(draws[-40:].mean(), rel=1e-12)
    said = {text.get_text() for text in ax.texts}
    assert {"mean", "cautious", "uniform", "best observed", "swarm mean"} <= said
    with pytest.raises(ValueError, match="no recommendation"):
        plots.plot_risk_return({})


def test_the_front_shows_both_losses(small):
    objectives = {"code": {"code": 1.0}, "web": {"web": 1.0}}
    front = pareto_front(small, 1e9, 2e10, objectives, points=5, draws=100)
    ax = plots.plot_pareto(front)
    line = next(line for line in ax.lines if line.get_label() == "posterior mean")
    np.testing.assert_allclose(line.get_xydata().T, front["loss"].mean("draw"), rtol=1e-12)
    assert ax.get_xlabel() == "code: loss, nats per token"
    assert (pixels(ax).min(axis=2) < 0.9).mean() > 0.01


def test_the_path_shows_weights_and_bands(small):
    path = scale_path(small, [1e8, 1e9, 1e10], [2e9, 2e10, 2e11], draws=50)
    axes = plots.plot_scale_path(path)
    for name, ax in zip(DOMAINS, axes, strict=True):
        one = path.sel(domain=name)
        np.testing.assert_array_equal(ax.lines[0].get_xdata(), [1e8, 1e9, 1e10])
        np.testing.assert_array_equal(ax.lines[0].get_ydata(), one["weights"])
        band = ax.collections[0].get_paths()[0].vertices
        assert band[:, 1].max() == pytest.approx(np.quantile(one["optima"], 0.95, axis=1).max())
        assert ax.get_title() == name
    assert (pixels(axes).min(axis=2) < 0.9).mean() > 0.01


def test_a_path_over_tokens_is_drawn_over_tokens(small):
    path = scale_path(small, [1e9] * 3, [2e9, 2e10, 2e11], draws=20)
    axes = plots.plot_scale_path(path)
    np.testing.assert_array_equal(axes[0].lines[0].get_xdata(), [2e9, 2e10, 2e11])
    assert axes[0].get_xlabel() == "D, tokens"
    along_n = plots.plot_scale_path(path.assign_coords(n_params=("step", [1e8, 1e9, 1e10])))
    assert along_n[0].get_xlabel() == "N, parameters"


# --- prior predictive ---


def law_of(draw, runs, weights, n_params, n_tokens, law="transfer") -> np.ndarray:
    """Losses of one prior draw (chain 0) at one point, by the kernel."""
    values = {name: draw[name].values[()] for name in laws.PARAMETERS if name in draw}
    at = laws.points(weights[None], np.array([n_params]), np.array([n_tokens]))
    return laws.evaluate(values, at, laws.LAWS[law])[0]


def test_prior_predictive_curves_and_points(small):
    runs = small.runs
    axes = plots.plot_prior_predictive(runs, component="code", draws=15, seed=3)
    draw = prior_fit(runs, draws=15, seed=3).posterior["posterior"].to_dataset()
    draw = draw.isel(chain=0, draw=4)
    ref = reference(runs)
    lines = [ax.lines[4].get_data() for ax in axes]
    for k in (0, 11, -1):
        h = lines[0][0][k]
        weights = ref.weights * (1 - h) / (1 - ref.weights[1])
        weights[1] = h
        expected = law_of(draw, runs, weights, ref.n_params, ref.n_tokens)[1]
        assert lines[0][1][k] == pytest.approx(expected, rel=1e-10)
        expected = law_of(draw, runs, ref.weights, lines[1][0][k], ref.n_tokens)[1]
        assert lines[1][1][k] == pytest.approx(expected, rel=1e-10)
        expected = law_of(draw, runs, ref.weights, ref.n_params, lines[2][0][k])[1]
        assert lines[2][1][k] == pytest.approx(expected, rel=1e-10)
    for ax, x in zip(axes, (runs.weights[:, 1], runs.n_params, runs.n_tokens), strict=True):
        points = next(line for line in ax.lines if line.get_label() == "observed")
        observed = runs.losses.sel(domain="code")
        np.testing.assert_allclose(points.get_ydata(), observed, rtol=1e-12)
        np.testing.assert_array_equal(points.get_xdata(), np.maximum(x, 1e-3))
    assert axes[0].get_ylabel() == "code loss, nats per token"
    assert [ax.get_xlabel() for ax in axes] == ["weight of code", "N, parameters", "D, tokens"]


def test_prior_predictive_counts(small):
    axes = plots.plot_prior_predictive(small.runs, draws=15)
    assert all(ax.get_title() == "falls in 100% of curves" for ax in axes)
    # measured: 99.93
    assert float(axes[0].get_legend().get_title().get_text().split("% of losses")[0]) > 99.8
    # levels e^3 times the observed ones are above guessing
    high = plots.plot_prior_predictive(small.runs, draws=15, priors={"level": Normal(3.0, 0.01)})
    assert high[0].get_legend().get_title().get_text().startswith("0% of losses")
    # a loss that the law does not have is none outside
    frame = small.runs.frame
    frame.loc[0, [c for c in frame if c.startswith("weight_")]] = np.eye(len(small.runs.domains))[0]
    zero = runs_from_frame(frame, weight_resolution=0.0)
    some = plots.plot_prior_predictive(zero, law="regression", draws=15)
    assert float(some[0].get_legend().get_title().get_text().split("% of losses")[0]) > 99.8


def test_rising_curves_are_seen():
    rows = np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 2.1], [1.0, 1.0, 1.0]])
    assert _falls(rows).tolist() == [True, False, True]


def test_prior_predictive_defaults_to_an_observed_domain():
    runs = swarm(DOMAINS, unobserved=("web",))
    axes = plots.plot_prior_predictive(runs, law="quantization", draws=5)
    assert axes[0].get_xlabel() == "weight of code"
    # of targets alone, the first domain
    none = swarm(DOMAINS, ("chat",), unobserved=DOMAINS)
    axes = plots.plot_prior_predictive(none, law="quantization", draws=5)
    assert axes[0].get_xlabel() == "weight of web"
    with pytest.raises(ValueError, match="unknown domain 'nope'; valid names: web, code, books"):
        plots.plot_prior_predictive(runs, component="nope")


# --- diagnostics ---


def test_diagnostics_show_the_table(small):
    r_hat, ess = plots.plot_diagnostics(small)
    table = small.diagnose().table
    names = [t.get_text() for t in r_hat.get_yticklabels()]
    table = table.iloc[::-1]  # the first on top
    assert names == list(table.index)
    np.testing.assert_array_equal(r_hat.collections[0].get_offsets()[:, 0], table["r_hat"])
    np.testing.assert_array_equal(ess.collections[0].get_offsets()[:, 0], table["ess_bulk"])
    np.testing.assert_array_equal(ess.collections[1].get_offsets()[:, 0], table["ess_tail"])
    assert r_hat.get_xlabel().startswith("R-hat")
    assert ess.get_xlabel().startswith("effective draws (ESS)")
    assert not overlapping(r_hat.get_yticklabels())


def test_diagnostics_say_pass_fail_and_divergences(small):
    # 4 x 100 draws are too few for an ESS of 400
    assert plots.plot_diagnostics(small)[0].get_title() == "diagnostics fail"
    long = fit_of(parameters(DOMAINS, n_draws=2400), swarm(DOMAINS))
    long.posterior["sample_stats"]["diverging"][1, :2] = True
    r_hat, ess = plots.plot_diagnostics(long)
    assert r_hat.get_title() == "diagnostics pass"
    assert ess.get_title() == "2 divergences in 2400 draws"


# --- mechanisms ---


def test_mechanisms_show_shares_in_percent(small):
    axes = plots.plot_mechanisms(small, draws=50, seed=2)
    posterior = small.posterior["posterior"]
    prior = prior_fit(small.runs, draws=50, seed=2).posterior["posterior"]
    names = ("irreducible", "capacity", "noise", "head_n", "head_d")
    for ax, name in zip(axes, names, strict=True):
        for container, draws in zip(ax.containers, (prior, posterior), strict=True):
            values = draws[f"share_{name}"].values
            values = 100 * values.reshape(-1, values.shape[-1])
            np.testing.assert_allclose(bars(container), middle_90(values), rtol=1e-9)
            # a row for each component; targets have no capacity term
            rows = np.round(container.lines[0].get_ydata()).tolist()
            assert rows == ([0, 1, 2] if name == "capacity" else [0, 1, 2, 3])
        assert ax.get_xlabel() == "share of loss, %"
    assert [t.get_text() for t in axes[0].get_yticklabels()] == [*DOMAINS, "target:exam"]


def test_mechanisms_label_the_reference_and_the_intervals(small):
    figure = plots.plot_mechanisms(small, draws=10)[0].figure
    tokens = float(np.exp(np.log(small.runs.n_tokens).mean())) / 1e9
    assert f"D = {tokens:.3g}B tokens" in figure.get_suptitle()
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert said == [
        "prior, median and 90% equal-tailed interval",
        "posterior, median and 90% equal-tailed interval",
    ]


def test_mechanisms_of_the_smallest_law():
    fit = fit_of(parameters(DOMAINS), swarm(DOMAINS), law="quantization")
    axes = plots.plot_mechanisms(fit, draws=10)
    assert [ax.get_title() for ax in axes] == ["irreducible", "capacity competition"]


# --- all of them ---


def every_plot(fit):
    yield plots.plot_fit(fit)
    yield plots.plot_fit(fit, relative=True)
    yield plots.plot_transfer(fit)
    yield plots.plot_recommendation(recommendation(fit), runs=fit.runs)
    yield plots.plot_prior_predictive(fit.runs, draws=10)
    yield plots.plot_diagnostics(fit)
    yield plots.plot_mechanisms(fit, draws=10)


@pytest.mark.parametrize("which", ["small", "pile"])
def test_saved_figures_have_ink(which, request):
    fit = request.getfixturevalue(which)
    for axes in every_plot(fit):
        image = pixels(axes)
        assert (image.min(axis=2) < 0.9).mean() > 0.01


def test_seventeen_domains_are_readable(pile):
    for axes in (
        plots.plot_mechanisms(pile, draws=10),
        plots.plot_recommendation(recommendation(pile), runs=pile.runs),
    ):
        ax = np.ravel(axes)[0]
        assert [t.get_text() for t in ax.get_yticklabels()] == PILE
        assert not overlapping(ax.get_yticklabels())


@pytest.fixture(scope="module")
def compared():
    """A posterior around the truth, the point fit of the swarm, and the recommendation."""
    draws = parameters(DOMAINS, n_draws=400, spread=0.01)
    truth = {name: value[0] for name, value in draws.items()}
    fit = fit_of(draws, swarm(DOMAINS, truth=truth, n_runs=60))
    return fit, point_fit(fit.runs, "point:transfer"), recommend(fit, 1e8, 2e9)


def test_posterior_point_shows_both(compared):
    fit, point, rec = compared
    stuck = dataclasses.replace(point, at_bounds=("b[code]", "E[books]", "tau[code,web]"))
    axes = plots.plot_posterior_point(fit, stuck, rec)
    assert len(axes) == 5
    posterior = fit.posterior["posterior"].to_dataset()
    for panel, name in zip(axes, "Eba", strict=False):
        crosses, triangles = panel.get_lines()[1:3]
        shown = np.sort(np.concatenate([crosses.get_xdata(), triangles.get_xdata()]))
        np.testing.assert_array_equal(shown, np.sort(point.parameters[name].values))
        segments = np.array(panel.collections[0].get_segments())[:, :, 0]
        low, high = posterior[name].quantile([0.05, 0.95], ("chain", "draw")).values
        np.testing.assert_allclose(segments, np.stack([low, high], axis=1))
    assert axes[0].get_lines()[2].get_ydata().tolist() == [2]  # E of books
    assert axes[1].get_lines()[2].get_ydata().tolist() == [1]  # b of code
    assert axes[2].get_lines()[2].get_ydata().tolist() == []
    assert axes[0].get_title(loc="left") == (
        f"point:transfer: 3 of {point.n_parameters} parameters on a bound"
    )


def test_posterior_point_measures_how_far_the_optimum_is(compared):
    fit, _, rec = compared
    rival = point_fit(fit.runs, "additive")
    losses, optima = plots.plot_posterior_point(fit, rival, rec, prob=0.5)
    best = rival.optimum(1e8, 2e9)
    np.testing.assert_array_equal(optima.get_lines()[1].get_xdata(), best.values)
    moved = np.maximum(best.values - rec.weights.values, 0).sum()
    assert f"moves {moved:.0%} of the tokens" in optima.get_title(loc="left")
    own = np.maximum(rec.optima.values - rec.weights.values, 0).sum(axis=1)
    low, high = np.quantile(own, [0.25, 0.75])
    assert f"own {low:.0%} to {high:.0%}" in optima.get_title(loc="left")
    expected = rec.losses.draws["expected"].isel(row=0).sel(domain=list(DOMAINS)).median("draw")
    predicted = rival.predict(rec.weights, 1e8, 2e9).isel(row=0).sel(domain=list(DOMAINS))
    off = 100 * (predicted / expected - 1)
    np.testing.assert_allclose(losses.get_lines()[1].get_xdata(), off.values)


def test_posterior_point_refuses_other_fits(compared, small):
    fit, point, rec = compared
    with pytest.raises(ValueError, match="the point fit is of web, code, books; the fit is of web"):
        plots.plot_posterior_point(small, point, rec)
    with pytest.raises(ValueError, match="recommend for a sum"):
        plots.plot_posterior_point(fit, point, dataclasses.replace(rec, worst=True))
