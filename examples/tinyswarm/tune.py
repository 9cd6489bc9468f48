"""The learning rate of each size, tried once on short runs of the uniform mixture.

python -m examples.tinyswarm.tune
"""

import argparse

from examples.tinyswarm.corpus import cache_folder
from examples.tinyswarm.design import SIZES, Run, mixtures
from examples.tinyswarm.train import train_run

RATES = {
    "xs": (8e-3, 16e-3, 32e-3),
    "s": (8e-3, 16e-3, 32e-3),
    "m": (8e-3, 16e-3),
    "l": (8e-3, 16e-3),
}


def main() -> None:
    """Print the mean training loss over the last 100 steps, of bytes seen for the first time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", help="folder of the corpus")
    folder = cache_folder(parser.parse_args().cache)
    for size in SIZES:
        for rate in RATES[size.name]:
            run = Run("tune", size, mixtures()["uniform"], 400, 1000)
            line = train_run(run, folder, rate)
            print(size.name, rate, f"{line['training_loss']:.4f}", line["core_seconds"], flush=True)


if __name__ == "__main__":
    main()
