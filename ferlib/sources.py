"""Reads FER2013 in every shape in which people have it, to one `FERData`.

A source is a csv, a folder, an archive, a Kaggle handle or "drawn". It is read once: what was
read lies in a memory-mapped cache until the source changes.
"""

import functools
import glob
import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import uuid
import warnings
import zipfile
import zlib
from collections import Counter
from contextlib import ExitStack
from dataclasses import astuple, replace
from pathlib import Path, PurePosixPath

import numpy as np

from ferlib.faces import SPLITS, Fault, FERData
from ferlib.files import project_folder
from ferlib.labels import EMOTIONS, FERPLUS, FERPLUS_TO_LABEL, SIDE, label_index
from ferlib.pictures import read_picture

HANDLE = "deadskull7/fer2013"
"""The Kaggle data set that is downloaded where no source is named or found."""

MOUNTS = ("/kaggle/input", "/content/*[Ff][Ee][Rr]*2013*",
          "/content/drive/MyDrive/*[Ff][Ee][Rr]*2013*")  # fmt: skip
"""Where data lies on Kaggle and Colab."""

_CACHE_FORMAT = 1
_VOTES = "fer2013new.csv"
_KINDS = {"csv": ".csv", "archive": (".zip", ".tar", ".tar.gz", ".tgz"),
          "picture": (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")}  # fmt: skip
_COLUMNS = {"emotion": "label", "label": "label", "pixels": "pixels", "usage": "usage"}
_SPLIT_NAMES = {"training": "train", "train": "train", "publictest": "val", "validation": "val",
                "valid": "val", "val": "val", "privatetest": "test", "test": "test"}  # fmt: skip
_OFFICIAL = re.compile(r"(training|publictest|privatetest)_(\d+)", re.IGNORECASE)
_DAMAGED = (OSError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile, tarfile.TarError)




def load(source=None, *, cache=None, votes="auto") -> FERData:
    """Reads a source to FERData, or opens what was read of it before.

    Args:
        source: A csv, folder or archive, a Kaggle handle ("owner/name"), or "drawn" or
            "drawn:2000" for drawn faces. None takes the first there is of `$FERLIB_DATA`,
            data/raw/, a Kaggle or Colab mount, a download from Kaggle, and the drawn faces.
        cache: Folder of the cache; None is data/processed/ of the project or of the working
            folder, False is no cache.
        votes: "auto" joins the FER+ votes (fer2013new.csv) that lie beside a csv; a path names
            them; None leaves them out.

    Returns:
        The data as the source has it; see `cleaning.clean` for missing splits and copies.

    Raises:
        FileNotFoundError: If nothing is at the path, or the handle cannot be downloaded.
        ValueError: If what is there is not FER2013, more than 5 % of it is bad, or the votes
            do not fit the rows.
    """
    name = str(source or "")
    if not name:
        return _find(cache=cache, votes=votes)
    if re.fullmatch(r"drawn(:\d+)?", name):
        from ferlib.drawn import draw

        return draw(*[int(n) for n in name.split(":")[1:]])
    path = Path(name).expanduser()
    there = path.exists()
    data = _cached((path if there else download(name)).absolute(), cache, votes or None)
    if not there:
        data = replace(data, title=name, origin=f"{name} on Kaggle ({data.origin})")
    if data.faults:
        warnings.warn(f"{name}: {len(data.faults)} faults, see `faults`. The first: "
                      f"{data.faults[0]}", stacklevel=2)  # fmt: skip
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
    known = re.fullmatch(r"[\w-]+/[\w.-]+", handle) and not _kind(handle)
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


def describe(data: FERData):
    """Counts the pictures by label and split.

    Returns:
        DataFrame with a row for each emotion and one for all, a column for each split ("none"
        where the source has no split) and one for all.
    """
    import pandas as pd

    emotion = pd.Categorical(np.array(EMOTIONS)[data.labels], EMOTIONS)
    split = pd.Categorical(np.where(data.split == "", "none", data.split), [*SPLITS, "none"])
    table = pd.crosstab(emotion, split, margins=True, margins_name="all", dropna=False)
    return table.loc[:, table.any()].rename_axis(index="emotion", columns=None)


# ---- where the data is -------------------------------------------------------------------


def _find(**options) -> FERData:
    """Loads the first source there is, where nobody named one."""
    if named := os.environ.get("FERLIB_DATA"):
        return load(named, **options)
    raw = project_folder() / "data" / "raw"
    for place in (raw, *sorted(path for mount in MOUNTS for path in glob.glob(mount)), HANDLE):
        try:
            return load(place, **options)
        except FileNotFoundError as error:
            reason = error
    warnings.warn(
        f"NO DATA: nothing in $FERLIB_DATA, {raw} or a mount. {reason} The DRAWN FACES stand in: "
        "they show that everything works, not how well it works on people.",
        stacklevel=3,
    )
    return load("drawn")


def _kind(name: str) -> str:
    """Returns "csv", "archive", "picture", or "" for a file that is none or is hidden."""
    if any(part.startswith((".", "__MACOSX")) for part in name.split("/")):
        return ""
    return next((kind for kind, ends in _KINDS.items() if name.lower().endswith(ends)), "")


def _walk(root: Path) -> tuple[dict[str, str], list[str]]:
    """Lists the files of a source that may hold data, by their names in it, and its folders."""
    if root.is_file():
        return {p.name: str(p) for p in (root, root.with_name(_VOTES)) if p.is_file()}, []
    names = sorted(glob.glob("**", root_dir=root, recursive=True))
    files = {name.replace(os.sep, "/"): os.path.join(root, name) for name in names}
    folders = [Path(name).as_posix() for name in glob.glob("**/", root_dir=root, recursive=True)]
    folders.sort()
    return {name: file for name, file in files.items() if _kind(name)}, folders


# ---- the cache ---------------------------------------------------------------------------


def _mark(path) -> list:
    """Returns size and time of change of a file and, but for a picture, a digest of stretches."""
    stat = os.stat(path)
    if _kind(os.path.basename(path)) == "picture":
        return [stat.st_size, stat.st_mtime_ns]
    digest = hashlib.blake2b(digest_size=8)
    with open(path, "rb", buffering=0) as file:
        for start in np.linspace(0, max(0, stat.st_size - 8192), 32).astype(int).tolist():
            file.seek(start)
            digest.update(file.read(8192))
    return [stat.st_size, stat.st_mtime_ns, digest.hexdigest()]


def _cached(path: Path, cache, votes) -> FERData:
    """Opens the cache of a source, or reads the source and caches it."""
    files, folders = _walk(path)
    if votes not in ("auto", None):
        files[_VOTES] = str(votes)
    if cache is not False:
        marks = [_CACHE_FORMAT, folders, [(name, _mark(file)) for name, file in files.items()]]
        stamp = hashlib.blake2b(json.dumps(marks).encode(), digest_size=16).hexdigest()
        key = hashlib.blake2b(f"{path}|{votes}".encode(), digest_size=6).hexdigest()
        folder = Path(cache or project_folder() / "data" / "processed") / f"{path.stem}-{key}"
        if (data := _open_cache(folder, stamp)) is not None:
            return data
    try:
        data = _read(path, files, folders, votes)
    except FileNotFoundError:
        raise
    except _DAMAGED as error:
        raise ValueError(f"{path} is damaged or locked ({error}). Download it again.") from error
    return data if cache is False else _save_cache(folder, stamp, data) or data


def _open_cache(folder: Path, stamp: str) -> FERData | None:
    """Returns the data of a cache, or None where there is none, or an old or damaged one."""
    try:
        with np.load(folder / "table.npz") as table:
            columns = dict(table)
        meta = json.loads(str(columns.pop("meta")))
        if meta.pop("marks") != [stamp, _mark(folder / "images.npy")]:
            return None
        images = np.load(folder / "images.npy", mmap_mode="r")
    except Exception:  # whatever the damage
        return None
    n, faults = len(columns["labels"]), [Fault(*fault) for fault in meta.pop("faults")]
    columns = {"votes": None, **columns, **meta, "faults": faults}
    return FERData(images=images[:n], unlabelled=images[n:], **columns)


def _save_cache(folder: Path, stamp: str, data: FERData) -> FERData | None:
    """Writes a cache in one step and opens it; None where it cannot be written."""
    new = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    columns = {"labels": data.labels, "split": data.split, "names": data.names}
    columns |= {} if data.votes is None else {"votes": data.votes}
    meta = {"origin": data.origin, "title": data.title, "faults": [*map(astuple, data.faults)]}
    try:
        new.mkdir(parents=True)
        np.save(new / "images.npy", np.concatenate([data.images, data.unlabelled]))
        meta["marks"] = [stamp, _mark(new / "images.npy")]
        np.savez(new / "table.npz", meta=np.array(json.dumps(meta)), **columns)
        if _open_cache(folder, stamp) is None:  # no other process was quicker
            shutil.rmtree(folder, ignore_errors=True)
            new.rename(folder)
    except OSError:
        pass
    shutil.rmtree(new, ignore_errors=True)
    return _open_cache(folder, stamp)


# ---- reading -----------------------------------------------------------------------------


def _read(path: Path, files: dict[str, str], folders: list[str], votes) -> FERData:
    """Reads the fullest csv, or folder of pictures, that a source holds."""
    with ExitStack() as stack:
        tree = {name: functools.partial(open, file, "rb") for name, file in files.items()}
        faults = _expand(tree, folders, stack)
        tables = {name: _header(tree[name]) for name in tree if _kind(name) == "csv"}
        tables = {name: columns for name, columns in tables.items() if "pixels" in columns}
        loose = [name for name, columns in tables.items() if "label" not in columns]
        places = {n: _place(n.rpartition("/")[0]) for n in tree if _kind(n) == "picture"}
        roots = Counter(root for root, _, label in places.values() if _is_label(label))
        found = [name for name in (*tables, *roots) if name not in loose]
        if not found:
            raise (ValueError if tables or faults or path.is_file() else FileNotFoundError)(
                f"{path} holds no labelled pictures. Looked at every level, and in archives, for "
                "a csv with the columns emotion and pixels and for folders named by emotion. "
                + "; ".join(map(str, faults[:3]))
            )

        def fullness(name):
            rows = roots[name] or sum(1 for _ in _lines(tree[name]))
            return rows, "usage" in tables.get(name, ())

        best = max(found, key=fullness) if len(found) > 1 else found[0]
        where = str((path.parent if path.is_file() else path) / best)
        if best in tables:
            rows, total = _collect(_csv_rows(tree[best], tables[best], best), where, faults)
        else:
            members = {name: place for name, place in places.items() if place[0] == best}
            rows, total = _collect(_picture_rows(tree, members), where, faults)
            empty = {f for f in folders if _place(f)[0] == best and _is_label(_place(f)[2])}
            empty -= {name.rpartition("/")[0] for name in members}
            faults += [Fault(folder, None, "an empty folder") for folder in sorted(empty)]
        good = sorted((row for row in rows if row[1] is not None), key=lambda row: row[0])
        rest = [row[4] for row in rows if row[1] is None]
        if best in tables and loose:
            name = max(loose, key=fullness)
            more, _ = _collect(_csv_rows(tree[name], tables[name], name), name, faults)
            rest += [row[4] for row in more]
        if not good:
            raise ValueError(f"{where} holds no labelled row.")
        keys, labels, split, names, pixels = zip(*good, strict=True)
        data = FERData(
            np.stack(pixels), np.array(labels), np.array(split), None, np.array(names), where,
            PurePosixPath(best).name if best in tables else path.name, faults,
            np.array(rest, np.uint8).reshape(-1, SIDE, SIDE),
        )  # fmt: skip
        beside = [str(folder / _VOTES) for folder in PurePosixPath(best).parents if best in tables]
        beside = [_VOTES] if votes != "auto" else [name for name in beside if name in tree]
        if votes and beside:
            data.votes = _join(tree[beside[0]], data, np.array([row for _, row, _ in keys]), total)
    return data


def _collect(rows, where: str, faults: list[Fault]) -> tuple[list[tuple], int]:
    """Gathers the rows of a csv or the pictures of a folder.

    Args:
        rows: Faults, and tuples of sort key, label (None: unlabelled), split, name, pixels.
        where: What is read, for the errors.
        faults: List that the faults are added to.

    Returns:
        The tuples, and the number of all rows.

    Raises:
        ValueError: If there is none, or more than 5 % are bad.
    """
    rows = list(rows)
    bad = [row for row in rows if isinstance(row, Fault)]
    if not rows or len(bad) > 0.05 * len(rows):
        first = "".join(f"\n  {fault}" for fault in bad[:5])
        raise ValueError(
            f"{where}: {len(bad)} of {len(rows)} rows or pictures are bad; up to 5 % are left "
            f"out, never more. Mend it, or download it again. The first:{first or ' none'}"
        )
    faults += bad
    return [row for row in rows if not isinstance(row, Fault)], len(rows)


def _expand(tree: dict, folders: list[str], stack: ExitStack) -> list[Fault]:
    """Puts what archives hold in their place in a tree; nothing is extracted to disk."""
    faults, archives = [], [name for name in tree if _kind(name) == "archive"]
    for name in archives:  # grows by the archives that lie in archives
        try:
            file = stack.enter_context(tree.pop(name)())
            if name.lower().endswith(".zip"):
                archive = stack.enter_context(zipfile.ZipFile(file))
                members = [(m.filename, m.is_dir(), archive.open, m) for m in archive.infolist()]
            else:
                archive = stack.enter_context(tarfile.open(fileobj=file))
                members = [m for m in archive if m.isdir() or m.isreg()]
                members = [(m.name, m.isdir(), archive.extractfile, m) for m in members]
        except _DAMAGED as error:
            faults.append(Fault(name, None, f"the archive cannot be read: {error}"))
            continue
        for member, is_folder, opener, info in members:
            path = PurePosixPath(member.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts or ":" in str(path)[:2]:
                faults.append(Fault(name, None, f"refused {member}, which lies outside of it"))
            elif is_folder:
                folders.append(f"{name}/{path}")
            elif kind := _kind(str(path)):
                tree[f"{name}/{path}"] = functools.partial(opener, info)
                if kind == "archive" and len(archives) < 50:
                    archives.append(f"{name}/{path}")
    return faults


# ---- csv ---------------------------------------------------------------------------------


def _lines(opener):
    """Yields the lines of a file that are not blank."""
    with opener() as file, io.BufferedReader(file, 1 << 20) as lines:
        yield from (line for line in lines if not line.isspace())


def _cells(line: bytes) -> list[bytes]:
    return [cell.strip(b' "\r\n') for cell in line.split(b",")]


def _header(opener) -> list[str]:
    """Returns the columns of a csv by our names for them, "" for one that is not used."""
    with opener() as file:
        cells = _cells(file.readline(1 << 16).removeprefix(b"\xef\xbb\xbf"))
    return [_COLUMNS.get(cell.decode(errors="replace").lower(), "") for cell in cells]


def _csv_rows(opener, columns: list[str], name: str):
    """Yields the rows of a csv as `_collect` takes them."""
    lines = _lines(opener)
    next(lines)
    for row, line in enumerate(lines, 1):
        try:
            cells = _cells(line)
            if len(cells) != len(columns):
                raise ValueError(f"{len(cells)} columns instead of {len(columns)}")
            cell = dict(zip(columns, cells, strict=True))
            usage = cell.get("usage", b"").decode(errors="replace")
            if "usage" in cell and usage.lower() not in _SPLIT_NAMES:
                raise ValueError(f"unknown Usage {usage!r}")
            split, pixels = _SPLIT_NAMES.get(usage.lower(), ""), _parse(cell["pixels"])
            label = cell.get("label", b"").decode(errors="replace")
            told = "label" in cell and (label or split not in ("val", "test"))
            label = label_index(label) if told else None
            yield (False, row - 1, ""), label, split, f"row {row}", pixels
        except ValueError as error:
            cut = "" if line.endswith(b"\n") else "the file ends in this row: "
            yield Fault(name, row, f"{cut}{error}")


def _parse(text: bytes) -> np.ndarray:
    """Returns the picture, uint8 [48, 48], of numbers in text, or raises ValueError."""
    try:
        with warnings.catch_warnings(action="error"):
            values = np.fromstring(text, np.int64, sep=" ")
        plain = values.size == SIDE * SIDE and b"-" not in text and b"+" not in text
        if plain and 0 <= values.min() and values.max() < 256:
            return values.astype(np.uint8).reshape(SIDE, SIDE)
    except (ValueError, DeprecationWarning):
        pass
    words = text.decode(errors="replace").split()  # anything unusual, the slow way
    if len(words) != SIDE * SIDE:
        raise ValueError(f"{len(words)} pixels instead of {SIDE * SIDE}")
    if wrong := [word for word in words if not word.isdecimal() or int(word) > 255]:
        raise ValueError(f"pixel {wrong[0]!r} is not from 0 to 255")
    return np.array(words, np.int64).astype(np.uint8).reshape(SIDE, SIDE)


def _join(opener, data: FERData, rows: np.ndarray, total: int) -> np.ndarray:
    """Returns the FER+ votes of the rows, float32 [N, 10].

    Args:
        opener: Opens fer2013new.csv.
        data: The data to join them to.
        rows: int [N], the row of each picture in the csv, from 0.
        total: Number of rows of the csv, bad ones among them.

    Raises:
        ValueError: If their number or order is not that of the votes.
    """
    import pandas as pd

    with opener() as file:
        table = pd.read_csv(file)
    problem = f"there are {len(table)} rows of votes and {total} of pictures"
    if len(table) == total and rows[-1] < total and (np.diff(rows) > 0).all():
        table = table.iloc[rows]
        votes = table[list(FERPLUS)].to_numpy(np.float32)
        usage = table["Usage"].str.lower().map(_SPLIT_NAMES).to_numpy()
        told = np.array([FERPLUS_TO_LABEL.get(i, -1) for i in range(10)])[votes.argmax(axis=1)]
        wrong = (data.split != usage) & (data.split != "")
        agree = (told == data.labels)[told >= 0]
        if wrong.any():
            problem = f"{data.names[wrong.argmax()]} has another Usage there"
        elif len(agree) < 500 or agree.mean() > 0.4:  # 0.64 in this order, 0.2 in any other
            return votes
        else:
            problem = f"only {agree.mean():.0%} of the labels are the majority there"
    raise ValueError(
        f"The FER+ votes do not fit {data.origin}: {problem}. They join by row: take those of "
        "this very file, or leave them out with votes=None."
    )


# ---- pictures ----------------------------------------------------------------------------


def _is_label(name: str | None) -> bool:
    try:
        return label_index(name) >= 0
    except ValueError:
        return False


@functools.cache
def _place(folder: str) -> tuple[str, str, str | None]:
    """Tells what a folder of pictures is by its path.

    Returns:
        The folder that its split lies in; the split, "" for none; the name of the label, None
        for a split's pictures without labels.
    """
    *parts, label = folder.split("/")
    if label.lower() in _SPLIT_NAMES:
        parts, label = [*parts, label], None
    at = [i for i, part in enumerate(parts) if part.lower() in _SPLIT_NAMES]
    if not at:
        return "/".join(parts), "", label
    return "/".join(parts[: at[0]]), _SPLIT_NAMES[parts[at[-1]].lower()], label


def _picture_rows(tree: dict, places: dict[str, tuple]):
    """Yields pictures as `_collect` takes them; official names sort them as in the csv."""
    for name, (root, split, label) in places.items():
        official = _OFFICIAL.match(PurePosixPath(name).name)
        split = _SPLIT_NAMES[official[1].lower()] if official else split
        try:
            known = None if label is None else label_index(label)
            with tree[name]() as file:
                pixels = read_picture(file)
        except Exception as error:  # Pillow raises almost anything on a damaged file
            yield Fault(name, None, str(error) or type(error).__name__)
            continue
        key = (not official, int(official[2]) if official else 0, name)
        yield key, known, split, name.removeprefix(f"{root}/"), pixels
