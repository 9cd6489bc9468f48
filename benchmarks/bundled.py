"""Make the bundled swarm: `python -m benchmarks.bundled [--out data]`.

Writes `simulated.csv` and `simulated_truth.json`. The truth is drawn once from a seed, but for
the kinships in tau, which are set by hand so that they read like those of real domains.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from bayesmix.reference import reference
from bayesmix.runs import runs_from_frame, write_runs
from bayesmix.simulate import Simulated, draw_design, draw_parameters, observe

DOMAINS = ("code", "prose", "qa", "wiki", "papers")
SIZES = (50e6, 150e6, 400e6)
TARGET = "exam"
LAW = "transfer"

# what a token of the second is worth to the first; all other pairs 0.03
KINSHIPS = {
    ("code", "qa"): 0.45,
    ("qa", "code"): 0.3,
    ("qa", "prose"): 0.25,
    ("prose", "wiki"): 0.2,
    ("wiki", "papers"): 0.35,
    ("wiki", "prose"): 0.3,
    ("papers", "wiki"): 0.6,
    ("papers", "code"): 0.1,
}
TARGET_WORTH = {"code": 0.05, "prose": 0.05, "qa": 0.4, "wiki": 0.2, "papers": 0.3}


def bundled() -> Simulated:
    """The bundled swarm: losses are printed to five decimals."""
    design = draw_design(
        DOMAINS,
        SIZES,
        n_mixtures=[28, 20, 12],
        concentration=1.5,
        zeros=0.05,
        checkpoints=2,
        targets=[TARGET],
        seed=22,
    )
    typical = reference(design)
    truth = draw_parameters(
        DOMAINS,
        law=LAW,
        targets=[TARGET],
        n_params=typical.n_params,
        n_tokens=typical.n_tokens,
        noise=0.004,
        dof=6.0,
        rho=0.6,
        seed=22,
    )
    tau = truth["tau"].copy(data=np.full(truth["tau"].shape, 0.03))
    for domain in DOMAINS:
        tau.loc[domain, domain] = 1.0
    for (to, source), worth in KINSHIPS.items():
        tau.loc[to, source] = worth
    for source, worth in TARGET_WORTH.items():
        tau.loc[f"target:{TARGET}", source] = worth
    swarm = observe(design, truth.assign(tau=tau), law=LAW, seed=22)
    frame = swarm.runs.frame
    printed = [name for name in frame if name.startswith(("loss_", "target_"))]
    runs = runs_from_frame(frame.round(dict.fromkeys(printed, 5)), source="simulated")
    return Simulated(runs, swarm.parameters, swarm.losses)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("data"))
    folder = parser.parse_args().out
    swarm = bundled()
    write_runs(swarm.runs, folder / "simulated.csv")
    truth = {"law": LAW, **swarm.parameters.to_dict()}
    (folder / "simulated_truth.json").write_text(json.dumps(truth, indent=1) + "\n")
    print(swarm.runs)


if __name__ == "__main__":
    main()
