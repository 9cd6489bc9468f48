"""The loop closed on `tinyswarm`: mixtures chosen from its smaller sizes, trained at its largest.

`python -m benchmarks.tinyswarm_loop --folder loop [--objectives uniform skewed] [--workers 2]`
fits every size but the largest, writes the mixtures to train and what is predicted of them to
`<folder>/plan.json`, then trains each with three seeds (resumable, `<folder>/log.jsonl`), and
writes `data/tinyswarm_loop.csv` (objective: the uniform mean) and
`data/tinyswarm_loop_skewed.csv`. Needs the extra `tinyswarm`; each run at the largest size takes
about a minute of one core.

`python -m benchmarks.tinyswarm_loop --again` trains nothing: what the present version of the model
predicts of the same mixtures from the same smaller sizes goes to `benchmarks/tinyswarm_again.csv`.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

import bayesmix as bm
from bayesmix.model import MODEL_VERSION
from examples.tinyswarm.corpus import DOMAINS, cache_folder
from examples.tinyswarm.design import BATCH, CONTEXT, SIZES, Run, printed
from examples.tinyswarm.train import read_log, train_all

DATA = Path(__file__).parent.parent / "data"
AGAIN = Path(__file__).parent / "tinyswarm_again.csv"
OBJECTIVES = {
    "uniform": dict.fromkeys(DOMAINS, 1 / len(DOMAINS)),
    "skewed": {"python": 0.5, "prose": 0.3, "c": 0.2},
}
TABLES = {"uniform": "tinyswarm_loop.csv", "skewed": "tinyswarm_loop_skewed.csv"}
STEPS = 800  # a length at which smaller sizes were trained too: only the size is extrapolated
SEEDS = (1000, 1001, 1002)  # none of the swarm's


def objective_losses(losses: pd.DataFrame, objective: dict[str, float]) -> np.ndarray:
    """The objective of each row of losses by domain."""
    return losses[list(objective)].to_numpy() @ np.array(list(objective.values()))


def best_observed(runs: bm.Runs, objective: dict[str, float]) -> np.ndarray:
    """The mixture whose observed objective is least relative to uniform's at the same N and D.

    Uniform itself is left out: it is trained anyway. Repeats count by their mean.
    """
    names = [f"weight_{domain}" for domain in DOMAINS]
    frame = runs.frame
    frame["objective"] = objective_losses(runs.losses.to_pandas(), objective)
    uniform = np.isclose(frame[names], 1 / len(names), atol=1e-3).all(axis=1)
    scale = ["n_params", "n_tokens"]
    reference = frame[uniform].groupby(scale)["objective"].mean().rename("reference")
    frame = frame[~uniform].join(reference, on=scale)
    ratio = (frame["objective"] / frame["reference"]).groupby([frame[name] for name in names])
    return np.array(ratio.mean().idxmin())


def plan(runs: bm.Runs, n_params: int, n_tokens: int) -> list[dict]:
    """Mixtures to train for each objective, and what the fit predicts of each."""
    fit = bm.fit(runs, checkpoints="last", seed=0, progressbar=False)
    print(fit.diagnose(), flush=True)
    points = {law: bm.point_fit(runs, law) for law in ("point:regression", "additive")}
    entries = []
    for objective, weights in OBJECTIVES.items():
        chosen = {
            "recommended": bm.recommend(fit, n_params, n_tokens, objective=weights).weights,
            "cvar": bm.recommend(
                fit, n_params, n_tokens, objective=weights, risk=bm.CVaR(0.9)
            ).weights,
            "uniform": np.full(len(DOMAINS), 1 / len(DOMAINS)),
            "point_regression": points["point:regression"].optimum(n_params, n_tokens, weights),
            "point_additive": points["additive"].optimum(n_params, n_tokens, weights),
            "best_observed": best_observed(runs, weights),
        }
        for label, mixture in chosen.items():
            mixture = dict(zip(DOMAINS, printed(np.asarray(mixture)), strict=True))
            found = predicted(fit, mixture, n_params, n_tokens, weights)
            entries.append({"objective": objective, "label": label, "weights": mixture} | found)
            print(objective, label, mixture, f"{found['predicted_mean']:.4f}", flush=True)
    return entries


def predicted(
    fit: bm.Fit,
    mixture: dict[str, float],
    n_params: float,
    n_tokens: float,
    objective: dict[str, float],
) -> dict[str, float]:
    """The expected objective, and the 90% equal-tailed interval of a new run's."""
    draws = fit.predict(mixture, n_params, n_tokens).draws.isel(row=0)
    share = np.array([objective.get(domain, 0.0) for domain in DOMAINS])
    expected, loss = (
        draws[kind].sel(domain=list(DOMAINS)).transpose("draw", "domain").values @ share
        for kind in ("expected", "loss")
    )
    lower, upper = np.quantile(loss, [0.05, 0.95])
    return {
        "predicted_mean": float(expected.mean()),
        "predicted_lower": float(lower),
        "predicted_upper": float(upper),
    }


def again() -> pd.DataFrame:
    """What the present version predicts of the mixtures that were trained."""
    runs = bm.load_dataset("tinyswarm").where(f"n_params < {SIZES[-1].n_params}")
    fit = bm.fit(runs, seed=0)
    print(fit.diagnose(), flush=True)
    rows = []
    for objective, weights in OBJECTIVES.items():
        for label, first in pd.read_csv(DATA / TABLES[objective]).groupby("label", sort=False):
            line = first.iloc[0]
            mixture = {domain: float(line[f"weight_{domain}"]) for domain in DOMAINS}
            found = predicted(fit, mixture, line["n_params"], line["n_tokens"], weights)
            rows.append({"objective": objective, "label": label} | found)
    return pd.DataFrame(rows).assign(model_version=MODEL_VERSION).round(5)


def run_of(entry: dict, seed: int) -> Run:
    """The run that trains a mixture; uniform is the same run for every objective."""
    of = "" if entry["label"] == "uniform" else f"{entry['objective']}-"
    weights = tuple(entry["weights"][domain] for domain in DOMAINS)
    return Run(f"{of}{entry['label']}-{seed}", SIZES[-1], weights, STEPS, seed)


def table(entries: list[dict], lines: list[dict]) -> pd.DataFrame:
    """One row a mixture and seed: the losses measured beside the interval predicted."""
    logged = {line["run_id"]: line for line in lines}
    rows = []
    for entry in entries:
        for seed in SEEDS:
            line = logged[run_of(entry, seed).run_id]
            rows.append(
                {"label": entry["label"]}
                | {key: line[key] for key in ("seed", "n_params", "n_tokens")}
                | {f"weight_{domain}": entry["weights"][domain] for domain in DOMAINS}
                | {f"loss_{domain}": round(line["losses"][domain], 5) for domain in DOMAINS}
                | {
                    key: round(entry[key], 5)
                    for key in ("predicted_mean", "predicted_lower", "predicted_upper")
                }
            )
    return pd.DataFrame(rows)


def report(made: pd.DataFrame, objective: dict[str, float]) -> pd.DataFrame:
    """Measured objective with the standard error over seeds, beside what was predicted."""
    losses = made[[f"loss_{domain}" for domain in DOMAINS]].set_axis(list(DOMAINS), axis=1)
    by_label = made.assign(measured=objective_losses(losses, objective)).groupby(
        "label", sort=False
    )
    facts = by_label["measured"].agg(["mean", "sem"])
    return facts.join(by_label[["predicted_mean", "predicted_lower", "predicted_upper"]].first())


def main() -> None:
    """Plan, train, write, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="plan and log; made if absent")
    parser.add_argument("--again", action="store_true", help="predict what was trained anew")
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=list(OBJECTIVES))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cache", help="folder of the corpus")
    options = parser.parse_args()
    if options.again:
        again().to_csv(AGAIN, index=False)
        return
    if options.folder is None:
        parser.error("--folder is needed to train")
    options.folder.mkdir(exist_ok=True)
    stored = options.folder / "plan.json"
    if not stored.exists():
        largest = SIZES[-1].n_params
        runs = bm.load_dataset("tinyswarm").where(f"n_params < {largest}")
        stored.write_text(json.dumps(plan(runs, largest, STEPS * BATCH * CONTEXT), indent=2))
    log = options.folder / "log.jsonl"
    for objective in options.objectives:
        entries = [e for e in json.loads(stored.read_text()) if e["objective"] == objective]
        runs = [run_of(entry, seed) for seed in SEEDS for entry in entries]
        train_all(runs, log, cache_folder(options.cache), options.workers)
        made = table(entries, read_log(log))
        made.to_csv(DATA / TABLES[objective], index=False)
        print(report(made, OBJECTIVES[objective]).round(4).to_string(), flush=True)


if __name__ == "__main__":
    main()
