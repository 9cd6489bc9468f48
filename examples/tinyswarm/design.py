"""The design of the swarm: which mixture is trained at which size, for how long, how often."""

from dataclasses import dataclass

import numpy as np

from examples.tinyswarm.corpus import DOMAINS

CONTEXT = 64  # bytes predicted in a window
BATCH = 16  # windows in a step
STEPS = (200, 400, 800, 1600)  # each its own run, with its learning rate down to zero at its end


@dataclass(frozen=True)
class Size:
    """One size of the transformer; `learning_rate` is the peak, tuned once (see README.md)."""

    name: str
    width: int
    layers: int
    heads: int
    learning_rate: float

    @property
    def n_params(self) -> int:
        """Parameters of blocks and norms; the embedding, which is the head too, not counted."""
        return self.layers * (12 * self.width**2 + 2 * self.width) + self.width


SIZES = (
    Size("xs", 32, 1, 2, 32e-3),
    Size("s", 40, 2, 2, 32e-3),
    Size("m", 56, 3, 2, 16e-3),
    Size("l", 96, 3, 3, 16e-3),
)


@dataclass(frozen=True)
class Run:
    """One run to train: everything that its losses depend on, the corpus aside."""

    run_id: str
    size: Size
    weights: tuple[float, ...]
    steps: int
    seed: int

    @property
    def n_tokens(self) -> int:
        """Bytes predicted in training."""
        return self.steps * BATCH * CONTEXT


def largest_remainder(shares: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers in proportion to `shares` (summing to 1) that sum to `total`.

    >>> largest_remainder(np.array([0.5, 0.3, 0.2]), 7)
    array([4, 2, 1])
    """
    floor = np.floor(shares * total).astype(int)
    order = np.argsort(floor - shares * total, kind="stable")
    floor[order[: total - floor.sum()]] += 1
    return floor


def printed(shares: np.ndarray) -> tuple[float, ...]:
    """A mixture in ten-thousandths that sum to 1; trained to within one window of the run."""
    return tuple((largest_remainder(shares, 10_000) / 10_000).tolist())


def mixtures() -> dict[str, tuple[float, ...]]:
    """32 mixtures in ten-thousandths: uniform, corners, edges, and Dirichlet(1) with zeros."""
    rng = np.random.default_rng(20)
    names = list(DOMAINS)
    found = {"uniform": np.full(len(names), 1 / len(names))}
    found |= {name: np.eye(len(names))[i] for i, name in enumerate(names)}
    for pair in ("python+c", "python+prose", "german+french", "prose+german", "c+tables",
                 "french+tables"):  # fmt: skip
        found[pair] = np.array([0.5 * (name in pair.split("+")) for name in names])
    for i in range(19):
        drawn = rng.dirichlet(np.ones(len(names))) * (rng.random(len(names)) > 0.15)
        found[f"d{i:02}"] = drawn / drawn.sum()
    return {name: printed(h) for name, h in found.items()}


def design() -> list[Run]:
    """Every run, sizes interleaved, so that the swarm is of use before its last run ends."""
    xs, s, m, large = SIZES
    names = list(mixtures())
    others = names[1:]
    planned: list[list[tuple[Size, str, int]]] = []
    for shift, size in enumerate((xs, s)):
        planned.append([(size, "uniform", steps) for steps in STEPS])
        planned[-1] += [(size, name, STEPS[(i + shift) % 4]) for i, name in enumerate(others)]
    planned.append([(m, "uniform", steps) for steps in STEPS[1:]])
    part = ["c", "german", "python+prose", "german+french", "c+tables", *names[-19::2]]
    planned[-1] += [(m, name, STEPS[1 + i % 3]) for i, name in enumerate(part)]
    planned.append([(large, "uniform", steps) for steps in STEPS[:0:-1]])
    part = ["python", "german+french", "french+tables", *names[-18::3]]
    planned[-1] += [(large, name, STEPS[1 + i % 3]) for i, name in enumerate(part)]
    repeated = ("uniform", "german", "python+prose", names[-1], names[-2], names[-3])
    for size in (xs, s):
        base = [cell for cells in planned for cell in cells if cell[0] is size]
        # uniform is planned at every length: repeat it at one
        cells = [c for c in base if c[1] in repeated and (c[1] != "uniform" or c[2] == STEPS[2])]
        planned.append(cells * 2)
    rng = np.random.default_rng(21)
    placed = []
    for cells in planned:
        places = [*range(3), *(3 + rng.permutation(len(cells) - 3))]
        placed += [
            ((place + 0.5) / len(cells), *cell) for place, cell in zip(places, cells, strict=True)
        ]
    table = mixtures()
    return [
        Run(f"{size.name}-{name}-{steps}-{seed}", size, table[name], steps, seed)
        for seed, (_, size, name, steps) in enumerate(sorted(placed, key=lambda cell: cell[0]))
    ]
