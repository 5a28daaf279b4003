"""Packs one notebook with ferlib inside it, to run on Kaggle or Colab as it is.

What is packed needs no installation and no network: the cell that would install ferlib unpacks
it instead. Models too large for the notebook go into a folder of their own beside it.
"""

import base64
import io
import json
import os
import shutil
import zipfile
from pathlib import Path

import ferlib
from ferlib import files, suite
from ferlib.sources import HANDLE, project_folder

PACKAGE = Path(__file__).resolve().parent

LIMITS = {"kaggle": 1_000_000, "colab": 20_000_000}
"""The places, and the most characters that a notebook may have there."""

WEIGHTS = "ferlib-weights"
"""Folder and Kaggle data set of the models that do not fit into a notebook."""

NOBODY = "INSERT_USERNAME_HERE"
"""Stands in the metadata where no user of Kaggle is known."""

_BOOTSTRAP = '''\
# ferlib {version} itself, packed by `ferlib kernel`: nothing is installed, nothing downloaded.
import base64, glob, io, os, shutil, sys, zipfile

packed = """{packed}"""
home = os.path.abspath(".ferlib")
zipfile.ZipFile(io.BytesIO(base64.b64decode(packed))).extractall(home)
for place in {places}:
    for model in glob.glob(f"{{place}}/{weights}/*.keras"):
        shutil.copy(model, f"{{home}}/ferlib/pretrained")
sys.path.insert(0, home)
{install}import ferlib
'''
_INSTALL = """\
from importlib.util import find_spec
if not find_spec("keras_tuner"):  # Colab lacks it
    %pip install -q keras-tuner
"""
_PLACES = (".", "/kaggle/input", "/kaggle/input/*/*", "/content/drive/MyDrive")


def pack(notebook, *, to: str = "kaggle", out, user: str | None = None) -> Path:
    """Writes a folder with a notebook that holds ferlib, ready for Kaggle or Colab.

    Args:
        notebook: A notebook, or the beginning of the name of one of the project's, as "03".
        to: "kaggle" or "colab".
        out: The folder; made where it is missing.
        user: Name on Kaggle, the owner of what is pushed; None is $KAGGLE_USERNAME.

    Returns:
        The notebook that was written. For Kaggle `kernel-metadata.json` lies beside it, which
        asks for a GPU where it trains and for the internet only where it starts from ImageNet's
        weights. Where the shipped models do not all fit, they lie in `ferlib-weights/`, with
        `dataset-metadata.json`.

    Raises:
        FileNotFoundError: If there is no such notebook.
        ValueError: If it has no cell that imports ferlib, is too large, or lies in `out` itself.
    """
    import nbformat

    if to not in LIMITS:
        raise ValueError(f"A notebook is packed for {' or '.join(LIMITS)}, not for {to!r}.")
    source = _find(notebook)
    made = nbformat.read(source, as_version=4)
    cells = [cell for cell in made.cells if cell.cell_type == "code"]
    if not cells or "import ferlib" not in cells[0].source:
        raise ValueError(f"{source}: its first code cell does not import ferlib.")
    used = suite._code(made)
    parts = {"version": ferlib.__version__, "places": _PLACES, "weights": WEIGHTS}
    parts["install"] = _INSTALL if "tuning" in used else ""
    apart, models = [], []
    if any("stage.model(" in cell.source for cell in cells):  # it may take a shipped one
        models = [PACKAGE / f"pretrained/{name}.keras" for name in reversed(suite.STAND_INS)]
        models = [path for path in models if path.exists()]
    while True:
        cells[0].source = _BOOTSTRAP.format(packed=_zip(models), **parts)
        size = len(json.dumps(made))  # as Kaggle's own program sends it
        if size <= LIMITS[to]:
            break
        if not models:
            raise ValueError(f"{source} is packed {size:,} characters; {to} takes {LIMITS[to]:,}.")
        apart.append(models.pop())
    cells[0].metadata |= {"jupyter": {"source_hidden": True}, "_kg_hide-input": True}
    out = Path(out)
    if (out / source.name).resolve() == source.resolve():
        raise ValueError(f"{source} would be overwritten: pack it into another folder.")
    out.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(out / WEIGHTS, ignore_errors=True)
    nbformat.write(made, out / source.name)
    user = user or os.environ.get("KAGGLE_USERNAME") or NOBODY
    if apart:
        (out / WEIGHTS).mkdir()
        for path in apart:
            shutil.copy(path, out / WEIGHTS)
        about = {"id": f"{user}/{WEIGHTS}", "title": "ferlib weights"}
        about |= {"description": "Models trained on FER2013 by ferlib, under the MIT licence."}
        about |= {"licenses": [{"name": "other"}]}  # Kaggle's list has no MIT
        files.write_json(out / WEIGHTS / "dataset-metadata.json", about)
    if to == "kaggle":
        about = _metadata(source, user, bool(apart))
        about["enable_gpu"] = "training" in used
        about["enable_internet"] = any('"imagenet"' in cell.source for cell in cells)
        files.write_json(out / "kernel-metadata.json", about)
    return out / source.name


def _find(notebook):
    """Finds a notebook by its path, or by the beginning of its name."""
    path = Path(notebook)
    if path.suffix != ".ipynb":
        paths = sorted((project_folder() / "notebooks").glob("[0-9][0-9]_*.ipynb"))
        found = [path for path in paths if path.stem.startswith(str(notebook))]
        if len(found) != 1:
            names = ", ".join(path.stem for path in paths) or "none here"
            raise FileNotFoundError(f"{notebook!r} means no notebook; there are {names}.")
        return found[0]
    if not path.is_file():
        raise FileNotFoundError(f"There is no notebook {path}.")
    return path


def _zip(models):
    """Gives the package with some of its models, zipped, in base64."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.mkdir("ferlib/pretrained")
        for path in [*sorted(PACKAGE.rglob("*.py")), *PACKAGE.glob("*.html"), *models]:
            archive.write(path, Path("ferlib", path.relative_to(PACKAGE)))
    return base64.b64encode(packed.getvalue()).decode()


def _metadata(source, user, apart):
    """Gives what `kernel-metadata.json` says of every notebook."""
    words = ["ferlib", *source.stem.split("_")]
    return {
        "id": f"{user}/{'-'.join(words).lower()}",
        "title": " ".join(words),
        "code_file": source.name,
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": False,
        "enable_internet": False,
        "dataset_sources": [HANDLE] + [f"{user}/{WEIGHTS}"] * apart,
        "competition_sources": [],
        "kernel_sources": [],
        "model_sources": [],
    }
