"""Reads rows of pictures and labels: csv of any dialect, parquet and arrays.

FER2013's own csv is 300 MB of numbers in text; its rows are parsed by NumPy, one at a time.
"""

import codecs
import csv
import functools
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from ferlib.archives import File
from ferlib.faces import Fault, split_in, split_of, split_of_folder, without_split
from ferlib.labels import FERPLUS, SIDE, is_emotion
from ferlib.pictures import read_face, read_picture

LONGEST = 2**20
"""The longest line of a table in bytes; 2,304 numbers of 17 digits need 45,000."""

_PIXELS = SIDE * SIDE
_BLANK_LINES = 10_000
_ROLES = {
    **dict.fromkeys(("emotion", "emotions", "label", "labels", "expression", "class", "target",
                     "emotionlabel", "category"), "label"),
    **dict.fromkeys(("pixels", "pixel", "pixelvalues", "imagepixels"), "pixels"),
    **dict.fromkeys(("usage", "split", "set", "subset", "partition"), "usage"),
    **dict.fromkeys(("image", "imagename", "imagepath", "imagefile", "img", "imgpath", "file",
                     "filename", "filepath", "path", "pth", "name",
                     "subdirectoryfilepath"), "name"),
    **{name.lower(): name for name in FERPLUS},
    **dict.fromkeys(("", "unnamed0", "index"), "index"),
}  # fmt: skip
_PICTURE_NAME = re.compile(r"\S+\.(jpe?g|png|webp|bmp|tiff?|gif|pgm)", re.IGNORECASE)
_TO_BLANKS = bytes.maketrans(b"[](),;\t", b"       ")
_LAST = b" 255"  # NumPy only warns where it stops early; then this number is not reached
_NUMBER = re.compile(r"[-+]?\d+(\.0*)?", re.ASCII)


@dataclass(slots=True)
class Row:
    """One picture as a source has it.

    Args:
        file: The file that it comes from, by its name in the source.
        row: Its row in a table, from 1; None for a picture in a file of its own.
        label: Its label as written there; None for none.
        split: "train", "val", "test" or "".
        pixels: uint8 [48, 48]; float64 where a table has fractions; None where it is a file.
        name: Path of the picture file that the row names.
        votes: FER+'s ten counts, or None.
        order: What the data is sorted by.
        as_fer2013: Whether it has the form of FER2013's pictures, 48x48 and grey.
    """

    file: str
    row: int | None
    label: str | None
    split: str
    pixels: np.ndarray | None = None
    name: str = ""
    votes: list[float] | None = None
    order: tuple = ()
    as_fer2013: bool = True

    def fault(self, problem: str) -> Fault:
        """Returns a fault of this row."""
        return Fault(self.file, self.row, problem)


@dataclass
class Table:
    """The form of a csv.

    Args:
        file: The file.
        separator: What stands between its columns.
        header: Its first row.
        roles: "label", "pixels", "usage", "name" and FER+'s columns -> where they stand.
        has_header: Whether the first row names the columns.
        quoted: Whether cells are in quotes.
    """

    file: File
    separator: str
    header: list[str]
    roles: dict[str, list[int]] = field(default_factory=dict)
    has_header: bool = True
    quoted: bool = False

    @functools.cached_property
    def votes(self) -> list[int]:
        """Where FER+'s ten columns stand, or an empty list."""
        return [at for name in FERPLUS for at in self.roles.get(name, [])]

    @property
    def labelled(self) -> bool:
        """Whether it has labels, or votes that stand for them."""
        return "label" in self.roles or len(self.votes) == len(FERPLUS)

    @property
    def numbering(self) -> str:
        """The numbering that is the table's own, by its columns or its name; "" for none."""
        names = [name.strip().lower() for name in self.header]
        if self.file.base.startswith("list_patition_label"):
            return "rafdb"
        if "subdirectory_filepath" in names:
            return "affectnet"
        return "fer2013" if {"emotion", "pixels"} <= set(names) else ""


def split_of_file(file: File) -> str:
    """Returns the split that a file is named by, or the nearest folder that is named by one."""
    folders = [split_of_folder(part) for part in reversed(file.folder.split("/"))]
    return split_in(file.base) or next(filter(None, folders), "")


def home_of(file: File) -> tuple[str, str]:
    """Returns folder and name of a file without what names its split: parts of a set share it."""
    folder = [part for part in file.folder.split("/") if not split_of_folder(part)]
    return "/".join(folder), without_split(PurePosixPath(file.base).stem)


# ---- the form of a csv -------------------------------------------------------------------


def lines_of(file: File) -> Iterator[bytes]:
    """Yields the lines of a text that are not blank, in UTF-8.

    Raises:
        ValueError: If a line is too long, or far too many are blank.
    """
    blank = 0
    with file.open() as raw:
        stream = _as_utf8(raw, file.head)
        while line := stream.readline(LONGEST + 1):
            if len(line) > LONGEST:
                raise ValueError(f"{file.name} has a line of more than {LONGEST:,} bytes.")
            if not line.isspace():
                yield line
                continue
            blank += 1
            if blank > _BLANK_LINES:
                raise ValueError(f"{file.name} has more than {_BLANK_LINES:,} blank lines.")


def _as_utf8(stream: Any, head: bytes) -> Any:
    """Returns a stream of lines in UTF-8; what spreadsheets write otherwise is converted."""
    if head.startswith(codecs.BOM_UTF8):
        stream.read(3)
    encoding = "utf-16" if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else ""
    old_mac = b"\r" in head and b"\n" not in head
    if not encoding and not old_mac:
        return stream
    text = stream.read().decode(encoding or "utf-8", "replace")
    return io.BytesIO(text.replace("\r\n", "\n").replace("\r", "\n").encode())


def sniff(file: File) -> Table | None:
    """Finds separator and columns of a table.

    Args:
        file: A text.

    Returns:
        Its form, or None where it has neither pixels nor names of pictures.

    Raises:
        ValueError: If a column that is needed is there twice.
    """
    lines = lines_of(file)
    first = next(lines, b"")
    lines.close()
    quoted = b'"' in first or b'"' in file.head
    for separator in (",", ";", "\t", "|", " "):
        cells = _split(first, separator)
        roles = _roles_by_name(cells)
        has_header = not {"label", "pixels", "name"}.isdisjoint(roles) or set(FERPLUS) <= set(roles)
        if not has_header:
            roles = _roles_by_content(cells)
        table = Table(file, separator, cells, roles, has_header, quoted)
        if "pixels" in roles or ("name" in roles and table.labelled):
            _refuse_doubles(table)
            return table
    return None


def what_is(file: File) -> str:
    """Describes a text that is no table of pictures."""
    first = file.head.decode("utf-8", "replace").strip().splitlines()[0]
    return f"a text that begins with {first[:100]!r}, without the columns emotion and pixels"


def count_rows(table: Table) -> int:
    """Counts the rows of a table."""
    return sum(1 for _ in lines_of(table.file)) - table.has_header


def _refuse_doubles(table: Table) -> None:
    for role in ("label", "usage", "pixels", *FERPLUS):
        at = table.roles.get(role, [])
        if len(at) not in (0, 1, _PIXELS):
            doubled = ", ".join(repr(table.header[i]) for i in at)
            raise ValueError(
                f"{table.file.name} has the {role} twice, in the columns {doubled}. Keep one."
            )


def role_of(column: str) -> str:
    """Returns what a column holds by its name: "label", "pixels", "name" …, else "other"."""
    return _ROLES.get(re.sub(r"[\W_]+", "", column).lower(), "other")


def _roles_by_name(cells: list[str]) -> dict[str, list[int]]:
    """Tells the columns of a table by its header."""
    roles: dict[str, list[int]] = {}
    for at, cell in enumerate(cells):
        roles.setdefault(role_of(cell), []).append(at)
    if len(roles.get("other", [])) == _PIXELS:
        roles.setdefault("pixels", roles["other"])
    return roles


def _roles_by_content(cells: list[str]) -> dict[str, list[int]]:
    """Tells the columns of a table without a header by its first row."""
    if len(cells) == _PIXELS + 1 and all(_NUMBER.fullmatch(cell) for cell in cells):
        return {"label": [0], "pixels": [*range(1, len(cells))]}
    roles: dict[str, list[int]] = {}
    for at, cell in enumerate(cells):
        if cell.count(" ") >= _PIXELS - 1 or cell.count(",") >= _PIXELS - 1:
            roles.setdefault("pixels", []).append(at)
        elif _PICTURE_NAME.fullmatch(cell):
            roles.setdefault("name", []).append(at)
        elif split_of(cell):
            roles.setdefault("usage", []).append(at)
        elif _NUMBER.fullmatch(cell) or is_emotion(cell):
            roles.setdefault("label", []).append(at)
    if len(cells) == len(FERPLUS) + 2 and roles.get("name") == [0]:  # FER+'s label.csv
        return {"name": [0], **{name: [at + 2] for at, name in enumerate(FERPLUS)}}
    return roles


def _split(line: bytes, separator: str) -> list[str]:
    """Returns the cells of one line, without quotes."""
    text = line.decode("utf-8", "replace").strip("\r\n")
    cells = next(csv.reader([text], delimiter=separator, skipinitialspace=True), [])
    return [cell.strip() for cell in cells]


# ---- the rows of a csv -------------------------------------------------------------------


def _records(table: Table) -> Iterator[list[bytes] | None]:
    """Yields the cells of each row; None after the last where the file ends without a line end."""
    last = b"\n"

    def lines() -> Iterator[bytes]:
        nonlocal last
        for line in lines_of(table.file):
            last = line
            yield line

    if table.quoted or table.separator == " ":
        csv.field_size_limit(LONGEST)
        text = (line.decode("utf-8", "replace") for line in lines())
        for cells in csv.reader(
            text, delimiter=table.separator, skipinitialspace=True, strict=True
        ):
            yield [cell.strip().encode() for cell in cells]
    else:
        separator = table.separator.encode()
        for line in lines():
            yield [cell.strip() for cell in line.split(separator)]
    if not last.endswith(b"\n"):
        yield None


def rows_of(table: Table, *, partial: bool = False) -> Iterator[Row | Fault]:
    """Reads the rows of a table.

    Args:
        table: Its form.
        partial: Takes a file that ends in mid-row.

    Yields:
        A row, or a fault where it is bad. Its label is text, its pixels uint8 or fractions.

    Raises:
        ValueError: If the file ends in mid-row.
    """
    split_by_name = split_of_file(table.file)
    records = _records(table)
    if table.has_header:
        next(records, None)
    item: Row | Fault | None = None
    try:
        for number, cells in enumerate(records, 1):
            if cells is None:
                if isinstance(item, Fault) and not partial:
                    raise ValueError(
                        f"{item}. The file ends in this row: it was cut off, perhaps in a "
                        "download. Get it again, or take what is there with partial=True."
                    )
                return
            try:
                item = _row(table, cells, number, split_by_name)
            except ValueError as error:
                item = Fault(table.file.name, number, str(error))
            yield item
    except csv.Error as error:
        raise ValueError(f"{table.file.name}: {error}, a quote is missing.") from error


def _row(table: Table, cells: list[bytes], number: int, split: str) -> Row:
    if len(cells) != len(table.header):
        raise ValueError(f"{len(cells)} columns instead of {len(table.header)}")
    roles = table.roles
    row = Row(table.file.name, number, None, split)
    if "usage" in roles:
        usage = _text(cells[roles["usage"][0]])
        row.split = split_of(usage)
        if not row.split:
            raise ValueError(f"unknown Usage {usage!r}")
    if table.votes:
        row.votes = [float(cells[at]) for at in table.votes]
        row.label = majority(row.votes)
    if "label" in roles:
        label = _text(cells[roles["label"][0]])
        unlabelled = not label and row.split in ("val", "test")
        row.label = None if unlabelled else label
    if "name" in roles:
        row.name = _text(cells[roles["name"][0]])
    if "pixels" in roles:
        at = roles["pixels"]
        row.pixels = parse_pixels(cells[at[0]] if len(at) == 1 else b" ".join(cells[i] for i in at))
    return row


def majority(votes: list[float]) -> str:
    """Returns what most of FER+'s votes are for, "unknown" where two have as many."""
    most = max(votes)
    return FERPLUS[votes.index(most)] if votes.count(most) == 1 else "unknown"


@functools.lru_cache(1000)
def _text(cell: bytes) -> str:
    """Returns a cell as text; a label such as 3.0 is 3."""
    try:
        text = cell.decode()
    except UnicodeDecodeError:
        text = cell.decode("latin-1")
    return re.sub(r"^(\d+)\.0*$", r"\1", text)


def parse_pixels(text: bytes) -> np.ndarray:
    """Reads the picture that a cell holds.

    Args:
        text: 2,304 numbers, with blanks or commas between them, perhaps in brackets.

    Returns:
        [48, 48], uint8 where all are whole numbers, else float64.

    Raises:
        ValueError: If it is not that.

    Example:
        >>> parse_pixels(b"7 " * 2304)[0, :3]
        array([7, 7, 7], dtype=uint8)
    """
    values = _numbers(text, np.int64)
    if values is None:  # unusual
        text = text.translate(_TO_BLANKS)
        values = _numbers(text, np.int64)
    if values is None:
        values = _numbers(text, np.float64)
    if values is None:
        raise ValueError(_wrong_pixel(text))
    whole = values.dtype == np.int64 or (values == np.rint(values)).all()
    return (values.astype(np.uint8) if whole else values).reshape(SIDE, SIDE)


def _numbers(text: bytes, dtype: type) -> np.ndarray | None:
    """Returns the 2,304 numbers from 0 to 255 of a text, None where it is anything else."""
    try:
        values = np.fromstring(text + _LAST, dtype, sep=" ")
    except (ValueError, DeprecationWarning):
        return None
    if b"-" in text or b"+" in text or values.size != _PIXELS + 1 or values.max() > 255:
        return None
    return values[:-1]


def _wrong_pixel(text: bytes) -> str:
    """Says what is wrong with a text that does not hold a picture."""
    words = text.decode("utf-8", "replace").split()
    if len(words) != _PIXELS:
        return f"{len(words)} pixels instead of {_PIXELS}"
    for word in words:
        if not re.fullmatch(r"\d+(\.\d*)?|\.\d+", word, re.ASCII) or float(word) > 255:
            return f"pixel {word!r} is no number from 0 to 255"
    return "pixels are not numbers from 0 to 255"


def whole_pixels(rows: list[Row | Fault]) -> list[Row | Fault]:
    """Turns fractions to 0 to 255 where all rows of a table are from 0 to 1.

    Args:
        rows: The rows of one table.

    Returns:
        The same with uint8 pixels; a row with fractions is a fault where others go beyond 1.
    """
    pictures = [row for row in rows if isinstance(row, Row) and row.pixels is not None]
    if all(row.pixels.dtype == np.uint8 for row in pictures):
        return rows
    to_one = all(row.pixels.max() <= 1 for row in pictures)
    made = []
    for row in rows:
        if to_one and isinstance(row, Row):
            row.pixels = np.rint(row.pixels * 255.0).astype(np.uint8)
        elif isinstance(row, Row) and row.pixels.dtype != np.uint8:
            fraction = row.pixels[row.pixels != np.rint(row.pixels)][0]
            row = row.fault(
                f"pixel '{fraction:g}' is no whole number, and others here are more than 1"
            )
        made.append(row)
    return made


# ---- parquet and arrays ------------------------------------------------------------------


def parquet_rows(file: File) -> Iterator[Row | Fault]:
    """Reads the rows of a parquet file, as Hugging Face exports them or with FER2013's columns.

    Args:
        file: The file; its pictures are encoded (image: {bytes, path}) or pixels.

    Yields:
        A row or a fault. Numbers are labels by the names in the file where it has them.

    Raises:
        ValueError: If pandas lacks pyarrow, or the columns are others.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError(f"{file.name} is parquet: `pip install pyarrow` reads it.") from error
    with file.open() as stream:
        table = pyarrow.parquet.read_table(io.BytesIO(stream.read()))
    about = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
    features = about.get("info", {}).get("features", {})
    roles = {role_of(name): name for name in table.column_names}
    label, image = roles.get("label"), roles.get("pixels") or roles.get("name")
    if not label or not image:
        raise ValueError(f"{file.name} has the columns {', '.join(table.column_names)}; wanted "
                         "are image (or pixels) and label.")  # fmt: skip
    names = features.get(label, {}).get("names")
    split = split_of_file(file)
    columns = table.select([label, image]).to_pydict()
    for number, (told, value) in enumerate(zip(columns[label], columns[image], strict=True), 1):
        text = "" if told is None else _text(str(told).encode())
        row = Row(file.name, number, names[told] if names and told is not None else text, split)
        try:
            set_picture(row, value)
        except Exception as error:  # Pillow raises almost anything on a damaged picture
            yield row.fault(str(error))
            continue
        yield row


def set_picture(row: Row, value: Any) -> None:
    """Reads what a row has as its picture: encoded bytes, text, a list or an array."""
    if isinstance(value, dict):
        value = value.get("bytes")
    if isinstance(value, str):
        row.pixels = parse_pixels(value.encode())
    elif isinstance(value, bytes):
        row.pixels, row.as_fer2013 = read_face(value)
    else:
        row.pixels = parse_pixels(" ".join(map(str, np.ravel(value))).encode())


_ARRAYS = {
    **dict.fromkeys(("x", "image", "images", "pixels", "faces", "data"), "images"),
    **dict.fromkeys(("y", "label", "labels", "emotion", "emotions", "target", "targets"), "labels"),
    **dict.fromkeys(("usage", "split", "splits"), "split"),
}


def array_sets(files: list[File]) -> Iterator[tuple[str, dict[str, File]]]:
    """Finds arrays that belong together: images and labels, each split on its own or all in one.

    Args:
        files: Files .npy, those of a .npz among them.

    Yields:
        A split ("" for none), and what the arrays are ("images", "labels", "split") -> file.
    """
    sets: dict[tuple[str, str], dict[str, File]] = {}
    for file in files:
        stem = file.base.removesuffix(".npy")
        role = _ARRAYS.get(without_split(stem))
        if role:
            sets.setdefault((file.folder, split_in(stem)), {})[role] = file
    for (_, split), found in sets.items():
        if "images" in found:
            yield split, found


def array_rows(files: dict[str, File], split: str) -> Iterator[Row]:
    """Reads pictures and labels from arrays.

    Args:
        files: As from `array_sets`.
        split: As from `array_sets`.

    Yields:
        A row for each picture.

    Raises:
        ValueError: If shapes or numbers are not those of pictures and labels.
    """
    arrays = {role: _array(file) for role, file in files.items()}
    images, file = arrays["images"], files["images"]
    as_fer2013 = images.size == len(images) * _PIXELS
    faces = _faces(images, file.name) if as_fer2013 else images
    labels = arrays.get("labels")
    if labels is not None and labels.ndim == 2:
        labels = labels[:, 0] if labels.shape[1] == 1 else labels.argmax(axis=1)
    for role, values in (("labels", labels), ("split", arrays.get("split"))):
        if values is not None and values.shape != (len(images),):
            raise ValueError(f"{file.name} has {len(images)} pictures, and {role} of the shape "
                             f"{list(values.shape)}.")  # fmt: skip
    for at, face in enumerate(faces):
        row = Row(file.name, at + 1, None, split, as_fer2013=as_fer2013)
        row.pixels = face if as_fer2013 else read_picture(face)
        if labels is not None:
            row.label = _text(_bytes(labels[at]))
        if "split" in arrays:
            row.split = split_of(_bytes(arrays["split"][at]).decode())
        yield row


def array_length(file: File) -> int:
    """Returns how many pictures an array holds."""
    return len(_array(file))


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _array(file: File) -> np.ndarray:
    with file.open() as stream:
        return np.load(io.BytesIO(stream.read()), allow_pickle=False)


def _faces(images: np.ndarray, name: str) -> np.ndarray:
    low, high = images.min(initial=0), images.max(initial=0)
    if not (low >= 0 and high <= 255):
        raise ValueError(f"{name} has numbers from {low} to {high}; wanted are 0 to 255 or 0 to 1.")
    if images.dtype.kind == "f" and high <= 1:
        images = images * 255.0
    return np.rint(images).astype(np.uint8).reshape(-1, SIDE, SIDE)
