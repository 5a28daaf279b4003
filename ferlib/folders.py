"""Finds the labels of pictures: by folder, by the file's name, in a table or a file beside."""

import io
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from ferlib.archives import File, TooLarge, why
from ferlib.faces import Fault, split_in, split_of, split_of_folder
from ferlib.labels import canonical, is_emotion
from ferlib.pictures import read_face
from ferlib.tables import Row, Table, rows_of

MOST_CLASSES = 64
"""More folders than this beside each other are no labels but, say, the people in a study."""

NAMES_OF_NUMBERS = ("data.yaml", "classes.txt")
"""Files in which data sets in YOLO's form say what their numbers mean."""

Pair = tuple[File, Row]
"""A picture, and the row that says what is in it."""

_OFFICIAL = re.compile(r"(training|publictest|privatetest)_(\d+)", re.IGNORECASE)
_CODES = {
    "an": "angry", "di": "disgust", "fe": "fear", "af": "fear", "ha": "happy", "sa": "sad",
    "su": "surprise", "ne": "neutral",
}  # fmt: skip
_FILE_NAMES = (
    re.compile(r"[A-Z]{2}[.-](an|di|fe|ha|sa|su|ne)\d[.]\d+[.]", re.IGNORECASE),  # JAFFE
    re.compile(r"[AB][FM]\d\d(an|di|af|ha|sa|su|ne)(s|hl|hr|fl|fr)[.]", re.IGNORECASE),  # KDEF
)
_LONGEST_LIST = 2**16
_YOLO = re.compile(r"(\d+) ([\d.]+) ([\d.]+) ([\d.]+) ([\d.]+)")


@cache
def place(folder: str) -> tuple[str, str, str | None]:
    """Tells what a folder of pictures is by its path.

    The label is the last folder that is named by an emotion, else the last of all.

    Returns:
        The folder that its split lies in; the split, "" for none; the name of the label, None
        for a split's pictures without labels.

    Example:
        >>> place("images/train/happy/clip 7"), place("images/test")
        (('images', 'train', 'happy'), ('images', 'test', None))
    """
    parts = folder.split("/")
    emotions = [i for i, part in enumerate(parts) if is_emotion(part)]
    root = emotions[-1] if emotions else len(parts) - 1
    label: str | None = parts[root]
    if split_of_folder(parts[root]):
        label = None
    splits = [i for i, part in enumerate(parts) if split_of_folder(part)]
    split = split_of_folder(parts[splits[-1]]) if splits else ""
    return "/".join(parts[: min([root, *splits])]), split, label


def label_in(name: str) -> str:
    """Returns the label that a picture's name holds: as a word, or as JAFFE and KDEF have it.

    Example:
        >>> label_in("KA.AN1.39.tiff"), label_in("AF01HAS.JPG"), label_in("me_sad_2.png")
        ('angry', 'happy', 'sad')
        >>> label_in("sad_or_happy.png")
        ''
    """
    for form in _FILE_NAMES:
        if found := form.match(name):
            return _CODES[found[1].lower()]
    words = {canonical(word) for word in re.split(r"[\W\d_]+", name)}
    emotions = [word for word in words if is_emotion(word)]
    return emotions[0] if len(emotions) == 1 else ""


def by_folder(pictures: Iterable[File]) -> dict[str, list[Pair]]:
    """Groups pictures by the folder that holds the folders of labels, or of splits.

    Args:
        pictures: The files.

    Returns:
        Folder -> its pictures, each with a row that has its label, split and place in the data.
        Names such as PublicTest_123.jpg give the split and the place, names such as
        KA.AN1.39.tiff the label.
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
    for pairs in roots.values():
        others = [(file, row) for file, row in pairs if not is_emotion(row.label or "")]
        named = [label_in(file.base) for file, _ in others]
        in_one = len({row.label for _, row in others}) == 1
        fit = [in_one or file.base.startswith(row.label or "") for file, row in others]
        most = len(others) / 2
        if sum(map(bool, named)) > most and sum(fit) > most:  # folders are people, or one for all
            for (_, row), label in zip(others, named, strict=True):
                row.label = label or None
    return roots


def are_labels(names: Collection[str], *, only_emotions: bool = False) -> bool:
    """Returns whether folders of these names hold pictures by label."""
    own = 1 < len(names) <= MOST_CLASSES and not only_emotions
    return own or any(map(is_emotion, names))


class Names:
    """Finds pictures by the names that a table, or a file beside them, has for them.

    Args:
        pictures: The files.
    """

    def __init__(self, pictures: Iterable[File]):
        self._named = defaultdict(list)
        for file in pictures:
            for key in set(_keys("", file.name)):
                self._named[key].append(file)

    def find(self, name: str, folder: str, split: str = "") -> list[File]:
        """Returns the pictures that fit a name best: one, unless none does or several as well.

        Args:
            name: A name with any path, also one of Windows or of another machine.
            folder: Where the name was read.
            split: The split of the picture, "" where it is not known.
        """
        name = name.replace("\\", "/")
        found = next((self._named[key] for key in _keys(folder, name) if key in self._named), [])
        if len(found) < 2:
            return found

        def fit(file: File) -> tuple:
            return (
                "_aligned" in file.base,
                _alike(_folders(name)[::-1], _folders(file.name)[::-1]),
                _alike(_folders(f"{folder}/x"), _folders(file.name)),
                place(file.folder)[1] == split,
                name.endswith(file.base),
            )

        best = max(map(fit, found))
        return [file for file in found if fit(file) == best]

    def rows(self, table: Table, *, partial: bool = False) -> Iterator[Pair | Fault]:
        """Yields the rows of a table, each with its picture, or as a fault where it has none."""
        for row in rows_of(table, partial=partial):
            if isinstance(row, Fault):
                yield row
                continue
            found = self.find(row.name, table.file.folder, row.split)
            if len(found) == 1:
                row.order = (found[0].name,)
                row.split = row.split or place(found[0].folder)[1]
                if table.numbering == "rafdb":
                    row.split = split_in(row.name)
                yield found[0], row
            else:
                yield row.fault(f"{len(found) or 'no'} pictures are named {row.name}")

    def beside(self, files: Iterable[File]) -> Iterator[tuple[File, str, list[Pair]]]:
        """Finds the files that hold the label of one picture.

        They are webdataset's 000017.cls, AffectNet's annotations/17_exp.npy, CK+'s
        S005_001_00000011_emotion.txt and YOLO's labels/17.txt, where each line has a box.

        Args:
            files: Texts and arrays.

        Yields:
            The file, the numbering that is its own, and the picture with its rows.
        """
        for file in files:
            ending = next(filter(file.base.endswith, _BESIDE), "")
            found = self.find(file.base.removesuffix(ending), file.folder) if ending else []
            told = _told(file, ending) if len(found) == 1 else []
            if told:
                _, split, _ = place(file.folder)
                order = (found[0].name,)
                rows = [Row(file.name, None, x, split, box=box, order=order) for x, box in told]
                yield file, _BESIDE[ending], [(found[0], row) for row in rows]


_BESIDE = {"_exp.npy": "affectnet", "_emotion.txt": "ck", ".cls": "", ".txt": ""}


def _told(file: File, ending: str) -> list[tuple[str, tuple[float, ...] | None]]:
    """Returns the labels in a file beside a picture, each with its box or None; [] for none."""
    try:
        if ending == "_exp.npy":
            return [(str(np.load(io.BytesIO(file.head), allow_pickle=False).item()), None)]
        text = file.head.decode().strip()
        if ending == "_emotion.txt":
            return [(str(int(float(text))), None)]
        if ending == ".cls":
            return [(text, None)]
        lines = [_YOLO.fullmatch(line.strip()) for line in text.splitlines()]
        return [_yolo(line) for line in lines if line] if all(lines) else []
    except Exception:  # NumPy raises almost anything on a damaged header
        return []


def _yolo(line: re.Match) -> tuple[str, tuple[float, ...]]:
    x, y, width, height = map(float, line.groups()[1:])
    return line[1], (x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def names_of_numbers(files: Iterable[File]) -> dict[str, str] | None:
    """Returns what the numbers in YOLO's labels mean, where a data.yaml or classes.txt says it."""
    for file in files:
        if file.base in NAMES_OF_NUMBERS:
            with file.open() as stream:
                text = stream.read(_LONGEST_LIST).decode("utf-8", "replace")
            names = _names_in_yaml(text) if file.base == "data.yaml" else text.split("\n")
            if isinstance(names, list):
                names = dict(enumerate(names))
            if isinstance(names, dict) and all(isinstance(name, str) for name in names.values()):
                return {str(number): name.strip() for number, name in names.items() if name} or None
    return None


def _names_in_yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)["names"]
    except (yaml.YAMLError, KeyError, TypeError, ValueError):  # a ValueError of a wrong date
        return None


def _stem(name: str) -> str:
    """Returns a name without folders, suffix and, for RAF-DB, _aligned; case does not matter."""
    suffix = re.search(r"\.[a-zA-Z]\w{1,4}$", name)
    stem = name.rpartition("/")[2].removesuffix(suffix[0] if suffix else "")
    return stem.removesuffix("_aligned").lower()


def _keys(folder: str, name: str) -> tuple[str, str, str]:
    """Returns by what a picture is looked up: its path, its name with one folder, its name."""
    stem = _stem(name)
    *above, parent, _ = ["", *f"{folder}/{name}".lower().strip("/").split("/")]
    return "/".join([*above, parent, stem]), f"{parent}/{stem}", stem


def _folders(path: str) -> tuple[str, ...]:
    return PurePosixPath(path.lower()).parent.parts


def _alike(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """Returns how many parts are the same from the start on."""
    pairs = zip(one, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def read_pictures(items: Iterable[Pair | Fault]) -> Iterator[Row | Fault]:
    """Reads the pictures of rows; one that cannot be read is a fault that says why."""
    for item in items:
        if isinstance(item, Fault):
            yield item
            continue
        file, row = item
        try:
            with file.open() as stream:
                row.pixels, row.as_fer2013 = read_face(stream, row.box)
        except TooLarge:
            raise
        except Exception as error:  # Pillow raises almost anything on a damaged file
            yield Fault(file.name, row.row, why(file.head, error))
            continue
        yield row
