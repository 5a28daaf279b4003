"""From a picture or a clip anywhere to the faces in it and their emotions.

`predict` answers at once; `predict_to_csv` goes through folders and clips of any size with flat
memory and can be interrupted; `video` yields a clip's frames. All use the ONNX export of a model
(`exports.export`) that lies beside it.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import ipaddress
import math
import queue
import socket
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache, partial
from importlib.util import find_spec
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import HTTPHandler, HTTPRedirectHandler, HTTPSHandler, Request, build_opener

import numpy as np
from PIL import Image
from tqdm import tqdm

from ferlib import archives, clips, detection, files, labels, pictures, runtimes, tables, zoo
from ferlib.detection import BOX
from ferlib.faces import Fault
from ferlib.labels import EMOTIONS

if TYPE_CHECKING:
    import pandas

LARGEST_CROP = 300
"""A nearly square picture up to this side (pixels) without a face found may yet be a crop."""
MOVING = ("frame", "seconds", "person")
"""What is known of a face in a clip only."""
MOST_NAMED = 10
"""How many pictures without a face a report names."""
DIGITS = 4
"""Decimals of scores and probabilities in a CSV, as those behind differ between processors."""
LARGEST, SECONDS, REDIRECTS = 50_000_000, 30, 5
"""Limits of a picture from the web, in bytes, seconds in all, and redirects."""

_NO_FACE = "no face"
_CROP = f"{_NO_FACE} found; if it is a face already cut out, use detect=False (--detect no)"
_NO_PICTURE = "no picture: "
_MISSING = "there is no such file or folder"
_NOT_FILE = "a broken link, or no regular file"
_A_CLIP = "a clip"
_NO_BOXES = "boxes are for pictures; leave them out for clips"
_END = "end of the clip: "
_STATE_EVERY = 50
_HOLDERS = ("table", "parquet", "arrow", "npy", "zip", "tar", "gzip", "bzip2", "xz")
_CHANNELS = ((), (1,), (3,), (4,))
_TEXT: dict[str, Any] = {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}


def columns(classes: tuple[str, ...] = EMOTIONS, *, moving: bool = False) -> tuple[str, ...]:
    """Names what is known of a face: the columns of a table of predictions.

    Args:
        classes: The classes that the model answers with.
        moving: Whether there are clips among the files.

    Returns:
        The file; of a clip the frame (from 0), its time in seconds and the person (from 1); the
        box in pixels of the upright picture, the detector's score (NaN where nothing was searched
        for), a probability for each class (`labels.answer_columns`), and the class with the
        highest.

    Example:
        >>> columns(("bored", "focused"))[5:]
        ('score', 'bored', 'focused', 'emotion')
        >>> columns(moving=True)[:4]
        ('file', 'frame', 'seconds', 'person')
    """
    answers = labels.answer_columns(classes)
    return ("file", *MOVING * moving, *BOX, "score", *answers, "emotion")


@dataclass(repr=False)
class Tally:
    """How many pictures were looked at, and what was found; prints as a report.

    Args:
        pictures: Number of pictures, unreadable ones among them.
        faces: Number of faces found in them.
        without_face: Number of readable pictures in which there was none.
        crops: How many of these look as if they were faces already cut out.
        clips: Number of clips, which are no pictures here.
        faceless: The first ten of those without a face -> what was missing there.
        unreadable: File -> why it could not be read, or where a clip breaks off.
        others: File that is no picture -> what it is.
    """

    pictures: int = 0
    faces: int = 0
    without_face: int = 0
    crops: int = 0
    clips: int = 0
    faceless: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)

    def count(self, file: str, faces: int, note: str) -> None:
        """Adds one file, given its number of faces, or why there are none."""
        if note.startswith(_NO_PICTURE):
            self.others[file] = note.removeprefix(_NO_PICTURE)
            return
        self.faces += faces
        if note.startswith(_END):
            self.clips += 1
            if clips.CUT in note:
                self.unreadable[file] = note.removeprefix(_END)
            return
        self.pictures += 1
        self.crops += note == _CROP
        if note.startswith(_NO_FACE):
            self.without_face += 1
            if len(self.faceless) < MOST_NAMED:
                self.faceless[file] = note.partition(";")[0]
        elif note:
            self.unreadable[file] = note

    def add(self, file: str, picture: Any, rows: list[tuple], note: str) -> None:
        """Adds what `stream` yields."""
        if isinstance(picture, clips.Watch) and not note:
            self.faces += len(rows)  # of one frame
        else:
            self.count(file, len(rows), note)

    def __repr__(self) -> str:
        head = f"{self.pictures:,} pictures, {self.faces:,} faces, {self.without_face:,} without "
        lines = [f"{head}a face, {len(self.unreadable):,} unreadable"]
        if self.clips:
            lines[0] = f"{self.clips:,} clips, {lines[0]}"
        lines += [f"  {file}: {why}" for file, why in (self.unreadable | self.faceless).items()]
        if more := self.without_face - len(self.faceless):
            lines.append(f"  and {more:,} more without a face")
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
        rows: One tuple a face, in the order of `columns(classes, moving=True)`; None for what is
            known of faces in clips only.
        sources: File -> what it can be read from again.
    """

    classes: tuple[str, ...] = EMOTIONS
    rows: list[tuple] = field(default_factory=list)
    sources: dict[str, Any] = field(default_factory=dict)

    def to_frame(self) -> pandas.DataFrame:
        """Gives a DataFrame with one row a face, and in clips a frame; its columns: `columns`."""
        import pandas as pd

        table = pd.DataFrame(self.rows, columns=list(columns(self.classes, moving=True)))
        return table if self.clips else table.drop(columns=list(MOVING))

    def draw(self, file: str | None = None) -> Image.Image:
        """Draws a picture with each face framed and named in its emotion's colour.

        Args:
            file: Which picture, as named in `to_frame()`. Default: the first that was readable.

        Returns:
            The picture, RGB; enlarged where it is too small to write on.

        Raises:
            KeyError: If there is no such readable picture.
        """
        file = next(iter(self.sources), "") if file is None else file
        image = pictures.open_picture(self.sources[file]).convert("RGB")
        zoom = max(1, round(320 / max(image.size)))
        image = image.resize((image.width * zoom, image.height * zoom), Image.Resampling.BICUBIC)
        colours = labels.colours(self.classes)
        first = 1 + len(MOVING)
        for row in (row for row in self.rows if row[0] == file):
            box = tuple(value * zoom for value in row[first : first + 4])
            emotion, probability = row[-1], max(row[first + 5 : -1])
            detection.mark(image, box, f" {emotion} {probability:.0%} ", colours[emotion])
        return image


# ---- the web -----------------------------------------------------------------------------


class _Redirects(HTTPRedirectHandler):
    """Follows a few redirects, none to another kind of address."""

    max_redirections = REDIRECTS

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise ValueError(f"it leads to {newurl[:100]}, which is no http or https address")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Web(HTTPSHandler, HTTPHandler):
    """Connects to machines that others reach too, or to a proxy that is set."""

    def __init__(self, is_local: bool):
        super().__init__()
        self.is_local = is_local

    def do_open(self, http_class, req, **options):
        def connection(*args, **options):
            made = http_class(*args, **options)
            if req.has_proxy() or req._tunnel_host:
                with contextlib.suppress(OSError):  # it may be that only the proxy finds it
                    _look_up(urlsplit(req.full_url).hostname, None, self.is_local)
            else:
                made._create_connection = partial(_connect, self.is_local)
            return made

        return super().do_open(connection, req, **options)


def _look_up(host: str | None, port: int | None, is_local: bool) -> list[tuple]:
    """Gives the addresses of a machine; one that only this machine reaches is refused."""
    found = [place for *_, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    for place in found:
        address = ipaddress.ip_address(place[0])
        if not (address.is_global or (is_local and address.is_loopback)):
            raise ValueError(f"{host} ({address}) is this machine or in a private network")
    return found


def _connect(is_local: bool, place: tuple, *options: Any) -> socket.socket:
    """Connects to an address that was checked: asked again, a name may mean another one."""
    problem: Exception = OSError("it has no address")
    for address in _look_up(*place, is_local):
        try:
            return socket.create_connection(address[:2], *options)
        except OSError as error:
            problem = error
    raise problem


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
        request = Request(url, headers={"User-Agent": "ferlib"})
        opener = build_opener(_Redirects, _Web(is_local))
        with opener.open(request, timeout=SECONDS) as answer:
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
            hint = " Of addresses http and https are read." if "://" in str(source) else ""
            raise FileNotFoundError(f"There is no picture or folder {str(source)!r}.{hint}")
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
    return {"picture": "", _A_CLIP: _A_CLIP}.get(kind, _NO_PICTURE + kind)


def _kind(path: Path) -> str:
    if clips.is_clip(path):
        return _A_CLIP
    return archives.kind_of(files.head(path), path.name)


def _file(path: Path, alone: bool) -> Iterator[tuple]:
    """Yields a file that is named itself: a picture, or those in a table or an archive."""
    with ExitStack() as stack:
        try:
            if not path.is_file():
                raise OSError(_NOT_FILE)
            kind = _kind(path)
            tree = archives.walk(path) if kind in _HOLDERS else archives.Tree()
            archives.unpack(tree, stack)
        except (archives.TooLarge, *archives.DAMAGED) as error:
            yield str(path), None, str(error)
            return
        if kind in _HOLDERS:
            yield from _members(tree, path.parent, alone)
        else:
            yield str(path), path, _A_CLIP if kind == _A_CLIP else ""


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


def _look(file: str, source: Any, problem: str, detect: bool | str, given: dict | None) -> tuple:
    """Reads a picture: its name, source, a tuple (box, score, crop) a face, and what is wrong."""
    if problem:
        return file, source, [], problem
    try:
        source = source() if callable(source) else source
        picture = pictures.open_picture(source)
        if min(picture.size) < detection.SMALLEST:
            raise ValueError(f"{picture.width}x{picture.height} pixels cannot show a face")
        note = _NO_FACE
        if given is not None:
            boxes = [_inside(box, picture.size) for box in given.get(_place(file), ())]
            note = f"{_NO_FACE}: no box is given for this picture"
        elif not detect or (detect == "auto" and max(picture.size) <= detection.CROP):
            boxes = [(0, 0, *picture.size, math.nan)]
        else:
            boxes = detection.find(picture)
            short, long = sorted(picture.size)
            is_cut_out = 0.8 * long <= short and long <= LARGEST_CROP
            note = _CROP if detect == "auto" and is_cut_out else _NO_FACE
        faces = [(*box, detection.crop(picture, *box[:4])) for box in boxes]
        return file, source, faces, "" if faces else note
    except ImportError:
        raise
    except Exception as error:  # whatever a damaged file makes Pillow raise
        return file, source, [], archives.why(_head(source), error)


def _head(source: Any) -> bytes:
    """Gives the first bytes of a picture where there are any: not of an array."""
    if isinstance(source, Path):
        with contextlib.suppress(OSError):
            return files.head(source)
    return source[:1024] if isinstance(source, bytes) else b"an array"


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


def open_classifier(model: runtimes.Model) -> runtimes.Classifier:
    """Opens a model of any kind; a file is kept open for the next call."""
    if isinstance(model, (str, Path)) and not Path(model).is_dir():
        path = zoo.find(model)
        return _opened(path, path.stat().st_mtime_ns)
    return runtimes.open_model(model)


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
    return opened


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
    every: float = 0,
    skip: set[str] | frozenset[str] = frozenset(),
    states: dict[str, dict] | None = None,
) -> Iterator[tuple]:
    """Yields the files of a source one by one; memory does not grow with their number.

    Args:
        source: As for `predict`.
        model: As for `predict`.
        detect: As for `predict`.
        boxes: As for `predict`.
        every: As for `predict`.
        skip: Names of pictures that are not yielded. Pictures are classified in the same groups
            with it as without it, because rounding differs with the size of a batch.
        states: Name of a clip -> what `clips.Watch.state` gave, to continue from there.

    Yields:
        File; what it can be read from again; one tuple a face, in the order of `columns` with
        `moving`; and a note that says why there is none, or is empty. A clip is yielded frame by
        frame, with its `clips.Watch` in the second place, and ends with a note.

    Raises:
        ImportError: If an extra is needed that is not installed.
        FileNotFoundError: If a path or the model does not exist.
        ValueError: If `detect` is none of the three, the model cannot be loaded safely, or the
            file of boxes is wrong.
    """
    if detect not in ("auto", True, False):
        raise ValueError(f'detect is {detect!r}; it must be "auto", True or False.')
    opened = open_classifier(model)
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
            nowhere = (file, *[None] * len(MOVING))
            rows = [_row((*nowhere, *box), next(answers), opened.classes) for *box, _ in faces]
            if file in skip:
                continue
            if note == _A_CLIP and given is None:
                follower = clips.Follower(opened, detect=detect)
                watch = clips.Watch(picture, follower, every=every, state=(states or {}).get(file))
                yield from _frames(file, watch, opened.classes)
            else:
                yield file, picture, rows, _NO_BOXES if note == _A_CLIP else note
    if unused:
        warnings.warn(
            f"{boxes} has boxes of {len(unused)} files that are not among the pictures, such as "
            f"{min(unused)}.",
            stacklevel=2,
        )


def _row(where: tuple, answer: np.ndarray, classes: tuple[str, ...]) -> tuple:
    return (*where, *map(float, answer), classes[answer.argmax()])


def _frames(file: str, watch: clips.Watch, classes: tuple[str, ...]) -> Iterator[tuple]:
    """Yields what `stream` yields of a clip; one that cannot be read stops nothing."""
    try:
        for frame in watch:
            where = (file, frame.number, frame.seconds)
            faces = [((*where, p.number, *p.box, p.score), p.probabilities) for p in frame.persons]
            yield file, watch, [_row(*face, classes) for face in faces], ""
    except ImportError:
        raise
    except Exception as error:  # whatever a damaged clip makes OpenCV or Pillow raise
        watch.note = f"it {clips.CUT} after {watch.total:,} frames: {error}"
        if not watch.total:
            yield file, watch, [], str(error)
            return
    told = f"{watch.total:,} frames up to {watch.seconds:.2f} s, {watch.follower.persons} persons"
    yield file, watch, [], f"{_END}{told}{'; ' * bool(watch.note)}{watch.note}"


def _is_passed(note: str) -> bool:
    """Returns whether a file is looked for anew each time, and never written to a CSV."""
    return note.startswith(_NO_PICTURE) or note == _MISSING


def predict(
    source: Any,
    *,
    model: runtimes.Model = "compact",
    detect: bool | str = "auto",
    boxes: str | Path | None = None,
    every: float = 0,
) -> Predictions:
    """Says which emotion each face in a picture, a clip, or in many, shows.

    Args:
        source: A path, a folder (with its folders), bytes, an http(s) address, a PIL picture or an
            array: grey or colour, 8 or 16 bit, any size (see `pictures.open_picture`). A csv of
            pixels, with labels or without, and an archive are as many pictures as they hold. A
            list of any of these, or an array [N, H, W] or [N, H, W, C], is many pictures. A clip
            is a file on this machine: mp4, mov, avi, mkv, webm, MPEG, animated GIF or WebP. What
            a file is shows in its first bytes. From the web come at most 50 MB in 30 s over at most
            5 redirects, and nothing from private networks or, unless named, this machine.
        model: A shipped model's name, a model's file (`.keras`, `.h5`, `.onnx`, `.tflite`), a
            Keras model, or what `runtimes.open_model` gives. Where onnxruntime is installed and
            the export of a `.keras` file lies beside it (`exports.export`), that is used.
        detect: "auto" searches a picture for faces unless both its sides are at most 64 pixels;
            True always searches; False takes the largest square in a picture's middle as a face.
        boxes: A csv with the columns file, left, top, width and height (pixels of the upright
            picture): faces are there, and not searched for. A file is named from the csv's folder
            or the working folder.
        every: Least time between two frames of a clip, in seconds; 0 is all frames.

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
    opened = open_classifier(model)
    result = Predictions(classes=opened.classes)
    options: dict[str, Any] = {"detect": detect, "boxes": boxes, "every": every}
    for file, picture, rows, note in stream(source, model=opened, **options):
        result.add(file, picture, rows, note)
        result.rows += rows
        is_picture = not isinstance(picture, clips.Watch)
        if is_picture and file not in result.unreadable and file not in result.others:
            result.sources[file] = picture
    if not result.sources and not result.clips:
        listed = "".join(f"\n  {file}: {kind}" for file, kind in list(result.others.items())[:5])
        raise ValueError(f"There is no readable picture in {source!r:.200}.\n{result}{listed}")
    return result


def video(
    source: str | Path,
    *,
    model: runtimes.Model = "compact",
    detect: bool | str = "auto",
    every: float = 0,
    window: float = clips.WINDOW,
) -> Iterator[clips.Frame]:
    """Yields a clip's frames with the persons in them and their probabilities.

    Args:
        source: A clip as for `predict`.
        model: As for `predict`.
        detect: As for `predict`.
        every: As for `predict`.
        window: Time over which a person's probabilities are medians, in seconds, half of it before
            and half after a frame; 0 leaves them as the model gives them.

    Yields:
        The frames, with their pictures. Where the clip breaks off, a warning says so.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no clip, or nothing of it can be read.
        ImportError: If faces are to be searched for without the extra `faces`.
    """
    watch = _watch(source, model, detect, every=every, window=window)
    yield from watch
    if watch.note:
        warnings.warn(f"{source}: {watch.note}", stacklevel=2)


def _watch(source: Any, model: Any, detect: Any, **options: Any) -> clips.Watch:
    """Opens a clip, whose frames come with their pictures."""
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"There is no clip {str(source)!r}.")
    if not clips.is_clip(path):
        raise ValueError(f"{source} is no clip: mp4, mov, avi, mkv, webm, MPEG, GIF or WebP.")
    follower = clips.Follower(open_classifier(model), detect=detect)
    return clips.Watch(path, follower, keep=True, **options)


def predict_to_clip(
    source: str | Path,
    out: str | Path,
    *,
    model: runtimes.Model = "compact",
    detect: bool | str = "auto",
    every: float = 0,
    progress: bool = True,
) -> Tally:
    """Writes a clip with its persons framed, above a strip of their probabilities.

    Args:
        source: A clip as for `predict`.
        out: The mp4 to write (H.264, without sound); browsers play it.
        model: As for `predict`.
        detect: As for `predict`.
        every: As for `predict`.
        progress: Whether a bar is drawn on a terminal.

    Returns:
        What was found, as a report.

    Raises:
        ImportError: If the extra `video` is not installed, or `faces` where it is needed.
        FileNotFoundError, ValueError: As `video`.
    """
    opened, tally = open_classifier(model), Tally(clips=1)
    watch = _watch(source, opened, detect, every=every)
    number, rate = clips.about(Path(source))
    total = None if every else number or None

    def shown():
        for frame in tqdm(watch, total=total, unit="frame", disable=not progress or None):
            tally.faces += len(frame.persons)
            yield frame.seconds, clips.annotated(frame, opened.classes)

    clips.write(Path(out), shown(), rate=1 / every if every else rate or 25)
    if watch.note:
        tally.unreadable[str(source)] = watch.note
    return tally


def predict_to_csv(
    source: Any,
    out: str | Path,
    *,
    model: runtimes.Model = "compact",
    detect: bool | str = "auto",
    boxes: str | Path | None = None,
    every: float = 0,
    progress: bool = True,
) -> Tally:
    """Predicts pictures by the thousand, and clips of any length, and writes a CSV as it goes.

    Stopped and started again with the same CSV, it continues where it stopped, in a clip too: for
    that a small file beside the CSV keeps what is known of the persons. A picture without a face,
    or one that cannot be read, has one row that says so in the column `note`, and so has the end
    of each clip; files that are no pictures, and paths that do not exist, have none. Scores and
    probabilities are rounded to four decimals; the emotion is that of the unrounded ones. Names of
    files are kept exactly, also one such as "=1+1.png", which a spreadsheet takes for a formula:
    import that column as text.

    Args:
        source: As for `predict`; usually a folder, or a list of folders and files.
        out: The CSV to write, or to continue: the columns of `columns` with `moving`, model (and
            how it was asked, where that is not the default), and note.
        model: As for `predict`.
        detect: As for `predict`.
        boxes: As for `predict`.
        every: As for `predict`.
        progress: Whether a bar is drawn on a terminal.

    Returns:
        What now stands in the CSV, and what has no row there, as a report.

    Raises:
        ValueError: If `out` does not end in .csv, or was written with another model or other
            options, or if there is not a single file.
        ImportError, FileNotFoundError: As `predict`.
    """
    out = Path(out)
    if out.suffix.lower() != ".csv":
        raise ValueError(f"{out}: what is found is written as .csv, and a clip as .mp4.")
    opened = open_classifier(model)  # no CSV is touched where there is no such model
    if boxes is not None:
        _read_boxes(boxes)
    name = _title(model, opened) + _asked(detect, boxes, every)
    header = (*columns(opened.classes, moving=True), "model", "note")
    if not list(islice(_items(source), 1)):
        raise ValueError(f"There is nothing in {source!r:.200}.")
    options: dict[str, Any] = {"detect": detect, "boxes": boxes, "every": every}
    with files.naming(out), files.alone(out, wait=1):
        tally, done, states = _resume(out, name, header)
        found = stream(source, model=opened, skip=done, states=states, **options)
        found = tqdm(found, **_bar(source, done, states, progress))
        return _write_rows(out, found, tally, states, name, header)


def _write_rows(out, found, tally, states, name, header):
    """Appends what was found to a CSV, and notes its digest every now and then."""
    written = {file: state["rows"] for file, state in states.items()}
    seal = _Seal(out)
    with out.open("a", buffering=1, **_TEXT) as file:
        for number, (picture, watch, rows, note) in enumerate(found, 1):
            tally.add(picture, watch, rows, note)
            if _is_passed(note):
                continue
            blank = (picture, *[""] * (len(header) - 3))
            lines = rows if rows or (isinstance(watch, clips.Watch) and not note) else [blank]
            csv.writer(file).writerows((*_rounded(row), name, note) for row in lines)
            if isinstance(watch, clips.Watch):
                written[picture] = written.get(picture, 0) + len(lines)
                if note:
                    _beside(out, "clip.json").unlink(missing_ok=True)
                elif watch.total % _STATE_EVERY == 0:
                    about = {"file": picture, "rows": written[picture]} | watch.state()
                    files.write_json(_beside(out, "clip.json"), about, sealed=True)
            if number % _STATE_EVERY == 0:
                seal.note()
    seal.note()
    return tally


class _Seal:
    """Notes beside a CSV the digest of what was written to it so far."""

    def __init__(self, out: Path):
        self.out, self.size, self.digest = out, 0, hashlib.sha256()

    def note(self) -> None:
        with self.out.open("rb") as file:
            file.seek(self.size)
            new = file.read()
        self.size += len(new)
        self.digest.update(new)
        about = {"size": self.size, "digest": self.digest.hexdigest()}
        files.write_json(_beside(self.out, "sha256"), about, sealed=True)


def _check_seal(out: Path) -> None:
    """Refuses a CSV that begins otherwise than it was written."""
    if _beside(out, "sha256").exists():
        told = files.read_json(_beside(out, "sha256"))
        digest, left = hashlib.sha256(), told["size"]
        with out.open("rb") as file:
            while piece := file.read(min(left, 2**20)):
                digest.update(piece)
                left -= len(piece)
        if out.stat().st_size and digest.hexdigest() != told["digest"]:
            raise files.damaged(out)


def _asked(detect: bool | str, boxes: str | Path | None, every: float) -> str:
    """Names the options of a prediction that are not the default, for the column `model`."""
    told = "" if detect == "auto" else f", detect {'yes' if detect else 'no'}"
    told += f", boxes {files.digest(Path(boxes))[:8]}" if boxes is not None else ""
    return told + (f", every {every:g} s" if every else "")


def _bar(source: Any, done: set[str], states: dict[str, dict], progress: bool) -> dict[str, Any]:
    """Gives the options of a bar over the pictures and the frames of clips."""
    total, ended, unit = 0, sum(state["total"] for state in states.values()), "picture"
    for name, path, problem in _items(source):
        size = 1
        if problem == _A_CLIP and progress:
            size, unit = 1 + clips.about(path)[0], "frame"
        total += size
        ended += size * (name in done)
    return {"total": total, "initial": ended, "unit": unit, "disable": not progress or None}


def _rounded(row: tuple) -> tuple:
    return tuple(round(value, DIGITS) if isinstance(value, float) else value for value in row)


def _beside(out: Path, what: str) -> Path:
    """Names a file beside a CSV: its "sha256", or "clip.json" of an unfinished clip."""
    return out.with_name(f".{out.name}.{what}")


def _resume(out: Path, model: str, header: tuple[str, ...]) -> tuple[Tally, set[str], dict]:
    """Makes `out` ready to be continued: its last file, perhaps incomplete, is taken out.

    A clip is continued in its middle where what is known of its persons was kept.
    """
    tally, done, states = Tally(), set(), {}
    with files.whole(out) as part, out.open("a+", **_TEXT) as old:
        _check_seal(out)
        old.seek(0)
        with part.open("w", **_TEXT) as new:
            _check_header(out, tuple(next(csv.reader(old), header)), model, header)
            kept, state = _whole_rows(out, old, len(header), model)
            states = {state["file"]: state} if state else {}
            old.seek(0)
            writer = csv.writer(new)
            writer.writerow(header)
            rows = islice((row for row in csv.reader(old) if len(row) == len(header)), 1, 1 + kept)
            for file, group in groupby(rows, key=lambda row: row[0]):
                faces, note = 0, ""
                for row in group:
                    writer.writerow(row)
                    note = row[-1]
                    faces += not note
                if file in states:
                    tally.faces += faces
                else:
                    tally.count(file, faces, note)
                    done.add(file)
        _beside(out, "sha256").unlink(missing_ok=True)
    return tally, done, states


def _whole_rows(out: Path, old: Any, width: int, model: str) -> tuple[int, dict]:
    """Counts the rows that can stay, and reads what is known of a clip that they end in."""
    total, begin, last = 0, 0, [""] * width
    for row in csv.reader(old):
        if len(row) != width:
            continue
        if row[-2] != model:
            raise ValueError(f"{out} is of the model {row[-2]}, not {model}; name another file.")
        begin = begin if row[0] == last[0] else total
        total, last = total + 1, row
    with out.open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - 1))
        is_torn = file.read() != b"\n"
    if last[-1].startswith(_END) and not is_torn:
        return total, {}
    state: dict[str, Any] = {"file": None}
    with contextlib.suppress(OSError, ValueError):
        state = files.read_json(_beside(out, "clip.json"))
    if state["file"] == last[0] and state["rows"] <= total - begin - is_torn:
        return begin + state["rows"], state
    if state["file"] is not None and not state["rows"]:  # nobody was in the clip yet
        return total, state
    return begin, {}


def _check_header(out: Path, found: tuple, model: str, header: tuple[str, ...]) -> None:
    """Refuses a file that is no CSV of predictions, or one of other classes."""
    if found == header:
        return
    if found[:1] != header[:1] or found[-3:] != header[-3:] or "score" not in found:
        raise ValueError(f"{out} is not a CSV of predictions; name another file.")
    classes, answered = (x[x.index("score") + 1 : -3] for x in (found, header))
    if classes == answered:
        raise ValueError(f"{out} lacks the columns {', '.join(MOVING)}; name another file.")
    raise ValueError(
        f"{out} is of the classes {', '.join(classes)}, and {model} answers "
        f"{', '.join(answered)}; name another file."
    )
