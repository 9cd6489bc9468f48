"""What every test shares: no display, repeatable examples, the shared swarms folder."""

import os
from pathlib import Path

import hypothesis
import matplotlib
import pytest

ROOT = Path(__file__).parent.parent

matplotlib.use("Agg")

# compiled code makes first examples slow, and a run of the tests must be repeatable
hypothesis.settings.register_profile("bayesmix", deadline=None, derandomize=True)
hypothesis.settings.load_profile("bayesmix")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The shared swarms folder: BAYESMIX_SHARED, relative to the repository."""
    folder = (ROOT / os.environ.get("BAYESMIX_SHARED", "../shared")).resolve()
    if not (folder / "data" / "MANIFEST.json").is_file():
        pytest.fail(f"no shared swarms in {folder}; set BAYESMIX_SHARED to their folder")
    return folder
