"""The transformer of the small swarm: causal, counted, deterministic, and it learns."""

import jax
import numpy as np
import pytest

from examples.tinyswarm import model, train
from examples.tinyswarm.design import CONTEXT, SIZES, Size

TINY = Size("tiny", 16, 2, 2, 1e-2)


@pytest.mark.parametrize("size", [*SIZES, TINY], ids=lambda size: size.name)
def test_parameters_are_counted(size):
    params = model.initialise(size, 0)
    counted = sum(v.size for name, v in params.items() if name not in ("embedding", "position"))
    assert counted == size.n_params


def test_no_byte_sees_a_later_one():
    params = model.initialise(TINY, 0)
    tokens = np.random.default_rng(0).integers(0, 256, (2, CONTEXT))
    changed = tokens.copy()
    changed[:, 40:] = (changed[:, 40:] + 1) % 256
    before, after = (np.asarray(model.logits(params, x, 2)) for x in (tokens, changed))
    np.testing.assert_allclose(before[:, :40], after[:, :40], atol=1e-6)
    assert (abs(before[:, 40:] - after[:, 40:]).max(axis=2) > 1e-4).all()


def test_one_layer_against_numpy():
    size = Size("one", 8, 1, 2, 1e-2)
    params = {k: np.asarray(v, float) for k, v in model.initialise(size, 3).items()}
    params["qkv"] = 3 * params["qkv"]  # so that attention is not flat
    tokens = np.random.default_rng(1).integers(0, 256, (1, 5))

    def norm(x):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)

    x = params["embedding"][tokens[0]] + params["position"][:5]
    # as laid out: heads of q, then of k, then of v
    q, k, v = np.split(norm(x) @ params["qkv"][0], 3, axis=1)
    mixed = np.zeros((5, 8))
    for head in (slice(0, 4), slice(4, 8)):
        for i in range(5):
            score = np.exp(k[: i + 1, head] @ q[i, head] / 2)
            mixed[i, head] = score @ v[: i + 1, head] / score.sum()
    x = x + mixed @ params["out"][0]
    x = x + np.maximum(norm(x) @ params["up"][0], 0) @ params["down"][0]
    expected = norm(x) @ params["embedding"].T
    found = model.logits(params, tokens, 2)[0]
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)


@pytest.fixture(scope="module", autouse=True)
def single_precision():
    """As in the trainer's own process: PyTensor's JAX backend turns a whole process to float64."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", False)
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.fixture(scope="module")
def learnt():
    """Two runs of one seed and one of another, on words in random order."""
    rng = np.random.default_rng(0)
    words = [b"alpha ", b"beta ", b"gamma ", b"delta "]
    text = np.frombuffer(b"".join(words[i] for i in rng.integers(0, 4, 60_000)), np.uint8)
    starts = rng.integers(0, len(text) - CONTEXT, (200, train.BATCH))
    batches = text[starts[..., None] + np.arange(CONTEXT + 1)]
    made = [model.train(TINY, batches, seed) for seed in (0, 0, 1)]
    windows = text[: 64 * (CONTEXT + 1)].reshape(64, -1)
    return made, [model.evaluate(TINY, params, windows) for params, _ in made], text


def test_the_same_seed_gives_the_same_losses(learnt):
    made, evaluated, _ = learnt
    np.testing.assert_array_equal(made[0][1], made[1][1])
    assert evaluated[0] == evaluated[1] != evaluated[2]


def test_it_learns_what_there_is_to_learn(learnt):
    made, evaluated, text = learnt
    assert made[0][1][0] == pytest.approx(np.log(256), abs=0.1)
    share = np.bincount(text) / len(text)
    unigram = -(share[share > 0] * np.log(share[share > 0])).sum()
    # a word of four every 5.75 bytes on average: log(4) / 5.75 nats a byte, and no less
    least = np.log(4) / 5.75
    assert unigram > 1.5
    assert all(least < loss < least + 0.1 for loss in evaluated)


def test_the_learning_rate_rises_then_falls_to_zero():
    windows = np.zeros((1, train.BATCH, CONTEXT + 1), np.uint8)
    params = model.initialise(TINY, 0)
    state = model.optimiser.init(params)

    def moved(done):
        after = model._train_chunk(params, state, done, windows, 200.0, 1e-2, heads=2)[0]
        return np.asarray(after["up"] - params["up"])

    # the same update, times the rate of the step: of 200 steps, 10 rise and 190 fall
    peak = moved(9.0)
    assert abs(peak).max() > 1e-3
    for done, share in ((0.0, 0.1), (4.0, 0.5), (105.0, 0.5), (199.0, 1 / 190)):
        np.testing.assert_allclose(moved(done), share * peak, atol=1e-6)
