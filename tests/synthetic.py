"""Fits without sampling: a `Fit` from parameter draws that a test states, and a swarm for it.

`swarm` makes runs (mixtures, sizes, horizons, losses of the law); `parameters` makes plausible
draws of the law's parameters around a truth; `fit_of` puts draws and runs together as `fit`
would. Everything a test cares about it passes itself; the rest is seeded.

    runs = swarm(("web", "code", "books"))
    fit = fit_of(parameters(runs.domains, n_draws=200, spread=0.1), runs)
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr

from bayesmix import Fit, Runs, runs_from_frame
from bayesmix import law as laws
from bayesmix.discrepancy import scales
from bayesmix.model import components
from bayesmix.posterior import with_observed
from bayesmix.reference import reference, swarm_priors

N_PARAMS, N_TOKENS = 1e8, 2e9

_DIMS = {
    "E": ("component",),
    "log_c": ("domain",),
    "b": ("domain",),
    "log_A": ("component",),
    "a": ("component",),
    "tau": ("component", "source"),
    "log_G": ("component",),
    "log_Q": ("component",),
    "sigma": ("component",),
    "sigma_weight": ("component",),
    "sigma_unseen": ("component",),
    "zero_shift": ("component",),
    "common": ("component",),
    "offset": ("cell", "component"),
}


def parameters(
    domains: Sequence[str],
    targets: Sequence[str] = (),
    *,
    n_draws: int = 40,
    spread: float = 0.1,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Draws of the law's parameters, leading axis `n_draws`: log-normal around a seeded truth.

    Every term is of the order of a real swarm's at 1e8 parameters and 2e9 tokens; `spread` 0
    makes every draw the truth. Draws are independent: 4 x 500 of them pass the diagnostics.
    """
    rng = np.random.default_rng(seed)
    k, c = len(domains), len(domains) + len(targets)

    def around(low, high, *shape):
        truth = rng.uniform(low, high, shape)
        return truth * np.exp(spread * rng.normal(size=(n_draws, *shape)))

    b, a, g, q = around(0.2, 0.5, k), around(0.2, 0.5, c), around(0.2, 0.4), around(0.2, 0.4)
    tau = np.minimum(around(0.01, 0.3, c, k), 0.9)
    tau[:, range(k), range(k)] = 1.0
    tau[:, k:] /= tau[:, k:].sum(axis=2, keepdims=True)
    return {
        "E": around(1.0, 2.0, c),
        "log_c": np.log(around(0.3, 1.0, k)) + b * np.log(N_PARAMS / k),
        "b": b,
        "log_A": np.log(around(0.3, 1.0, c)) + a * np.log(N_TOKENS**0.8 / k),
        "a": a,
        "tau": tau,
        "log_G": np.log(around(0.1, 0.4, c)) + g[:, None] * np.log(N_PARAMS),
        "g": g,
        "log_Q": np.log(around(0.05, 0.2, c)) + q[:, None] * np.log(N_TOKENS),
        "q": q,
        "log_H": np.log(N_PARAMS) - 6 + spread * rng.normal(size=n_draws),
        "sigma": around(0.004, 0.01, c),
        "dof": 4 + around(1.0, 3.0),
        "dof_unseen": 4 + around(1.0, 3.0),
        # at 22 e-folds of tokens a little of it is much
        "fade": 0.8 * np.exp(0.01 * spread * rng.normal(size=n_draws)),
    }


def swarm(
    domains: Sequence[str] = ("web", "code", "books"),
    targets: Sequence[str] = (),
    *,
    n_runs: int = 24,
    truth: Mapping[str, np.ndarray] | None = None,
    unobserved: Sequence[str] = (),
    seed: int = 1,
) -> Runs:
    """Runs at Dirichlet mixtures, two sizes and two horizons, with the losses of `truth` + noise.

    `truth` is one draw of `parameters` (no leading axis); `unobserved` domains have no losses.
    """
    rng = np.random.default_rng(seed)
    if truth is None:
        truth = {n: v[0] for n, v in parameters(domains, targets, n_draws=1, spread=0).items()}
    weights = rng.dirichlet(np.ones(len(domains)), n_runs)
    n_params = np.where(np.arange(n_runs) % 2, N_PARAMS, 2 * N_PARAMS)
    n_tokens = np.where(np.arange(n_runs) % 3, N_TOKENS, 3 * N_TOKENS)
    at = laws.points(weights, n_params, n_tokens)
    losses = laws.evaluate(truth, at, laws.LAWS["transfer"])
    losses = losses * np.exp(truth["sigma"] * rng.normal(size=losses.shape))
    names = [*(f"loss_{d}" for d in domains), *(f"target_{t}" for t in targets)]
    table = pd.DataFrame(
        {
            "run_id": [f"run{i}" for i in range(n_runs)],
            "n_params": n_params,
            "n_tokens": n_tokens,
            **{f"weight_{d}": weights[:, i] for i, d in enumerate(domains)},
            **{name: losses[:, i] for i, name in enumerate(names)},
        }
    )
    table = table.drop(columns=[f"loss_{d}" for d in unobserved])
    return runs_from_frame(table, source="synthetic", weight_resolution=0.0)


def fit_of(
    draws: Mapping[str, np.ndarray],
    runs: Runs | None = None,
    *,
    law: str = "transfer",
    chains: int = 4,
) -> Fit:
    """The `Fit` whose posterior is these draws (leading axis, split into `chains`).

    Beside the law's parameters the posterior gets what the model derives from them at the
    reference point: ``level`` and the shares of each mechanism.
    """
    n_domains = draws["b"].shape[1]
    if runs is None:
        runs = swarm([f"d{i}" for i in range(n_domains)])
    variant = laws.LAWS[law]
    off = set() if variant.noise else {"log_A", "a"}
    off |= set() if variant.head else {"log_G", "g", "log_Q", "q"}
    off |= set() if variant.transfer else {"fade"}
    off |= set() if variant.transfer or runs.targets else {"tau"}
    kept = {name: np.asarray(value) for name, value in draws.items() if name not in off}
    total = len(draws["b"])
    # inside the data no discrepancy but what the test states
    scale = ("offset_scale", "transient_scale", "bend_scale", "slope_scale")
    still = dict.fromkeys(scale, np.zeros(total))
    n_cells = len(scales(runs).log_scale)
    still["offset"] = np.zeros((total, n_cells, len(components(runs))))
    still["common"] = np.zeros((total, len(components(runs))))
    kept = {**still, "discrepancy_correlation": np.full(total, 0.5), **kept}
    if total % chains:
        raise ValueError(f"{total} draws do not split into {chains} chains")

    def chained(name: str, value: np.ndarray, dims: tuple[str, ...]):
        return (("chain", "draw", *dims), value.reshape(chains, total // chains, *value.shape[1:]))

    variables = {n: chained(n, v, _DIMS.get(n, ())) for n, v in kept.items()}
    variables |= {n: chained(n, v, dims) for n, (v, dims) in _shares(draws, runs, law).items()}
    coords = {
        "chain": range(chains),
        "draw": range(total // chains),
        "component": list(components(runs)),
        "domain": list(runs.domains),
        "source": list(runs.domains),
        "cell": range(n_cells),
    }
    shape = (chains, total // chains)
    stats = xr.Dataset(
        {
            "diverging": (("chain", "draw"), np.zeros(shape, bool)),
            "n_steps": (("chain", "draw"), np.full(shape, 15)),
        }
    )
    tree = xr.DataTree.from_dict(
        {"posterior": xr.Dataset(variables, coords), "sample_stats": stats}
    )
    return Fit(with_observed(tree, runs), runs, law, swarm_priors(runs, law))


def full_parameters(draws: Mapping[str, np.ndarray], law: str) -> dict[str, np.ndarray]:
    """The kernel's parameters in order, with tau the identity where the law has no transfer."""
    full = {name: np.ascontiguousarray(draws[name]) for name in laws.PARAMETERS}
    if not laws.LAWS[law].transfer:
        k = draws["b"].shape[1]
        full["tau"][:, :k] = np.eye(k)
        full["fade"][:] = 1.0
    return full


def _shares(draws, runs: Runs, law: str):
    """Level and shares at the reference point: each mechanism's part of the loss there."""
    ref, variant = reference(runs), laws.LAWS[law]
    full = full_parameters({n: np.array(v) for n, v in draws.items()}, law)
    at = laws.points(ref.weights[None], np.array([ref.n_params]), np.array([ref.n_tokens]))
    n_draws, n_components = full["E"].shape
    n_domains = len(runs.domains)
    level, noise = np.empty((n_draws, n_components)), np.empty((n_draws, n_components))
    capacity = np.empty((n_draws, n_domains))
    for s in range(n_draws):
        one = [full[name][s] for name in laws.PARAMETERS]
        loss, _, part, _, data = laws.forward(*one, *at.arrays, variant.noise, variant.head)
        level[s], noise[s], capacity[s] = loss[0], data[:, 0], part[:, 0]
    per_component, per_domain = ("component",), ("domain",)
    shares = {
        "level": (level, per_component),
        "share_irreducible": (full["E"] / level, per_component),
        "share_capacity": (capacity / level[:, :n_domains], per_domain),
    }
    if variant.noise:
        shares["share_noise"] = (noise / level, per_component)
    if variant.head:
        n_power = np.exp(full["log_G"] - full["g"][:, None] * np.log(ref.n_params))
        d_power = np.exp(full["log_Q"] - full["q"][:, None] * np.log(ref.n_tokens))
        shares["share_head_n"] = (n_power / level, per_component)
        shares["share_head_d"] = (d_power / level, per_component)
    return shares
