"""What travels between the parts of ferlib: pictures of faces, their labels, what was left out."""

import functools
import hashlib
from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np

from ferlib.labels import EMOTIONS, SIDE

SPLITS = ("train", "val", "test")
"""The splits, in order: Training, PublicTest and PrivateTest."""


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
        return f"{self.file}{f', row {self.row}' if self.row else ''}: {self.problem}"


@dataclass(eq=False)
class FERData:
    """Pictures of faces with their labels and splits.

    Args:
        images: uint8 [N, 48, 48], grey; may be a memory map.
        labels: int64 [N], each an index into `classes`.
        split: str [N], "train", "val" or "test"; "" where the source has none.
        votes: float32 [N, 10], FER+'s counts in the order of `labels.FERPLUS`, or None.
        names: str [N], "row 17" of a csv or the path of a picture in the source.
        origin: What was read.
        title: The same in short, for tables and figures.
        faults: What was left out.
        unlabelled: uint8 [M, 48, 48], pictures without labels, only for prediction.
        classes: Names of the classes, in the order of the labels.
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
        """The split that results are reported on: "test" where there is one, else "val"."""
        return "test" if "test" in self.splits else "val"

    @property
    def is_drawn(self) -> bool:
        """Whether these are the drawn faces, which stand in where there is no data."""
        return self.origin.startswith("drawn faces")

    @functools.cached_property
    def fingerprint(self) -> str:
        """A digest of pictures, labels and splits, in 16 hexadecimal digits."""
        digest = hashlib.blake2b(np.ascontiguousarray(self.images), digest_size=8)
        digest.update(self.labels.astype("<i8").tobytes() + ",".join(self.split).encode())
        return digest.hexdigest()

    def select(self, rows) -> "FERData":
        """Returns the pictures of a mask (bool [N]) or of indices (int, in the order wanted)."""
        columns = ("images", "labels", "split", "names") + ("votes",) * (self.votes is not None)
        return replace(self, **{name: np.asarray(getattr(self, name))[rows] for name in columns})

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
        rows = [rng.permutation(np.flatnonzero(self.split == split)) for split in ("train", "val")]
        kept = [x[: n or None] for x, n in zip(rows, (train, val), strict=True)]
        return self.select(np.sort(np.concatenate(kept)))
