"""Train the swarm, one JSON line a run; start it again and it goes on where it stopped.

python -m examples.tinyswarm.train --workers 2 --out tinyswarm.jsonl
"""

import argparse
import json
import multiprocessing
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np

from examples.tinyswarm.corpus import DOMAINS, cache_folder, load_streams
from examples.tinyswarm.design import BATCH, CONTEXT, Run, design, largest_remainder

EVALUATED = 1024  # windows a domain, evenly spaced over its held-out bytes


def training_batches(
    streams: dict[str, np.ndarray], weights: Iterable[float], steps: int, seed: int
) -> np.ndarray:
    """The windows of a run, uint8 of shape (steps, BATCH, CONTEXT + 1), in the order trained.

    Every domain has its exact share of windows, in random order; no window comes back before
    all of its domain have been used.
    """
    rng = np.random.default_rng([seed, 1])
    counts = largest_remainder(np.asarray(list(weights)), steps * BATCH)
    windows = []
    for domain, needed in zip(DOMAINS, counts, strict=True):
        stream = streams[f"{domain}.train"]
        places = (len(stream) - 1) // CONTEXT
        passes = [rng.permutation(places) for _ in range(-(-needed // places))]
        chosen = np.concatenate([*passes, np.zeros(0, int)])[:needed].astype(int)
        windows.append(stream[chosen[:, None] * CONTEXT + np.arange(CONTEXT + 1)])
    together = np.concatenate(windows)
    return together[rng.permutation(len(together))].reshape(steps, BATCH, CONTEXT + 1)


def heldout_windows(streams: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Windows to evaluate on, the same for every run: (EVALUATED, CONTEXT + 1) a domain."""
    found = {}
    for domain in DOMAINS:
        stream = streams[f"{domain}.heldout"]
        starts = np.linspace(0, len(stream) - CONTEXT - 1, EVALUATED).astype(int)
        found[domain] = stream[starts[:, None] + np.arange(CONTEXT + 1)]
    return found


def train_run(run: Run, cache: Path, learning_rate: float | None = None) -> dict:
    """Train and evaluate one run; its line of the log."""
    from examples.tinyswarm import model  # JAX, which the corpus and the design do without

    began, used = time.perf_counter(), time.process_time()
    streams = load_streams(cache)
    batches = training_batches(streams, run.weights, run.steps, run.seed)
    params, losses = model.train(run.size, batches, run.seed, learning_rate)
    heldout = {
        domain: model.evaluate(run.size, params, windows)
        for domain, windows in heldout_windows(streams).items()
    }
    return {
        "run_id": run.run_id,
        "size": run.size.name,
        "n_params": run.size.n_params,
        "n_tokens": run.n_tokens,
        "seed": run.seed,
        "learning_rate": learning_rate or run.size.learning_rate,
        "weights": dict(zip(DOMAINS, run.weights, strict=True)),
        "losses": heldout,
        "training_loss": float(losses[-100:].mean()),
        "seconds": round(time.perf_counter() - began, 1),
        "core_seconds": round(time.process_time() - used, 1),
    }


def read_log(path: Path) -> list[dict]:
    """The runs logged so far; a last line torn by a kill is cut off the file."""
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        path.write_text("".join(lines[:-1]))
        lines = lines[:-1]
    return [json.loads(line) for line in lines]


def train_all(runs: list[Run], out: Path, cache: Path, workers: int) -> None:
    """Train the runs that `out` does not have yet, in order, appending a line for each."""
    load_streams(cache)  # built once, before the workers read it
    done = {line["run_id"] for line in read_log(out)}
    waiting = [run for run in runs if run.run_id not in done]
    print(f"{len(done)} runs done, {len(waiting)} to train", flush=True)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn) as pool, out.open("a") as log:
        try:
            for future in as_completed([pool.submit(train_run, run, cache) for run in waiting]):
                line = future.result()
                log.write(json.dumps(line) + "\n")
                log.flush()
                mean = np.mean(list(line["losses"].values()))
                print(f"{line['run_id']:28} {mean:.4f} {line['core_seconds']:6.1f} s", flush=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)  # no line would be kept of what is waiting
            raise


def main() -> None:
    """Train the swarm from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="log, one JSON line a run")
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each")
    parser.add_argument("--cache", help="folder of the corpus")
    options = parser.parse_args()
    train_all(design(), options.out, cache_folder(options.cache), options.workers)


if __name__ == "__main__":
    main()
