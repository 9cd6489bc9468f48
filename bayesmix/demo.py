"""The demonstration: a bundled swarm fitted, predicted at ten times its size, and decided on."""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bayesmix import plots
from bayesmix._console import interruptible
from bayesmix.datasets import load_dataset
from bayesmix.diagnostics import Diagnosis
from bayesmix.fit import fit
from bayesmix.posterior import Fit
from bayesmix.recommend import Recommendation, recommend
from bayesmix.runs import Runs

SWARM = "tinyswarm"
TUNE = 500  # half the default, enough for this swarm
SCALE = 10  # the run to decide on, in multiples of the largest size and token count


@dataclass(frozen=True)
class Demo:
    """What the demonstration made.

    Attributes
    ----------
    fit : Fit
    diagnosis : Diagnosis
    recommendation : Recommendation
    files : tuple of Path
    """

    fit: Fit
    diagnosis: Diagnosis
    recommendation: Recommendation
    files: tuple[Path, ...]


def demo(out: Path, *, say: Callable[[str], None] = print, progressbar: bool = False) -> Demo:
    """Fit the bundled swarm, predict and recommend.

    Parameters
    ----------
    out : Path
        Directory for `fit.nc`, `predictions.csv`, `recommendation.json` and three figures; made
        if it is absent. Files appear there together, at the end.
    say : callable
        Takes what is being done, a sentence at a time.
    progressbar : bool
        Show the sampler's.

    Returns
    -------
    Demo
    """
    runs = load_dataset(SWARM)
    say(f"The swarm {SWARM!r} is measured: byte-level transformers; a token is a byte.")
    say(f"{runs!r}")
    with interruptible():
        fitted = fit(runs, tune=TUNE, progressbar=progressbar)
    diagnosis = fitted.diagnose()
    say(diagnosis.text)
    n_params = SCALE * float(runs.n_params.max())
    n_tokens = SCALE * float(runs.n_tokens.max())
    say(f"Predicting and recommending at {n_params:.3g} parameters and {n_tokens:.3g} tokens.")
    chosen = recommend(fitted, n_params=n_params, n_tokens=n_tokens)
    predictions = fitted.predict(_mixtures(runs, chosen), n_params, n_tokens)
    # a directory that is not there is not made until everything is, beside it; one that is may be
    # on another disk, whence nothing moves into place
    beside = out if out.exists() else out.parent
    with tempfile.TemporaryDirectory(dir=beside, prefix=f".{out.name}.") as folder:
        part = Path(folder)
        fitted.save(part / "fit.nc")
        predictions.summary().to_csv(part / "predictions.csv", index=False)
        chosen.to_json(part / "recommendation.json")
        _save_figure(plots.plot_fit(fitted), part / "fit.png")
        _save_figure(plots.plot_transfer(fitted), part / "transfer.png")
        _save_figure(plots.plot_recommendation(chosen), part / "recommendation.png")
        out.mkdir(exist_ok=True)
        files = tuple(out / file.name for file in sorted(part.iterdir()))
        for file in files:
            os.replace(part / file.name, file)
    return Demo(fitted, diagnosis, chosen, files)


def _mixtures(runs: Runs, chosen: Recommendation) -> pd.DataFrame:
    """The recommended mixture beside two that people would otherwise take."""
    mean = runs.weights.mean("row").values
    rows = {
        "recommended": chosen.weights.sel(domain=list(runs.domains)).values,
        "uniform": np.full(mean.size, 1 / mean.size),
        "swarm mean": mean / mean.sum(),
    }
    frame = pd.DataFrame.from_dict(
        rows, orient="index", columns=[f"weight_{domain}" for domain in runs.domains]
    )
    return frame.rename_axis("run_id").reset_index()


def _save_figure(axes: Axes | np.ndarray, path: Path) -> None:
    figure = (axes if isinstance(axes, Axes) else axes.flat[0]).get_figure(root=True)
    assert figure is not None  # what has just been drawn is in a figure
    figure.savefig(path, dpi=150, bbox_inches="tight")
    plt.close(figure)
