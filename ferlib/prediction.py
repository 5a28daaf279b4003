"""From a picture anywhere to the faces in it and their emotions.

`predict` answers at once; `predict_to_csv` goes through folders of any size with flat memory and
can be interrupted. Both use the ONNX export of a model (`exports.export`) that lies beside it.
"""

from __future__ import annotations

import contextlib
import csv
import ipaddress
import math
import queue
import socket
import sys
import tempfile
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from importlib.util import find_spec
from itertools import groupby, islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ferlib import archives, files, labels, pictures, runtimes, tables, zoo
from ferlib.faces import Fault
from ferlib.labels import EMOTIONS, SIDE

if TYPE_CHECKING:
    import pandas

CROP = 64
"""A picture with no side longer than this (pixels) is a face crop, not searched for faces."""
LARGEST_CROP = 300
"""A nearly square picture up to this side (pixels) without a face found may yet be a crop."""
SMALLEST = 12
"""A picture with a side shorter than this (pixels) cannot show a face."""
SEARCHED = 1280
"""Faces are searched for in a copy whose longer side is at most this (pixels)."""
BOX = ("left", "top", "width", "height")
"""Where a face is, in pixels of the upright picture."""
DIGITS = 4
"""Decimals of scores and probabilities in a CSV: those behind them differ between processors."""
LARGEST, SECONDS, REDIRECTS = 50_000_000, 30, 5
"""Limits of a picture from the web: bytes, seconds in all, and redirects."""

_NO_FACE = "no face"
_CROP = f"{_NO_FACE} found; if it is a face already cut out, use detect=False (--detect no)"
_NO_PICTURE = "no picture: "
_MISSING = "there is no such file or folder"
_NOT_FILE = "a broken link, or no regular file"
_HOLDERS = ("table", "parquet", "npy", "zip", "tar", "gzip", "bzip2", "xz")
_CHANNELS = ((), (1,), (3,), (4,))
_TEXT: dict[str, Any] = {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}


def columns(classes: tuple[str, ...] = EMOTIONS) -> tuple[str, ...]:
    """Names what is known of a face: the columns of a table of predictions.

    Args:
        classes: The classes that the model answers with.

    Returns:
        The file, the box in pixels of the upright picture, the detector's score (NaN where
        nothing was searched for), a probability for each class, and the class with the highest.

    Example:
        >>> columns(("bored", "focused"))[5:]
        ('score', 'bored', 'focused', 'emotion')
    """
    return ("file", *BOX, "score", *classes, "emotion")


@dataclass(repr=False)
class Tally:
    """How many pictures were looked at, and what was found; prints as a report.

    Args:
        pictures: Number of pictures, unreadable ones among them.
        faces: Number of faces found in them.
        without_face: Number of readable pictures in which there was none.
        crops: How many of these look as if they were faces already cut out.
        unreadable: File -> why it could not be read.
        others: File that is no picture -> what it is.
    """

    pictures: int = 0
    faces: int = 0
    without_face: int = 0
    crops: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)

    def count(self, file: str, faces: int, note: str) -> None:
        """Adds one file, given its number of faces, or why there are none."""
        if note.startswith(_NO_PICTURE):
            self.others[file] = note.removeprefix(_NO_PICTURE)
            return
        self.pictures += 1
        self.faces += faces
        self.crops += note == _CROP
        if note.startswith(_NO_FACE):
            self.without_face += 1
        elif note:
            self.unreadable[file] = note

    def __repr__(self) -> str:
        head = f"{self.pictures:,} pictures, {self.faces:,} faces, {self.without_face:,} without "
        lines = [f"{head}a face, {len(self.unreadable):,} unreadable"]
        lines += [f"  {file}: {why}" for file, why in self.unreadable.items()]
        if self.crops:
            lines.append(f"{self.crops:,} without a face: {_CROP}")
        if self.others:
            kinds = Counter(self.others.values())
            listed = ", ".join(f"{n:,} {kind}" for kind, n in kinds.items())
            lines.append(f"{len(self.others):,} files that are no pictures: {listed}")
        return "\n".join(lines)


@dataclass(repr=False)
class Predictions(Tally):
    """What `predict` found.

    Args:
        classes: What the model answers with.
        rows: One tuple a face, in the order of `columns(classes)`.
        sources: File -> what it can be read from again.
    """

    classes: tuple[str, ...] = EMOTIONS
    rows: list[tuple] = field(default_factory=list)
    sources: dict[str, Any] = field(default_factory=dict)

    def to_frame(self) -> pandas.DataFrame:
        """Gives a DataFrame with one row a face and the columns `columns(classes)`."""
        import pandas as pd

        return pd.DataFrame(self.rows, columns=list(columns(self.classes)))

    def draw(self, file: str | None = None) -> Image.Image:
        """Draws a picture with each face framed and named in its emotion's colour.

        Args:
            file: Which picture, as named in `to_frame()`. Default: the first that was readable.

        Returns:
            The picture, RGB; enlarged where it is too small to write on.

        Raises:
            KeyError: If there is no such readable picture.
        """
        file = next(iter(self.sources)) if file is None else file
        image = pictures.open_picture(self.sources[file]).convert("RGB")
        zoom = max(1, round(320 / max(image.size)))
        image = image.resize((image.width * zoom, image.height * zoom), Image.Resampling.BICUBIC)
        pen, thick = ImageDraw.Draw(image), max(2, max(image.size) // 300)
        font = ImageFont.load_default(max(14, max(image.size) / 45))
        colours = labels.colours(self.classes)
        for row in self.rows:
            if row[0] != file:
                continue
            left, top, width, height = (value * zoom for value in row[1:5])
            emotion, probability = row[-1], max(row[6:-1])
            colour, text = colours[emotion], f" {emotion} {probability:.0%} "
            pen.rectangle((left, top, left + width - 1, top + height - 1), None, colour, thick)
            spot = (left, max(0, top - font.getbbox(text)[3] - thick))
            pen.rectangle(pen.textbbox(spot, text, font), colour)
            pen.text(spot, text, "white", font)
        return image


# ---- the web -----------------------------------------------------------------------------


class _Redirects(HTTPRedirectHandler):
    """Follows a few redirects, none to another kind of address or into a private network."""

    max_redirections = REDIRECTS

    def __init__(self, is_local: bool):
        self.is_local = is_local

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        _check_address(newurl, self.is_local)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_address(url: str, is_local: bool) -> None:
    """Refuses an address that is none of the web, or of a machine that only this one reaches."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"it leads to {url[:100]}, which is no http or https address")
    for *_, (host, *_) in socket.getaddrinfo(parts.hostname, parts.port, type=socket.SOCK_STREAM):
        found = ipaddress.ip_address(host)
        if not (found.is_global or (is_local and found.is_loopback)):
            raise ValueError(f"{parts.hostname} ({host}) is this machine or in a private network")


def _fetch(url: str) -> bytes:
    """Gets a picture from the web, within limits, in a thread that nobody waits for too long."""
    answers: queue.SimpleQueue = queue.SimpleQueue()
    threading.Thread(target=_download, args=(url, answers), daemon=True).start()
    try:
        answer = answers.get(timeout=SECONDS)
    except queue.Empty:
        answer = TimeoutError(f"it took more than {SECONDS} s")
    if isinstance(answer, bytes):
        return answer
    raise ValueError(
        f"{answer} (limits: {LARGEST // 10**6} MB, {SECONDS} s, {REDIRECTS} redirects, only public "
        "addresses or localhost)"
    )


def _download(url: str, answers: queue.SimpleQueue) -> None:
    try:
        is_local = urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")
        _check_address(url, is_local)
        request = Request(url, headers={"User-Agent": "ferlib"})
        with build_opener(_Redirects(is_local)).open(request, timeout=SECONDS) as answer:
            data = answer.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise ValueError("it is too large")
        answers.put(data)
    except Exception as error:  # whatever HTTP, TLS and names raise
        answers.put(error)


# ---- reading -----------------------------------------------------------------------------


def _items(source: Any, name: str = "picture", alone: bool = True) -> Iterator[tuple]:
    """Yields the name of each picture, what it is read from (or a function for it), a problem."""
    if isinstance(source, str) and source.lower().startswith(("http://", "https://")):
        yield source, partial(_fetch, source), ""
    elif isinstance(source, (str, Path)):
        path = Path(source)
        if path.is_dir():
            yield from _walk(path)
        elif path.exists() or path.is_symlink():
            yield from _file(path, alone)
        elif alone:
            raise FileNotFoundError(f"There is no picture or folder {str(source)!r}.")
        else:
            yield str(path), None, _MISSING
    elif isinstance(source, (list, tuple)) or getattr(source, "shape", ())[2:] not in _CHANNELS:
        for number, each in enumerate(source):
            yield from _items(each, f"{name} {number}", alone=False)
    else:
        yield str(getattr(source, "filename", "") or name), source, ""


def _walk(folder: Path) -> Iterator[tuple]:
    """Yields the files of a folder and its folders, sorted, each folder once, links followed."""
    seen = set(folder.resolve().parents)
    waiting = [folder]
    while waiting:
        path = waiting.pop()
        try:
            if path.is_dir():
                real = path.resolve()
                if real in seen:
                    raise OSError("a link to a folder above, or to one that is read already")
                seen.add(real)
                waiting += sorted(path.iterdir(), reverse=True)
                continue
            problem = _problem(path)
        except OSError as error:
            problem = str(error)
        yield str(path), path, problem


def _problem(path: Path) -> str:
    """Says what a file is that is no picture by its first bytes; "" for a picture."""
    if not path.is_file():
        return _NOT_FILE
    kind = _kind(path)
    if kind in _HOLDERS:
        kind = f"{kind}, read only where it is named itself"
    return "" if kind == "picture" else _NO_PICTURE + kind


def _kind(path: Path) -> str:
    with path.open("rb") as file:
        return archives.kind_of(file.read(1024), path.name)


def _file(path: Path, alone: bool) -> Iterator[tuple]:
    """Yields a file that is named itself: a picture, or those in a table or an archive."""
    try:
        if not path.is_file():
            raise OSError(_NOT_FILE)
        kind = _kind(path)
    except OSError as error:
        yield str(path), None, str(error)
        return
    if kind not in _HOLDERS:
        yield str(path), path, ""
        return
    with ExitStack() as stack:
        tree = archives.walk(path)
        try:
            archives.unpack(tree, stack)
        except (archives.TooLarge, *archives.DAMAGED) as error:
            yield str(path), None, str(error)
            return
        yield from _members(tree, path.parent, alone)


def _members(tree: archives.Tree, folder: Path, alone: bool) -> Iterator[tuple]:
    """Yields the pictures and the rows of tables that lie in an archive, or of one table."""
    for fault in tree.faults + tree.cut:
        yield str(folder / fault.file), None, fault.problem
    for left in tree.left_out:
        yield str(folder / left.file), None, _NO_PICTURE + left.reason
    alone = alone and sum(file.kind in _HOLDERS for file in tree.files) == 1
    for file in tree.files:
        path = str(folder / file.name)
        try:
            if file.kind == "picture":
                with file.open() as stream:
                    yield path, stream.read(), ""
            elif file.kind in _HOLDERS:
                for row in _rows(file):
                    name = f"row {row.row}" if alone else f"{path}, row {row.row}"
                    if isinstance(row, Fault):
                        yield name, None, row.problem
                    else:
                        yield name, row.pixels, ""
            else:
                yield path, None, _NO_PICTURE + file.kind
        except Exception as error:  # a damaged archive raises almost anything
            yield path, None, str(error)


def _rows(file: archives.File) -> list:
    """Reads the pictures of a table; their labels, if any, do not matter."""
    table = tables.sniff(file)
    if table is None or "pixels" not in table.roles:
        raise ValueError(tables.what_is(file))
    return tables.whole_pixels(list(tables.rows_of(table, partial=True)))


# ---- faces -------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _detector():
    runtimes.need("faces", "mtcnn", what="To find faces (detect=False takes a picture as one face)")
    from mtcnn import MTCNN

    hook = sys.unraisablehook
    # On Python 3.13 lz4 flushes the file of weights that it has closed.
    sys.unraisablehook = lambda _: None
    try:
        return MTCNN()
    finally:
        sys.unraisablehook = hook


def _find(picture: Image.Image) -> list[tuple]:
    """Finds the faces of a picture, from left to right: (left, top, width, height, score).

    MTCNN (Zhang et al. 2016, "Joint Face Detection and Alignment using Multi-task Cascaded
    Convolutional Networks", arXiv:1604.02878).
    """
    scale = max(1.0, max(picture.size) / SEARCHED)
    size = [max(1, round(side / scale)) for side in picture.size]
    copy = picture.convert("RGB").resize(size, reducing_gap=2)
    faces = _detector().detect_faces(np.asarray(copy), output_type="numpy")[:, 1:6].tolist()
    found = [(*(round(value * scale) for value in face[:4]), face[4]) for face in faces]
    return sorted(face for face in found if min(face[2:4]) > 0)


def _crop(picture: Image.Image, left, top, width, height) -> np.ndarray:
    """Cuts a face out as FER2013 does, uint8 [48, 48]: a square around the box, in the picture.

    Of 490 FER2013 pictures in which MTCNN found one face, the picture's side was 0.95 times
    the box's height in the median (half of them 0.87 to 1.08), with the box in its middle.
    """
    side = min(max(width, height), *picture.size)
    left = min(max(left + (width - side) / 2, 0), picture.width - side)
    top = min(max(top + (height - side) / 2, 0), picture.height - side)
    box = (left, top, left + side, top + side)
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box).convert("L"))


def _looks_cut_out(size: tuple[int, int]) -> bool:
    return min(size) >= 0.8 * max(size) and max(size) <= LARGEST_CROP


def _look(file: str, source: Any, problem: str, detect: bool | str, given: dict | None) -> tuple:
    """Reads a picture: its name, source, a tuple (box, score, crop) a face, and what is wrong."""
    if problem:
        return file, source, [], problem
    try:
        source = source() if callable(source) else source
        picture = pictures.open_picture(source)
        if min(picture.size) < SMALLEST:
            raise ValueError(f"{picture.width}x{picture.height} pixels cannot show a face")
        note = _NO_FACE
        if given is not None:
            boxes = [_inside(box, picture.size) for box in given.get(_place(file), ())]
            note = f"{_NO_FACE}: no box is given for this picture"
        elif detect is False or (detect == "auto" and max(picture.size) <= CROP):
            boxes = [(0, 0, *picture.size, math.nan)]
        else:
            boxes = _find(picture)
            note = _CROP if detect == "auto" and _looks_cut_out(picture.size) else _NO_FACE
        faces = [(*box, _crop(picture, *box[:4])) for box in boxes]
        return file, source, faces, "" if faces else note
    except ImportError:
        raise
    except Exception as error:  # whatever a damaged file makes Pillow raise
        return file, source, [], _why(source, error)


def _why(source: Any, error: Exception) -> str:
    """Says why a picture cannot be read; what is no picture is told by its first bytes."""
    head = source[:1024] if isinstance(source, bytes) else None
    if isinstance(source, Path):
        with contextlib.suppress(OSError), source.open("rb") as file:
            head = file.read(1024)
    if head is None:
        return f"{type(error).__name__}: {error}"
    if head[4:8] == b"ftyp" and head[8:10] in (b"he", b"mi", b"ms"):
        return f"HEIC, read with `pip install pillow-heif`, or damaged ({error})"
    kind = archives.kind_of(head)
    return kind if " " in kind else f"{type(error).__name__}: {error}"


def _place(name: str) -> str:
    return str(Path(name).absolute())


def _read_boxes(path: str | Path) -> dict[str, list[tuple]]:
    """Reads boxes of faces: absolute path of a picture -> (left, top, width, height, row)."""
    boxes: dict[str, list[tuple]] = {}
    with Path(path).open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        reader = csv.DictReader(file)
        if missing := {"file", *BOX}.difference(reader.fieldnames or ()):
            raise ValueError(
                f"{path}: its header lacks {', '.join(sorted(missing))}; wanted are the columns "
                f"file, {', '.join(BOX)}."
            )
        for number, row in enumerate(reader, 1):
            where = f"{path}, row {number}"
            cells = [(row[name] or "").strip() for name in BOX]
            if not row["file"]:
                raise ValueError(f"{where} names no file.")
            beside = Path(path).parent / row["file"]
            name = str(beside) if beside.exists() else row["file"]
            found = boxes.setdefault(_place(name), [])
            if not any(cells):
                continue  # as `predict_to_csv` writes a picture without a face
            try:
                left, top, width, height = (round(float(cell)) for cell in cells)
            except (ValueError, OverflowError):
                raise ValueError(f"{where}: {', '.join(cells)} of {name} are no numbers.") from None
            if width < 1 or height < 1:
                raise ValueError(f"{where}: a box of {width}x{height} pixels is empty ({name}).")
            found.append((left, top, width, height, where))
    return boxes


def _inside(box: tuple, size: tuple[int, int]) -> tuple:
    """Refuses a box that lies outside of its picture."""
    left, top, width, height, where = box
    if left >= size[0] or top >= size[1] or left + width <= 0 or top + height <= 0:
        raise ValueError(f"{where}: the box lies outside of the picture of {size[0]}x{size[1]}")
    return left, top, width, height, math.nan


# ---- the model ---------------------------------------------------------------------------


def _open(model: runtimes.Model) -> runtimes.Classifier:
    """Opens a model of any kind; a file is kept open for the next call."""
    if isinstance(model, (str, Path)) and not Path(model).is_dir():
        path = zoo.find(model)
        return _opened(path, path.stat().st_mtime_ns)
    return _quick(runtimes.open_model(model))


@lru_cache(maxsize=2)
def _opened(path: Path, changed: int) -> runtimes.Classifier:
    """Opens a model's file, or the ONNX export of this very file where one lies beside it."""
    onnx = path.with_suffix(".onnx")
    if onnx != path and onnx.is_file() and find_spec("onnxruntime"):
        with contextlib.suppress(ValueError):  # a damaged export
            exported = runtimes.open_model(onnx)
            if exported.card.get("made_from") == files.digest(path):
                return exported
    opened = runtimes.open_model(path)
    if not opened.has_card:
        warnings.warn(
            f"{path.name} does not say how it is to be read; taken are {opened.reading}. If it was "
            "trained otherwise, say so with --input and --classes (runtimes.open_model).",
            stacklevel=4,
        )
    return _quick(opened)


def _quick(opened: runtimes.Classifier) -> runtimes.Classifier:
    """Asks a Keras model batch by batch, which for a few pictures is quicker than its `predict`."""
    network = opened.keras_model
    if network is None:
        return opened
    return replace(opened, run=lambda batch, size: np.asarray(network.predict_on_batch(batch)))


def _title(model: runtimes.Model, opened: runtimes.Classifier) -> str:
    """Names a model in a CSV: a file with a digest, and how it is read where somebody said so."""
    if not isinstance(model, (str, Path, runtimes.Classifier)):
        return opened.name
    is_opened = isinstance(model, runtimes.Classifier)
    title = opened.name if is_opened else str(model)
    with contextlib.suppress(FileNotFoundError):  # of a Keras model that was opened
        title += f" {files.digest(zoo.find(title))[:8]}"
    return f"{title} {opened.reading}" if is_opened else title


# ---- predicting --------------------------------------------------------------------------


def stream(
    source: Any,
    *,
    model: runtimes.Model = "compact",
    detect: bool | str = "auto",
    boxes: str | Path | None = None,
    skip: set[str] | frozenset[str] = frozenset(),
) -> Iterator[tuple]:
    """Yields the files of a source one by one; memory does not grow with their number.

    Args:
        source: As for `predict`.
        model: As for `predict`.
        detect: As for `predict`.
        boxes: As for `predict`.
        skip: Names of pictures that are not yielded. Pictures are classified in the same groups
            with it as without it, because rounding differs with the size of a batch.

    Yields:
        File; what it can be read from again; one tuple a face, in the order of `columns`; and
        a note that says why there is none, or is empty.

    Raises:
        ImportError: If an extra is needed that is not installed.
        FileNotFoundError: If a path or the model does not exist.
        ValueError: If `detect` is none of the three, the model cannot be loaded safely, or the
            file of boxes is wrong.
    """
    if detect not in ("auto", True, False):
        raise ValueError(f'detect is {detect!r}; it must be "auto", True or False.')
    opened = _open(model)
    given = None if boxes is None else _read_boxes(boxes)
    unused = set(given or ())
    items = _items(source)
    while some := list(islice(items, opened.at_once)):
        unused.difference_update(_place(name) for name, _, _ in some)
        has_new = any(name not in skip and not _is_passed(problem) for name, _, problem in some)
        looked = [_look(*item, detect, given) for item in some if has_new or item[0] not in skip]
        crops = [face[-1] for _, _, faces, _ in looked for face in faces]
        answers = iter(opened(np.stack(crops)) if crops else ())
        for file, picture, faces, note in looked:
            rows = []
            for *box, _ in faces:
                answer = next(answers)
                emotion = opened.classes[answer.argmax()]
                rows.append((file, *box, *map(float, answer), emotion))
            if file not in skip:
                yield file, picture, rows, note
    if unused:
        warnings.warn(
            f"{boxes} has boxes of {len(unused)} files that are not among the pictures, such as "
            f"{min(unused)}.",
            stacklevel=2,
        )


def _is_passed(note: str) -> bool:
    """Returns whether a file is looked for anew each time, and never written to a CSV."""
    return note.startswith(_NO_PICTURE) or note == _MISSING


def predict(
    source: Any,
    *,
    model: runtimes.Model = "compact",
    detect: bool | str = "auto",
    boxes: str | Path | None = None,
) -> Predictions:
    """Says which emotion each face in a picture, or in many, shows.

    Args:
        source: A path, a folder (with its folders), bytes, an http(s) address, a PIL picture or an
            array: grey or colour, 8 or 16 bit, any size (see `pictures.open_picture`). A csv of
            pixels, with labels or without, and an archive are as many pictures as they hold. A
            list of any of these, or an array [N, H, W] or [N, H, W, C], is many pictures. What a
            file is shows in its first bytes. From the web come at most 50 MB in 30 s over at most
            5 redirects, and nothing from private networks or, unless named, this machine.
        model: A shipped model's name, a model's file (`.keras`, `.h5`, `.onnx`, `.tflite`), a
            Keras model, or what `runtimes.open_model` gives. Where onnxruntime is installed and
            the export of a `.keras` file lies beside it (`exports.export`), that is used.
        detect: "auto" searches a picture for faces unless both its sides are at most 64 pixels;
            True always searches; False takes the largest square in a picture's middle as a face.
        boxes: A csv with the columns file, left, top, width and height (pixels of the upright
            picture): faces are there, and not searched for. A file is named from the csv's folder
            or the working folder.

    Returns:
        The predictions, none for a picture without a face. Files of a folder or list that cannot
        be read are in `unreadable`, and files that are no pictures in `others`.

    Raises:
        ValueError: If no picture can be read, the model cannot be loaded safely, or the file of
            boxes is wrong.
        ImportError: If faces are to be searched for without the extra `faces`.
        FileNotFoundError: If the path or the model does not exist.

    Example:
        >>> from ferlib import drawn
        >>> found = predict(drawn.draw(70).images[:3], model="tiny")
        >>> found
        3 pictures, 3 faces, 0 without a face, 0 unreadable
    """
    opened = _open(model)
    result = Predictions(classes=opened.classes)
    for file, picture, rows, note in stream(source, model=opened, detect=detect, boxes=boxes):
        result.count(file, len(rows), note)
        result.rows += rows
        if file not in result.unreadable and file not in result.others:
            result.sources[file] = picture
    if not result.sources:
        listed = "".join(f"\n  {file}: {kind}" for file, kind in list(result.others.items())[:5])
        raise ValueError(f"There is no readable picture in {source!r:.200}.\n{result}{listed}")
    return result


def predict_to_csv(
    source: Any,
    out: str | Path,
    *,
    model: runtimes.Model = "compact",
    detect: bool | str = "auto",
    boxes: str | Path | None = None,
    progress: bool = True,
) -> Tally:
    """Predicts pictures by the thousand and writes a CSV as it goes.

    Stopped and started again with the same CSV, it continues where it stopped. A picture without
    a face, or one that cannot be read, has one row that says so in the column `note`; files that
    are no pictures, and paths that do not exist, have none. Scores and probabilities are rounded
    to four decimals; the emotion is that of the unrounded ones. Names of files are kept exactly,
    also one such as "=1+1.png", which a spreadsheet takes for a formula: import that column as
    text.

    Args:
        source: As for `predict`; usually a folder, or a list of folders and files.
        out: The CSV to write, or to continue: the columns of `columns`, model and note.
        model: As for `predict`.
        detect: As for `predict`.
        boxes: As for `predict`.
        progress: Whether a bar is drawn on a terminal.

    Returns:
        What now stands in the CSV, and what has no row there, as a report.

    Raises:
        ValueError: If `out` is another kind of file, or was written with another model.
        ImportError, FileNotFoundError: As `predict`.
    """
    from tqdm import tqdm

    opened = _open(model)  # no CSV is touched where there is no such model
    if boxes is not None:
        _read_boxes(boxes)
    name = _title(model, opened)
    header = (*columns(opened.classes), "model", "note")
    total = sum(1 for _ in _items(source))
    tally, done = _resume(Path(out), name, header)
    found = stream(source, model=opened, detect=detect, boxes=boxes, skip=done)
    bar = {"total": total, "initial": len(done), "disable": not progress or None}
    with Path(out).open("a", buffering=1, **_TEXT) as file:
        for picture, _, rows, note in tqdm(found, unit="picture", **bar):
            tally.count(picture, len(rows), note)
            if not _is_passed(note):
                blank = (picture, *[""] * (len(header) - 3))
                csv.writer(file).writerows((*_rounded(row), name, note) for row in rows or [blank])
    return tally


def _rounded(row: tuple) -> tuple:
    return tuple(round(value, DIGITS) if isinstance(value, float) else value for value in row)


def _resume(out: Path, model: str, header: tuple[str, ...]) -> tuple[Tally, set[str]]:
    """Makes `out` ready to be continued: its last picture, perhaps incomplete, is taken out."""
    tally, done = Tally(), set()
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".resuming-") as folder:
        part = Path(folder, "part.csv")
        with part.open("w", **_TEXT) as new, out.open("a+", **_TEXT) as old:
            old.seek(0)
            reader, writer = csv.reader(old), csv.writer(new)
            _check_header(out, tuple(next(reader, header)), model, header)
            writer.writerow(header)
            rows = (row for row in reader if len(row) == len(header))
            groups = (list(group) for _, group in groupby(rows, key=lambda row: row[0]))
            for group, _ in pairwise(groups):
                file, *_, made_by, note = group[0]
                if made_by != model:
                    raise ValueError(f"{out} is of the model {made_by}, not {model}; name another.")
                writer.writerows(group)
                tally.count(file, 0 if note else len(group), note)
                done.add(file)
        files.replace(part, out)
    return tally, done


def _check_header(out: Path, found: tuple, model: str, header: tuple[str, ...]) -> None:
    """Refuses a file that is no CSV of predictions, or one of other classes."""
    if found == header:
        return
    if found[:6] == header[:6] and found[-3:] == header[-3:]:
        raise ValueError(
            f"{out} is of the classes {', '.join(found[6:-3])}, and {model} answers "
            f"{', '.join(header[6:-3])}; name another file."
        )
    raise ValueError(f"{out} is not a CSV of predictions; name another file.")
