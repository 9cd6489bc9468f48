"""Put results into the README and the pages in `docs`: `python -m benchmarks.tables`.

Each table stands between two comments, ``<!-- table:NAME -->`` and ``<!-- end of table:NAME -->``,
and is made from the CSV files of the studies in this folder.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from bayesmix._evaluation import paired_differences
from bayesmix._files import atomic_path
from benchmarks.compare import COMPARISONS, LAWS, RUNS, SCORES
from benchmarks.decisions import CHOICES, PAIRS, calibration, paired
from benchmarks.tinyswarm_loop import AGAIN, DATA, OBJECTIVES, report
from benchmarks.tinyswarm_loop import TABLES as LOOPS

FOLDER = Path(__file__).parent
README = FOLDER.parent / "README.md"
CALIBRATION = FOLDER.parent / "docs" / "calibration.md"
DECISIONS = FOLDER.parent / "docs" / "decisions.md"
STUDIES = {
    "slim_mixture": "`slimpajama7`, 122M and 310M: unseen mixtures",
    "slim_one_size": "`slimpajama7`, 122M alone to",
    "slim_each_scale": "`slimpajama7`, 122M to 680M, left out:",
    "mixinglaws_mixture": "`mixinglaws_pile3`: unseen mixtures",
    "regmix_mixture": "RegMix, 1M and 60M: unseen mixtures",
    "regmix_scale": "RegMix, 1M to 60M",
    "pile4_mixture": "`pile4`, 90M to 440M: unseen mixtures",
    "pile4_scale": "`pile4`, 90M and 200M to 440M",
    "tiny_third": "`tinyswarm`, two sizes to the third",
    "tiny_each_scale": "`tinyswarm`, sizes left out:",
}
BY_FOLD = ("slim_one_size", "slim_each_scale", "tiny_each_scale")
ORDER = ["transfer", "regression", "quantization", *LAWS]
MOST = 1000  # percent, above which a law has run away
LABELS = {
    "recommended": "recommended",
    "cvar": "recommended by CVaR(0.9)",
    "uniform": "uniform",
    "point_regression": "optimum of `point:regression`",
    "point_additive": "optimum of `additive`",
    "best_observed": "best observed",
}
SPLITS = {
    "mixture": "unseen mixtures",
    "largest-scale": "largest size",
    "random-70": "ten random 70/30 splits",
    "test runs": "its test runs",
}


def beaten(errors: pd.DataFrame, score: str = "mre_pos") -> tuple[str, list[str]]:
    """The law with the least error over some runs, and the laws that tie with it."""
    means = errors.groupby("law", sort=False)[score].mean(numeric_only=True)
    whole = errors.groupby("law", sort=False)[score].apply(lambda x: x.notna().all())
    best = str(means[whole].idxmin())
    table = paired_differences(errors)
    table = table[(table["score"] == score) & table["tie"]]
    pairs = table[["law", "other"]].to_numpy()
    return best, [str(a if b == best else b) for a, b in pairs if best in (a, b)]


def shown(value: float, digits: int = 2) -> str:
    """A number, or a dash where the law leaves cells blank."""
    if not np.isfinite(value):
        return "–"
    return f"{value:.{digits}f}" if value < MOST else f"> {MOST}"


def markdown(rows: list[list[str]]) -> str:
    """A table whose first row is the header."""
    first, *rest = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([first, f"|{'---|' * len(rows[0])}", *rest])


def tables(scores: pd.DataFrame, errors: pd.DataFrame) -> str:
    """Errors, who wins, and intervals: laws by comparisons."""
    keys = [(c.swarm, c.split.name) for c in COMPARISONS]
    keys = [
        key for key in keys if ((scores["swarm"] == key[0]) & (scores["split"] == key[1])).any()
    ]
    by_key = scores.set_index(["swarm", "split", "law"])
    winners = {
        key: beaten(errors[(errors["swarm"] == key[0]) & (errors["split"] == key[1])])
        for key in keys
    }
    laws = [law for law in ORDER if (scores["law"] == law).any()]
    names = [f"`{swarm}`, {SPLITS[split]}" for swarm, split in keys]

    def error_cell(law: str, key: tuple[str, str]) -> str:
        if (*key, law) not in by_key.index:
            return ""
        line = by_key.loc[(*key, law)]
        best, ties = winners[key]
        text = f"{shown(line['mre_pos'])} / {shown(line['mre'])}"
        text += "" if line["converged"] else "†"
        return f"**{text}**" if law == best else f"{text} =" if law in ties else text

    def interval_cell(law: str, key: tuple[str, str]) -> str:
        if (*key, law) not in by_key.index:
            return ""
        line = by_key.loc[(*key, law)]
        if not np.isfinite(line["coverage_pos"]):
            return ""
        return f"{line['coverage_pos']:.2f}, {line['width_pos']:.1f}%"

    found = [["law", *names], *([f"`{law}`", *(error_cell(law, k) for k in keys)] for law in laws)]
    intervals = [[f"`{law}`", *(interval_cell(law, k) for k in keys)] for law in laws]
    intervals = [row for row in intervals if any(row[1:])]
    said = [
        f"- {name}: `{best}`"
        + (f", tied with {', '.join(f'`{law}`' for law in ties)}." if ties else ", alone.")
        for name, (best, ties) in zip(names, winners.values(), strict=True)
    ]
    parts = [
        markdown(found),
        "† did not converge in some fold, by its own criterion.",
        "Least error over weight > 0, and what ties with it:",
        "\n".join(said),
    ]
    if intervals:
        parts += [
            "Coverage of 90% equal-tailed intervals of a new run, and their mean width in % of "
            "loss, over weight > 0:",
            markdown([["law", *names], *intervals]),
        ]
    return "\n\n".join(parts)


def intervals() -> str:
    """Held-out intervals with and without the misfit: means over folds."""
    lines = pd.read_csv(FOLDER / "intervals.csv")
    newest = lines.groupby(["study", "checkpoints"])["model_version"].transform("max")
    lines = lines[lines["model_version"] == newest]
    lines = lines.assign(fold=np.where(lines["study"].isin(BY_FOLD), " " + lines["fold"], ""))
    rows = [["study", "folds", "misfit", "MRE", "MRE, weight > 0", "CRPS", "coverage", "width",
             "coverage of the mean", "of differences", "worst R-hat", "version"]]  # fmt: skip
    groups = lines.groupby(["study", "fold", "checkpoints", "discrepancy"], sort=False)
    for (study, fold, checkpoints, misfit), some in groups:
        mean = some.mean(numeric_only=True)
        name = f"{STUDIES[study]}{fold}" + ("" if checkpoints == "late" else f", {checkpoints}")
        shares = [mean["coverage"], mean["coverage_mean"], mean["coverage_difference"]]
        covered = [shown(share) for share in shares]
        rows.append(
            [name, str(len(some)), "with" if misfit else "without", shown(mean["mre"]),
             shown(mean["mre_pos"]), shown(mean["crps"], 4), covered[0], shown(mean["width"], 1),
             *covered[1:], shown(some["r_hat"].max(), 3), str(some["model_version"].max())]
        )  # fmt: skip
    return markdown(rows)


def misspecified() -> str:
    """Coverage under a false law: means and standard errors over swarms."""
    lines = pd.read_csv(FOLDER / "misspecified.csv")
    rows = [["truth", "swarms", "misfit", "MRE", "coverage", "width", "coverage of the mean"]]
    for (truth, misfit), some in lines.groupby(["truth", "discrepancy"]):
        mean, error = some.mean(numeric_only=True), some["coverage"].sem()
        rows.append(
            [str(truth), str(len(some)), "with" if misfit else "without", shown(mean["mre"], 1),
             f"{shown(mean['coverage'])} ± {shown(error)}", shown(mean["width"], 1),
             shown(mean["coverage_mean"])]
        )  # fmt: skip
    return markdown(rows)


def recovery() -> str:
    """Coverage of true parameters and predictions, with standard errors over swarms."""
    rows = [["quantity", "swarms", "intervals", "coverage of 90%", "posterior sd / prior sd"]]
    for line in pd.read_csv(FOLDER / "recovery.csv").itertuples():
        covered = f"{shown(line.coverage)} ± {shown(line.standard_error)}"
        rows.append([f"`{line.quantity}`", str(line.swarms), str(line.intervals), covered,
                     shown(line.sd_ratio)])  # fmt: skip
    return markdown(rows)


def ranks() -> str:
    """How many quantities have ranks that look uniform."""
    table = pd.read_csv(FOLDER / "calibration.csv")
    inside = table["inside_band"].sum()
    outside = ", ".join(f"`{name}`" for name in table.loc[~table["inside_band"], "quantity"])
    return (
        f"{table['swarms'].iloc[0]} swarms: the ECDF of the ranks of {inside} of {len(table)} "
        f"quantities stays inside the simultaneous 95% band"
        + (f"; outside: {outside}." if outside else ".")
    )


def choices(path: Path = CHOICES) -> str:
    """What each choice costs in 1e-5 nats beyond the risk measure whose yardstick it is."""
    lines = pd.read_csv(path)
    best = {"loss": "mean", "cvar_score": "cvar", "regret_score": "regret"}
    gaps = {
        yardstick: paired(lines, name).query("yardstick == @yardstick").set_index("less that of")
        for yardstick, name in best.items()
    }
    rows = [["choice", *(f"{yardstick}, less that of `{best[yardstick]}`" for yardstick in best)]]
    for choice in lines["choice"].unique():
        cells = [
            "0"
            if choice == best[yardstick]
            else f"{-1e5 * gap.loc[choice, 'mean']:.1f} ± "
            f"{1e5 * gap.loc[choice, 'standard_error']:.1f}"
            + (f" ({-1e5 * b:.1f})" if np.isfinite(b := gap.loc[choice, "believed"]) else "")
            for yardstick, gap in gaps.items()
        ]
        rows.append([f"`{choice}`", *cells])
    return f"{lines['swarm'].nunique()} swarms.\n\n{markdown(rows)}"


def choices_few() -> str:
    """The same of swarms of few runs."""
    return choices(CHOICES.with_name("decisions_few.csv"))


def chances() -> str:
    """How often what was given a chance came true."""
    rows = [["chance given", "pairs", "given", "came true"]]
    for line in calibration(pd.read_csv(PAIRS)).to_dict("records"):
        true = f"{line['came true']:.3f} ± {line['standard_error']:.3f}"
        rows.append([line["chance"], str(line["pairs"]), shown(line["given"], 3), true])
    return markdown(rows)


def pools() -> str:
    """Real pools ranked by laws of smaller runs."""
    rows = [["pool", "law", "Spearman", "regret of the first, nats", "MRE of the mean, %"]]
    table = pd.read_csv(FOLDER / "rank_pools.csv").drop_duplicates(["pool", "law"], keep="last")
    for line in table.sort_values(["pool", "spearman"], ascending=[True, False]).itertuples():
        scores = [shown(line.spearman, 3), shown(line.regret, 4), shown(line.mre, 1)]
        rows.append([f"`{line.pool}`, {line.mixtures} mixtures", f"`{line.law}`", *scores])
    return markdown(rows)


def purchases() -> str:
    """Regret after each purchase by each rule, with standard errors over replays."""
    lines = pd.read_csv(FOLDER / "design_replay.csv")
    regret = lines.groupby(["runs", "rule"])["regret"].agg(["mean", "sem"])
    rules = list(lines["rule"].unique())
    rows = [["runs", *(f"`{rule}`" for rule in rules)]]
    for n_runs in sorted(lines["runs"].unique()):
        cells = [regret.loc[(n_runs, rule)] for rule in rules]
        rows.append([str(n_runs), *(f"{x['mean']:.4f} ± {x['sem']:.4f}" for x in cells)])
    return markdown(rows)


def loop() -> str:
    """Mixtures that were chosen, trained and measured, beside what was predicted of them."""
    anew = pd.read_csv(AGAIN).set_index(["objective", "label"])
    version = anew["model_version"].iloc[0]
    rows = [["objective", "mixture", "measured", "predicted before", f"by version {version}"]]
    titles = dict(zip(OBJECTIVES, ("mean of domains", "skewed"), strict=True))
    for name, objective in OBJECTIVES.items():
        for line in report(pd.read_csv(DATA / LOOPS[name]), objective).itertuples():
            now = anew.loc[(name, line.Index)]
            rows.append(
                [titles[name], LABELS[str(line.Index)], f"{line.mean:.3f} ± {line.sem:.3f}",
                 *(f"{p.predicted_mean:.3f} [{p.predicted_lower:.3f}, {p.predicted_upper:.3f}]"
                   for p in (line, now))]
            )  # fmt: skip
    return markdown(rows)


def compared() -> str:
    """Laws beside one another."""
    return tables(pd.read_csv(SCORES), pd.read_csv(RUNS, dtype={"run_id": str}))


TABLES = {
    README: {"loop": loop, "compare": compared},
    CALIBRATION: {
        "intervals": intervals,
        "misspecified": misspecified,
        "recovery": recovery,
        "ranks": ranks,
    },
    DECISIONS: {
        "choices": choices,
        "choices_few": choices_few,
        "chances": chances,
        "pools": pools,
        "purchases": purchases,
    },
}


def main() -> None:
    """Write the documents again, or with `--check` say whether they are as they should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    for path, made in TABLES.items():
        text = new = path.read_text()
        for name, table in made.items():
            begin, end = f"<!-- table:{name} -->", f"<!-- end of table:{name} -->"
            before, _, rest = new.partition(begin)
            _, _, after = rest.partition(end)
            new = f"{before}{begin}\n\n{table()}\n\n{end}{after}"
        if check and new != text:
            raise SystemExit(f"{path}: not what the results say; run this without --check")
        if new != text:
            with atomic_path(path) as temporary:
                temporary.write_text(new)


if __name__ == "__main__":
    main()
