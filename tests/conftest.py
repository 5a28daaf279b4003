"""Fixtures that several test files share."""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("PYTHONUTF8", "1")  # what tests start prints UTF-8, on Windows too
os.environ.pop("MPLBACKEND", None)  # kernels inherit it, and would show no figure

import matplotlib
import pytest
import yaml

matplotlib.use("agg")

ROOT = Path(__file__).resolve().parent.parent
# In JupyterLab, and packed for Kaggle and Colab, the notebooks run in this profile.
PROFILE = os.environ.get("FERLIB_PROFILE", "smoke")


def profile_of(notebook: Path) -> dict:
    """Gives a notebook's parameters in `$FERLIB_PROFILE`; in quick, its own."""
    path = ROOT / "profiles" / f"{PROFILE}.yaml"
    values = {} if PROFILE == "quick" else yaml.safe_load(path.read_bytes())
    return values.get("all", {}) | values.get(notebook.stem, {})


@pytest.fixture(autouse=True)
def close_figures():
    """Closes the figures of a test, else the next may draw on them."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")


@pytest.fixture(scope="session")
def fer2013() -> Path:
    """Gives the path of the real `fer2013.csv`, from `$FERLIB_DATA` or `data/raw/`."""
    named = os.environ.get("FERLIB_DATA")
    place = Path(named) if named else ROOT / "data" / "raw"
    if named and not place.exists():
        pytest.fail(f"$FERLIB_DATA names {place}, which does not exist.")
    found = [place] if place.is_file() else sorted(place.rglob("fer2013.csv"))
    if not found:
        pytest.skip("no real data: set $FERLIB_DATA to a fer2013.csv, or put it into data/raw/")
    return found[0].resolve()


@pytest.fixture(scope="session")
def faces():
    """Gives 700 drawn faces with all three splits."""
    from ferlib import drawn

    return drawn.draw(700, seed=0)
