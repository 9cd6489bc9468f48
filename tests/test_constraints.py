"""Constraints: feasible sets, optima under them, shadow prices, and files that are refused."""

import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from synthetic import fit_of, parameters, swarm

from bayesmix import (
    KL,
    L1,
    Bounds,
    CVaR,
    Fixed,
    GroupSum,
    Regret,
    RunsError,
    TokenBudget,
    near_optimal,
    recommend,
)
from bayesmix._choices import read_constraints
from bayesmix.feasible import feasible_set
from bayesmix.objective import problem
from bayesmix.optima import draw_optima

N, D = 1.5e8, 4e9
NAMES = tuple(f"d{i}" for i in range(6))
SKEWED = dict(zip(NAMES, (0.4, 0.3, 0.1, 0.1, 0.05, 0.05), strict=True))
SETS = {
    "bounds": [Bounds({"d0": (0.3, 1.0), "d1": (0.0, 0.05)})],
    "fixed": [Fixed({"d0": 0.35, "d5": 0.0})],
    "group": [GroupSum("g", ("d0", "d1", "d2"), max=0.3)],
    "groups": [GroupSum("g", ("d0", "d1"), min=0.6), GroupSum("f", ("d1", "d2", "d3"), max=0.2)],
    "a little": [GroupSum("g", ("d2", "d3"), max=1e-3)],
    "all but a little": [GroupSum("g", ("d0", "d1", "d4"), min=0.98)],
    "none": [GroupSum("g", ("d2", "d3"), max=0.0)],
    "all of some": [GroupSum("g", ("d0", "d1", "d4"), min=1.0), KL(SKEWED, 0.4)],
    "budget": [TokenBudget({"d2": 1e8, "d3": 2e8}, max_epochs=1.5)],
    "kl": [KL(SKEWED, 0.05)],
    "l1": [L1(SKEWED, 0.15)],
    "all": [
        Bounds({"d4": (0.1, 1.0)}),
        GroupSum("g", ("d0", "d1"), max=0.55),
        TokenBudget({"d2": 3e8}),
        KL(SKEWED, 0.1),
    ],
}


@pytest.fixture(scope="module")
def fit():
    return fit_of(parameters(NAMES, n_draws=24, spread=0.25, seed=2), swarm(NAMES))


@pytest.fixture(scope="module")
def of(fit):
    return problem(fit, N, D, dict.fromkeys(NAMES, 1 / 6))


def random_mixtures(allowed, around, n, seed=0):
    """Feasible mixtures: Dirichlet ones pulled towards a feasible one until they are feasible."""
    rng = np.random.default_rng(seed)
    k = len(around)
    other = rng.dirichlet(np.full(k, 0.5), n)
    other[n // 2 :] = around + 0.02 * (other[n // 2 :] - 1 / k)
    low, high = np.zeros(n), np.ones(n)
    for _ in range(40):
        share = (low + high) / 2
        points = around + share[:, None] * (other - around)
        fits = allowed.violation(points) <= 1e-12
        low, high = np.where(fits, share, low), np.where(fits, high, share)
    points = around + low[:, None] * (other - around)
    return points[allowed.violation(points) <= 1e-9]


@pytest.mark.parametrize("name", SETS)
def test_optima_are_feasible_and_no_random_mixture_is_better(name, fit, of):
    rec = recommend(fit, N, D, constraints=SETS[name])
    allowed = feasible_set(SETS[name], NAMES, D)
    h, optima = rec.weights.values, rec.optima.values
    assert allowed.violation(h[None]) <= 1e-8
    assert allowed.violation(optima).max() <= 1e-8
    assert rec.convergence["violation"] <= 1e-8
    assert rec.convergence["residual"] <= 1e-6
    mixtures = random_mixtures(allowed, h, 10_000)
    values = of.values(mixtures)
    assert rec.loss.mean() <= values.mean(axis=0).min() + 1e-8
    own = np.diagonal(of.values(optima))
    assert (own <= values.min(axis=1) + 1e-8).all()
    assert (own <= rec.loss.values + 1e-8).all()
    # the optimum without constraints is shown beside, and is better
    cost = rec.baselines["difference"].sel(baseline="unconstrained").mean()
    assert cost > 1e-4
    free = recommend(fit, N, D)
    beside = rec.baselines["weights"].sel(baseline="unconstrained")
    np.testing.assert_allclose(beside, free.weights, atol=1e-4)
    assert rec.constraints["binding"].any()


@pytest.mark.parametrize(
    "name", ["group", "groups", "a little", "all but a little", "kl", "l1", "all"]
)
def test_optima_equal_those_of_a_general_solver(name, fit, of):
    rec = recommend(fit, N, D, constraints=SETS[name])
    allowed = feasible_set(SETS[name], NAMES, D)
    every = np.ones((of.n_draws, 1))
    truth = scipy.optimize.minimize(
        lambda h: of.at(every * h)[0].mean(),
        rec.weights.values * 0.99 + 0.01 / 6,
        jac=lambda h: of.at(every * h)[1].mean(axis=0),
        method="SLSQP",
        bounds=list(zip(np.maximum(allowed.lower, 1e-9), allowed.upper, strict=True)),
        constraints=[
            {"type": "eq", "fun": lambda h: h.sum() - 1},
            {"type": "ineq", "fun": lambda h: -allowed.excess(h[None])[0]},
        ],
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert rec.loss.mean() <= truth.fun + 1e-9
    if name != "l1":  # whose corners the other solver does not see
        np.testing.assert_allclose(rec.weights, truth.x, atol=1e-4)


@pytest.mark.parametrize(
    ("tight", "loose"),
    [
        (Bounds({"d0": (0.3, 1.0)}), Bounds({"d0": (0.299, 1.0)})),
        (Bounds({"d1": (0.0, 0.05)}), Bounds({"d1": (0.0, 0.051)})),
        (GroupSum("g", NAMES[:3], max=0.3), GroupSum("g", NAMES[:3], max=0.301)),
        (GroupSum("g", NAMES[:2], min=0.6), GroupSum("g", NAMES[:2], min=0.599)),
        (KL(SKEWED, 0.05), KL(SKEWED, 0.051)),
        (L1(SKEWED, 0.15), L1(SKEWED, 0.151)),
        (TokenBudget({"d2": 1e8}), TokenBudget({"d2": 1.04e8})),
    ],
)
def test_shadow_prices_are_what_loosening_brings(tight, loose, fit):
    risk = CVaR(0.5)
    one, other = (recommend(fit, N, D, risk=risk, constraints=[c]) for c in (tight, loose))
    before, after = (rec.constraints.set_index("constraint") for rec in (one, other))
    assert before["binding"].all()
    gained = (one.risk_value - other.risk_value) / 1e-3
    # the price falls as the constraint is loosened
    assert after["price"].iloc[0] - 1e-5 <= gained <= before["price"].iloc[0] + 1e-5
    assert gained > 1e-3


def test_constraints_that_do_not_bind_cost_nothing(fit):
    free = recommend(fit, N, D)
    rec = recommend(fit, N, D, constraints=[GroupSum("g", NAMES[:3], max=0.99), KL(SKEWED, 3)])
    np.testing.assert_allclose(rec.weights, free.weights, atol=1e-4)
    assert not rec.constraints["binding"].any()
    assert (rec.constraints["price"] == 0).all()


@pytest.mark.parametrize(
    ("constraint", "atol"),
    # the same path but for rounding; where a draw's ties are broken by it, as measured
    [(KL(SKEWED, 0.05), 1e-7), (GroupSum("g", NAMES[:3], max=0.3), 1e-7), (L1(SKEWED, 0.15), 1e-6)],
)
def test_the_unit_of_the_objective_is_no_matter(constraint, atol, fit):
    one = recommend(fit, N, D, constraints=[constraint])
    for weight in (1.0, 100.0, 1e-6):
        rec = recommend(fit, N, D, objective=dict.fromkeys(NAMES, weight), constraints=[constraint])
        np.testing.assert_allclose(rec.weights, one.weights, atol=1e-8)
        np.testing.assert_allclose(rec.optima, one.optima, atol=atol)
        assert rec.convergence["violation"] <= 1e-8
        assert rec.convergence["draws_violation"] <= 1e-8
        assert rec.convergence["residual"] <= 1e-6
        prices = one.constraints["price"] * 6 * weight
        np.testing.assert_allclose(rec.constraints["price"], prices, rtol=1e-6)
        assert rec.risk_value == pytest.approx(one.risk_value * 6 * weight, rel=1e-10)


REFERENCES = {
    "uniform": np.full(4, 0.25),
    "skewed": np.array([0.6, 0.3, 0.08, 0.02]),
    "thin": np.array([0.94, 0.05, 0.008, 0.002]),
}


@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("limit", [1e-4, 1e-3, 1e-2, 0.1])
def test_a_divergence_is_kept_however_tight(reference, limit):
    # data noise alone, sum_i A_i (D h_i)^-a / 4: a closed form to which a general solver goes
    four, ref = NAMES[:4], REFERENCES[reference]
    draws = parameters(four, n_draws=8, spread=0.5)
    draws["log_c"] = np.full((8, 4), -60.0)
    draws["a"] = np.full((8, 4), 0.3)
    draws["log_A"] = np.log(np.random.default_rng(0).lognormal(4, 1, (8, 4)))
    fit = fit_of(draws, swarm(four), law="regression")
    rec = recommend(fit, N, D, constraints=[KL(dict(zip(four, ref, strict=True)), limit)])
    assert rec.convergence["violation"] <= 1e-8
    assert rec.convergence["draws_violation"] <= 1e-8
    assert rec.convergence["draws_converged"] == 1
    scale = np.exp(draws["log_A"]) * D**-0.3 / 4
    for found, a in ((rec.weights, scale.mean(axis=0)), *zip(rec.optima, scale, strict=True)):
        # tokens of the reference are the start; in shares of them the curvature is even
        truth = scipy.optimize.minimize(
            lambda x, a=a: (a * (ref * x) ** -0.3).sum(),
            np.ones(4),
            jac=lambda x, a=a: -0.3 * a * ref**-0.3 * x**-1.3,
            method="SLSQP",
            bounds=[(1e-6, None)] * 4,
            constraints=[
                {"type": "eq", "fun": lambda x: ref @ x - 1, "jac": lambda x: ref},
                {
                    "type": "ineq",
                    "fun": lambda x: 1 - ref @ (x * np.log(x) - x + 1) / limit,
                    "jac": lambda x: -ref * np.log(x) / limit,
                },
            ],
            options={"ftol": 1e-15, "maxiter": 500},
        ).x
        np.testing.assert_allclose(found, ref * truth, atol=2e-6)
        h = found.values
        # measured: 1.6e-9, where a domain of 0.002 is steep
        assert (a * h**-0.3).sum() <= (a * (ref * truth) ** -0.3).sum() + 3e-9
        assert (h * np.log(h / ref)).sum() <= limit + 1e-8


def test_what_the_rounds_leave_of_a_breach_is_drawn_back(fit, monkeypatch):
    monkeypatch.setattr("bayesmix.lagrangian._MOST", 1.0)  # rounds that settle slowly
    limits = [KL(SKEWED, 0.01), GroupSum("g", NAMES[:2], min=0.65)]
    rec = recommend(fit, N, D, constraints=limits)
    assert rec.convergence["violation"] <= 1e-8
    assert rec.convergence["draws_violation"] <= 1e-8
    monkeypatch.setattr("bayesmix.optima._drawn_back", lambda points, _: points)
    assert recommend(fit, N, D, constraints=limits).convergence["violation"] > 1e-8


def test_two_constraints_that_all_but_clash_are_both_kept(fit):
    uniform = dict.fromkeys(NAMES, 1 / 6)
    limits = [KL(uniform, 1e-4), GroupSum("g", NAMES[:2], max=1 / 3 + 1e-3)]
    rec = recommend(fit, N, D, objective={"d1": 1.0}, constraints=limits)
    assert rec.convergence["violation"] <= 1e-8
    assert rec.convergence["draws_violation"] <= 1e-8
    assert rec.constraints["binding"].all()


def test_a_divergence_of_nothing_is_its_reference(fit):
    rec = recommend(fit, N, D, constraints=[KL(SKEWED, 0)])
    np.testing.assert_allclose(rec.weights, list(SKEWED.values()), atol=1e-12)
    np.testing.assert_allclose(rec.optima, np.tile(rec.weights, (24, 1)), atol=1e-12)


@pytest.mark.parametrize("limit", [1e-4, 1e-2])
def test_what_is_near_the_optimum_keeps_a_divergence(limit, fit):
    kl = KL(SKEWED, limit)
    near = near_optimal(fit, N, D, 1e-3, constraints=[kl])
    mixtures = near["weights"].transpose("domain", "end", "weight_of").values.reshape(-1, 6)
    assert feasible_set([kl], NAMES, D).violation(mixtures).max() <= 1e-8
    assert near.attrs["violation"] <= 1e-8
    assert near.attrs["residual"] <= 1e-6


def test_constraints_may_come_one_by_one(fit):
    limits = [Bounds({"d1": (0.0, 0.05)})]
    rec = recommend(fit, N, D, constraints=iter(limits))
    assert rec.weights.sel(domain="d1") <= 0.05
    assert "unconstrained" in rec.baselines["baseline"]
    assert feasible_set(iter(limits), NAMES, D).upper[1] == 0.05


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_sets_around_a_mixture_are_feasible_and_kept(seed):
    rng = np.random.default_rng(seed)
    draws = parameters(NAMES[:4], n_draws=4, seed=seed % 7)
    of = problem(fit_of(draws, swarm(NAMES[:4])), N, D, dict.fromkeys(NAMES[:4], 0.25))
    inside = rng.dirichlet(np.full(4, 2.0))
    reference = rng.dirichlet(np.full(4, 2.0))
    given_reference = dict(zip(NAMES[:4], reference, strict=True))
    kl = float((inside * np.log(inside / reference)).sum())
    pick = [KL(given_reference, kl + 0.01), L1(given_reference, abs(inside - reference).sum())]
    constraints = [
        Bounds({"d0": (0.0, min(1.0, inside[0] + 0.05))}),
        GroupSum("g", ["d1", "d2"], min=inside[1:3].sum() * 0.9),
        pick[seed % 2],
    ]
    allowed = feasible_set(constraints, NAMES[:4], D)
    assert allowed.violation(inside[None]) <= 1e-9
    found = draw_optima(of, np.full((1, 4), 0.25), allowed)
    assert allowed.violation(found.points).max() <= 1e-8
    assert (found.values <= of.values(inside[None])[:, 0] + 1e-7).all()


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1))
def test_the_least_divergence_of_a_part_is_the_log_of_its_share(seed):
    """Of mixtures of some domains alone, in closed form."""
    rng = np.random.default_rng(seed)
    names = [f"d{i}" for i in range(rng.integers(3, 10))]
    reference = rng.dirichlet(np.ones(len(names)))
    few = rng.permutation(len(names))[: rng.integers(1, len(names))]
    least = -np.log(reference[few].sum())
    kept = [names[i] for i in few]
    given_reference = dict(zip(names, reference, strict=True))
    others = [name for name in names if name not in kept]
    for group in (GroupSum("g", kept, min=1.0), GroupSum("g", others, max=0.0)):
        feasible_set([group, KL(given_reference, least + 1e-6)], names, D)
        with pytest.raises(ValueError, match="no mixture meets all of: group g at"):
            feasible_set([group, KL(given_reference, max(least - 1e-6, 0.0))], names, D)


def test_divergences_from_two_references_are_both_kept():
    zeros = KL({"d0": 1.0}, 0.1)
    with pytest.raises(ValueError, match=r"kl at most 0\.1; kl at most 0"):
        feasible_set([zeros, KL({"d0": 0.5, "d1": 0.5}, 0.0)], NAMES, D)


@pytest.mark.parametrize(
    ("constraints", "named", "spared"),
    [
        ([Bounds({"d0": (0.6, 1), "d1": (0.5, 1), "d2": (0.1, 1)})], ["d0", "d1"], ["d2"]),
        ([Bounds(dict.fromkeys(NAMES, (0, 0.1)))], NAMES, ["d6"]),
        (
            [GroupSum("g", NAMES[:2], min=0.5), Bounds({"d0": (0, 0.2), "d1": (0, 0.2)})],
            ["group g at least 0.5", "d0 at most 0.2", "d1 at most 0.2"],
            [],
        ),
        (
            [TokenBudget(dict.fromkeys(NAMES, 5e8)), Bounds({"d0": (0.1, 1)})],
            ["d3 at most 0.125 (token budget)"],
            ["d0 at least"],
        ),
        ([KL(SKEWED, 0.01), Fixed({"d5": 0.5})], ["kl at most 0.01", "d5 (fixed) at least"], []),
        ([L1(SKEWED, 0.2), Bounds({"d5": (0.5, 1)})], ["l1 at most 0.2", "d5 at least"], []),
        ([KL({"d0": 1.0}, 1), Bounds({"d5": (0.5, 1)})], ["kl", "d5 at least"], []),
    ],
)
def test_sets_that_no_mixture_meets_name_what_clashes(constraints, named, spared):
    with pytest.raises(ValueError, match="no mixture meets all of") as caught:
        feasible_set(constraints, NAMES, D)
    for part in named:
        assert part in str(caught.value)
    for part in spared:
        assert part not in str(caught.value)


@pytest.mark.parametrize(
    ("constraint", "said"),
    [
        (Bounds({"poems": (0, 1)}), "bounds: unknown domain 'poems'; valid names: d0"),
        (Bounds({"d0": (0.2, 0.1)}), "bounds: out of range: d0"),
        (Bounds({"d0": (0, 1.1)}), "bounds: out of range: d0"),
        (Fixed({"d0": -0.1}), "fixed weights: out of range: d0"),
        (GroupSum("g", []), "group g: out of range"),
        (GroupSum("g", ["d0"], min=0.5, max=0.4), "group g: out of range"),
        (TokenBudget({"d0": 0}), "token budget: out of range: d0 0"),
        (TokenBudget({"d0": 1e9}, max_epochs=0), "token budget: out of range: max_epochs 0"),
        (KL({"d0": 0.5}, 0.1), "kl: out of range: a reference that sums to 0.5"),
        (KL({"d0": 1.0}, -0.1), "kl: out of range: max -0.1"),
        (L1({"d0": 1.0}, np.nan), "l1: out of range: max nan"),
        (Bounds({"d0": 0.1}), "bounds: out of range: d0 0.1"),
        (Bounds({"d0": (0.1,)}), r"bounds: out of range: d0 \(0.1,\)"),
        (Bounds({"d0": (None, 0.3)}), r"bounds: out of range: d0 \(None, 0.3\)"),
        (Fixed({"d0": None}), "fixed weights: out of range: d0 None"),
        (GroupSum("g", ["d0"], min=None), "group g: out of range"),
        ({"d0": (0, 1)}, "no constraint: {'d0'"),
    ],
)
def test_constraints_that_are_refused(constraint, said):
    with pytest.raises(ValueError, match=said):
        feasible_set([constraint], NAMES, D)


TOML = """
[bounds]
d0 = [0.02, 0.5]
[fixed]
d5 = 0.05
[groups.code]
domains = ["d1", "d2"]
min = 0.1
max = 0.4
[token_budget]
max_epochs = 4
[token_budget.available]
d3 = 1e8
[kl]
max = 0.5
[kl.reference]
d0 = 0.5
d1 = 0.5
[l1]
max = 1.0
[l1.reference]
d0 = 1.0
"""


def test_files_say_what_code_says(tmp_path):
    path = tmp_path / "constraints.toml"
    path.write_text(TOML)
    assert read_constraints(path, NAMES) == [
        Bounds({"d0": (0.02, 0.5)}),
        Fixed({"d5": 0.05}),
        TokenBudget({"d3": 1e8}, 4),
        KL({"d0": 0.5, "d1": 0.5}, 0.5),
        L1({"d0": 1.0}, 1.0),
        GroupSum("code", ["d1", "d2"], 0.1, 0.4),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[bounds", "cannot be read"),
        ("bounds = 3", "bounds is a table"),
        ("groups = 3", "groups is a table"),
        ("[bounds]\npoems = [0, 1]", "bounds: unknown name 'poems'; valid names: d0, d1"),
        ("[bounds]\nd0 = 0.1", "'d0': 0.1 is not [lower, upper]"),
        ("[bounds]\nd0 = [0.2, 0.1]", "bounds: out of range: d0"),
        ("[bounds]\nd0 = [0, nan]", "'d0': [0, nan]"),
        ("[limits]\nd0 = 1", "unknown table 'limits'; valid tables: [bounds]"),
        ("[fixed]\nd0 = 'much'", "'d0': 'much' is not a weight"),
        ("[groups.g]\nmin = 0.1", "groups.g: no key 'domains'"),
        ("[groups.g]\ndomains = 'd0'", "groups.g.domains is a list"),
        ("[groups.g]\ndomains = ['x']", "groups.g.domains: unknown name 'x'"),
        ("[groups.g]\ndomains = ['d0', 'd1']\nleast = 1", "groups.g: unknown key 'least'"),
        ("[groups.g]\ndomains = ['d0', 'd1']\nmin = true", "groups.g.min: True is not a number"),
        ("[token_budget]\nmax_epochs = 2", "token_budget: no key 'available'"),
        ("[token_budget.available]\nd0 = 'all'", "token_budget.available is a table of numbers"),
        ("[token_budget.available]\nd0 = -1", "token budget: out of range: d0 -1"),
        ("[kl.reference]\nd0 = 1", "kl: no key 'max'"),
        ("[kl]\nmax = 1\n[kl.reference]\nx = 1", "kl.reference: unknown name 'x'"),
        ("[kl]\nmax = 1\n[kl.reference]\nd0 = 0.5", "sums to 0.5"),
        ("[l1]\nmax = 1\nreference = 3", "l1.reference is a table of numbers"),
    ],
)
def test_files_that_are_refused_name_the_file_and_the_key(text, said, tmp_path):
    path = tmp_path / "constraints.toml"
    path.write_text(text)
    with pytest.raises(RunsError) as caught:
        read_constraints(path, NAMES)
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")


def test_prices_where_no_domain_is_free_are_what_a_little_more_gains():
    fit = fit_of(parameters(NAMES, n_draws=20), swarm(NAMES))
    objective = {"d0": 1.0, "d1": 1.0}

    def least(c: float, python: float = 0.5):
        limits = [Fixed({"d5": 0.3}), Bounds({"d0": (0, c)}), Bounds({"d1": (0, python)})]
        return recommend(fit, 2e8, 4e9, objective=objective, constraints=limits)

    rec = least(0.2)
    np.testing.assert_allclose(rec.weights.values[[0, 1, 5]], [0.2, 0.5, 0.3], atol=1e-6)
    price = rec.constraints.set_index("constraint")["price"]
    step = 1e-4
    gains = [
        (rec.risk_value - other.risk_value) / step
        for other in (least(0.2 + step), least(0.2, 0.5 + step))
    ]
    np.testing.assert_allclose(price[["d0 at most 0.2", "d1 at most 0.5"]], gains, atol=3e-4)


def test_prices_of_bounds_at_an_l1_reference_are_what_a_little_more_gains(fit):
    reference = dict(zip(NAMES, (0.4, 0.2, 0.1, 0.1, 0.1, 0.1), strict=True))

    def least(low: float, limit: float = 0.05):
        limits = [Bounds({"d0": (low, 1)}), L1(reference, limit)]
        return recommend(fit, N, D, constraints=limits)

    rec, step = least(0.4), 1e-4
    price = rec.constraints.set_index("constraint")["price"]
    gains = [
        (rec.risk_value - other.risk_value) / step
        for other in (least(0.4 - step), least(0.4, 0.05 + step))
    ]
    assert gains[1] > 0.05
    np.testing.assert_allclose(price, gains, atol=3e-4)


def test_prices_of_lower_bounds_where_no_domain_is_free_are_what_a_little_less_gains():
    # each at a bound: d0 and d1 from below, d2 from above, and the rest has nothing to give
    fit = fit_of(parameters(NAMES, n_draws=20), swarm(NAMES))
    others = Fixed(dict.fromkeys(NAMES[3:], 0.05))

    def least(d0: float = 0.3, d1: float = 0.35):
        bounds = Bounds({"d0": (d0, 1), "d1": (d1, 1), "d2": (0, 0.2)})
        return recommend(fit, N, D, objective={"d2": 1.0}, constraints=[bounds, others])

    rec, step = least(), 1e-4
    np.testing.assert_allclose(rec.weights.values[:3], [0.3, 0.35, 0.2], atol=1e-6)
    price = rec.constraints.set_index("constraint")["price"]
    gains = [
        (rec.risk_value - other.risk_value) / step
        for other in (least(d0=0.3 - step), least(d1=0.35 - step))
    ]
    assert max(gains) > 1e-4
    found = price[["d0 at least 0.3", "d1 at least 0.35"]]
    np.testing.assert_allclose(found, gains, atol=1e-5)


def test_a_price_of_regret_says_what_it_is_of(fit):
    limits = [Bounds({"d1": (0.0, 0.05)})]
    mean, regret = (recommend(fit, N, D, risk=r, constraints=limits) for r in (None, Regret()))
    price = mean.constraints["price"].item()
    assert regret.constraints["price"].item() == pytest.approx(price, rel=1e-9)
    assert f"at {price:.4f} nats per unit of loss (the draws' own optima held)." in repr(regret)
    assert "held" not in repr(mean)


def test_all_optima_on_a_constraint_are_found_and_said_to_be():
    pair = ("web", "code")
    fit = fit_of(parameters(pair, n_draws=120, spread=0.25), swarm(pair))
    rec = recommend(fit, 1e9, 2e10, constraints=[KL({"web": 0.9, "code": 0.1}, 0.01)])
    assert rec.convergence["draws_converged"] == 1
    assert np.isfinite(rec.convergence["draws_residual"])
