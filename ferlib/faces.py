"""What travels between the parts of ferlib: pictures of faces, their labels, what was left out."""

import functools
import hashlib
import re
from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np

from ferlib.labels import EMOTIONS, SIDE

SPLITS = ("train", "val", "test")
"""The splits in the order of Training, PublicTest and PrivateTest."""

MOST_BAD = 0.05
"""A source in which a greater share of rows or pictures is bad is an error."""

_SPLIT_WORDS = {
    "training": "train", "train": "train", "trn": "train",
    "publictest": "val", "validation": "val", "validate": "val", "valid": "val", "val": "val",
    "dev": "val", "privatetest": "test", "testing": "test", "test": "test", "tst": "test",
}  # fmt: skip
_FILLERS = {"fer", "set", "data", "image", "images", "img", "imgs", "faces", "split", "folder"}
_ARCHIVE = re.compile(r"\.(zip|tar|tgz|gz|npz)$", re.IGNORECASE)
_WORDS = re.compile(r"(?i:public|private)[\W_]*(?i:test)|[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


@functools.lru_cache(1000)
def split_of(word: str) -> str:
    """Returns the split that a word means, "" for none.

    Case, blanks, hyphens and underscores make no difference, and nothing else is looked through:
    letters and digits are those of ASCII.

    Example:
        >>> split_of("Public Test "), split_of("Train Set"), split_of("tests")
        ('val', 'train', '')
    """
    return _SPLIT_WORDS.get(re.sub(r"[\s_-]", "", word).lower().removesuffix("set"), "")


def split_in(name: str) -> str:
    """Returns the one split that a file's name holds among other words, else "".

    Example:
        >>> split_in("FER2013Valid"), split_in("train_labels.csv"), split_in("train_test.csv")
        ('val', 'train', '')
    """
    found = {split_of(word) for word in _WORDS.findall(name)} - {""}
    return found.pop() if len(found) == 1 else ""


def split_of_folder(name: str) -> str:
    """Returns the split that a folder is named by, "" where it is named by anything else.

    Example:
        >>> split_of_folder("val_set"), split_of_folder("FER2013Test"), split_of_folder("test bed")
        ('val', 'test', '')
    """
    words = {word.lower() for word in _WORDS.findall(name) if not split_of(word)}
    return split_in(name) if words <= _FILLERS or _ARCHIVE.search(name) else ""


def without_split(name: str) -> str:
    """Returns a name without its split words and numbers: the parts of one set share it."""
    words = [word for word in _WORDS.findall(name) if not split_of(word)]
    return "".join(words).lower()


@dataclass(frozen=True)
class Fault:
    """A row or picture that was left out, and why.

    Args:
        file: The file or folder, by its name in the source.
        row: The row of a csv, 1 for the first under the header; None for anything else.
        problem: What is wrong with it.
    """

    file: str
    row: int | None
    problem: str

    def __str__(self) -> str:
        where = f"{self.file}, row {self.row}" if self.row else self.file
        return f"{where}: {self.problem}"


@dataclass(frozen=True)
class LeftOut:
    """What a source holds besides the data that was read, and why it was not read.

    Args:
        file: The file or folder, by its name in the source.
        pictures: How many pictures or rows it holds; 0 for what is no data.
        reason: Why it was left out.
    """

    file: str
    pictures: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file} ({self.pictures:,} pictures or rows): {self.reason}"


@dataclass(eq=False)
class FERData:
    """Pictures of faces with their labels and splits.

    Args:
        images: uint8 [N, 48, 48], grey; may be a memory map.
        labels: int64 [N], indices into `classes`.
        split: str [N], "train", "val" or "test"; "" where the source has none.
        votes: float32 [N, 10], FER+'s counts in the order of `labels.FERPLUS`, or None.
        names: str [N], "row 17" of a csv or the path of a picture in the source.
        origin: What was read.
        title: The same in short, for tables and figures.
        faults: Rows and pictures that are bad, and were left out.
        unlabelled: uint8 [M, 48, 48], pictures without labels, only for prediction.
        classes: Names of the labels, FER2013's in FER2013's order before others.
        left_out: What the source holds besides.

    Example:
        >>> from ferlib import drawn
        >>> faces = drawn.draw(70)
        >>> faces
        FERData('drawn faces', 70 pictures, splits {'train': 42, 'val': 14, 'test': 14})
        >>> faces.of("val").images.shape
        (14, 48, 48)
        >>> faces.classes[faces.labels[0]]
        'fear'
    """

    images: np.ndarray
    labels: np.ndarray
    split: np.ndarray
    votes: np.ndarray | None
    names: np.ndarray
    origin: str
    title: str
    faults: list[Fault] = field(default_factory=list)
    unlabelled: np.ndarray = field(default_factory=lambda: np.empty((0, SIDE, SIDE), np.uint8))
    classes: tuple[str, ...] = EMOTIONS
    left_out: list[LeftOut] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        counts = Counter(self.split.tolist())
        return f"FERData({self.title!r}, {len(self)} pictures, splits {dict(counts)})"

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have pictures, in the order train, val, test."""
        return tuple(name for name in SPLITS if name in self.split)

    @property
    def held_out(self) -> str:
        """The split that results are reported on, "test" where there is one, else "val"."""
        return "test" if "test" in self.splits else "val"

    @property
    def is_drawn(self) -> bool:
        """Whether these are the drawn faces, which are used where there is no data."""
        return self.origin.startswith("drawn faces")

    @functools.cached_property
    def fingerprint(self) -> str:
        """A digest of pictures, labels, splits and classes, in 16 hexadecimal digits."""
        digest = hashlib.blake2b(np.ascontiguousarray(self.images), digest_size=8)
        digest.update(self.labels.astype("<i8").tobytes())
        digest.update(",".join(self.split).encode())
        if self.classes != EMOTIONS:
            digest.update("\n".join(self.classes).encode())
        return digest.hexdigest()

    def arrays(self) -> dict[str, np.ndarray]:
        """Gives what there is of each picture, by name: images, labels, split, names, any votes."""
        names = ("images", "labels", "split", "names", "votes")
        held = {name: getattr(self, name) for name in names}
        return {name: np.asarray(x) for name, x in held.items() if x is not None}

    def select(self, rows: np.ndarray) -> "FERData":
        """Returns the pictures of a mask (bool [N]) or of indices (int, in the order wanted)."""
        return replace(self, **{name: x[rows] for name, x in self.arrays().items()})

    def of(self, split: str) -> "FERData":
        """Returns the pictures of one split; none where the source has no such split."""
        return self.select(self.split == split)

    def sample(self, n: int, *, seed: int = 0) -> "FERData":
        """Draws pictures so that every label keeps its share of every split.

        Args:
            n: How many pictures; all of them where there are not more.
            seed: Seed of the choice.

        Returns:
            The pictures, in their order here; at least one of each label in each split where
            `n` allows it.
        """
        if n >= len(self):
            return self
        cells = np.char.add(self.split.astype(str), self.labels.astype(str))
        _, cell, size = np.unique(cells, return_inverse=True, return_counts=True)
        order = np.random.default_rng(seed).permutation(len(self))
        order = order[np.argsort(cell[order], kind="stable")]
        rank = np.arange(len(self)) - np.repeat(np.cumsum(size) - size, size)
        first = np.argsort(rank / size[cell[order]], kind="stable")[:n]
        return self.select(np.sort(order[first]))

    def part(self, *, train: int, val: int, seed: int = 0) -> "FERData":
        """Draws pictures of train and of val, for trainings that have to be short.

        Args:
            train: Pictures of train; 0 is all.
            val: Pictures of val; 0 is all.
            seed: Seed of the choice.

        Returns:
            The pictures of the two splits, in their order here.
        """
        rng = np.random.default_rng(seed)
        of_train = rng.permutation(np.flatnonzero(self.split == "train"))[: train or None]
        of_val = rng.permutation(np.flatnonzero(self.split == "val"))[: val or None]
        return self.select(np.sort(np.concatenate([of_train, of_val])))
