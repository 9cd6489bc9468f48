"""Swarms that others have published: fetched from their repositories, never bundled."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from bayesmix.readers import mixinglaws, regmix
from bayesmix.runs import Runs, runs_from_frame

if TYPE_CHECKING:
    import pooch

__all__ = ["PUBLISHED", "Published", "fetch_dataset"]

CACHE, MIRROR = "BAYESMIX_CACHE", "BAYESMIX_MIRROR"  # environment variables

_HOST = "https://raw.githubusercontent.com"
# repository: its name on a mirror, and where its data are at the commit that was read
_REPOSITORIES = {
    "regmix": f"{_HOST}/sail-sg/regmix/b004d3a3f39846dcec6b3740da22bcd1ba95a5d0/data",
    "explaining-data-mixing": f"{_HOST}/meiqwq/Explaining-Data-Mixing-Scaling-Laws"
    "/c2bf1106e8e54b8d368cd6de2515d4804f1c8a36/data",
    "mixinglaws": f"{_HOST}/yegcjs/mixinglaws/8ad3e1244b53294ded55a96ae325f4112ce3bc63/data",
}
_SHA256 = {
    "regmix/train_mixture_1m.csv": (
        "04a32ef4ab594376bf90e11404c033668f887c351d6a03ad3744824c7296a2d8"
    ),
    "regmix/train_pile_loss_1m.csv": (
        "49a959aa07ce5c20831d5abe3a7896ff0cd90a398bd407c8913fd5588be0465a"
    ),
    "regmix/test_mixture_1m.csv": (
        "197267b7d6f15367e2f46c881e564c35b0d34e51b1754bb09d07e650cf8e1ce8"
    ),
    "regmix/test_pile_loss_1m.csv": (
        "e027b1674f60140a65a87b5e4a59ab5f09dc33e8fd02c080682678074b160f53"
    ),
    "regmix/test_mixture_60m.csv": (
        "197267b7d6f15367e2f46c881e564c35b0d34e51b1754bb09d07e650cf8e1ce8"
    ),
    "regmix/test_pile_loss_60m.csv": (
        "8fe69d59ab7dd4fae4736459f4265ec93c7ed1ad1eca407346052560edc72b5b"
    ),
    "regmix/test_mixture_1B.csv": (
        "dd38052949c0a5f84165bdcb3ae3a331c7f07efd9bb83848bd579dfc4ce75a2c"
    ),
    "regmix/test_pile_loss_1B.csv": (
        "b2451e2b7fa15400688edc39e4d32f21ccbe0fb356e07d62a0e9ccddf247114f"
    ),
    "explaining-data-mixing/eval.jsonl": (
        "057561b1215b7a6dca5d258fa3dff3d01d83a25960d3f3b0d4d5cf3365e3f085"
    ),
    "mixinglaws/2Mix/70M.txt": "f145e8c9d2a017de8eeb16c3c4e2fb096dc15a815f3aeed66d617283627db76e",
    "mixinglaws/2Mix/160M.txt": "15ca2f0b918fb6e34d1e52daa6ef6e1fc0c9fd10ad300fe17fd99f64699214fe",
}
_MIT = "MIT, Copyright (c) 2024 Sea AI Lab"
_REGMIX = (
    "Liu, Zheng, Muennighoff, Zeng, Dou, Pang, Jiang, Lin: RegMix: Data Mixture as Regression for "
    "Language Model Pre-training. arXiv 2407.01492"
)
_PAPER = "Dai, Zheng: Explaining Data Mixing Scaling Laws. ICML 2026, arXiv 2606.08167"
_MIXINGLAWS = (
    "Ye, Liu, Sun, Zhan, Zhou, Qiu: Data Mixing Laws: Optimizing Data Mixtures by Predicting "
    "Language Modeling Performance. ICLR 2025, arXiv 2403.16952"
)


@dataclass(frozen=True)
class Published:
    """A published swarm.

    Attributes
    ----------
    description, licence, citation : str
        What it is, under what terms, and whose.
    files : tuple of str
        Its files: `<repository>/<path>`, as on a mirror.
    read : callable
        The importer: paths of the files, in order, to `Runs`.
    rows, runs, domains : int
        What the importer makes of the files.
    """

    description: str
    licence: str
    citation: str
    files: tuple[str, ...]
    read: Callable[..., Runs]
    rows: int
    runs: int
    domains: int


# sizes without embeddings, as RegMix's configuration gives them
def _regmix_1m(*files: Path) -> Runs:
    trained, tested = (
        regmix(*files[i : i + 2], n_params=1_310_720, n_tokens=1_048_576_000, prefix=prefix)
        for i, prefix in ((0, "train_"), (2, "test_"))
    )
    return runs_from_frame(
        pd.concat([trained.frame, tested.frame], ignore_index=True),
        source="regmix_1m",
        weight_resolution=trained.weight_resolution,
    )


def _regmix_60m(*files: Path) -> Runs:
    return regmix(*files, n_params=58_982_400, n_tokens=1_048_576_000, prefix="test_")


def _regmix_1b(*files: Path) -> Runs:
    return regmix(*files, n_params=1_130_364_928, n_tokens=26_214_400_000, prefix="model_")


def _mixinglaws_2mix(*files: Path) -> Runs:
    return mixinglaws(*files, domains=["Github", "Pile-CC"])


_ONE_BILLION = ("regmix/test_mixture_1B.csv", "regmix/test_pile_loss_1B.csv")
PUBLISHED: Mapping[str, Published] = {
    "regmix_1m": Published(
        "RegMix at 1M: 512 mixtures and 128 of its tests",
        _MIT,
        _REGMIX,
        (
            "regmix/train_mixture_1m.csv",
            "regmix/train_pile_loss_1m.csv",
            "regmix/test_mixture_1m.csv",
            "regmix/test_pile_loss_1m.csv",
        ),
        _regmix_1m,
        rows=640,
        runs=640,
        domains=17,
    ),
    "regmix_60m": Published(
        "RegMix at 60M: the same 128 tests",
        _MIT,
        _REGMIX,
        ("regmix/test_mixture_60m.csv", "regmix/test_pile_loss_60m.csv"),
        _regmix_60m,
        rows=128,
        runs=128,
        domains=17,
    ),
    "regmix_1b": Published(
        "RegMix at 1B; 13 of 17 domains have losses",
        _MIT,
        _REGMIX,
        _ONE_BILLION,
        _regmix_1b,
        rows=64,
        runs=64,
        domains=17,
    ),
    "pile17_1b": Published(
        "RegMix at 1B with the losses of four domains added by Dai & Zheng",
        f"{_MIT}; the added losses: none stated",
        f"{_REGMIX}; {_PAPER}",
        (*_ONE_BILLION, "explaining-data-mixing/eval.jsonl"),
        _regmix_1b,
        rows=64,
        runs=64,
        domains=17,
    ),
    "mixinglaws_2mix": Published(
        "Data Mixing Laws, GitHub and Pile-CC at 70M and 160M, 11 checkpoints a run",
        "none stated",
        _MIXINGLAWS,
        ("mixinglaws/2Mix/70M.txt", "mixinglaws/2Mix/160M.txt"),
        _mixinglaws_2mix,
        rows=110,
        runs=10,
        domains=2,
    ),
}


def fetch_dataset(name: str, *, say: Callable[[str], object] = print) -> Runs:
    """Download a published swarm, unless it is in the cache, and import it.

    Parameters
    ----------
    name : str
        Key of `PUBLISHED`; `list_datasets` lists them.
    say : callable
        Takes the licence and the citation, before anything is downloaded.

    Returns
    -------
    Runs

    Raises
    ------
    ValueError
        If the name is unknown; the message lists the valid ones.
    OSError
        If a file cannot be had, or is not the one that was published: its hash is checked, and
        nothing of it is kept.

    Warns
    -----
    RunsWarning
        What the importers say: weights renormalised, mixtures without losses.

    Notes
    -----
    The cache is the user's (`~/.cache/bayesmix` on Linux), or the folder in ``BAYESMIX_CACHE``.
    ``BAYESMIX_MIRROR`` is the address of a mirror, asked instead of the authors' repositories:
    it serves `<repository>/<path>` as `Published.files` names them.

    Examples
    --------
    >>> fetch_dataset("regmix_2b")
    Traceback (most recent call last):
    ValueError: unknown dataset 'regmix_2b'; published: regmix_1m, regmix_60m, regmix_1b, pile17_1b, mixinglaws_2mix
    """  # noqa: E501 (a message)
    if name not in PUBLISHED:
        raise ValueError(f"unknown dataset {name!r}; published: {', '.join(PUBLISHED)}")
    # deferred: it takes a while, and in a notebook warns of progress bars that nobody asked for
    import pooch

    swarm = PUBLISHED[name]
    mirror = os.environ.get(MIRROR, "").rstrip("/")
    store = pooch.create(
        path=pooch.os_cache("bayesmix"),
        base_url="",
        registry={file: _SHA256[file] for file in swarm.files},
        urls={file: f"{mirror}/{file}" if mirror else _origin(file) for file in swarm.files},
        env=CACHE,
    )
    if not all((store.abspath / file).is_file() for file in swarm.files):
        say(f"{name}: {swarm.description}.")
        say(f"Licence: {swarm.licence}.\nPlease cite: {swarm.citation}.")
    return swarm.read(*(_fetch(store, file) for file in swarm.files))


def _origin(file: str) -> str:
    repository, _, path = file.partition("/")
    return f"{_REPOSITORIES[repository]}/{path}"


def _fetch(store: "pooch.Pooch", file: str) -> Path:
    """The path of a file in the cache, downloaded and checked if it must be."""
    import pooch

    pooch.get_logger().setLevel("WARNING")
    # small files: read at once, so that no connection stays open after an error
    download = pooch.HTTPDownloader(timeout=30, stream=False)
    try:
        return Path(store.fetch(file, downloader=download))
    except (OSError, ValueError) as error:  # requests' errors are OSErrors; a hash's a ValueError
        raise OSError(
            f"{store.get_url(file)}: {error} (nothing of it was kept; {MIRROR} names a mirror, "
            f"{CACHE} the cache)"
        ) from error
