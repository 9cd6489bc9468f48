"""What is sampled has the density of the priors, whatever the coordinates."""

import numpy as np
import pymc as pm
import pytest
from scipy.stats import norm

import bayesmix as bm
from bayesmix import model as models
from bayesmix.pooling import between, by_sum
from bayesmix.priors import EXPONENT_MAX, LogNormal
from bayesmix.reference import swarm_priors
from bayesmix.runs import Runs
from bayesmix.simulate import simulate

SIZES = (1e8, 4e8)


def swarm(kind: str) -> Runs:
    """Runs whose D follows N, or not, with zeros, exact or printed, with a target."""
    if kind == "crossed":
        tiny = bm.load_dataset("tinyswarm")
        return tiny.select(np.arange(0, len(tiny), 8))
    if kind == "zeros":
        return simulate(4, SIZES, n_mixtures=6, zeros=0.3, seed=1).runs
    if kind == "printed":
        frame = simulate(4, SIZES, n_mixtures=6, zeros=0.3, seed=1).runs.frame
        return bm.runs_from_frame(frame, weight_resolution=0.01)
    if kind == "one size":
        return simulate(3, SIZES[:1], n_mixtures=8, zeros=0.3, seed=1).runs
    if kind == "target":
        return simulate(3, SIZES, n_mixtures=4, targets=("exam",), seed=1).runs
    return simulate(3, SIZES, n_mixtures=4, seed=1).runs


@pytest.mark.parametrize(
    ("kind", "law"),
    [
        ("path", "transfer"),
        ("zeros", "transfer"),
        ("printed", "transfer"),
        ("target", "transfer"),
        ("crossed", "transfer"),
        ("one size", "transfer"),
        ("path", "regression"),
        ("path", "quantization"),
    ],
)
def test_the_density_of_shares_is_that_of_their_priors(kind: str, law: str) -> None:
    """Log odds from the shares that a posterior keeps, and their normals by SciPy.

    A coordinate that is not the log odds itself, but for a shift, brings the log of its slope.
    """
    runs = swarm(kind)
    model, prior = models.build_model(runs, law), swarm_priors(runs, law)
    n_domains, rng = len(runs.domains), np.random.default_rng(2)
    point = {name: rng.normal(0.0, 0.5, np.shape(x)) for name, x in model.initial_point().items()}
    values = {variable: point[variable.name] for variable in model.value_vars}

    names = [v.name for v in (*model.deterministics, *model.free_RVs)]
    symbols = model.replace_rvs_by_values([model[name] for name in names])
    at = {
        name: symbol.eval(values, mode="FAST_COMPILE", on_unused_input="ignore")
        for name, symbol in zip(names, symbols, strict=True)
    }
    zeros = np.zeros(len(at["share_irreducible"]))
    capacity, noise, head_n, head_d = (
        np.r_[x, zeros[len(x) :]]
        for x in (at.get(f"share_{of}", zeros) for of in ("capacity", "noise", "head_n", "head_d"))
    )
    least_b = np.r_[at["b"], zeros[n_domains:]] * capacity / EXPONENT_MAX
    least_a = at.get("a", zeros) * noise / EXPONENT_MAX
    rest = 1 - least_b - least_a
    bent = at["share_irreducible"]
    left = bent + (capacity - least_b) + (noise - least_a)
    if kind == "one size":  # heads are no part of what is curved
        bent = bent + head_n + head_d
        left = at["share_irreducible"]
    domain = slice(n_domains)
    odds = {
        "capacity": (least_b / rest)[domain],
        "capacity_curvature": ((capacity - least_b) / bent)[domain],
    }
    if law != "quantization":
        odds |= {"noise": least_a / rest, "noise_curvature": (noise - least_a) / bent}
    if "g" in at:
        odds |= {"head_n": head_n / left * at["g"], "head_d": head_d / left * at["q"]}
    expected = 0.0
    for name, ratio in odds.items():
        mean, spread = at[f"{name}_mean"], at[f"{name}_spread"]
        expected += norm.logpdf(np.log(ratio), mean, spread).sum()
        expected += prior[f"{name}_mean"].log_density(mean)
        expected += prior[f"{name}_spread"].log_density(spread)
    unseen = {name: at[f"unseen_{name}"] for name in ("mean", "spread")}
    expected += norm.logpdf(np.log(at["sigma_unseen"]), *unseen.values()).sum()
    expected += sum(prior[f"unseen_{name}"].log_density(x) for name, x in unseen.items())
    medians = np.nanmedian(models.observed_log_loss(runs), axis=0)
    expected += prior["level"].log_density(np.log(at["level"]) - medians).sum()

    def slopes(*spreads: str) -> float:
        return np.log(np.hypot.reduce([at[f"{name}_spread"] for name in spreads]))

    if law != "quantization":
        # half centred
        expected += 0.5 * len(zeros) * slopes("noise_curvature")
        expected += 0.5 * n_domains * slopes("capacity", "noise")
    seen_at_0 = np.zeros(len(zeros))
    if law == "transfer":
        seen_at_0[domain] = (runs.weights.values == 0).sum(axis=0)
    expected += (1 / (seen_at_0 + 1)).sum() * slopes("unseen")
    if kind == "one size":  # against their means
        expected += len(zeros) * (slopes("head_n") + slopes("head_d"))
    elif "g" in at and kind != "crossed":
        expected += len(zeros) * slopes("head_n", "head_d")
        expected += np.log(np.hypot(prior["head_n_mean"].sigma, prior["head_d_mean"].sigma))

    of = ("level", "capacity", "noise", "own", "head", "unseen")
    sampled = [v for v in model.free_RVs if v.name.startswith(of)]
    found = model.compile_logp(vars=sampled, jacobian=False, mode="FAST_COMPILE")(point)
    assert found == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("exponents", [None, (0.3, 0.5)])
@pytest.mark.parametrize("centred", [0.0, 0.5])
def test_two_normals_by_their_sum_are_two_normals(
    exponents: tuple[float, float] | None, centred: float
) -> None:
    with pm.Model(coords={"domain": range(20_000)}):
        normals, shifts = ((-1.0, 0.7), (0.4, 0.3)), (0.2, -0.6)
        both = by_sum("x", normals, shifts, "domain", centred=centred, exponents=exponents)
        drawn = np.array(pm.draw(list(both), random_seed=1, mode="FAST_COMPILE"))
    mean, spread = np.transpose(normals)
    z = (drawn - mean[:, None]) / spread[:, None]
    np.testing.assert_allclose(z.mean(axis=1), 0.0, atol=4 / np.sqrt(20_000))
    np.testing.assert_allclose(np.cov(z), np.eye(2), atol=5 / np.sqrt(20_000))


def test_what_is_sampled_is_between() -> None:
    with pm.Model(coords={"domain": ["web", "code"]}) as model:
        values = between("z", 2.0, 3.0, np.array([0.0, 1.0]), dims="domain")
    mapped = model.replace_rvs_by_values([values])[0]
    at = mapped.eval({model.value_vars[0]: np.array([0.5, 0.5])}, mode="FAST_COMPILE")
    np.testing.assert_allclose(at, [2.0 + 3.0 * 0.5, 0.5])


def test_means_whose_priors_are_not_normal_are_sampled_as_they_are() -> None:
    runs = swarm("path")
    assert "head_n_mean" not in [v.name for v in models.build_model(runs).free_RVs]
    model = models.build_model(runs, priors={"head_n_mean": LogNormal(-2.0, 0.5)})
    assert {"head_n_mean", "head_d_mean"} <= {v.name for v in model.free_RVs}


def test_the_level_of_a_prior_that_is_not_normal() -> None:
    runs = swarm("path")
    model = models.build_model(runs, priors={"level": LogNormal(0.0, 0.1)})
    drawn = pm.draw(model["level"], random_seed=1, mode="FAST_COMPILE")
    medians = np.nanmedian(runs.losses.values, axis=0)
    assert (drawn > medians).all()  # its log is positive
