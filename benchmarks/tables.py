"""Put the tables of `compare.csv` into the README: `python -m benchmarks.tables`."""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from bayesmix._evaluation import paired_differences
from bayesmix._files import atomic_path
from benchmarks.compare import COMPARISONS, LAWS, RUNS, SCORES

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- table:compare -->", "<!-- end of table:compare -->"
ORDER = ["transfer", "regression", "quantization", *LAWS]
MOST = 1000  # percent, above which a law has run away
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


def main() -> None:
    """Write the README again, or with `--check` say whether it is as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    made = tables(pd.read_csv(SCORES), pd.read_csv(RUNS, dtype={"run_id": str}))
    text = README.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    new = f"{before}{BEGIN}\n\n{made}\n\n{END}{after}"
    if check and new != text:
        raise SystemExit(
            "README.md: the tables are not those of compare.csv; run this without --check"
        )
    with atomic_path(README) as temporary:
        temporary.write_text(new)


if __name__ == "__main__":
    main()
