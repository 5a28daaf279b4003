"""Copies, conflicting labels and missing splits: what stands between a source and training.

Only train is cleaned. Pictures of val and test stay as the source has them, and so does a train
picture that has a copy there: `evaluation` counts those instead.
"""

import hashlib
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ferlib import sources
from ferlib.faces import SPLITS, FERData
from ferlib.labels import SIDE

if TYPE_CHECKING:
    import pandas

REASONS = ("constant picture", "copy with another label", "surplus copy")
"""Why `clean` removes a train picture."""


@dataclass(eq=False)
class CleaningReport:
    """What `clean` did.

    Args:
        before: Number of pictures that it was given.
        after: Number of pictures that it kept.
        made: Pictures of each split that it made because the source had none.
        removed: DataFrame with a row for each removed picture: row (in the data before), name,
            label, reason.
    """

    before: int
    after: int
    made: dict[str, int]
    removed: "pandas.DataFrame"

    @property
    def counts(self) -> dict[str, int]:
        """Number of removed pictures by reason."""
        found = Counter(self.removed["reason"])
        return {reason: found[reason] for reason in REASONS}

    def to_frame(self) -> "pandas.DataFrame":
        """Returns the counts as a DataFrame: step, pictures."""
        import pandas as pd

        steps = [("given", self.before)]
        steps += [(f"removed from train: {reason}", n) for reason, n in self.counts.items()]
        steps += [("kept", self.after)]
        steps += [(f"made from train: {split}", n) for split, n in self.made.items()]
        return pd.DataFrame(steps, columns=["step", "pictures"])


def picture_hashes(images: np.ndarray) -> np.ndarray:
    """Gives each picture a hash that exact copies share (BLAKE2b of 8 bytes).

    Args:
        images: uint8 [N, 48, 48] or [N, 48, 48, 1].

    Returns:
        uint64 [N].
    """
    digests = [hashlib.blake2b(row, digest_size=8).digest() for row in _flat(images)]
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)


def _flat(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images, np.uint8).reshape(len(images), SIDE * SIDE)


def _constant(images: np.ndarray) -> np.ndarray:
    """Returns bool [N], whether all pixels of a picture are the same."""
    return np.ptp(_flat(images), axis=1) == 0


def find_copies(data: FERData) -> "pandas.DataFrame":
    """Finds the pictures that occur more than once.

    Returns:
        DataFrame with a row for each group of exact copies, largest first: copies (how many),
        one column for each split of the data with the number there ("none" for no split),
        labels (the classes, comma-separated), conflicting (more than one), across (in more
        than one split), rows (their indices in the data).
    """
    import pandas as pd

    _, group, size = np.unique(picture_hashes(data.images), return_inverse=True, return_counts=True)
    names = [split for split in (*SPLITS, "") if split in data.split]
    columns = ["copies", *(s or "none" for s in names), "labels", "conflicting", "across", "rows"]
    by_group = np.argsort(group, kind="stable")
    found = []
    for end, n in zip(np.cumsum(size), size, strict=True):
        if n == 1:
            continue
        rows = by_group[end - n : end]
        counts = [int((data.split[rows] == split).sum()) for split in names]
        labels = [data.classes[label] for label in np.unique(data.labels[rows])]
        is_doubtful = len(labels) > 1, np.count_nonzero(counts) > 1
        found.append([n, *counts, ", ".join(labels), *is_doubtful, rows.tolist()])
    table = pd.DataFrame(found, columns=columns)
    return table.sort_values("copies", ascending=False, kind="stable", ignore_index=True)


def clean(data: FERData, *, seed: int = 0, share: float = 0.1) -> tuple[FERData, CleaningReport]:
    """Removes from train what cannot teach, and makes the splits that a source lacks.

    Out of train go constant pictures, copies with conflicting labels (all of them) and surplus
    copies (all but the first). Pictures without a split count as train. Then, with no copies
    left in it, train gives up val where there is none, and test where there were no splits at
    all: each label keeps its share, and no picture is on both sides.

    Args:
        data: The pictures.
        seed: Seed of the splits that are made.
        share: Share of each label that goes to a split that is made.

    Returns:
        The clean data, and the report on what was done.

    Example:
        >>> faces, report = clean(sources.load("drawn:70"))
        >>> report.to_frame()["step"].tolist()[0], report.before == 70
        ('given', True)
    """
    import pandas as pd

    split = np.where(data.split == "", "train", data.split).astype("<U5")
    train = np.flatnonzero(split == "train")
    reason = _reasons(data.images[train], data.labels[train])
    out = train[reason != ""]
    removed = pd.DataFrame({"row": out, "name": data.names[out]})
    removed["label"] = np.array(data.classes)[data.labels[out]]
    removed["reason"] = reason[reason != ""]
    missing = [] if "val" in data.splits else ["val"]
    if not data.splits:
        missing.append("test")
    made = dict.fromkeys(missing, 0)
    train = train[reason == ""]
    rng = np.random.default_rng(seed)
    for label in range(len(data.classes)):
        rows = rng.permutation(train[data.labels[train] == label])
        n = round(len(rows) * share)
        for i, name in enumerate(missing):
            split[rows[i * n : (i + 1) * n]] = name
            made[name] += n
    kept = np.setdiff1d(np.arange(len(data)), out)
    report = CleaningReport(len(data), len(kept), made, removed)
    return replace(data, split=split).select(kept), report


def _reasons(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns why each picture of train is removed, "" for one that stays (object [N])."""
    _, first, group = np.unique(picture_hashes(images), return_index=True, return_inverse=True)
    group_and_label = np.unique(np.stack([group, labels]), axis=1)
    conflicting = np.bincount(group_and_label[0], minlength=len(first)) > 1
    reason = np.full(len(images), REASONS[2], object)
    reason[first] = ""
    reason[conflicting[group]] = REASONS[1]
    reason[_constant(images)] = REASONS[0]
    return reason


def prepare(
    source: str | Path | None = None, *, limit: int | None = None, seed: int = 0, **options: Any
) -> FERData:
    """Loads a source, cleans it, and draws a sample where a limit is set.

    Args:
        source: As in `sources.load`.
        limit: Number of pictures at most; None is all.
        seed: Seed of the splits that are made and of the sample.
        **options: cache, votes, labels and partial, as in `sources.load`.

    Returns:
        The data, ready for training.

    Example:
        >>> len(prepare("drawn:210", limit=70))
        70
    """
    data, _ = clean(sources.load(source, **options), seed=seed)
    return data.sample(limit, seed=seed) if limit else data


def overview(data: FERData) -> dict:
    """Sums up what a source holds, for `ferlib data`.

    Returns:
        A dict that JSON can hold: title, origin, fingerprint, classes, pictures, unlabelled,
        votes (bool), splits {split: {class: count}} ("none" for no split), copies {groups,
        surplus, conflicting, seen {split: its pictures that train has too}}, constant, faults (a
        list of {file, row, problem}), left_out (a list of {file, pictures, reason}).
    """
    counts = sources.describe(data).iloc[:-1, :-1].astype(int)
    copies = find_copies(data)
    seen = copies[copies["train"] > 0] if "train" in copies else copies[:0]
    return {
        "title": data.title,
        "origin": data.origin,
        "fingerprint": data.fingerprint,
        "classes": list(data.classes),
        "pictures": len(data),
        "unlabelled": len(data.unlabelled),
        "votes": data.votes is not None,
        "splits": {split: counts[split].to_dict() for split in counts},
        "copies": {
            "groups": len(copies),
            "surplus": int((copies["copies"] - 1).sum()),
            "conflicting": int(copies["conflicting"].sum()),
            "seen": {split: int(seen[split].sum()) for split in data.splits if split != "train"},
        },
        "constant": int(_constant(data.images).sum()),
        "faults": [asdict(fault) for fault in data.faults],
        "left_out": [asdict(left) for left in data.left_out],
    }
