"""Do cautious choices pay? Choices from simulated swarms, scored by the truth.

`python -m benchmarks.decisions [--n 200] [--mixtures 16 8] [--posterior nuts] [--out FILE]` draws
swarms of 4 domains from the law, so many mixtures at each of two sizes, fits each, and compares at
ten times the largest N and D: the recommendations of three measures of risk, the optima of two
point fits, and the best run that was observed. What counts is a weighted mean of losses, its
weights drawn anew for each swarm: by the plain mean all domains are alike, and the uniform mixture
would be hard to beat. A line for each choice goes to `benchmarks/decisions.csv`, one for each pair
of mixtures to `benchmarks/decisions_pairs.csv`, as soon as a swarm is done; swarms found there are
not run again.

Every measure has a yardstick that it minimises on average if the posterior is right: the loss; the
regret; and for tails what is known to score them, ``q + max(x - q, 0) / 0.1`` with q the choice's
own 0.9 quantile under the posterior (Rockafellar & Uryasev 2000, J. Risk 2, 21), of x the loss
(CVaR) or the regret. Beside each stands what the posterior expected of it.
"""

import argparse
import warnings
from pathlib import Path

import joblib
import numpy as np
import pandas as pd

import bayesmix as bm
from bayesmix import law as laws
from bayesmix.draws import law_draws
from bayesmix.feasible import feasible_set
from bayesmix.objective import Problem, problem
from bayesmix.optima import mean_optimum
from bayesmix.simulate import Simulated, draw_design, draw_parameters, observe

CHOICES = Path(__file__).with_suffix(".csv")
PAIRS = CHOICES.with_name("decisions_pairs.csv")
DOMAINS, SIZES, N_MIXTURES = 4, (5e7, 1.5e8), (16, 8)
TARGET = {"n_params": 1.5e9, "n_tokens": 3e10}
LEVEL = 0.9
RISKS = {"mean": bm.Mean(), "cvar": bm.CVaR(LEVEL), "regret": bm.Regret(LEVEL)}
POINT_LAWS = ("point:transfer", "point:regression")
YARDSTICKS = ("loss", "regret", "cvar_score", "regret_score")
N_RANDOM = 4  # mixtures whose pairs are looked at beside the choices


def swarm(seed: int, n_mixtures: tuple[int, ...] = N_MIXTURES) -> Simulated:
    """Runs of 4 domains at two sizes, of the same shape whatever the seed."""
    design = draw_design(DOMAINS, SIZES, n_mixtures=n_mixtures, concentration=1.5, seed=seed)
    truth = draw_parameters(design.domains, n_params=7e7, n_tokens=1.4e9, seed=seed)
    return observe(design, truth, seed=seed)


def posterior(runs: bm.Runs, kind: str, seed: int) -> bm.Fit:
    """Short chains, or the Gaussian at the mode."""
    if kind == "laplace":
        from bayesmix.laplace import laplace

        return laplace(runs, draws=1000, seed=seed)
    return bm.fit(runs, draws=400, tune=400, chains=2, cores=1, seed=seed, progressbar=False)


def score(seed: int, kind: str, n_mixtures: tuple[int, ...]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every choice of one swarm scored, and every pair of mixtures with its chance."""
    made = swarm(seed, n_mixtures)
    runs, domains = made.runs, list(made.runs.domains)
    rng = np.random.default_rng([seed, 1])
    weights = rng.dirichlet(np.ones(len(domains)))
    goal = dict(zip(domains, weights.tolist(), strict=True))
    fit = posterior(runs, kind, seed)
    recs = {
        name: bm.recommend(fit, **TARGET, objective=goal, risk=risk, seed=seed)
        for name, risk in RISKS.items()
    }
    mixtures = {name: rec.weights.values for name, rec in recs.items()}
    for law in POINT_LAWS:
        mixtures[law] = bm.point_fit(runs, law).optimum(**TARGET, objective=goal).values
    largest = np.flatnonzero(runs.n_params.values == runs.n_params.values.max())
    observed = runs.losses.values[largest] @ weights
    mixtures["best observed"] = runs.weights.values[largest[observed.argmin()]]
    mixtures["uniform"] = np.full(len(domains), 1 / len(domains))
    random = {f"random {i}": rng.dirichlet(np.ones(len(domains))) for i in range(N_RANDOM)}
    points = np.stack([*mixtures.values(), *random.values()])

    truth = _truth(made, weights)
    best = mean_optimum(truth, points, feasible_set((), tuple(domains), TARGET["n_tokens"]), rng)[0]
    loss = truth.values(points)[0]
    regret = loss - best.minima.values[0]

    of = problem(fit, *TARGET.values(), goal, seed=seed)
    believed = of.values(points)
    missed = believed - of.at(recs["mean"].optima.values)[0][:, None]
    lines = pd.DataFrame(
        {
            "swarm": seed,
            "choice": list(mixtures),
            "loss": loss[: len(mixtures)],
            "regret": regret[: len(mixtures)],
            "cvar_score": _tail_score(believed, loss)[: len(mixtures)],
            "regret_score": _tail_score(missed, regret)[: len(mixtures)],
            "loss_believed": believed.mean(axis=0)[: len(mixtures)],
            "regret_believed": missed.mean(axis=0)[: len(mixtures)],
            "cvar_score_believed": _tail_score(believed, believed)[: len(mixtures)],
            "regret_score_believed": _tail_score(missed, missed)[: len(mixtures)],
            "rank": (believed < loss).mean(axis=0)[: len(mixtures)],
            "r_hat": fit.diagnose().table["r_hat"].max(),
        }
    )
    names = [*mixtures, *random]
    others = [("mean", name) for name in mixtures if name not in RISKS]
    others += [("best observed", "uniform"), ("point:transfer", "best observed")]
    others += [(f"random {i}", f"random {i + 1}") for i in range(0, N_RANDOM, 2)]
    pairs = []
    for a, b in others:
        i, j = names.index(a), names.index(b)
        if np.array_equal(points[i], points[j]):
            continue
        chance = (believed[:, i] < believed[:, j]).mean()
        pairs.append({"swarm": seed, "a": a, "b": b, "chance": chance, "won": loss[i] < loss[j]})
    return lines, pd.DataFrame(pairs)


def _truth(made: Simulated, weights: np.ndarray) -> Problem:
    """The true objective at the target."""
    one = law_draws(made.parameters.expand_dims(chain=1, draw=1))
    parameters = tuple(one[name] for name in laws.PARAMETERS)
    return Problem(parameters, laws.LAWS["transfer"], *TARGET.values(), weights[None])


def _tail_score(believed: np.ndarray, realised: np.ndarray) -> np.ndarray:
    """Rockafellar and Uryasev's score of choices, from draws (S, P): of the truth (P,), or what is
    expected of it, of the draws."""
    q = np.quantile(believed, LEVEL, axis=0)
    excess = np.maximum(np.atleast_2d(realised) - q, 0).mean(axis=0)
    return q + excess / (1 - LEVEL)


def paired(lines: pd.DataFrame, against: str) -> pd.DataFrame:
    """By how much a choice beats the others on every yardstick, with standard errors over swarms.

    Negative is better for `against`.
    """
    rows = []
    for yardstick in YARDSTICKS:
        names = [name for name in (yardstick, f"{yardstick}_believed") if name in lines]
        table, *believed = (
            lines.pivot(index="swarm", columns="choice", values=name).dropna() for name in names
        )
        for other in table.columns.drop(against):
            gap = table[against] - table[other]
            rows.append(
                {
                    "yardstick": yardstick,
                    "choice": against,
                    "less that of": other,
                    "mean": gap.mean(),
                    "standard_error": gap.std() / np.sqrt(len(gap)),
                    # files of before have none
                    "believed": (believed[0][against] - believed[0][other]).mean()
                    if believed
                    else np.nan,
                    "swarms": len(gap),
                    "better_in": (gap < 0).mean(),
                }
            )
    return pd.DataFrame(rows)


def calibration(pairs: pd.DataFrame) -> pd.DataFrame:
    """How often a mixture beat another, beside the chance that was given; z over swarms."""
    flipped = pairs.assign(chance=1 - pairs["chance"], won=~pairs["won"].astype(bool))
    # the likelier one of each pair
    likelier = pairs.where(pairs["chance"] >= 0.5, flipped)
    likelier = likelier.astype({"chance": float, "won": float})
    likelier["excess"] = likelier["won"] - likelier["chance"]
    bands = pd.cut(likelier["chance"], [0.5, 0.7, 0.9, 0.99, 1.0], include_lowest=True)
    rows = []
    for band, some in [*likelier.groupby(bands, observed=True), ("all", likelier)]:
        by_swarm = some.groupby("swarm")["excess"].sum()
        error = np.sqrt((by_swarm**2).sum()) / len(some)
        rows.append(
            {
                "chance": str(band),
                "pairs": len(some),
                "given": some["chance"].mean(),
                "came true": some["won"].mean(),
                "standard_error": error,
            }
        )
    return pd.DataFrame(rows)


def report(lines: pd.DataFrame, pairs: pd.DataFrame) -> None:
    """Print means, paired differences and calibration."""
    shown = lines.groupby("choice", sort=False)[[*YARDSTICKS]].mean()
    print(f"{lines['swarm'].nunique()} swarms; means, nats per token\n{shown.round(5)}\n")
    for name in RISKS:
        print(f"{paired(lines, name).round(6).to_string(index=False)}\n")
    print(calibration(pairs).round(3).to_string(index=False))
    ranks = lines[lines["choice"] == "mean"]["rank"]
    low, high = (1 - LEVEL) / 2, (1 + LEVEL) / 2
    print(
        f"\n{((ranks > low) & (ranks < high)).mean():.3f} of {LEVEL:.0%} equal-tailed intervals of "
        f"the recommendation's loss hold the truth"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--mixtures", type=int, nargs=2, default=N_MIXTURES, help="at each size")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--posterior", choices=["nuts", "laplace"], default="nuts")
    parser.add_argument("--out", type=Path, default=CHOICES)
    options = parser.parse_args()
    warnings.simplefilter("ignore", bm.RunsWarning)
    files = options.out, options.out.with_name(f"{options.out.stem}_pairs.csv")
    done = set(pd.read_csv(options.out)["swarm"]) if options.out.is_file() else set()
    todo = [seed for seed in range(options.n) if seed not in done]
    parallel = joblib.Parallel(n_jobs=options.jobs, return_as="generator_unordered")
    for tables in parallel(
        joblib.delayed(score)(seed, options.posterior, tuple(options.mixtures)) for seed in todo
    ):
        for table, path in zip(tables, files, strict=True):
            table.to_csv(path, mode="a", header=not path.exists(), index=False)
        print(f"swarm {tables[0]['swarm'].iloc[0]} done", flush=True)
    report(*(pd.read_csv(path) for path in files))


if __name__ == "__main__":
    main()
