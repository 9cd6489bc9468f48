"""The kernel against an independent statement of the law, and its gradient against differences."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from bayesmix import law

SEEDS = st.integers(0, 2**32 - 1)
ALL_LAWS = pytest.mark.parametrize("name", law.LAWS)


def unfloored(h, c, b, n_params, floor):
    """What x* would be without floors, at the lambda that spends the budget with them.

    By bisection of log lambda; arguments broadcast, domains on the last axis.
    """
    with np.errstate(divide="ignore"):
        gain = np.log(np.maximum(h, 0) * b * c)
    budget = n_params + (h.shape[-1] - 1) * floor
    low = (gain - (b + 1) * np.log(budget)).max(axis=-1, keepdims=True)
    high = (gain - (b + 1) * np.log(floor)).max(axis=-1, keepdims=True)
    for _ in range(70):
        middle = (low + high) / 2
        x = np.maximum(floor, np.exp((gain - middle) / (b + 1)))
        over = x.sum(axis=-1, keepdims=True) > budget
        low, high = np.where(over, middle, low), np.where(over, high, middle)
    return np.exp((gain - low) / (b + 1))


def stated(p, weights, n_params, n_tokens, variant):
    """The law as written (Dai & Zheng, Theorem 4.1, and its additions); (S, R, C).

    Parameters `p` lead with an axis of S sets; weights are (R, K) or (S, R, K).
    """
    p = {name: np.asarray(value)[:, None] for name, value in p.items()}  # an axis for the rows
    n_domains = weights.shape[-1]
    b, c, floor = p["b"], np.exp(p["log_c"]), np.exp(p["log_H"])[..., None]
    size, tokens = n_params[:, None], n_tokens[:, None]
    loss = p["E"] + np.zeros((len(size), 1))
    x = np.maximum(floor, unfloored(weights, c, b, size, floor))
    loss[..., :n_domains] += c * x**-b
    if variant.noise:
        effective = (p["tau"] * weights[..., None, :]).sum(axis=-1) * tokens ** p["fade"][..., None]
        with np.errstate(divide="ignore", invalid="ignore"):
            loss = loss + np.exp(p["log_A"]) * effective ** -p["a"]
    if variant.head:
        loss = loss + np.exp(p["log_G"]) * size ** -p["g"][..., None]
        loss = loss + np.exp(p["log_Q"]) * tokens ** -p["q"][..., None]
    return loss


def parameters(rng, n_domains, n_components, name, log_floor):
    """Terms of about one nat each at N = 1e8, D = 1e10."""
    b, a = rng.uniform(0.1, 0.6, n_domains), rng.uniform(0.1, 0.6, n_components)
    tau = np.eye(n_components, n_domains)
    if law.LAWS[name].transfer:
        tau = np.maximum(tau, rng.uniform(0.01, 0.6, tau.shape))
    elif n_components > n_domains:
        tau[n_domains:] = rng.dirichlet(np.ones(n_domains), n_components - n_domains)
    g, q = 0.3, 0.4
    return {
        "E": rng.uniform(1, 2, n_components),
        "log_c": rng.normal(0, 0.3, n_domains) + b * np.log(1e8 / n_domains),
        "b": b,
        "log_A": rng.normal(0, 0.3, n_components) + a * np.log(1e10 / n_domains),
        "a": a,
        "tau": tau,
        "log_G": rng.normal(0, 0.3, n_components) + g * np.log(1e8),
        "g": g,
        "log_Q": rng.normal(0, 0.3, n_components) + q * np.log(1e10),
        "q": q,
        "log_H": log_floor,
        "fade": 0.8,
    }


def swarm(rng, n_domains, n_mixtures=4, n_rows=12):
    """Rows that share mixtures and sizes."""
    mixture = rng.integers(0, n_mixtures, n_rows)
    weights = rng.dirichlet(np.full(n_domains, 3.0), n_mixtures)[mixture]
    sizes = 1e8 * np.array([1.0, 3.0])[rng.integers(0, 2, n_rows)]
    return weights, sizes, 10 ** rng.uniform(9.5, 10.5, n_rows)


def one(p):
    """A single parameter set, as `stated` takes it."""
    return {name: np.asarray(value)[None] for name, value in p.items()}


def stacked(sets):
    return [np.ascontiguousarray([p[name] for p in sets], dtype=float) for name in law.PARAMETERS]


def test_by_hand():
    # b = 1 and H = 0.5: x in proportion to sqrt(h c), so (2, 1) of 2.5 + 0.5
    p = {
        "E": [1, 2], "log_c": np.log([4, 1]), "b": [1, 1], "log_A": np.log([3, 2]), "a": [1, 1],
        "tau": [[1, 0.5], [0, 1]], "log_G": np.log([2.5, 5]), "g": 1.0, "log_Q": np.log([4, 8]),
        "q": 0.5, "log_H": np.log(0.5), "fade": 1.0,
    }  # fmt: skip
    p = {name: value if np.isscalar(value) else np.array(value, float) for name, value in p.items()}
    at = law.points(np.array([[0.5, 0.5]]), np.array([2.5]), np.array([4.0]))
    # E + c / x
    quantization = law.evaluate(p, at, law.LAWS["quantization"])
    np.testing.assert_allclose(quantization, [[1 + 4 / 2, 2 + 1 / 1]], rtol=1e-14)
    # + A / T, T = (2, 2)
    regression = law.evaluate({**p, "tau": np.eye(2)}, at, law.LAWS["regression"])
    np.testing.assert_allclose(regression, [[3 + 3 / 2, 3 + 2 / 2]], rtol=1e-14)
    # T = 4 (0.5 + 0.25, 0.5) = (3, 2); + G / 2.5 + Q / sqrt(4)
    transfer = law.evaluate(p, at, law.LAWS["transfer"])
    np.testing.assert_allclose(transfer, [[3 + 3 / 3 + 1 + 2, 3 + 2 / 2 + 2 + 4]], rtol=1e-14)
    # T = sqrt(4) (0.75, 0.5)
    faded = law.evaluate({**p, "fade": 0.5}, at, law.LAWS["transfer"])
    np.testing.assert_allclose(faded, [[3 + 3 / 1.5 + 1 + 2, 3 + 2 / 1 + 2 + 4]], rtol=1e-14)


@ALL_LAWS
@given(n_domains=st.integers(2, 20), n_targets=st.integers(0, 3), seed=SEEDS)
def test_value_is_the_law_as_written(name, n_domains, n_targets, seed):
    rng = np.random.default_rng(seed)
    weights, sizes, tokens = swarm(rng, n_domains)
    if name != "regression" and rng.random() < 0.5:
        weights[:, 0] = 0
        weights /= weights.sum(axis=1, keepdims=True)
    log_floor = np.log(1e8 * 10 ** rng.uniform(-6, -0.1))
    p = parameters(rng, n_domains, n_domains + n_targets, name, log_floor)
    variant = law.LAWS[name]
    loss = law.evaluate(p, law.points(weights, sizes, tokens), variant)
    np.testing.assert_allclose(loss, stated(one(p), weights, sizes, tokens, variant)[0], rtol=1e-13)


def test_without_weight_a_domain_learns_by_transfer_alone():
    rng = np.random.default_rng(0)
    weights = np.array([[0.0, 0.4, 0.6]])
    at = law.points(weights, np.array([1e8]), np.array([1e10]))
    finite = {}
    for name, variant in law.LAWS.items():
        p = parameters(rng, 3, 3, name, np.log(1e5))
        finite[name] = np.isfinite(law.evaluate(p, at, variant)[0]).tolist()
    assert finite["regression"] == [False, True, True]
    assert finite["quantization"] == finite["transfer"] == [True, True, True]


STEPS = {
    "E": 1e-3, "log_c": 1e-4, "b": 1e-5, "log_A": 1e-3, "a": 1e-4, "tau": 1e-4,
    "log_G": 1e-3, "g": 1e-4, "log_Q": 1e-3, "q": 1e-4, "log_H": 1e-3,
    "fade": 1e-4,
}  # fmt: skip
OFFSETS = np.array([-2, -1, 1, 2])


def differences(p, weights, sizes, tokens, variant, name, entries, loss_bar):
    """Derivatives of ``sum(loss_bar * loss)`` in some entries of a parameter, or of ``weights``.

    Central differences of the law as stated, with an error of order step^4.
    """
    sets = {k: np.broadcast_to(v, (len(entries), 4, *np.shape(v))).copy() for k, v in p.items()}
    sets["weights"] = np.broadcast_to(weights, (len(entries), 4, *weights.shape)).copy()
    steps = np.empty(len(entries))
    for i, entry in enumerate(entries):
        if name == "weights":
            same = (weights == weights[entry[0]]).all(axis=1)
            h = weights[entry]
            steps[i] = 1e-3 * h if h > 0 else 1e-6
            sets[name][i][:, same, entry[1]] += OFFSETS[:, None] * steps[i]
        else:
            steps[i] = STEPS[name]
            sets[name][i][(slice(None), *entry)] += OFFSETS * steps[i]
    flat = {k: v.reshape(-1, *v.shape[2:]) for k, v in sets.items()}
    loss = stated(flat, flat.pop("weights"), sizes, tokens, variant)
    loss = np.where(loss_bar != 0, loss, 0).reshape(len(entries), 4, *loss_bar.shape)
    near, far = loss[:, 2] - loss[:, 1], loss[:, 3] - loss[:, 0]
    return ((8 * near - far) / 12 * loss_bar).sum(axis=(1, 2)) / steps


def far_from_kinks(seeds, name, n_domains, n_targets, floors):
    """A swarm and parameters with the floors asked for, none about to bind or to let go."""
    for seed in seeds:
        rng = np.random.default_rng(seed)
        weights, sizes, tokens = swarm(rng, n_domains, n_mixtures=2, n_rows=5)
        if floors == "zero weights":
            weights[:, : n_domains // 2] = 0
            weights /= weights.sum(axis=1, keepdims=True)
        share = {"none": 1e-8, "some": 0.8 / n_domains, "all but one": 0.5}.get(floors, 1e-3)
        p = parameters(rng, n_domains, n_domains + n_targets, name, np.log(share * sizes.min()))
        if floors == "all but one":
            p["log_c"][-1] += 8
        x = unfloored(weights, np.exp(p["log_c"]), p["b"], sizes[:, None], share * sizes.min()) / (
            share * sizes.min()
        )
        active = (x > 1).sum(axis=1)
        asked = {
            "none": active.min() == n_domains,
            "some": active.min() < n_domains and active.max() > 1,
            "all but one": active.max() == 1,
            "zero weights": active.min() == n_domains - n_domains // 2,
        }[floors]
        if asked and np.abs(x - 1).min() > 0.005:
            return p, weights, sizes, tokens, rng
    raise AssertionError("no such problem among the seeds")


@ALL_LAWS
@pytest.mark.parametrize("n_domains", [2, 7, 100])
@pytest.mark.parametrize("n_targets", [0, 2])
@pytest.mark.parametrize("floors", ["none", "some", "all but one", "zero weights"])
def test_pullback_against_finite_differences(name, n_domains, n_targets, floors):
    variant = law.LAWS[name]
    p, weights, sizes, tokens, rng = far_from_kinks(range(200), name, n_domains, n_targets, floors)
    at = law.points(weights, sizes, tokens)
    arguments = (*p.values(), *at.arrays, variant.noise, variant.head)
    loss, *saved = law.forward(*arguments)
    # cells that are not observed, infinite ones among them, have no cotangent
    loss_bar = np.where(np.isfinite(loss), rng.normal(size=loss.shape), 0)
    *bars, mixtures_bar = law.pullback(*arguments, *saved, loss_bar)

    for key, bar in zip((*law.PARAMETERS, "weights"), (*bars, mixtures_bar), strict=True):
        bar = np.asarray(bar)
        entries = [tuple(e) for e in rng.permutation(list(np.ndindex(bar.shape)))[:8]]
        if key == "weights":
            row = [np.flatnonzero((weights == h).all(axis=1))[0] for h in at.mixtures]
            found = differences(
                p, weights, sizes, tokens, variant, key, [(row[m], j) for m, j in entries], loss_bar
            )
        else:
            found = differences(p, weights, sizes, tokens, variant, key, entries, loss_bar)
        expected = [bar[entry] for entry in entries]
        # rounding of differences is relative to the greatest of them
        rounding = 1e-10 * np.max(np.abs(expected))
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=max(rounding, 5e-11))


@given(seed=SEEDS)
def test_points_keep_every_row_and_share_what_repeats(seed):
    rng = np.random.default_rng(seed)
    weights, sizes, tokens = swarm(rng, 3, n_rows=rng.integers(1, 40))
    at = law.points(weights, sizes, tokens)
    mixture = at.problem_mixture[at.row_problem]
    np.testing.assert_array_equal(at.mixtures[mixture], weights)
    np.testing.assert_array_equal(at.problem_log_n[at.row_problem], np.log(sizes))
    np.testing.assert_array_equal(at.row_log_d, np.log(tokens))
    assert len(at.mixtures) == len({tuple(h) for h in weights})
    problems = {(*h, n) for h, n in zip(weights, sizes, strict=True)}
    assert len(at.problem_mixture) == len(at.problem_log_n) == len(problems)


@ALL_LAWS
def test_shared_rows_equal_rows_one_at_a_time(name):
    rng = np.random.default_rng(5)
    variant = law.LAWS[name]
    weights, sizes, tokens = swarm(rng, 4, n_rows=30)
    p = parameters(rng, 4, 5, name, np.log(2e7))
    together = law.evaluate(p, law.points(weights, sizes, tokens), variant)
    for row in range(30):
        alone = law.points(weights[[row]], sizes[[row]], tokens[[row]])
        np.testing.assert_array_equal(together[[row]], law.evaluate(p, alone, variant))


@ALL_LAWS
@given(n_domains=st.integers(2, 20), seed=SEEDS)
def test_loss_falls_with_size_tokens_and_own_weight(name, n_domains, seed):
    rng = np.random.default_rng(seed)
    variant = law.LAWS[name]
    p = parameters(rng, n_domains, n_domains, name, np.log(1e8 * 10 ** rng.uniform(-6, -0.1)))
    h = rng.dirichlet(np.ones(n_domains))
    own = rng.integers(n_domains)
    # more of one domain, taken from the others in proportion
    more = h * (1 - 0.3)
    more[own] += 0.3
    at = law.points(
        np.array([h, h, h, more]), 1e8 * np.array([1, 2, 1, 1]), [1e10, 1e10, 2e10, 1e10]
    )
    base, larger, longer, heavier = law.evaluate(p, at, variant)
    # a domain on its floor stays there, and then only the shared head knows of N
    assert (larger <= base * (1 + 1e-14)).all()
    assert larger.sum() < base.sum()
    if variant.noise:
        assert (longer < base).all()
    else:
        np.testing.assert_array_equal(longer, base)
    # with tau_ij <= 1 = tau_ii its effective tokens cannot fall; its share of N cannot either
    assert heavier[own] <= base[own] * (1 + 1e-14)
    if variant.noise:
        assert heavier[own] < base[own]


def draws_of(rng, name, n_draws=6):
    """Parameter sets of 3 domains and a target."""
    return [parameters(rng, 3, 4, name, np.log(10 ** rng.uniform(4, 7.5))) for _ in range(n_draws)]


@ALL_LAWS
def test_evaluate_draws_is_the_law_of_each_draw(name):
    rng = np.random.default_rng(6)
    variant = law.LAWS[name]
    sets = draws_of(rng, name)
    weights, sizes, tokens = swarm(rng, 3)
    at = law.points(weights, sizes, tokens)
    loss = law.evaluate_draws(*stacked(sets), *at.arrays, variant.noise, variant.head)
    for s, p in enumerate(sets):
        np.testing.assert_array_equal(loss[s], law.evaluate(p, at, variant))


@ALL_LAWS
def test_objective_draws_and_its_gradient(name):
    rng = np.random.default_rng(7)
    variant = law.LAWS[name]
    sets = draws_of(rng, name)
    mixtures, objective = rng.dirichlet(np.full(3, 3.0), len(sets)), np.array([0.2, 0, 0.5, 0.3])
    factors = rng.lognormal(0, 0.1, (len(sets), 4))
    size, tokens = np.array([7e9]), np.array([1.4e11])
    value, gradient, losses = law.objective_draws(
        *stacked(sets),
        mixtures,
        np.log(7e9),
        np.log(1.4e11),
        objective * factors,
        variant.noise,
        variant.head,
    )
    for s, p in enumerate(sets):
        h = mixtures[[s]]
        truth = stated(one(p), h, size, tokens, variant)[0, 0]
        np.testing.assert_allclose(losses[s], truth, rtol=1e-13)
        row_bar = objective[None] * factors[s]
        expected = truth @ row_bar[0]
        assert value[s] == pytest.approx(expected, rel=1e-13)
        entries = [(0, j) for j in range(3)]
        found = differences(p, h, size, tokens, variant, "weights", entries, row_bar)
        np.testing.assert_allclose(gradient[s], found, rtol=1e-6, atol=5e-11)


def test_objective_without_a_domain_ignores_its_infinite_loss():
    rng = np.random.default_rng(8)
    variant = law.LAWS["regression"]
    sets = draws_of(rng, "regression", n_draws=1)
    mixtures = np.array([[0.0, 0.4, 0.6]])
    arguments = (*stacked(sets), mixtures, np.log(1e8), np.log(1e10))
    value, gradient, _ = law.objective_draws(*arguments, np.array([[0, 0.5, 0.5, 0]]), True, False)
    rows = law.points(mixtures, np.array([1e8]), np.array([1e10]))
    assert value[0] == pytest.approx(law.evaluate(sets[0], rows, variant)[0, 1:3].mean(), rel=1e-14)
    assert np.isfinite(gradient).all()
    value, _, _ = law.objective_draws(*arguments, np.array([[1.0, 0, 0, 0]]), True, False)
    assert value[0] == np.inf
