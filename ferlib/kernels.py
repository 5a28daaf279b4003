"""Packs one notebook with ferlib inside it, to run on Kaggle or Colab as it is.

What is packed needs no installation and no network: the cell that would install ferlib unpacks
it instead. Models too large for the notebook go into a folder of their own beside it.
"""

import base64
import io
import json
import os
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import ferlib
from ferlib import files, suite
from ferlib.sources import HANDLE

PACKAGE = Path(__file__).resolve().parent

LIMITS = {"kaggle": 1_000_000, "colab": 20_000_000}
"""The places, and the most characters that a notebook may have there."""

WEIGHTS = "ferlib-weights"
"""Folder and Kaggle data set of the models that do not fit into a notebook."""

NOBODY = "INSERT_USERNAME_HERE"
"""The user in the metadata where no user of Kaggle is known."""

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


def pack(
    notebook: Path | str, *, to: str = "kaggle", out: Path | str, user: str | None = None
) -> Path:
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
        FileNotFoundError: If there is no such file.
        ValueError: If no notebook has that name, or it has no cell that imports ferlib, is too
            large, or lies in `out` itself.
    """
    import nbformat

    if to not in LIMITS:
        raise ValueError(f"A notebook is packed for {' or '.join(LIMITS)}, not for {to!r}.")
    source, out = _find(notebook), Path(out)
    if (out / source.name).resolve() == source.resolve():
        raise ValueError(f"{source} would be overwritten: pack it into another folder.")
    made = nbformat.read(source, as_version=4)
    cells = [cell for cell in made.cells if cell.cell_type == "code"]
    code = "\n".join(cell.source for cell in cells)
    if not cells or "import ferlib" not in cells[0].source:
        raise ValueError(f"{source}: its first code cell does not import ferlib.")
    apart = _fill(made, cells[0], code, to)
    cells[0].metadata |= {"jupyter": {"source_hidden": True}, "_kg_hide-input": True}
    out.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(out / WEIGHTS, ignore_errors=True)
    files.write(out / source.name, nbformat.writes(made) + "\n")
    user = user or os.environ.get("KAGGLE_USERNAME") or NOBODY
    if apart:
        _write_weights(apart, out / WEIGHTS, user)
    if to == "kaggle":
        files.write_json(out / "kernel-metadata.json", _metadata(source, code, user, bool(apart)))
    return out / source.name


def _find(notebook: Any):
    """Finds a notebook by its path, or by the beginning of its name."""
    path = Path(notebook)
    if path.suffix != ".ipynb":
        paths = suite.notebooks()
        return paths[suite.pick(str(notebook), paths)]
    if not path.is_file():
        raise FileNotFoundError(f"There is no notebook {path}.")
    return path


def _fill(notebook: Any, cell: Any, code: str, to: str):
    """Packs ferlib into a cell; returns the models that do not fit into the notebook."""
    models, apart = [], []
    if "stage.model(" in code:  # it may use a shipped one
        paths = [PACKAGE / f"pretrained/{name}.keras" for name in reversed(suite.STAND_INS)]
        models = [path for path in paths if path.exists()]
    while True:
        cell.source = _BOOTSTRAP.format(
            packed=_zip(models),
            version=ferlib.__version__,
            places=_PLACES,
            weights=WEIGHTS,
            install=_INSTALL if re.search(r"\btuning\.|keras_tuner", code) else "",
        )
        size = len(json.dumps(notebook))  # as Kaggle's own program sends it
        if size <= LIMITS[to]:
            return apart
        if not models:
            raise ValueError(
                f"The notebook is packed {size:,} characters; {to} takes {LIMITS[to]:,}."
            )
        apart.append(models.pop())


def _write_weights(models: list[Path], folder: Path, user: str):
    """Writes the folder of a Kaggle data set with models."""
    folder.mkdir()
    for path in models:
        shutil.copy(path, folder)
    about = {
        "id": f"{user}/{WEIGHTS}",
        "title": "ferlib weights",
        "description": "Models trained on FER2013 by ferlib, under the MIT licence.",
        "licenses": [{"name": "other"}],  # Kaggle's list has no MIT
    }
    files.write_json(folder / "dataset-metadata.json", about)


def _zip(models: list[Path]):
    """Returns the package with some of its models, zipped, in base64."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.mkdir("ferlib/pretrained")
        own = [*PACKAGE.glob("*.py"), *PACKAGE.glob("*.js*"), *PACKAGE.glob("*.html")]
        for path in sorted(own) + models:
            archive.write(path, Path("ferlib", path.relative_to(PACKAGE)))
    return base64.b64encode(packed.getvalue()).decode()


def _metadata(source: Path, code: str, user: str, has_weights: bool):
    """Returns what `kernel-metadata.json` says."""
    words = ["ferlib", *source.stem.split("_")]
    sources = [HANDLE, f"{user}/{WEIGHTS}"] if has_weights else [HANDLE]
    return {
        "id": f"{user}/{'-'.join(words).lower()}",
        "title": " ".join(words),
        "code_file": source.name,
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": bool(re.search(r"\b(training|tuning)\.|\.fit\(", code)),
        "enable_internet": '"imagenet"' in code,
        "dataset_sources": sources,
        "competition_sources": [],
        "kernel_sources": [],
        "model_sources": [],
    }
