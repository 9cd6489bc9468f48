"""Six domains of text rebuilt from pinned source distributions; no text is kept here.

python -m examples.tinyswarm.corpus            # rebuild, and check every hash
python -m examples.tinyswarm.corpus --pin      # rebuild, and write manifest.json anew
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

MANIFEST = Path(__file__).with_name("manifest.json")

CATALOGUES = ("plone.app.locales", "horizon", "wagtail", "mercurial", "django", "sphinx")
# domain: (package, pattern of the path inside its archive) ...
DOMAINS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "python": (("django", r"\.py$"), ("sqlalchemy", r"\.py$"), ("sphinx", r"\.py$")),
    "c": (("gevent", r"^deps/.*\.[ch]$"), ("uwsgi", r"\.[ch]$")),
    "prose": (
        ("django", r"^docs/.*\.txt$"),
        ("sqlalchemy", r"^doc/build/.*\.rst$"),
        ("sphinx", r"^doc/.*\.rst$"),
    ),
    "german": tuple((package, r"/de(/LC_MESSAGES/.*)?\.po$") for package in CATALOGUES),
    "french": tuple((package, r"/fr(/LC_MESSAGES/.*)?\.po$") for package in CATALOGUES),
    "tables": (
        ("chemicals", r"^chemicals/.*\.(tsv|csv|json)$"),
        ("vega-datasets", r"\.(csv|json)$"),
    ),
}
FILE_BYTES = 500_000  # at most this much of one file, so that no file is most of a domain
TRAIN_BYTES = 6_000_000  # at most this much of one domain
HELDOUT_BYTES = 1_000_000
HELDOUT_SHARE = 0.1
SALT = b"5/"  # the first of those tried that leaves both languages enough to test on


def cache_folder(folder: str | None = None) -> Path:
    """Where archives and streams are kept: `folder`, else TINYSWARM_CACHE, else ~/.cache."""
    chosen = folder or os.environ.get("TINYSWARM_CACHE") or "~/.cache/bayesmix/tinyswarm"
    return Path(chosen).expanduser()


def split_key(package: str, path: str) -> str:
    """What decides a file's side: a catalogue's translations, which share text, share one."""
    return package + "/" + re.sub(r"/(de|fr)(?=/LC_MESSAGES/|\.po$)", "/", path)


def position(key: str) -> float:
    """A file's place in [0, 1), uniform over files, from the hash of its key.

    >>> round(position("django/docs/index.txt"), 4)
    0.9227
    """
    return int.from_bytes(hashlib.sha256(SALT + key.encode()).digest()[:8]) / 2**64


def is_heldout(key: str) -> bool:
    """Whether a file is held out."""
    return position(key) < HELDOUT_SHARE


def archive_files(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Paths inside the archive's top folder, and the first `FILE_BYTES` of each file."""
    with tarfile.open(archive) as opened:
        for member in opened:
            stream = opened.extractfile(member) if member.isfile() else None
            if stream is not None:
                yield member.name.partition("/")[2], stream.read(FILE_BYTES)


def build_streams(archives: Mapping[str, Path]) -> dict[str, bytes]:
    """The byte streams `<domain>.train` and `<domain>.heldout`, files in order of their hash."""
    found: dict[str, list[tuple[float, str, bytes]]] = {
        f"{domain}.{side}": [] for domain in DOMAINS for side in ("train", "heldout")
    }
    for package, archive in archives.items():
        rules = [
            (domain, re.compile(pattern))
            for domain, sources in DOMAINS.items()
            for name, pattern in sources
            if name == package
        ]
        for path, content in archive_files(archive):
            for domain, pattern in rules:
                if pattern.search(path):
                    key = split_key(package, path)
                    side = "heldout" if is_heldout(key) else "train"
                    found[f"{domain}.{side}"].append((position(key), path, content))
    cap = {"train": TRAIN_BYTES, "heldout": HELDOUT_BYTES}
    return {
        name: b"".join(content for _, _, content in sorted(files))[: cap[name.split(".")[1]]]
        for name, files in found.items()
    }


def fetch_archive(package: str, version: str, folder: Path) -> Path:
    """Download one source distribution through pip, unless it is there; return its path."""
    stem = re.sub(r"[-_.]+", "[-_.]", package)
    pattern = re.compile(rf"{stem}-{re.escape(version)}\.tar\.gz", re.IGNORECASE)
    folder.mkdir(parents=True, exist_ok=True)
    for attempt in ("there", "fetched"):
        for path in folder.iterdir():
            if pattern.fullmatch(path.name):
                return path
        if attempt == "there":
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            command += ["--no-binary", package, "--dest", str(folder), f"{package}=={version}"]
            subprocess.run(command, check=True)
    raise FileNotFoundError(f"pip left no archive of {package} {version} in {folder}")


def sha256(content: bytes) -> str:
    """The hash in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def rebuild(folder: Path, manifest: dict, pin: bool = False) -> dict:
    """Fetch, build and store every stream; check hashes, or with `pin` take them down."""
    archives = {}
    for package in manifest["packages"]:
        path = fetch_archive(package["name"], package["version"], folder / "sdists")
        found = sha256(path.read_bytes())
        if not pin and found != package["sha256"]:
            raise ValueError(f"{path} has sha256 {found}, not {package['sha256']}")
        package["sha256"] = found
        archives[package["name"]] = path
    streams = {}
    for name, content in build_streams(archives).items():
        streams[name] = {"bytes": len(content), "sha256": sha256(content)}
        (folder / f"{name}.bin").write_bytes(content)
    if not pin and streams != manifest["streams"]:
        wrong = [name for name in streams if streams[name] != manifest["streams"].get(name)]
        raise ValueError(f"streams that differ from the manifest: {', '.join(wrong)}")
    return {"packages": manifest["packages"], "streams": streams}


def load_streams(folder: Path) -> dict[str, np.ndarray]:
    """Every stream as uint8, rebuilt if it is not in the cache, checked against the manifest."""
    manifest = json.loads(MANIFEST.read_text())
    if not all((folder / f"{name}.bin").exists() for name in manifest["streams"]):
        rebuild(folder, manifest)
    streams = {}
    for name, facts in manifest["streams"].items():
        content = (folder / f"{name}.bin").read_bytes()
        if sha256(content) != facts["sha256"]:
            raise ValueError(f"{folder / name}.bin differs from the manifest; delete it")
        streams[name] = np.frombuffer(content, np.uint8)
    return streams


def main() -> None:
    """Rebuild the corpus from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", help="folder for archives and streams")
    parser.add_argument("--pin", action="store_true", help="write manifest.json anew")
    options = parser.parse_args()
    manifest = rebuild(cache_folder(options.cache), json.loads(MANIFEST.read_text()), options.pin)
    if options.pin:
        MANIFEST.write_text(json.dumps(manifest, indent=2) + "\n")
    for name, facts in manifest["streams"].items():
        print(f"{name:16} {facts['bytes']:10,} bytes")


if __name__ == "__main__":
    main()
