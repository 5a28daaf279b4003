"""Reads facial expressions in every shape in which people have them, to one `FERData`.

A source is a file, a folder, an archive, a Kaggle handle or "drawn". It is read once: what was
read lies in a memory-mapped cache until the source changes.

`archives` lists what lies there, `tables` and `folders` know its forms, `classes` what labels
mean, and `reading` puts the data together.
"""

import glob
import hashlib
import io
import json
import os
import re
import shutil
import uuid
import warnings
from collections.abc import Mapping
from dataclasses import astuple, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from ferlib import archives, drawn, files, reading
from ferlib.faces import SPLITS, Fault, FERData, LeftOut
from ferlib.files import project_folder
from ferlib.labels import mapping

if TYPE_CHECKING:
    import pandas

HANDLE = "deadskull7/fer2013"
"""The Kaggle data set that is downloaded where no source is named or found."""

MOUNTS = ("/kaggle/input", "/content/*[Ff][Ee][Rr]*2013*",
          "/content/drive/MyDrive/*[Ff][Ee][Rr]*2013*")  # fmt: skip
"""Where data lies on Kaggle and Colab."""

_CACHE_FORMAT = 4
_VOTES = "fer2013new.csv"
_SUFFIXES = (".csv", ".zip", ".tar", ".gz", ".tgz", ".npz", ".parquet")


def load(
    source: str | Path | None = None,
    *,
    cache: str | Path | bool | None = None,
    votes: str | Path | None = "auto",
    labels: str | Path | Mapping | None = None,
    partial: bool = False,
) -> FERData:
    """Reads a source to FERData, or opens what was read of it before.

    Args:
        source: A csv, folder or archive, a Kaggle handle ("owner/name"), or "drawn" or
            "drawn:2000" for drawn faces. None takes the first there is of `$FERLIB_DATA`,
            data/raw/, a Kaggle or Colab mount, a download from Kaggle, and the drawn faces.
        cache: Folder of the cache; None is data/processed/ of the project or of the working
            folder, False is no cache.
        votes: "auto" joins the FER+ votes (fer2013new.csv) that lie beside a csv; a path names
            them; None leaves them out.
        labels: What labels mean: a numbering ("fer2013", "rafdb", "affectnet", "ferplus",
            "ck"), or a dict or JSON file from old name to class, to rename or merge; a class of
            None leaves pictures out. None takes `$FERLIB_LABELS`, where that is set.
        partial: Takes what is there of a file that was cut off, or of a FER2013 that lacks rows;
            so does `$FERLIB_PARTIAL`, where that is set.

    Returns:
        The data as the source has it; see `cleaning.clean` for missing splits and copies.

    Raises:
        FileNotFoundError: If nothing is at the path, or the handle cannot be downloaded.
        ValueError: If what is there cannot be read, more than 5 % of it is bad, its labels are
            numbers of an unknown meaning, or the votes do not fit the rows.

    Example:
        >>> faces = load("drawn:70")
        >>> len(faces), faces.splits
        (70, ('train', 'val', 'test'))
    """
    name = str(source or "")
    labels = labels or os.environ.get("FERLIB_LABELS")
    partial = partial or bool(os.environ.get("FERLIB_PARTIAL"))
    options = {"cache": cache, "votes": votes, "labels": labels, "partial": partial}
    if not name:
        return _find(options)
    if re.fullmatch(r"drawn(:\d+)?", name):
        _, _, n = name.partition(":")
        return drawn.draw(int(n)) if n else drawn.draw()
    path = Path(name).expanduser()
    there = path.exists()
    if name.startswith("drawn:") and not there:
        raise ValueError(f"{name!r}: after drawn: comes how many faces, as in drawn:2000.")
    data = _cached((path if there else download(name)).absolute(), **options)
    if not there:
        data = replace(data, title=name, origin=f"{name} on Kaggle ({data.origin})")
    if data.faults:
        warnings.warn(
            f"{name}: {len(data.faults)} faults, see `faults`. The first: {data.faults[0]}",
            stacklevel=2,
        )
    return data


def download(handle: str) -> Path:
    """Downloads a public Kaggle data set, or finds an earlier download when that fails.

    Args:
        handle: "owner/name" of the data set.

    Returns:
        The folder of its files.

    Raises:
        FileNotFoundError: If it is no handle, or cannot be downloaded and never was.
    """
    problem = "is no Kaggle handle"
    known = re.fullmatch(r"[\w-]+/[\w.-]+", handle) and not handle.lower().endswith(_SUFFIXES)
    if known and not Path(handle).parent.is_dir():
        try:
            import kagglehub

            return Path(kagglehub.dataset_download(handle))
        except Exception as error:  # kagglehub passes on whatever its HTTP libraries raise
            home = os.environ.get("KAGGLEHUB_CACHE", "~/.cache/kagglehub")
            had = Path(home, "datasets", handle, "versions").expanduser().glob("[0-9]*/")
            if versions := sorted(had, key=lambda version: int(version.name)):
                return versions[-1]
            problem = f"could not be downloaded from Kaggle ({type(error).__name__}: {error})"
    raise FileNotFoundError(
        f"{handle!r} {problem}, and there is no file or folder {Path(handle).absolute()}. Check "
        "the name and the network. It can be a csv, a folder, an archive, a Kaggle handle "
        f'("{HANDLE}") or "drawn". A data set can also be downloaded in a browser, from '
        f"https://www.kaggle.com/datasets/{handle if known else HANDLE}, and named by its path."
    )


def describe(data: FERData) -> "pandas.DataFrame":
    """Counts the pictures by label and split.

    Returns:
        DataFrame with a row for each class and one for all, a column for each split ("none"
        where the source has no split) and one for all; where a class is called "all", what is
        for all is called "all pictures".
    """
    import pandas as pd

    emotion = pd.Categorical(np.array(data.classes)[data.labels], data.classes)
    split = pd.Categorical(np.where(data.split == "", "none", data.split), [*SPLITS, "none"])
    name = "all pictures" if "all" in data.classes else "all"
    table = pd.crosstab(emotion, split, margins=True, margins_name=name, dropna=False)
    return table.loc[:, table.any()].rename_axis(index="emotion", columns=None)


# ---- where the data is -------------------------------------------------------------------


def at_hand() -> str | Path | None:
    """Gives `$FERLIB_DATA`, or data/raw/ where something lies in it, or None."""
    if named := os.environ.get("FERLIB_DATA"):
        return named
    raw = project_folder() / "data" / "raw"
    return raw if os.path.lexists(raw) and not reading.is_empty(archives.walk(raw)) else None


def _find(options: dict) -> FERData:
    """Loads the first source there is, where nobody named one."""
    if there := at_hand():
        return load(there, **options)
    reason = None
    places = [path for mount in MOUNTS for path in sorted(glob.glob(mount))]  # noqa: PTH207
    for place in (*places, HANDLE):
        try:
            return load(place, **options)
        except (FileNotFoundError, reading.Unreadable) as error:
            reason = error
    warnings.warn(
        f"NO DATA: nothing in $FERLIB_DATA, {project_folder() / 'data' / 'raw'} or a mount. "
        f"{reason} The DRAWN FACES are used instead: they show that everything works, not how "
        "well it works on people.",
        stacklevel=3,
    )
    return load("drawn")


# ---- the cache ---------------------------------------------------------------------------


def _mark(path: str | Path) -> list:
    """Returns size and time of change of a file and, but for a picture, a digest of stretches."""
    path = Path(path)
    stat = path.stat()
    if archives.is_picture_name(path.name):
        return [stat.st_size, stat.st_mtime_ns]
    digest = hashlib.blake2b(digest_size=8)
    with path.open("rb", buffering=0) as file:
        for start in np.linspace(0, max(0, stat.st_size - 8192), 32).astype(int).tolist():
            file.seek(start)
            digest.update(file.read(8192))
    return [stat.st_size, stat.st_mtime_ns, digest.hexdigest()]


def _cached(path: Path, cache: Any, votes: Any, labels: Any, partial: bool) -> FERData:
    """Opens the cache of a source, or reads the source and caches it."""
    tree = archives.walk(path)
    beside = path.with_name(_VOTES)
    if votes not in ("auto", None):
        votes = Path(votes)
    elif votes and not path.is_dir() and path != beside and beside.is_file():
        votes = beside
    reader = reading.Reader(path, tree, votes, labels, partial)
    if cache is False:
        return reader.read()
    used = [file.path for file in tree.files]
    if isinstance(votes, Path):
        used.append(str(votes))
    marks = [[file, _mark(file)] for file in used]
    asked = [_CACHE_FORMAT, str(labels), mapping(labels), partial, str(votes)]
    stamp = _digest(json.dumps([asked, tree.folders, marks]), 16)
    named = cache if isinstance(cache, str | Path) else ""
    folder = Path(named or project_folder() / "data" / "processed")
    folder /= f"{path.stem}-{_digest(f'{path}|{votes}|{labels}|{partial}', 6)}"
    return _open_cache(folder, stamp) or _save_cache(folder, stamp, reader.read())


def _digest(text: str, size: int) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=size).hexdigest()


def _checksum(images: np.ndarray) -> str:
    """Gives a digest by each picture's sum: of all bytes it would take longer than to open them."""
    sums = images.view(np.uint64).sum(axis=(1, 2))
    about = f"{images.dtype} {images.shape}"
    return hashlib.sha256(about.encode() + sums.tobytes()).hexdigest()


def _open_cache(folder: Path, stamp: str) -> FERData | None:
    """Returns the data of a cache, or None where there is none, or an old or damaged one."""
    try:
        files.check(folder / "table.npz")
        with np.load(folder / "table.npz") as table:
            columns = dict(table)
        meta = json.loads(str(columns.pop("meta")))
        images = np.load(folder / "images.npy", mmap_mode="r")
        if meta.pop("marks") != [stamp, _checksum(images)]:
            return None
    except Exception:  # whatever the damage
        return None
    n = len(columns["labels"])
    meta["faults"] = [Fault(*fault) for fault in meta["faults"]]
    meta["left_out"] = [LeftOut(*left) for left in meta["left_out"]]
    meta["classes"] = tuple(meta["classes"])
    columns.setdefault("votes", None)
    return FERData(images=images[:n], unlabelled=images[n:], **columns, **meta)


def _save_cache(folder: Path, stamp: str, data: FERData) -> FERData:
    """Writes a cache in one step and opens it; warns where that cannot be done."""
    new = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    columns = data.arrays()
    images = np.concatenate([columns.pop("images"), data.unlabelled])
    meta: dict[str, Any] = {x: getattr(data, x) for x in ("origin", "title", "classes")}
    for name in ("faults", "left_out"):
        meta[name] = [astuple(each) for each in getattr(data, name)]
    try:
        with files.naming(folder):
            new.mkdir(parents=True)
            with (new / "images.npy").open("wb") as file:
                writer: Any = SimpleNamespace(write=file.write)  # to a file, numpy says no cause
                np.save(writer, images)
            meta["marks"] = [stamp, _checksum(images)]
            table = io.BytesIO()
            np.savez(table, **columns, meta=np.array(json.dumps(meta)))  # ty: ignore[invalid-argument-type]
            (new / "table.npz").write_bytes(files.seal(table.getvalue()))
            if _open_cache(folder, stamp) is None:  # no other process was quicker
                shutil.rmtree(folder, ignore_errors=True)
                new.rename(folder)
    except files.Unwritable as error:
        warnings.warn(f"The cache {error} Until then the source is read each time.", stacklevel=5)
    shutil.rmtree(new, ignore_errors=True)
    return _open_cache(folder, stamp) or data
