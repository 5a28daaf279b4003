"""Decides what labels mean: classes, in order, from names and numbers as a source writes them.

The labels are the data's: any names are classes. Numbers mean an emotion only where it is known
which data set numbered them.
"""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from ferlib import labels
from ferlib.faces import MOST_BAD, Fault, LeftOut
from ferlib.tables import Row


class Meaning:
    """Turns labels as a source writes them into classes.

    Args:
        option: As `labels` of `sources.load`.
        numbering: The numbering that is the source's own; "" where its numbers may mean anything.
        where: What is read, for errors.
        by_folder: Whether the labels are names of folders.

    Attributes:
        classes: Names of the classes that were found, in order.
        left_out: Pictures that are left out because their label is of no class.
        note: What was concluded about numbers; "" for nothing.
    """

    def __init__(
        self, option: str | Path | Mapping | None, *, numbering: str, where: str, by_folder: bool
    ):
        self.wanted = labels.mapping(option)
        self.numbering = numbering
        self.renamed = option is not None
        if isinstance(option, str) and option.lower() in labels.NUMBERINGS:
            self.numbering, self.renamed = option.lower(), False
            self.wanted = {}
        self.by_folder = by_folder
        self.where = where
        self.note = ""
        self.classes: tuple[str, ...] = ()
        self.left_out: list[LeftOut] = []
        self._numbers: dict[str, str | None] = {}

    def apply(self, rows: list[Row]) -> tuple[list[Row], list[Fault]]:
        """Writes its class into each row.

        Returns:
            The rows that have one, and faults for labels that mean nothing.

        Raises:
            ValueError: If labels are numbers, and it is not known of which numbering.
        """
        counts = Counter(row.label or "" for row in rows)
        self._choose_numbering(rows, counts)
        meanings = {label: self._meaning(label, counts) for label in counts}
        dropped = Counter(row.label for row in rows if meanings[row.label or ""] is None)
        for label, n in dropped.items():
            self.left_out.append(LeftOut(self.where, n, f"label {label!r} is left out, no class"))
        good, faults, found = [], [], set()
        for row in rows:
            meaning = meanings[row.label or ""]
            if isinstance(meaning, ValueError):
                file = row.order[-1] if isinstance(row.order[-1], str) else row.file
                faults.append(Fault(file, row.row, str(meaning)))
            elif meaning is not None:
                row.label = meaning
                found.add(meaning)
                good.append(row)
        official = self.by_folder and any(not row.order[0] for row in rows)
        by_number = self.numbering == "fer2013" and any(map(_is_number, counts))
        if (official or by_number) and not self.renamed:
            found.update(labels.EMOTIONS)
        self.classes = labels.in_order(found)
        return good, faults

    def _meaning(self, label: str, counts: Counter) -> str | ValueError | None:
        """Returns the class of a label, None where it is left out, or what is wrong with it."""
        name: str | None = labels.canonical(label)
        if name in self.wanted:
            return self.wanted[name]
        if name in ("unknown", "nf", ""):
            return None if name else ValueError("'' is not an emotion")
        if _is_number(label):
            if label not in self._numbers:
                return ValueError(
                    f"{label!r} is not an emotion of {self.numbering} ({_shown(self._numbers)})"
                )
            name = self._numbers[label]
        elif not labels.is_emotion(label) and not self.by_folder:
            numbers = sum(n for other, n in counts.items() if _is_number(other))
            if numbers or (counts[label] == 1 and counts.total() >= 20):
                return ValueError(f"{label!r} is not an emotion, and no other row has it")
        return name if name is None else self.wanted.get(name, name)

    def _choose_numbering(self, rows: list[Row], counts: Counter) -> None:
        numbers = {label for label in counts if _is_number(label) and label not in self.wanted}
        if numbers and not self.numbering and not self.by_folder:
            usual = sum(counts[label] for label in numbers if label in labels.numbering("fer2013"))
            alike = all(row.as_fer2013 for row in rows)
            if alike and usual >= (1 - MOST_BAD) * sum(counts[label] for label in numbers):
                self.numbering = "fer2013"
                self.note = "numbers read as FER2013's, because pictures are 48x48 and grey"
        if numbers and not self.numbering:
            readings = ""
            for name in labels.NUMBERINGS:
                meant = labels.numbering(name)
                if numbers <= set(meant):
                    shown = _shown({number: meant[number] for number in sorted(numbers)})
                    readings += f"\n  labels={name!r}: {shown}"
            raise ValueError(
                f"{self.where}: labels are the numbers {', '.join(sorted(numbers))}, and data sets "
                "number emotions differently. Say what they mean with labels= (--labels), by the "
                f'name of a numbering, or as {{"0": "bored", …}}:{readings}'
            )
        self._numbers = labels.numbering(self.numbering) if self.numbering else {}


def _is_number(label: str) -> bool:
    return re.fullmatch(r"[-+]?\d+(\.\d*)?", label) is not None


def _shown(numbers: Mapping[str, str | None]) -> str:
    return ", ".join(f"{number} {label or 'none'}" for number, label in numbers.items())
