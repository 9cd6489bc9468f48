"""A byte-level decoder-only transformer in JAX: pre-norm, causal, the embedding tied to the head.

One run is `train`, its held-out losses `evaluate`. Both are deterministic given their arguments
(one thread); JAX compiles each once per size.
"""

import os
from functools import partial

# one thread a process; read when JAX first computes
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
from optax.contrib import MuonDimensionNumbers

from examples.tinyswarm.design import CONTEXT, Size

CHUNK = 200  # steps in one compiled call; a divisor of every run's steps
WARM_UP = 0.05  # of the steps, then linearly down to zero at the last one

# Muon for the stacks of matrices, Adam for the rest, both at one rate: in a few hundred steps
# the losses fall about as far as by Adam alone in four times as many
MATRICES = ("qkv", "out", "up", "down")
OTHERS = ("embedding", "position", "norm_attention", "norm_mlp", "norm_final")
optimiser = optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.contrib.muon(
        learning_rate=1.0,
        adam_b2=0.98,
        consistent_rms=0.2,
        muon_weight_dimension_numbers=dict.fromkeys(MATRICES, MuonDimensionNumbers(1, 2))
        | dict.fromkeys(OTHERS),
    ),
)


def initialise(size: Size, seed: int) -> dict[str, jax.Array]:
    """Parameters at the start; matrices scaled by fan-in, residual outputs by depth besides."""
    d, layers = size.width, size.layers
    shapes = {
        "embedding": ((256, d), 0.2),
        "position": ((CONTEXT, d), 0.2),
        "qkv": ((layers, d, 3 * d), d**-0.5),
        "out": ((layers, d, d), (2 * layers * d) ** -0.5),
        "up": ((layers, d, 4 * d), d**-0.5),
        "down": ((layers, 4 * d, d), (8 * layers * d) ** -0.5),
    }
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    params = {
        name: scale * jax.random.normal(key, shape)
        for key, (name, (shape, scale)) in zip(keys, shapes.items(), strict=True)
    }
    gains = {"norm_attention": (layers, d), "norm_mlp": (layers, d), "norm_final": (d,)}
    return params | {name: jnp.ones(shape) for name, shape in gains.items()}


def rms_norm(x: jax.Array, gain: jax.Array) -> jax.Array:
    """Root-mean-square normalisation over the last axis."""
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * gain


def logits(params: dict[str, jax.Array], tokens: jax.Array, heads: int) -> jax.Array:
    """Logits of the next byte at every place: (windows, places, 256) from (windows, places)."""
    windows, places = tokens.shape
    x = params["embedding"][tokens] + params["position"][:places]
    causal = jnp.tril(jnp.ones((places, places), bool))
    for layer in range(params["qkv"].shape[0]):
        h = rms_norm(x, params["norm_attention"][layer]) @ params["qkv"][layer]
        h = h.reshape(windows, places, 3 * heads, -1).transpose(0, 2, 1, 3)
        q, k, v = jnp.split(h, 3, axis=1)
        scores = jnp.einsum("whqd,whkd->whqk", q, k) / q.shape[-1] ** 0.5
        attention = jax.nn.softmax(jnp.where(causal, scores, -jnp.inf))
        h = jnp.einsum("whqk,whkd->wqhd", attention, v).reshape(windows, places, -1)
        x = x + h @ params["out"][layer]
        h = jax.nn.relu(rms_norm(x, params["norm_mlp"][layer]) @ params["up"][layer])
        x = x + h @ params["down"][layer]
    return rms_norm(x, params["norm_final"]) @ params["embedding"].T


def mean_loss(params: dict[str, jax.Array], windows: jax.Array, heads: int) -> jax.Array:
    """Mean cross-entropy of bytes 1.. given those before, in nats a byte; windows of uint8."""
    tokens = windows.astype(jnp.int32)
    return optax.softmax_cross_entropy_with_integer_labels(
        logits(params, tokens[:, :-1], heads), tokens[:, 1:]
    ).mean()


@partial(jax.jit, static_argnames="heads")
def _train_chunk(params, state, start, batches, total, peak, heads):
    def step(carry, batch):
        params, state, done = carry
        loss, gradient = jax.value_and_grad(mean_loss)(params, batch, heads)
        updates, state = optimiser.update(gradient, state, params)
        warm = WARM_UP * total
        rate = peak * jnp.minimum((done + 1) / warm, (total - done) / (total - warm))
        params = jax.tree.map(lambda p, u: p + rate * u, params, updates)
        return (params, state, done + 1), loss

    (params, state, _), losses = jax.lax.scan(step, (params, state, start), batches)
    return params, state, losses


def train(
    size: Size, batches: np.ndarray, seed: int, learning_rate: float | None = None
) -> tuple[dict[str, jax.Array], np.ndarray]:
    """Train on batches, uint8 of shape (steps, windows, bytes); return parameters and losses."""
    params = initialise(size, seed)
    state = optimiser.init(params)
    total, losses = len(batches), []
    for start in range(0, total, CHUNK):
        params, state, part = _train_chunk(
            params,
            state,
            jnp.float32(start),
            batches[start : start + CHUNK],
            jnp.float32(total),
            jnp.float32(learning_rate or size.learning_rate),
            heads=size.heads,
        )
        losses.append(np.asarray(part))
    return params, np.concatenate(losses)


@partial(jax.jit, static_argnames="heads")
def _evaluate_batches(params, batches, heads):
    return jax.lax.map(lambda windows: mean_loss(params, windows, heads), batches)


def evaluate(size: Size, params: dict[str, jax.Array], windows: np.ndarray) -> float:
    """Mean loss over windows, uint8 of shape (a multiple of 64, bytes), in nats a byte."""
    batches = windows.reshape(-1, 64, windows.shape[1])
    return float(np.mean(_evaluate_batches(params, batches, heads=size.heads), dtype=float))
