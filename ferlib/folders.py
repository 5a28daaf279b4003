"""Finds the labels of pictures in files: by their folder, a table of names, or a file beside."""

import functools
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from ferlib.archives import File, TooLarge
from ferlib.faces import Fault, split_in, split_of, split_of_folder
from ferlib.labels import is_emotion
from ferlib.pictures import read_face
from ferlib.tables import Row, Table, rows_of

MOST_CLASSES = 64
"""More folders than this beside each other are no labels but, say, the people in a study."""

_OFFICIAL = re.compile(r"(training|publictest|privatetest)_(\d+)", re.IGNORECASE)


@functools.cache
def place(folder: str) -> tuple[str, str, str | None]:
    """Tells what a folder of pictures is by its path.

    Returns:
        The folder that its split lies in; the split, "" for none; the name of the label, None
        for a split's pictures without labels.

    Example:
        >>> place("images/train/happy"), place("images/test")
        (('images', 'train', 'happy'), ('images', 'test', None))
    """
    *parts, label = folder.split("/")
    if split_of_folder(label):
        parts, label = [*parts, label], None
    at = [i for i, part in enumerate(parts) if split_of_folder(part)]
    if not at:
        return "/".join(parts), "", label
    return "/".join(parts[: at[0]]), split_of_folder(parts[at[-1]]), label


def by_folder(pictures: Iterable[File]) -> dict[str, list[tuple[File, Row]]]:
    """Groups pictures by the folder that holds the folders of labels, or of splits.

    Args:
        pictures: The files.

    Returns:
        Folder -> its pictures, each with a row that has its label, split and place in the data.
        Names such as PublicTest_123.jpg give the split and the place.
    """
    roots = defaultdict(list)
    for file in pictures:
        root, split, label = place(file.folder)
        official = _OFFICIAL.match(file.base)
        number = int(official[2]) if official else 0
        if official:
            split = split_of(official[1])
        row = Row(file.name, None, label, split, order=(not official, number, file.name))
        roots[root].append((file, row))
    return roots


def are_labels(names: set[str]) -> bool:
    """Returns whether folders of these names hold pictures by label."""
    return 1 < len(names) <= MOST_CLASSES or any(map(is_emotion, names))


def by_file_beside(pictures: Iterable[File], others: Iterable[File]) -> Iterator[tuple[File, Row]]:
    """Finds pictures with their label in a file beside (000017.webp and 000017.cls: webdataset)."""
    beside = {file.name.rpartition(".")[0]: file for file in others if file.name.endswith(".cls")}
    for file in pictures:
        label = beside.get(file.name.rpartition(".")[0])
        if label:
            _, split, _ = place(file.folder)
            text = label.head.decode("utf-8", "replace").strip()
            yield file, Row(file.name, None, text, split, order=(file.name,))


class Names:
    """Finds pictures by the names that a table has for them.

    Args:
        pictures: The files.
    """

    def __init__(self, pictures: Iterable[File]):
        self._by_stem = defaultdict(list)
        for file in pictures:
            stem = PurePosixPath(file.base).stem.removesuffix("_aligned")  # RAF-DB's
            self._by_stem[stem].append(file)

    def rows(self, table: Table, *, partial: bool = False) -> Iterator[tuple[File, Row] | Fault]:
        """Yields the rows of a table, each with its picture, or as a fault where it has none."""
        for row in rows_of(table, partial=partial):
            if isinstance(row, Fault):
                yield row
                continue
            found = self._find(row, table.file.folder)
            if len(found) == 1:
                row.order = (found[0].name,)
                row.split = row.split or place(found[0].folder)[1]
                if table.numbering == "rafdb":
                    row.split = split_in(row.name)
                yield found[0], row
            else:
                yield row.fault(f"{len(found) or 'no'} pictures are named {row.name}")

    def _find(self, row: Row, folder: str) -> list[File]:
        path = PurePosixPath(row.name.replace("\\", "/"))
        found = self._by_stem.get(path.stem.removesuffix("_aligned"), [])
        wishes = (
            lambda file: "_aligned" in file.base,
            lambda file: f"/{file.name}".endswith(f"/{path}"),
            lambda file: file.folder.startswith(folder),
            lambda file: place(file.folder)[1] == row.split,
        )
        for wish in wishes:
            if len(found) > 1:
                found = [file for file in found if wish(file)] or found
        return found


def read_pictures(pairs: Iterable[tuple[File, Row]]) -> Iterator[Row | Fault]:
    """Reads the pictures of rows; one that cannot be read is a fault that says why."""
    for file, row in pairs:
        try:
            with file.open() as stream:
                row.pixels, row.as_fer2013 = read_face(stream)
        except TooLarge:
            raise
        except Exception as error:  # Pillow raises almost anything on a damaged file
            yield Fault(file.name, row.row, _why(file, error))
            continue
        yield row


def _why(file: File, error: Exception) -> str:
    if file.head[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypmsf1"):
        return f"HEIC, read with `pip install pillow-heif`, or damaged ({error})"
    if file.head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the picture: run `git lfs pull`"
    text = str(error) or type(error).__name__
    return re.sub(r"<_io.*?>|<ferlib.*?>", "its format", text)
