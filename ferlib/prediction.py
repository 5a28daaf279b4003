"""From a picture anywhere to the faces in it and their emotions.

`predict` answers at once; `predict_to_csv` goes through folders of any size with flat memory and
can be interrupted; `export` writes a model for onnxruntime, which both use where it is installed.
"""

import csv
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from importlib.util import find_spec
from itertools import groupby, islice, pairwise
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ferlib import files, pictures
from ferlib.labels import EMOTIONS, PALETTE

CROP = 64
"""A picture with no side longer than this (pixels) is a face crop, not searched for faces."""
SMALLEST = 12
"""A picture with a side shorter than this (pixels) cannot show a face."""
SEARCHED = 1280
"""Faces are searched for in a copy whose longer side is at most this (pixels)."""
SUFFIXES = tuple(".jpg .jpeg .png .webp .bmp .gif .tif .tiff .pgm .ppm .avif".split())
"""The files of a folder that are taken to be pictures; a file that is named itself may be any."""
COLUMNS = ("file", "left", "top", "width", "height", "score", *EMOTIONS, "emotion")
"""What is known of a face: box in pixels of the upright picture, the detector's score (NaN where
the whole picture was taken), seven probabilities, and the emotion with the highest one."""
CSV_COLUMNS = (*COLUMNS, "model", "note")
"""What `predict_to_csv` writes; a picture without a face has one row with a note."""
BATCH = 16
"""How many pictures are looked at and classified together."""
DIGITS = 4
"""Decimals of scores and probabilities in a CSV: those behind them differ between processors."""

_NO_FACE = "no face"
_CHANNELS = ((), (1,), (3,), (4,))
_TEXT = {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}


@dataclass(repr=False)
class Tally:
    """How many pictures were looked at, and what was found; prints as a report.

    Args:
        pictures: Number of pictures, unreadable ones among them.
        faces: Number of faces found in them.
        without_face: Number of readable pictures in which there was none.
        unreadable: File -> why it could not be read.
    """

    pictures: int = 0
    faces: int = 0
    without_face: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)

    def count(self, file: str, faces: int, note: str) -> None:
        """Adds one picture, given its number of faces, or why there are none."""
        self.pictures += 1
        self.faces += faces
        self.without_face += note == _NO_FACE
        if note not in ("", _NO_FACE):
            self.unreadable[file] = note

    def __repr__(self) -> str:
        head = f"{self.pictures:,} pictures, {self.faces:,} faces, {self.without_face:,} without "
        lines = [f"{head}a face, {len(self.unreadable):,} unreadable"]
        return "\n".join(lines + [f"  {file}: {why}" for file, why in self.unreadable.items()])


@dataclass(repr=False)
class Predictions(Tally):
    """What `predict` found.

    Args:
        rows: One tuple a face, in the order of `COLUMNS`.
        sources: File -> what it can be read from again.
    """

    rows: list[tuple] = field(default_factory=list)
    sources: dict = field(default_factory=dict)

    def to_frame(self):
        """Gives a DataFrame with one row a face and the columns `COLUMNS`."""
        import pandas as pd

        return pd.DataFrame(self.rows, columns=list(COLUMNS))

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
        for row in (row for row in self.rows if row[0] == file):
            left, top, width, height = (value * zoom for value in row[1:5])
            colour, text = PALETTE[row[-1]], f" {row[-1]} {max(row[6:13]):.0%} "
            pen.rectangle((left, top, left + width - 1, top + height - 1), None, colour, thick)
            spot = (left, max(0, top - font.getbbox(text)[3] - thick))
            pen.rectangle(pen.textbbox(spot, text, font), colour)
            pen.text(spot, text, "white", font)
        return image


# ---- reading -----------------------------------------------------------------------------


def _fetch(url: str) -> bytes:
    with urlopen(Request(url, headers={"User-Agent": "ferlib"}), timeout=30) as answer:
        return answer.read(50_000_000)  # more is cut off, and so cannot be read


def _items(source, name: str = "picture") -> Iterator[tuple]:
    """Yields the name of each picture, what it is read from (or a function for it), a problem."""
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        yield source, partial(_fetch, source), ""
    elif isinstance(source, (str, Path)):
        if not os.path.exists(source):
            raise FileNotFoundError(f"There is no picture or folder {str(source)!r}.")
        folder, path = os.path.isdir(source), str(source)
        yield from _walk(path) if folder else [(path, path, "")]
    elif isinstance(source, (list, tuple)) or getattr(source, "shape", ())[2:] not in _CHANNELS:
        for number, each in enumerate(source):
            yield from _items(each, f"{name} {number}")
    else:
        yield str(getattr(source, "filename", "") or name), source, ""


def _walk(folder: str, above: tuple[str, ...] = ()) -> Iterator[tuple]:
    """Yields the pictures of a folder and its folders, sorted, following symbolic links."""
    real = os.path.realpath(folder)
    try:
        if real in above:
            raise OSError(f"a symbolic link back to {real}, in which it lies")
        names = sorted(os.listdir(folder))
    except OSError as error:
        names = []
        yield folder, None, str(error)
    for path in (os.path.join(folder, name) for name in names):
        if os.path.isdir(path):
            yield from _walk(path, (*above, real))
        elif path.lower().endswith(SUFFIXES) or not os.path.exists(path):
            yield path, path, "" if os.path.isfile(path) else "a broken link, or not a file"


# ---- faces -------------------------------------------------------------------------------


def _need(extra: str, *modules: str, what: str) -> None:
    if missing := [module for module in modules if not find_spec(module)]:
        raise ImportError(f'{what} needs {", ".join(missing)}: pip install "ferlib[{extra}]".')


@lru_cache(maxsize=1)
def _detector():
    _need("faces", "mtcnn", what="To find faces (detect=False takes a picture as one face)")
    from mtcnn import MTCNN

    return MTCNN()


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
    return np.asarray(picture.resize((48, 48), Image.Resampling.LANCZOS, box).convert("L"))


def _look(file: str, source, problem: str, detect) -> tuple:
    """Reads a picture: its name, source, a tuple (box, score, crop) a face, and what is wrong."""
    if problem:
        return file, source, [], problem
    try:
        source = source() if callable(source) else source
        picture = pictures.open_picture(source)
        if min(picture.size) < SMALLEST:
            raise ValueError(f"{picture.width}x{picture.height} pixels cannot show a face")
        is_face = detect is False or (detect == "auto" and max(picture.size) <= CROP)
        boxes = [(0, 0, *picture.size, np.nan)] if is_face else _find(picture)
        return file, source, [(*box, _crop(picture, *box[:4])) for box in boxes], ""
    except ImportError:
        raise
    except Exception as error:  # whatever a damaged file makes Pillow raise
        return file, source, [], f"{type(error).__name__}: {error}"


# ---- the model ---------------------------------------------------------------------------


def _file(model: str | Path) -> Path:
    """Gives the file of a model; finds a shipped one as `zoo.find` does, without Keras."""
    shipped = (Path(__file__).parent / "pretrained").glob("*.keras")
    return {path.stem: path for path in shipped}.get(str(model), Path(model))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _classifier(model) -> Callable[[np.ndarray], np.ndarray]:
    """Gives a function from uint8 [N, 48, 48, 1] to probabilities float32 [N, 7]."""
    if isinstance(model, (str, Path)):
        path = _file(model)
        return _opened(path, path.stat().st_mtime_ns if path.is_file() else 0)
    return lambda crops: np.asarray(model.predict_on_batch(crops))


@lru_cache(maxsize=2)
def _opened(path: Path, changed: int) -> Callable[[np.ndarray], np.ndarray]:
    """Opens a model's file, or the ONNX export of this very file where one lies beside it."""
    onnx = path.with_suffix(".onnx")
    if onnx.is_file() and (onnx == path or find_spec("onnxruntime")):
        _need("onnx", "onnxruntime", what=str(path))
        from onnxruntime import InferenceSession

        session = InferenceSession(onnx, providers=["CPUExecutionProvider"])
        made_from = session.get_modelmeta().custom_metadata_map.get("made_from")
        if onnx == path or made_from == _digest(path):
            return lambda crops: session.run(None, {session.get_inputs()[0].name: crops})[0]
    from ferlib import zoo

    return _classifier(zoo.load(path))


def export(model, out=None, *, to="onnx", int8=False, calibration=None) -> Path:
    """Writes a model for onnxruntime, in float32 or in 8-bit integers.

    In the 8-bit form convolutions are integer: the ranges of their inputs are means over batches
    of eight calibration pictures, their weights have a scale for each channel (onnxruntime's QDQ)
    and use 7 of the 8 bits. Processors without VNNI add two products in 16 bits, which overflow
    where weights use all 8.

    Args:
        model: A shipped model's name, or a model's file.
        out: Where to write. Default: beside the model's file, with the suffix `.onnx`, where
            `predict` finds it and uses it, or `-int8.onnx`, which `predict` takes by its name.
        to: The format; only "onnx".
        int8: Whether to quantise.
        calibration: uint8 [N, 48, 48], a few hundred pictures of the train split.

    Returns:
        The file written.

    Raises:
        ImportError: If the extra `onnx` is not installed.
        ValueError: If the format is unknown, or calibration pictures are missing.
    """
    if to != "onnx":
        raise ValueError(f'There is no format {to!r}; the only one is "onnx".')
    if int8 and (calibration is None or not len(calibration)):
        raise ValueError("An 8-bit model needs calibration pictures: give some of the train split.")
    _need("onnx", "onnx", "onnxruntime", "tf2onnx", what="An export")
    import keras
    import onnx

    from ferlib import zoo

    file, images = _file(model), keras.Input((48, 48, 1), dtype="uint8", name="images")
    network = keras.Model(images, zoo.load(file)(images, training=False))  # as `predict` asks
    out = Path(out or file.with_name(file.stem + ("-int8.onnx" if int8 else ".onnx")))
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".exporting-") as folder:
        made = os.path.join(folder, "model.onnx")
        network(np.zeros((1, 48, 48, 1), "uint8"))  # Keras exports only what was called before
        network.export(made, format="onnx", verbose=False)
        if int8:
            made = _quantise(made, np.asarray(calibration)[..., None])
        whole = onnx.load(made)
        onnx.helper.set_model_props(whole, {"made_from": _digest(file)})
        onnx.save(whole, made)
        files.replace(made, out)
    return out


def _quantise(path: str, pictures: np.ndarray) -> str:
    """Writes the 8-bit form of an ONNX file beside it."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Batches(CalibrationDataReader):
        batches = iter(np.array_split(pictures, -(-len(pictures) // 8)))

        def get_next(self):
            return next(({"images": batch} for batch in self.batches), None)

    quantize_static(
        path,
        f"{path}.int8",
        Batches(),
        op_types_to_quantize=["Conv"],
        per_channel=True,
        reduce_range=True,
        activation_type=QuantType.QUInt8,  # unsigned: fast on CPUs
        extra_options={"CalibMovingAverage": True},  # no outlier stretches a range
    )
    return f"{path}.int8"


# ---- predicting --------------------------------------------------------------------------


def stream(source, *, model="compact", detect="auto", skip=frozenset()) -> Iterator[tuple]:
    """Yields the pictures of a source one by one; memory does not grow with their number.

    Args:
        source: As for `predict`.
        model: As for `predict`.
        detect: As for `predict`.
        skip: Names of pictures that are not yielded. Pictures are classified in the same groups
            with it as without it, because rounding differs with the size of a batch.

    Yields:
        File; what it can be read from again; one tuple a face, in the order of `COLUMNS`; and
        a note that says why there is none, or is empty.

    Raises:
        ImportError: If an extra is needed that is not installed.
        FileNotFoundError: If a path or the model does not exist.
        ValueError: If `detect` is none of the three, or the model cannot be loaded safely.
    """
    if detect not in ("auto", True, False):
        raise ValueError(f'detect is {detect!r}; it must be "auto", True or False.')
    classify = _classifier(model)
    items = _items(source)
    while some := list(islice(items, BATCH)):
        if all(name in skip for name, _, _ in some):
            continue
        looked = [_look(*item, detect) for item in some]
        crops = [face[-1] for _, _, faces, _ in looked for face in faces]
        answers = iter(classify(np.stack(crops)[..., None]) if crops else ())
        for file, picture, faces, problem in looked:
            pairs = zip(faces, answers, strict=False)
            rows = [(file, *box, *map(float, p), EMOTIONS[p.argmax()]) for (*box, _), p in pairs]
            if file not in skip:
                yield file, picture, rows, problem or ("" if rows else _NO_FACE)


def predict(source, *, model="compact", detect="auto") -> Predictions:
    """Says which emotion each face in a picture, or in many, shows.

    Args:
        source: A path, a folder (with its folders), bytes, an http(s) address, a PIL picture or an
            array: grey or colour, 8 or 16 bit, any size (see `read`). A list of any of these, or
            an array [N, H, W] or [N, H, W, C], is many pictures.
        model: A shipped model's name, a model's file (`.keras`, `.h5`, `.onnx`), or a Keras model.
            Where onnxruntime is installed and the export of a `.keras` file lies beside it
            (`export`), that is used.
        detect: "auto" searches a picture for faces unless both its sides are at most 64 pixels;
            True always searches; False takes the largest square in a picture's middle as a face.

    Returns:
        The predictions, none for a picture without a face. Files of a folder or list that cannot
        be read are in `unreadable`.

    Raises:
        ValueError: If no picture can be read, or the model cannot be loaded safely.
        ImportError: If faces are to be searched for without the extra `faces`.
        FileNotFoundError: If the path or the model does not exist.
    """
    result = Predictions()
    for file, picture, rows, note in stream(source, model=model, detect=detect):
        result.count(file, len(rows), note)
        result.rows += rows
        if file not in result.unreadable:
            result.sources[file] = picture
    if not result.sources:
        raise ValueError(f"There is no readable picture in {source!r:.200}.\n{result}")
    return result


def predict_to_csv(source, out, *, model="compact", detect="auto", progress=True) -> Tally:
    """Predicts pictures by the thousand and writes a CSV as it goes.

    Stopped and started again with the same CSV, it continues where it stopped. A picture without
    a face, or one that cannot be read, has one row that says so in the column `note`. Scores and
    probabilities are rounded to four decimals; the emotion is that of the unrounded ones.

    Args:
        source: As for `predict`; usually a folder, or a list of folders and files.
        out: The CSV to write (columns: `CSV_COLUMNS`) or to go on with.
        model: As for `predict`.
        detect: As for `predict`.
        progress: Whether a bar is drawn on a terminal.

    Returns:
        What now stands in the CSV, as a report.

    Raises:
        ValueError: If `out` is another kind of file, or was written with another model.
        ImportError, FileNotFoundError: As `predict`.
    """
    from tqdm import tqdm

    _classifier(model)  # no CSV is touched where there is no such model
    name = model.name if hasattr(model, "layers") else f"{model} {_digest(_file(model))[:8]}"
    total = sum(1 for _ in _items(source))
    tally, done = _resume(Path(out), name)
    pictures = stream(source, model=model, detect=detect, skip=done)
    bar = {"total": total, "initial": len(done), "disable": not progress or None}
    with open(out, "a", buffering=1, **_TEXT) as file:
        for picture, _, rows, note in tqdm(pictures, unit="picture", **bar):
            blank = (picture, *[""] * (len(COLUMNS) - 1))
            csv.writer(file).writerows((*_rounded(row), name, note) for row in rows or [blank])
            tally.count(picture, len(rows), note)
    return tally


def _rounded(row: tuple) -> tuple:
    return tuple(round(value, DIGITS) if isinstance(value, float) else value for value in row)


def _resume(out: Path, model: str) -> tuple[Tally, set[str]]:
    """Makes `out` ready to be gone on with: its last picture, perhaps incomplete, is taken out."""
    tally, done = Tally(), set()
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".resuming-") as folder:
        with open(f"{folder}/part.csv", "w", **_TEXT) as new, open(out, "a+", **_TEXT) as old:
            old.seek(0)
            reader, writer = csv.reader(old), csv.writer(new)
            if tuple(next(reader, CSV_COLUMNS)) != CSV_COLUMNS:
                raise ValueError(f"{out} is not a CSV of predictions; name another file.")
            writer.writerow(CSV_COLUMNS)
            rows = (row for row in reader if len(row) == len(CSV_COLUMNS))
            groups = (list(group) for _, group in groupby(rows, key=lambda row: row[0]))
            for group, _ in pairwise(groups):
                file, *_, made_by, note = group[0]
                if made_by != model:
                    raise ValueError(f"{out} is of the model {made_by}, not {model}; name another.")
                writer.writerows(group)
                tally.count(file, 0 if note else len(group), note)
                done.add(file)
        files.replace(new.name, out)
    return tally, done
