"""Prior draws follow the stated priors, and the law at the reference point."""

import math

import numpy as np
import pytest
import scipy.stats
from synthetic import swarm

from bayesmix import Gamma, LogNormal, Normal
from bayesmix.discrepancy import SCALES, scales
from bayesmix.model import observed_log_loss
from bayesmix.prior_predictive import predict_prior, prior_fit, prior_predictive
from bayesmix.reference import reference
from bayesmix.simulate import draw_design

DOMAINS = ("web", "code", "books")
DISTRIBUTIONS = {
    Normal: lambda p: scipy.stats.norm(p.mu, p.sigma),
    LogNormal: lambda p: scipy.stats.lognorm(p.sigma, scale=math.exp(p.mu)),
    Gamma: lambda p: scipy.stats.gamma(p.alpha, scale=1 / p.beta),
}


@pytest.fixture(scope="module")
def runs():
    return swarm(DOMAINS, ("exam",), unobserved=("books",))


@pytest.fixture(scope="module")
def drawn(runs):
    return prior_fit(runs, draws=400, seed=1)


OTHER_FORM = ("level", "g", "q", "fade", "discrepancy_correlation")  # not what the prior is of


def test_hyper_parameters_follow_their_priors(drawn):
    posterior = drawn.posterior["posterior"]
    checked = [n for n in drawn.priors if n in posterior and n not in OTHER_FORM]
    assert {"capacity_mean", "tau_spread", "sigma_mean"} <= set(checked)
    for name in checked:
        prior = DISTRIBUTIONS[type(drawn.priors[name])](drawn.priors[name])
        assert scipy.stats.kstest(posterior[name].values[0], prior.cdf).pvalue > 1e-3, name


def test_levels_are_centred_on_median_losses(runs, drawn):
    observed = observed_log_loss(runs)
    level = np.log(drawn.posterior["posterior"]["level"].values[0])
    prior = drawn.priors["level"]
    for i in (0, 1, 3):
        distribution = scipy.stats.norm(np.median(observed[:, i]) + prior.mu, prior.sigma)
        assert scipy.stats.kstest(level[:, i], distribution.cdf).pvalue > 1e-3


@pytest.mark.parametrize("law", ["transfer", "regression", "quantization"])
def test_the_law_at_the_reference_is_the_level_split_in_shares(runs, law):
    drawn = prior_fit(runs, law, draws=50, seed=2)
    ref = reference(runs)
    weights = {f"weight_{d}": [w] for d, w in zip(runs.domains, ref.weights, strict=True)}
    point = runs.frame.iloc[:1].assign(**weights, n_params=ref.n_params, n_tokens=ref.n_tokens)
    at_reference = predict_prior(drawn, point)["expected"].values[:, 0]
    posterior = drawn.posterior["posterior"].to_dataset()
    np.testing.assert_allclose(at_reference, posterior["level"].values[0], rtol=1e-9)
    shares = [
        posterior[n].rename(domain="component") if "domain" in posterior[n].dims else posterior[n]
        for n in posterior
        if str(n).startswith("share_")
    ]
    total = sum(share.reindex(component=list(drawn.components), fill_value=0) for share in shares)
    np.testing.assert_allclose(total, 1, rtol=1e-9)


def test_losses_of_the_runs(runs):
    prior = prior_predictive(runs, draws=30, seed=4)
    assert dict(prior["expected"].sizes) == {"draw": 30, "row": len(runs), "component": 4}
    assert prior["component"].values.tolist() == [*DOMAINS, "target:exam"]
    drawn = prior_fit(runs, draws=30, seed=4)
    table = (
        drawn.predict(runs.frame, discrepancy=False)
        .draws["expected"]
        .sel(domain=list(drawn.components))
    )
    np.testing.assert_array_equal(prior["expected"], table)
    assert (prior["expected"] > 0).all()
    assert (prior["loss"] != prior["expected"]).all()


def test_priors_are_replaced_by_name(runs):
    prior = prior_predictive(runs, priors={"level": Normal(1.0, 1e-9)}, draws=3)
    medians = np.nanmedian(observed_log_loss(runs)[:, 0])
    np.testing.assert_allclose(prior["level"].sel(component="web"), math.exp(medians + 1))


@pytest.mark.parametrize("scale", SCALES)
def test_offsets_have_the_covariance_of_each_part(scale):
    # of six cells three are no run's end, which a bend passes by
    runs = draw_design(3, [5e7, 2e8, 8e8], n_mixtures=4, checkpoints=2, seed=1)
    known = {name: LogNormal(math.log(0.1 if name == scale else 1e-9), 1e-9) for name in SCALES}
    known["discrepancy_correlation"] = Normal(0.0, 1e-9)
    drawn = prior_fit(runs, priors=known, draws=4000).posterior["posterior"]["offset"].values[0]
    cells = scales(runs)
    assert cells.ended.sum() == 3
    basis = cells.basis()
    values = np.einsum("smc,mk->sck", drawn, basis)
    np.testing.assert_allclose(np.einsum("sck,mk->smc", values, basis), drawn, atol=1e-7)
    size, axes = np.linalg.eigh(0.01 * cells.covariances()[SCALES.index(scale)])
    shown = size > 1e-9 * size.max()
    np.testing.assert_allclose(values @ axes[:, ~shown], 0.0, atol=1e-6)
    # white over cells where the covariance is what it should be, half in common to components
    white = (values @ axes[:, shown] / np.sqrt(size[shown])).reshape(len(values), -1)
    expected = np.kron(np.full((3, 3), 0.5) + 0.5 * np.eye(3), np.eye(shown.sum()))
    # measured: 0.055 of some hundred sample covariances
    np.testing.assert_allclose(np.cov(white.T), expected, atol=0.06)


def test_seeds(runs):
    first, again, other = (prior_fit(runs, draws=5, seed=s).posterior for s in (7, 7, 8))
    assert first["posterior"].to_dataset().identical(again["posterior"].to_dataset())
    assert not np.any(first["posterior"]["level"].values == other["posterior"]["level"].values)


def test_a_single_draw_has_the_same_shape(runs):
    assert dict(prior_fit(runs, draws=1).posterior["posterior"]["tau"].sizes) == {
        "chain": 1, "draw": 1, "component": 4, "source": 3,
    }  # fmt: skip


def test_bad_arguments(runs):
    with pytest.raises(ValueError, match="unknown law 'nope'; valid names: quantization"):
        prior_predictive(runs, "nope")
    with pytest.raises(ValueError, match="unknown prior 'nope'; valid names: level"):
        prior_predictive(runs, priors={"nope": Normal(0.0, 1.0)})
    with pytest.raises(ValueError, match="draws must be at least 1, got 0"):
        prior_predictive(runs, draws=0)
