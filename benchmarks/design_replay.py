"""Is a designed swarm better than a random one? Purchases replayed on `regmix_1m`.

`python -m benchmarks.design_replay [--shared ../shared] [--replays 5] [--most 100]` starts from 24
runs, buys 8 at a time of the 512 training mixtures, and after each purchase decides on a mixture
by the posterior mean. Three rules buy: `design`; `random`; and `d-optimal`, which makes the
determinant of the information greatest that a law linear in log weights would gain. Decided is
among the 256 test mixtures, never bought, by the mean over the 13 domains with losses, so that the
regret is known up to the noise of a run: how much worse the mixture's loss is than the pool's
best. All rules of a replay start from the same runs.

Posteriors are two short chains of NUTS: with so few runs of 17 domains `laplace` finds no mode.
All replays go on together, a purchase at a time. A line for each
purchase is appended to `benchmarks/design_replay.csv`, with what was bought; what is found there
is not run again.
"""

import argparse
import os
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

import bayesmix as bm
from bayesmix.objective import problem

OUT = Path(__file__).with_suffix(".csv")
FIGURE = OUT.parent.parent / "docs" / "design_replay.png"
START, STEP, MOST = 24, 8, 100
OFFERED = 64  # of the runs left, drawn anew for each purchase: what `design` looks at
RULES = ("design", "random", "d-optimal")
_LEAST = 5e-4  # weights are printed to three decimals


def posterior(runs: bm.Runs, seed: int) -> bm.Fit:
    """A quick fit."""
    return bm.fit(runs, draws=250, tune=300, chains=2, seed=seed, progressbar=False)


def objective(runs: bm.Runs) -> dict[str, float]:
    """The mean over the domains with losses."""
    seen = np.isfinite(runs.losses.values).any(axis=0)
    return {name: 1.0 / seen.sum() for name, s in zip(runs.domains, seen, strict=True) if s}


def by_design(
    fit: bm.Fit, runs: bm.Runs, left: np.ndarray, pool: np.ndarray, seed: int
) -> np.ndarray:
    """What `design` buys of the runs offered; at random where it sees no more to gain."""
    rng = np.random.default_rng([seed, 2])
    offered = rng.choice(left, min(OFFERED, len(left)), replace=False)
    names = [f"weight_{domain}" for domain in runs.domains]
    choices = pd.DataFrame(runs.effective_weights().values[pool], columns=names)
    frame = runs.frame.iloc[offered].drop(columns=[f"loss_{d}" for d in runs.domains])
    made = bm.design(
        fit, frame, *scale(runs), objective=objective(runs),
        choices=choices, batch=STEP, seed=seed, progressbar=False,
    )  # fmt: skip
    bought = offered[made.batch["candidate"].to_numpy(int)]
    others = rng.permutation(offered[~np.isin(offered, bought)])
    return np.concatenate([bought, others])[:STEP]


def by_determinant(runs: bm.Runs, have: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Greedy D-optimality in log weights, with a ridge until there are enough runs."""
    x = np.log(np.maximum(runs.weights.values, _LEAST))
    x = np.column_stack([np.ones(len(x)), (x - x.mean(axis=0)) / x.std(axis=0)])
    precision = x[have].T @ x[have] + 0.01 * np.eye(x.shape[1])
    bought: list[int] = []
    for _ in range(STEP):
        gain = np.einsum("ij,jk,ik->i", x[left], np.linalg.inv(precision), x[left])
        gain[np.isin(left, bought)] = -np.inf
        best = int(left[gain.argmax()])
        bought.append(best)
        precision += np.outer(x[best], x[best])
    return np.array(bought)


def decide(fit: bm.Fit, runs: bm.Runs, pool: np.ndarray, seed: int) -> dict[str, float]:
    """The regret of the mixture with the least expected loss, and how well the pool is ranked."""
    goal = objective(runs)
    truth = runs.losses.sel(domain=list(goal)).mean("domain").values[pool]
    of = problem(fit, *scale(runs), goal, seed=seed)
    believed = of.values(runs.effective_weights().values[pool])
    expected = believed.mean(axis=0)
    chosen = expected.argmin()
    return {
        "regret": float(truth[chosen] - truth.min()),
        "expected_regret": float(expected[chosen] - believed.min(axis=1).mean()),
        "spearman": float(pd.Series(expected).corr(pd.Series(truth), method="spearman")),
    }


def buy(
    rule: str, fit: bm.Fit, runs: bm.Runs, have: np.ndarray, pool: np.ndarray, seed: int
) -> np.ndarray:
    """Rows of the training mixtures that a rule takes next."""
    left = np.setdiff1d(training(runs), have)
    if rule == "design":
        return by_design(fit, runs, left, pool, seed)
    if rule == "random":
        return np.random.default_rng([seed, len(have)]).choice(left, STEP, replace=False)
    return by_determinant(runs, have, left)


def scale(runs: bm.Runs) -> tuple[float, float]:
    """The N and D that all runs have."""
    return float(runs.n_params[0]), float(runs.n_tokens[0])


def training(runs: bm.Runs) -> np.ndarray:
    """Rows that can be bought."""
    return np.flatnonzero([run.startswith("train") for run in runs.run_ids.values.astype(str)])


def report(lines: pd.DataFrame) -> None:
    """Mean regret with standard errors over replays, and the difference of design from the rest."""
    table = lines.groupby(["runs", "rule"])["regret"].agg(["mean", "sem"]).unstack("rule")
    print(f"\nregret, nats per token, over {lines['replay'].nunique()} replays\n{table.round(5)}")
    whole = lines.groupby(["replay", "rule"])["regret"].mean().unstack("rule").dropna()
    for other in (rule for rule in RULES[1:] if rule in whole and "design" in whole):
        gap = whole["design"] - whole[other]
        print(f"mean over purchases, design less {other}: {gap.mean():.5f} (standard error "
              f"{gap.sem():.5f}, {len(gap)} replays)")  # fmt: skip


def plot(lines: pd.DataFrame, path: Path) -> None:
    """Regret against runs bought: means, with bands of 90% (equal-tailed) over replays."""
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(6, 3.8), layout="constrained")
    for i, (rule, some) in enumerate(lines.groupby("rule", sort=False)):
        by_runs = some.groupby("runs")["regret"]
        low, high = by_runs.quantile(0.05), by_runs.quantile(0.95)
        ax.fill_between(low.index, low, high, color=f"C{i}", alpha=0.2, lw=0)
        ax.plot(by_runs.mean(), "o-", ms=4, color=f"C{i}", label=rule)
    ax.set_xlabel("runs bought")
    ax.set_ylabel("regret, nats per token")
    title = "mean and 90% equal-tailed band of replays"
    fig.legend(title=title, loc="outside upper center", ncols=3)
    fig.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    shared = os.environ.get("BAYESMIX_SHARED", "../shared")
    parser.add_argument("--shared", type=Path, default=Path(shared))
    parser.add_argument("--replays", type=int, default=5)
    parser.add_argument("--most", type=int, default=MOST)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    warnings.simplefilter("ignore", bm.RunsWarning)
    runs = bm.read_runs(options.shared / "data" / "regmix_1m.csv")
    pool = np.setdiff1d(np.arange(len(runs)), training(runs))
    have = {
        (seed, rule): np.random.default_rng([seed, 1]).choice(training(runs), START, replace=False)
        for seed in range(options.replays)
        for rule in RULES
    }
    ids = pd.Index(runs.run_ids.values.astype(str))
    done = {}
    if options.out.is_file():
        done = pd.read_csv(options.out).set_index(["replay", "rule", "runs"])["bought"].to_dict()
    for n_runs in range(START, options.most + 1, STEP):
        fitted = None
        for (seed, rule), rows in have.items():
            known = done.get((seed, rule, n_runs))
            if known is not None:
                have[seed, rule] = np.concatenate([rows, ids.get_indexer(known.split())])
                continue
            begun = time.perf_counter()
            # at the start all rules of a replay have the same runs
            if fitted is None or not np.array_equal(fitted[0], rows):
                fitted = rows, posterior(runs.select(rows), seed)
            bought = buy(rule, fitted[1], runs, rows, pool, seed)
            line = {
                "replay": seed,
                "rule": rule,
                "runs": n_runs,
                **decide(fitted[1], runs, pool, seed),
                "seconds": time.perf_counter() - begun,
                "bought": " ".join(ids[bought]),
            }
            print({k: v for k, v in line.items() if k != "bought"}, flush=True)
            table = pd.DataFrame([line]).round(6)
            table.to_csv(options.out, mode="a", header=not options.out.exists(), index=False)
            have[seed, rule] = np.concatenate([rows, bought])
    made = pd.read_csv(options.out)
    report(made)
    plot(made, FIGURE)


if __name__ == "__main__":
    main()
