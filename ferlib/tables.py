"""Reads rows of pictures and labels: csv of any dialect, JSON, parquet, Arrow and arrays.

FER2013's own csv is 300 MB of numbers in text; its rows are parsed by NumPy, one at a time.
"""

import codecs
import csv
import functools
import io
import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import partial as part_of
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from ferlib.archives import File, readable, why
from ferlib.faces import Fault, split_in, split_of, split_of_folder, without_split
from ferlib.labels import FERPLUS, SIDE, is_emotion
from ferlib.pictures import read_face, read_picture, to_8_bits

LONGEST = 2**20
"""The longest line of a table in bytes; 2,304 numbers of 17 digits need 45,000."""

_PIXELS = SIDE * SIDE
_BLANK_LINES = 10_000
_ROLES = {
    **dict.fromkeys(("emotion", "emotions", "label", "labels", "expression", "class", "target",
                     "emotionlabel", "category"), "label"),
    **dict.fromkeys(("pixels", "pixel", "pixelvalues", "imagepixels"), "pixels"),
    **dict.fromkeys(("usage", "split", "set", "subset", "partition"), "usage"),
    **dict.fromkeys(("image", "imagename", "imagepath", "imagefile", "imageid", "img", "imgpath",
                     "imgname", "file", "filename", "filepath", "path", "pth", "name", "id",
                     "subdirectoryfilepath"), "name"),
    **dict.fromkeys(("unknown", "nf"), "vote"),
}  # fmt: skip
_PICTURE_NAME = re.compile(r"\S.*\.(jpe?g|png|webp|bmp|tiff?|gif|pgm)", re.IGNORECASE)
_TO_BLANKS = bytes.maketrans(b"[](),;\t", b"       ")
_DECIMAL = re.compile(r"-?\d+(\.\d*)?", re.ASCII)
_BLANK = 256 + ord(" ") - ord("0")  # a blank among digits, in 8 bits
_LAST = b" 255"  # NumPy only warns where it stops early; then this number is not reached
_NUMBER = re.compile(r"[-+]?\d+(\.0*)?", re.ASCII)
_FERPLUS = [name.lower() for name in FERPLUS]
_EXPW = 8  # columns of ExpW's label.lst: name, face, top, left, right, bottom, confidence, label


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
        box: Where the face is in that picture: left, top, right and bottom, in pixels, or in
            parts of its width and height where none is above 1; None is all of it.
        votes: FER+'s ten counts, or None.
        order: What the data is sorted by.
        as_fer2013: Whether it has the form of FER2013's pictures, 48x48 and grey.
    """

    file: str
    row: int | None
    label: str | None
    split: str
    pixels: Any = None
    name: str = ""
    box: tuple[float, ...] | None = None
    votes: list[float] | None = None
    order: tuple = ()
    as_fer2013: bool = True

    def fault(self, problem: str) -> Fault:
        """Returns a fault of this row."""
        return Fault(self.file, self.row, problem)


@dataclass
class Table:
    """Rows of pictures, or of names of pictures, and what their columns hold.

    Args:
        file: The file.
        header: Names of the columns.
        roles: "label", "pixels", "usage", "name", "box" and "vote" -> where such columns stand.
        records: Yields the cells of each row, the header first where there is one; None after a
            last row without a line end.
        has_header: Whether the first record is the header.
        as_fer2013: Whether its pictures have the form of FER2013's.
    """

    file: File
    header: list[str]
    roles: dict[str, list[int]]
    records: Callable[[], Iterator[Any]]
    has_header: bool = False
    as_fer2013: bool = True

    @functools.cached_property
    def votes(self) -> dict[str, int]:
        """Where columns stand that are named by emotions."""
        return {self.header[at].strip().lower(): at for at in self.roles.get("vote", [])}

    @functools.cached_property
    def is_ferplus(self) -> bool:
        """Whether these are FER+'s ten columns."""
        return set(self.votes) == set(_FERPLUS)

    @property
    def labelled(self) -> bool:
        """Whether it has labels, or votes that stand for them."""
        return "label" in self.roles or len(self.votes) > 1

    @property
    def numbering(self) -> str:
        """The numbering that is the table's own, by its columns or its name; "" for none."""
        names = {name.strip().lower() for name in self.header}
        if self.file.base.startswith("list_patition_label"):
            return "rafdb"
        if "subdirectory_filepath" in names:
            return "affectnet"
        return "fer2013" if "box" in self.roles or {"emotion", "pixels"} <= names else ""


def split_of_file(file: File) -> str:
    """Returns the split that a file is named by, or the nearest folder that is named by one."""
    folders = [split_of_folder(part) for part in reversed(file.folder.split("/"))]
    return split_in(file.base) or next(filter(None, folders), "")


def home_of(file: File) -> tuple[str, str]:
    """Returns folder and name of a file without what names its split: parts of a set share it."""
    folder = [part for part in file.folder.split("/") if not split_of_folder(part)]
    return "/".join(folder), without_split(PurePosixPath(file.base).stem)


# ---- the form of a table -----------------------------------------------------------------


def sniff(file: File) -> Table | None:
    """Finds the columns of a table.

    Args:
        file: A text, a parquet or Arrow file, or an array of pictures.

    Returns:
        Its form, or None where it has neither pixels nor names of pictures.

    Raises:
        ValueError: If a column that is needed is there twice, or the file is damaged.
    """
    if file.kind in ("parquet", "arrow"):
        return _arrow_table(file)
    if file.kind == "npy":
        return array_table({"images": file})
    return _json_table(file) or _csv_table(file)


def what_is(file: File) -> str:
    """Describes a text that is no table of pictures."""
    lines = file.head.decode("utf-8", "replace").strip().splitlines() or [""]
    return f"a text that begins with {lines[0][:100]!r}, without the columns emotion and pixels"


def count_rows(table: Table) -> int:
    """Counts the rows of a table."""
    return sum(record is not None for record in table.records()) - table.has_header


def _roles(header: list[str]) -> dict[str, list[int]]:
    """Tells by their names what columns hold; 2,304 of one name but for numbers are pixels."""
    roles: defaultdict[str, list[int]] = defaultdict(list)
    numbered: defaultdict[str, list[int]] = defaultdict(list)
    for at, name in enumerate(header):
        short = re.sub(r"[\W_]+", "", name).lower()
        role = _ROLES.get(short) or ("vote" if is_emotion(name) else "")
        if role:
            roles[role].append(at)
        else:
            numbered[re.sub(r"\d+", "", short)].append(at)
    columns = [group for group in numbered.values() if len(group) == _PIXELS]
    if columns and "pixels" not in roles:
        roles["pixels"] = columns[0]
    return dict(roles)


def _checked(table: Table) -> Table | None:
    """Returns a table that has pixels, or names of pictures and labels; None for any other."""
    if "pixels" not in table.roles and not ("name" in table.roles and table.labelled):
        return None
    for role in ("label", "usage", "pixels"):
        at = table.roles.get(role, [])
        if len(at) not in (0, 1, _PIXELS):
            doubled = ", ".join(repr(table.header[i]) for i in at)
            raise ValueError(
                f"{table.file.name} has the {role} twice, in the columns {doubled}. Keep one."
            )
    return table


# ---- csv ---------------------------------------------------------------------------------


def lines_of(file: File) -> Generator[bytes, None, None]:
    """Yields the lines of a text that are not blank, in UTF-8; not remarks before the first.

    After a last line without a line end comes an empty one.

    Raises:
        ValueError: If a line is too long, or far too many are blank.
    """
    blank, begun = 0, False
    with file.open() as raw:
        stream = _as_utf8(raw, file.head)
        while line := stream.readline(LONGEST + 1):
            if len(line) > LONGEST:
                raise ValueError(f"{file.name} has a line of more than {LONGEST:,} bytes.")
            begun = begun or not (line.isspace() or line.startswith((b"#", b"sep=")))
            if begun and not line.isspace():
                yield line
                if not line.endswith(b"\n"):
                    yield b""
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


def _csv_table(file: File) -> Table | None:
    """Finds separator and columns of a csv."""
    lines = lines_of(file)
    first = next(lines, b"")
    lines.close()
    quoted = b'"' in first or b'"' in file.head
    csv.field_size_limit(LONGEST)
    text = first.decode("utf-8", "replace").replace("\r", "").removesuffix("\n")
    for separator in (",", ";", "\t", "|", " "):
        cells = next(csv.reader([text], delimiter=separator, skipinitialspace=True), [])
        header = [cell.strip() for cell in cells]
        roles = _roles(header)
        has_header = not {"label", "pixels", "name"}.isdisjoint(roles)
        if not has_header:
            header, roles = _by_content(header)
        records = part_of(_csv_records, file, separator, quoted)
        if table := _checked(Table(file, header, roles, records, has_header)):
            return table
    return None


def _by_content(cells: list[str]) -> tuple[list[str], dict[str, list[int]]]:
    """Names the columns of a table without a header, and tells what they hold by its first row."""
    numbers = [at for at, cell in enumerate(cells) if _NUMBER.fullmatch(cell)]
    named = bool(cells) and _PICTURE_NAME.fullmatch(cells[0]) is not None
    if len(cells) == _PIXELS + 1 and len(numbers) == len(cells):
        return cells, {"label": [0], "pixels": numbers[1:]}
    if named and len(cells) == len(FERPLUS) + 2:  # FER+'s label.csv
        return ["name", "box", *FERPLUS], {"name": [0], "vote": [*range(2, len(cells))]}
    if named and len(cells) == _EXPW and all(map(_DECIMAL.fullmatch, cells[1:])):
        return cells, {"name": [0], "box": [3, 2, 4, 5], "label": [7]}
    roles: defaultdict[str, list[int]] = defaultdict(list)
    for at, cell in enumerate(cells):
        if cell.count(" ") >= _PIXELS - 1 or cell.count(",") >= _PIXELS - 1:
            roles["pixels"].append(at)
        elif _PICTURE_NAME.fullmatch(cell):
            roles["name"].append(at)
        elif split_of(cell):
            roles["usage"].append(at)
        elif at in numbers or is_emotion(cell):
            roles["label"].append(at)
    return cells, dict(roles)


def _csv_records(file: File, separator: str, quoted: bool) -> Iterator[list[bytes] | None]:
    """Yields the cells of each row; None after the last where the file ends without a line end."""
    if quoted or separator == " ":
        text = (line.decode("utf-8", "replace") for line in lines_of(file))
        try:
            for cells in csv.reader(text, delimiter=separator, skipinitialspace=True, strict=True):
                yield [cell.strip().encode() for cell in cells] or None
        except csv.Error as error:
            raise ValueError(f"{file.name}: {error}, a quote is missing.") from error
    else:
        between = separator.encode()
        for line in lines_of(file):
            yield [cell.strip() for cell in line.split(between)] if line else None


# ---- JSON, parquet and Arrow -------------------------------------------------------------


def _json_table(file: File) -> Table | None:
    """Reads a list of objects, an object on each line, one of name: label, or pandas's columns."""
    if file.head.removeprefix(codecs.BOM_UTF8).lstrip()[:1] not in (b"{", b"["):
        return None
    with file.open() as stream:
        content = stream.read()
    try:
        found = _json_objects(content.decode("utf-8-sig"))
    except Exception:  # other JSON makes pandas raise almost anything
        return None
    header = list(dict.fromkeys(key for item in found for key in item))
    return _of_columns(file, header, [[item.get(key) for item in found] for key in header])


def _json_objects(text: str) -> list[dict[str, Any]]:
    try:
        found = json.loads(text)
    except ValueError:
        found = [json.loads(line) for line in text.splitlines() if line.strip()]
    if isinstance(found, dict) and not any(isinstance(x, list | dict) for x in found.values()):
        found = [{"name": name, "label": label} for name, label in found.items()]
    elif isinstance(found, dict):
        import pandas as pd

        names = ("data", "columns")  # as `to_json(orient="split")` writes it
        is_split = set(names) <= found.keys()
        frame = pd.DataFrame(**{x: found[x] for x in names} if is_split else {"data": found})
        if not frame.columns.is_unique:
            raise ValueError("a column twice")
        found = frame.set_axis([*map(str, frame.columns)], axis="columns").to_dict("records")
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise ValueError("no list of objects")
    return found


def _arrow_table(file: File) -> Table:
    """Reads a parquet or Arrow file, as Hugging Face exports them or with FER2013's columns."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError(f"{file.name} is {file.kind}: `pip install pyarrow` reads it.") from error
    with file.open() as stream:
        content = io.BytesIO(stream.read())
    try:
        if file.kind == "parquet":
            table = pyarrow.parquet.read_table(content, page_checksum_verification=True)
        elif file.head.startswith(b"ARROW1"):
            table = pyarrow.ipc.open_file(content).read_all()
        else:
            table = pyarrow.ipc.open_stream(content).read_all()
        about = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
        columns = [column.to_pylist() for column in table.columns]
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"{file.name} is damaged: {error}") from error
    features = about.get("info", {}).get("features", {})
    for at in _roles(table.column_names).get("label", []):
        names = features.get(table.column_names[at], {}).get("names")
        if names:
            columns[at] = [names[n] if n in range(len(names)) else None for n in columns[at]]
    found = _of_columns(file, table.column_names, columns)
    if found is None:
        raise ValueError(
            f"{file.name} has the columns {', '.join(table.column_names)}; wanted are image (or "
            "pixels) and label."
        )
    return found


def _of_columns(file: File, header: list[str], columns: list[list]) -> Table | None:
    """Makes a table of columns; an image is its name, or what its file holds."""
    roles = _roles(header)
    for at in [*roles.get("name", []), *roles.get("pixels", [])]:
        columns[at] = [{"bytes": x} if isinstance(x, bytes) else x for x in columns[at]]
    held = [at for at in roles.get("name", []) if any(isinstance(x, dict) for x in columns[at])]
    if held and "pixels" not in roles:
        roles |= {"name": [], "pixels": held[:1]}
    return _checked(Table(file, header, roles, part_of(zip, *columns)))


# ---- arrays ------------------------------------------------------------------------------

_ARRAYS = {
    **dict.fromkeys(("x", "image", "images", "pixels", "faces", "data"), "images"),
    **dict.fromkeys(("y", "label", "labels", "emotion", "emotions", "target", "targets"), "label"),
    **dict.fromkeys(("usage", "split", "splits"), "usage"),
}


def array_sets(files: Iterable[File]) -> Iterator[dict[str, File]]:
    """Finds arrays that belong together: images and labels, each split on its own or all in one.

    Args:
        files: Files .npy, those of a .npz among them.

    Yields:
        What the arrays are ("images", "label", "usage") -> file.
    """
    sets: defaultdict[tuple[str, str], dict[str, File]] = defaultdict(dict)
    for file in files:
        stem = file.base.removesuffix(".npy")
        role = _ARRAYS.get(without_split(stem))
        if role:
            sets[file.folder, split_in(stem)][role] = file
    yield from (found for found in sets.values() if "images" in found)


def array_table(files: dict[str, File]) -> Table:
    """Reads pictures and labels from arrays.

    Args:
        files: As from `array_sets`.

    Returns:
        A table with a row for each picture.

    Raises:
        ValueError: If shapes or numbers are not those of pictures and labels.
    """
    arrays = {role: _array(file) for role, file in files.items()}
    images, file = arrays.pop("images"), files["images"]
    if images.ndim < 2 or images.dtype.kind not in "biuf":
        raise ValueError(f"{file.name} is {images.dtype}{list(images.shape)}; wanted are pictures.")
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[3] not in (1, 3, 4):
        images = np.moveaxis(images, 1, 3)  # the channels were first
    as_fer2013 = images.size == len(images) * _PIXELS
    try:
        images = to_8_bits(images, most=2**16 - 1 if images.dtype == np.uint16 else 255)
    except ValueError as error:
        raise ValueError(f"{file.name}: {error}; wanted are 0 to 255 or 0 to 1.") from error
    if as_fer2013:
        images = images.reshape(-1, SIDE, SIDE)
    label = arrays.get("label")
    if label is not None and label.ndim == 2:
        arrays["label"] = label[:, 0] if label.shape[1] == 1 else label.argmax(axis=1)
    for role, values in arrays.items():
        if values.shape != (len(images),):
            raise ValueError(f"{file.name} has {len(images)} pictures, and {role}s of the shape "
                             f"{list(values.shape)}.")  # fmt: skip
    roles = {role: [at] for at, role in enumerate(["pixels", *arrays])}
    records = part_of(zip, images, *(values.tolist() for values in arrays.values()))
    return Table(file, list(roles), roles, records, as_fer2013=as_fer2013)


def _array(file: File) -> np.ndarray:
    with file.open() as stream:
        content = io.BytesIO(stream.read())
    try:
        array = np.load(content, allow_pickle=False)
        if array.dtype.kind == "U" and array.size:
            native = array.astype(array.dtype.newbyteorder("="))
            if np.frombuffer(native.tobytes(), np.uint32).max() > sys.maxunicode:
                raise ValueError("it has letters that do not exist")
    except Exception as error:  # a damaged header raises almost anything
        raise ValueError(f"{file.name} cannot be read: {error}") from error
    if content.read(1):
        raise ValueError(f"{file.name} is damaged: it is longer than its header says.")
    return array


# ---- rows --------------------------------------------------------------------------------


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
    item: Row | Fault | None = None
    records = table.records()
    header = next(records, None) if table.has_header else None
    for number, cells in enumerate(records, 1):
        if cells is None:
            if isinstance(item, Fault) and not partial:
                raise ValueError(
                    f"{item}. The file ends in this row: it was cut off, perhaps in a "
                    "download. Get it again, or take what is there with partial=True "
                    "(--partial)."
                )
            return
        if cells == header:  # once more, where files were put one after the other
            continue
        try:
            item = _row(table, cells, number, split_by_name)
        except Exception as error:  # cells may hold almost anything
            item = Fault(table.file.name, number, str(error))
        yield item


def _row(table: Table, cells: Any, number: int, split: str) -> Row:
    columns = len(table.header)
    if len(cells) > columns and not any(cells[columns:]):
        cells = cells[:columns]  # separators at the end of the line
    if len(cells) != columns:
        raise ValueError(f"{len(cells)} columns instead of {columns}")
    roles = table.roles
    row = Row(table.file.name, number, None, split, as_fer2013=table.as_fer2013)
    if "usage" in roles:
        usage = text_of(cells[roles["usage"][0]])
        row.split = split_of(usage)
        if not row.split:
            raise ValueError(f"unknown Usage {usage!r}")
    if table.is_ferplus or ("label" not in roles and len(table.votes) > 1):
        votes = {name: float(cells[at]) for name, at in table.votes.items()}
        row.votes = [votes[name] for name in _FERPLUS] if table.is_ferplus else None
        row.label = majority(votes)
    if "label" in roles:
        label = text_of(cells[roles["label"][0]])
        unlabelled = not label and row.split in ("val", "test")
        row.label = None if unlabelled else label
    if roles.get("name"):
        row.name = text_of(cells[roles["name"][0]])
    if "box" in roles:
        row.box = tuple(float(cells[at]) for at in roles["box"])
    if "pixels" in roles:
        found = [cells[at] for at in roles["pixels"]]
        _set_picture(row, found[0] if len(found) == 1 else found)
    return row


def _set_picture(row: Row, value: Any) -> None:
    """Reads what a cell has as its picture: text, numbers, an array, or {bytes: a picture file}."""
    if isinstance(value, bytes):
        row.pixels = parse_pixels(value)
    elif isinstance(value, dict):
        held = value.get("bytes")
        content = held if isinstance(held, bytes) else b""  # a text could name a file of this disk
        try:
            row.pixels, row.as_fer2013 = read_face(content)
        except Exception as error:  # Pillow raises almost anything on a damaged picture
            raise ValueError(why(content, error)) from error
    elif isinstance(value, np.ndarray):
        row.pixels = value if row.as_fer2013 else read_picture(value)
    elif isinstance(value, str):
        row.pixels = parse_pixels(value.encode())
    else:
        row.pixels = parse_pixels(" ".join(np.ravel(value).astype(str)).encode())


def majority(votes: dict[str, float]) -> str:
    """Returns what most votes are for, "unknown" where two have as many."""
    most = [name for name, n in votes.items() if n == max(votes.values())]
    return most[0] if len(most) == 1 else "unknown"


@functools.lru_cache(1000, typed=True)
def text_of(cell: Any) -> str:
    """Returns a cell as text; a label such as 3.0, or 3,0, is 3."""
    if isinstance(cell, bytes):
        cell = readable(cell)
    return re.sub(r"^(\d+)[.,]0*$", r"\1", "" if cell is None else str(cell))


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
    values = _bytes_in(text)
    if values is None:  # unusual
        text = text.translate(_TO_BLANKS)
        values = _numbers(text)
        if (values == np.rint(values)).all():
            values = values.astype(np.uint8)
    return values.reshape(SIDE, SIDE)


def _bytes_in(text: bytes) -> np.ndarray | None:
    """Returns the 2,304 numbers from 0 to 255 in a text, None where it is anything but digits.

    All numbers are made at once of their last three digits, in half the time of NumPy's parser.
    """
    digits = np.frombuffer(b"   " + text + b" ", np.uint8) - np.uint8(ord("0"))
    end = np.flatnonzero(digits > 9)[3:]
    if len(end) != _PIXELS or not (digits[end] == _BLANK).all():
        return None
    ones, tens, hundreds = digits[end - 1], digits[end - 2], digits[end - 3]
    two = tens < 10
    three = two & (hundreds < 10)
    values = ones + 10 * (tens * two) + 100 * (hundreds * three).astype(np.uint16)
    as_long = len(end) + np.count_nonzero(two) + np.count_nonzero(three) + len(end) - 1
    if len(text) != as_long or ones.max() > 9 or values.max() > 255:
        return None
    return values.astype(np.uint8)


def _numbers(text: bytes) -> np.ndarray:
    """Returns the 2,304 numbers from 0 to 255 in a text, float64."""
    try:
        values = np.fromstring(text + _LAST, np.float64, sep=" ")
    except (ValueError, DeprecationWarning):
        values = np.empty(0)
    if b"-" in text or b"+" in text or values.size != _PIXELS + 1 or not values.max() <= 255:
        raise ValueError(_wrong_pixel(text))
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
    pictures = [row for row in rows if isinstance(row, Row)]
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
