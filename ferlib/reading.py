"""Reads what lies at a place: decides which of it is the data, and names what is left out."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from ferlib import archives, folders, tables
from ferlib.archives import File, Tree
from ferlib.classes import Meaning
from ferlib.faces import MOST_BAD, SPLITS, Fault, FERData, LeftOut, split_in
from ferlib.labels import EMOTIONS, FERPLUS, SIDE, ferplus_labels, is_emotion
from ferlib.tables import Row

MANY = 20
"""More files than this that are left out of one folder for one reason are named together."""

_FER2013_ROWS = {"train": 28_709, "val": 3_589, "test": 3_589}
_READABLE = (
    "a csv with the columns emotion and pixels, folders named by emotion, pictures with a table "
    "of names and labels, arrays (X_train.npy, y_train.npy; images and labels in a .npz), "
    "parquet, and archives of these"
)
_ARRAY = "an array; wanted are names such as X_train and y_train, images and labels"


class Unreadable(ValueError):
    """Something lies at a place, and none of it is what ferlib reads."""


def is_empty(tree: Tree) -> bool:
    """Returns whether a place holds nothing but hidden files."""
    named = [left for left in tree.left_out if left.reason != archives.HIDDEN]
    return not (tree.files or tree.faults or named)


@dataclass(eq=False)
class _Part:
    """A file, or the pictures of a folder, that can be read as data.

    Args:
        home: Parts of one home are read together, each as its split.
        name: Its name in the source.
        rows: Reads it.
        count: Counts its rows or pictures.
        problem: Why it cannot be read; "" for nothing.
        labelled: Whether it has labels that can be read.
        official: Whether its splits or numbers are FER2013's own.
        numbering: The numbering that is its own, "" for none.
        table: Its form, where it is a table of pixels.
    """

    home: tuple
    name: str
    rows: Callable[[], Iterable[Row | Fault]] = tuple
    count: Callable[[], int] = int
    problem: str = ""
    labelled: bool = True
    official: bool = False
    numbering: str = ""
    table: tables.Table | None = None


@dataclass
class Reader:
    """Reads one source: lists its parts, takes the fullest set of them, and names the rest.

    Args:
        path: The source.
        tree: What lies there.
        votes: The file of FER+'s votes, "auto" for one beside a csv, or None for none.
        labels: As in `sources.load`.
        partial: As in `sources.load`.
    """

    path: Path
    tree: Tree
    votes: Path | str | None
    labels: str | Path | Mapping | None
    partial: bool
    parts: list[_Part] = field(default_factory=list)
    votes_tables: dict[str, File] = field(default_factory=dict)

    def read(self) -> FERData:
        """Reads the source."""
        try:
            with ExitStack() as stack:
                archives.unpack(self.tree, stack)
                return self._read()
        except FileNotFoundError:
            raise
        except archives.DAMAGED as error:
            raise ValueError(
                f"{self.path} is damaged or locked ({error}). Download it again."
            ) from error

    def _read(self) -> FERData:
        tree = self.tree
        if tree.cut and not self.partial:
            raise ValueError(
                f"{self.path} is damaged: {tree.cut[0]}. Download it again, or take what is there "
                "with partial=True (--partial)."
            )
        self._list_parts()
        homes = defaultdict(list)
        for part in self.parts:
            homes[part.home].append(part)
        found = [home for home, parts in homes.items() if any(p.labelled for p in parts)]
        if not found:
            self._nothing()
        best = found[0] if len(found) == 1 else max(found, key=lambda home: _fullness(homes[home]))
        chosen = homes[best]
        loose = []
        for part in self.parts:
            if part.problem and part.home == best:
                raise ValueError(f"{self.path}: {part.problem}")
            if not (part.home == best or part.problem or part.labelled):
                loose.append(part)
            elif part.home != best:
                name = chosen[0].name or self.path.name
                reason = f"{name} has as many or more; name this one to read it"
                tree.left_out.append(LeftOut(part.name, part.count(), part.problem or reason))
        data = self._gather(chosen, loose)
        data.left_out = _merged(tree.left_out)
        return data

    def _nothing(self) -> None:
        """Raises the error for a source without data, which says what lies there."""
        seen = [str(fault) for fault in self.tree.faults]
        seen += [part.problem for part in self.parts if part.problem]
        bare = [part for part in self.parts if not (part.labelled or part.problem)]
        seen += [f"{part.name}: no labels" for part in bare]
        seen += [f"{left.file}: {left.reason}" for left in self.tree.left_out]
        kind: type[Exception] = Unreadable
        if is_empty(self.tree) and self.path.is_dir():
            kind = FileNotFoundError
        raise kind(
            f"{self.path} holds no labelled pictures. Looked at every level, and in archives, for "
            f"{_READABLE}. There is: {'; '.join(seen[:5]) or 'nothing'}."
        )

    # -- what there is

    def _list_parts(self) -> None:
        files = defaultdict(list)
        for file in self.tree.files:
            files[file.kind].append(file)
        pictures = files.pop("picture", [])
        names = folders.Names(pictures)
        arrays, texts = files.pop("npy", []), files.pop("table", [])
        beside = self._list_beside(names, [*arrays, *texts])
        taken = {picture for _, picture in beside}
        used = {file for file, _ in beside}
        if beside:
            used |= {file.name for file in texts if file.base in folders.NAMES_OF_NUMBERS}
        for found in list(tables.array_sets(file for file in arrays if file.name not in used)):
            used |= {file.name for file in found.values()}
            taken |= self._list_table(found["images"], partial(tables.array_table, found), names)
        for file in [*texts, *files.pop("parquet", []), *files.pop("arrow", [])]:
            if file.name not in used:
                taken |= self._list_table(file, partial(tables.sniff, file), names)
        self._list_folders([file for file in pictures if file.name not in taken], bool(beside))
        files[_ARRAY] = [file for file in arrays if file.name not in used]
        for kind, others in files.items():
            for file in others:
                self.tree.leave_out(file.name, kind)

    def _add_pictures(
        self, home: tuple, name: str, items: Sequence[folders.Pair | Fault], numbering: str = ""
    ) -> set[str]:
        """Adds pictures that have labels, and returns their names."""
        found = {item[0].name for item in items if not isinstance(item, Fault)}
        rows = partial(folders.read_pictures, items)
        self.parts.append(_Part(home, name, rows, partial(len, found), numbering=numbering))
        return found

    def _list_beside(self, names: folders.Names, files: list[File]) -> list[tuple[str, str]]:
        """Lists pictures with their labels in files beside them; returns both files' names."""
        found = list(names.beside(files))
        groups = defaultdict(list)
        for _, numbering, pairs in found:
            groups[numbering] += pairs
        for numbering, pairs in groups.items():
            name = pairs[0][0].folder or self.path.name
            self._add_pictures(("beside", numbering), name, pairs, numbering)
        return [(file.name, pairs[0][0].name) for file, _, pairs in found]

    def _list_table(
        self, file: File, sniff: Callable[[], tables.Table | None], names: folders.Names
    ) -> set[str]:
        """Lists a table, and returns the names of the pictures that it has labels for."""
        home = ("table", *tables.home_of(file))
        try:
            table = sniff()
        except ValueError as error:
            self.parts.append(_Part(home, file.name, problem=str(error), labelled=False))
            return set()
        if table is None:
            self.tree.leave_out(file.name, tables.what_is(file))
        elif "pixels" in table.roles:
            rows = partial(tables.rows_of, table, partial=self.partial)
            part = _Part(home, file.name, rows, partial(tables.count_rows, table), table=table)
            part.labelled, part.official = table.labelled, "usage" in table.roles
            part.numbering = table.numbering
            self.parts.append(part)
        else:
            items = list(names.rows(table, partial=self.partial))
            if not all(isinstance(item, Fault) for item in items):
                return self._add_pictures(home, file.name, items, table.numbering)
            if table.is_ferplus:
                self.votes_tables[file.name] = file
            reason = "FER+'s votes, without pictures: put fer2013.csv beside it"
            other = "a table of labels for pictures that are not here"
            self.tree.leave_out(file.name, reason if table.is_ferplus else other)
        return set()

    def _list_folders(self, pictures: list[File], only_emotions: bool) -> None:
        for root, pairs in folders.by_folder(pictures).items():
            labels = {row.label for _, row in pairs if row.label is not None}
            used = [(file, row) for file, row in pairs if row.label or row.split]
            reason = "pictures without labels beside folders of labels"
            if not folders.are_labels(labels, only_emotions=only_emotions):
                reason = "pictures without labels"
                used = []
            if len(used) < len(pairs):
                held_by = {file.folder for file, _ in pairs}
                where = held_by.pop() if len(held_by) == 1 else root
                left = LeftOut(where or ".", len(pairs) - len(used), reason)
                self.tree.left_out.append(left)
            if used:
                self._add_pictures(("folders", root), f"{root}/" if root else "", used)

    # -- what is read of it

    def _gather(self, chosen: list[_Part], loose: list[_Part]) -> FERData:
        """Reads the parts that were chosen, and the pictures without labels of others."""
        chosen.sort(key=lambda part: (SPLITS.index(split_in(part.name) or "train"), part.name))
        first, many = chosen[0], len(chosen) > 1
        above = self.path.parent if self.path.is_file() else self.path
        where = str(self.path if many else above / first.name)
        items: list[Row | Fault] = []
        for at, part in enumerate(chosen):
            found = _rows_of(part)
            for row in found:
                if isinstance(row, Row) and not row.order:
                    row.order = (at, row.row)
            items += found
        if not self.partial:
            _refuse_half(chosen, items, where)
        rows, bad = _apart(items)
        by_folder = first.home[0] == "folders"
        wanted = self.labels
        if wanted is None and first.home == ("beside", ""):
            wanted = folders.names_of_numbers(self.tree.files)
        meaning = Meaning(wanted, numbering=first.numbering, where=where, by_folder=by_folder)
        good, more_bad = meaning.apply([row for row in rows if row.label is not None])
        good.sort(key=lambda row: row.order)
        bad += more_bad
        bad.sort(key=lambda fault: (fault.file, fault.row or 0))
        _refuse_bad(bad, len(items), where)
        if not good:
            raise ValueError(f"{where} holds no labelled row.")
        unlabelled = [row for row in rows if row.label is None]
        if by_folder:
            bad += self._empty_folders(first.home[1], rows)
        for part in loose:
            more, more_bad = _apart(_rows_of(part))
            unlabelled += more
            bad += more_bad
        self.tree.left_out += meaning.left_out
        self.tree.faults += bad
        data = self._assemble(good, unlabelled, meaning, first, many)
        votes = self._votes_of(first, many)
        if votes:
            at_row = [row.row - 1 if row.row else row.order[1] for row in good]
            data.votes = _join(votes, data, np.array(at_row), len(items))
        return data

    def _assemble(
        self, good: list[Row], unlabelled: list[Row], meaning: Meaning, first: _Part, many: bool
    ) -> FERData:
        """Makes the data of rows."""
        faces = [row.pixels for row in unlabelled]
        all_voted = all(row.votes is not None for row in good)
        return FERData(
            images=np.stack([row.pixels for row in good]),
            labels=np.array([meaning.classes.index(row.label) for row in good], np.int64),
            split=np.array([row.split for row in good]),
            votes=np.array([row.votes for row in good], np.float32) if all_voted else None,
            names=np.array([_name(row, first.name, many) for row in good]),
            origin=f"{meaning.where} ({meaning.note})" if meaning.note else meaning.where,
            title=PurePosixPath(first.name).name if first.table and not many else self.path.name,
            faults=self.tree.faults,
            unlabelled=np.array(faces, np.uint8).reshape(-1, SIDE, SIDE),
            classes=meaning.classes,
        )

    def _votes_of(self, part: _Part, many: bool) -> File | None:
        """Returns the file of FER+'s votes that belongs to what was read."""
        if self.votes is None or (self.votes == "auto" and (many or not part.table)):
            return None
        if isinstance(self.votes, Path):
            return File(self.votes.name, partial(open, self.votes, "rb"), 0)
        for folder in PurePosixPath(part.name).parents:
            for name, file in self.votes_tables.items():
                if PurePosixPath(name).parent == folder:
                    self.tree.left_out = [x for x in self.tree.left_out if x.file != name]
                    return file
        return None

    def _empty_folders(self, root: str, rows: list[Row]) -> list[Fault]:
        holding = {row.order[-1].rpartition("/")[0] for row in rows}
        above = {str(parent) for name in holding for parent in PurePosixPath(name).parents}
        faults = []
        for folder in set(self.tree.folders) - holding - above:
            its_root, _, label = folders.place(folder)
            if its_root == root and is_emotion(label or ""):
                faults.append(Fault(folder, None, "an empty folder"))
        return sorted(faults, key=lambda fault: fault.file)


def _rows_of(part: _Part) -> list[Row | Fault]:
    """Reads a part; an error names it."""
    try:
        return tables.whole_pixels(list(part.rows()))
    except archives.TooLarge:
        raise
    except ValueError as error:
        if part.name in str(error):
            raise
        raise ValueError(f"{part.name}: {error}") from error


def _apart(items: list[Row | Fault]) -> tuple[list[Row], list[Fault]]:
    """Returns rows and faults apart."""
    rows = [item for item in items if isinstance(item, Row)]
    return rows, [item for item in items if isinstance(item, Fault)]


def _merged(left_out: list[LeftOut]) -> list[LeftOut]:
    """Sums up what is left out for one reason in one folder, where it is many files."""
    groups = defaultdict(list)
    for left in left_out:
        groups[PurePosixPath(left.file).parent, left.reason].append(left)
    merged = []
    for (folder, reason), group in groups.items():
        if len(group) > MANY:
            pictures = sum(left.pictures for left in group)
            group = [LeftOut(str(folder), pictures, f"{len(group)} files: {reason}")]
        merged += group
    return merged


def _fullness(parts: list[_Part]) -> tuple[int, bool]:
    return sum(part.count() for part in parts if part.labelled), any(p.official for p in parts)


def _name(row: Row, root: str, many: bool) -> str:
    if isinstance(row.order[-1], str):
        return row.order[-1].removeprefix(root)
    return f"{row.file}, row {row.row}" if many else f"row {row.row}"


def _refuse_bad(bad: list[Fault], total: int, where: str) -> None:
    if not total:
        raise ValueError(f"{where} holds no rows and no pictures (0 of 0). Download it again.")
    if len(bad) > MOST_BAD * total:
        first = "".join(f"\n  {fault}" for fault in bad[:5])
        raise ValueError(
            f"{where}: {len(bad)} of {total} rows or pictures are bad; up to 5 % are left out, "
            f"never more. Mend it, or download it again. The first:{first}"
        )


def _refuse_half(parts: list[_Part], items: list[Row | Fault], where: str) -> None:
    """Raises an error for a FER2013 csv that lacks what it must have."""
    whole = all(part.official and part.numbering == "fer2013" for part in parts)
    if not whole or any(split_in(part.name) for part in parts):
        return
    count = Counter(item.split for item in items if isinstance(item, Row))
    problem = ""
    if set(count) == {"train"}:
        problem = "only rows of Training"
    elif count["train"] == _FER2013_ROWS["train"]:
        for split in set(count) - {"train"}:
            if count[split] < _FER2013_ROWS[split]:
                problem = f"only {count[split]:,} rows of {split}"
    if problem:
        raise ValueError(
            f"{where} has {problem}: a FER2013 has {_FER2013_ROWS}. It was cut off, perhaps in a "
            "download. Get it again, or take what is there with partial=True (--partial)."
        )


# ---- FER+ --------------------------------------------------------------------------------


def _join(file: File, data: FERData, rows: np.ndarray, total: int) -> np.ndarray:
    """Returns the FER+ votes of the rows, float32 [N, 10].

    Args:
        file: fer2013new.csv.
        data: The data to join them to.
        rows: int [N], the row of each picture in the csv, from 0.
        total: Number of rows of the csv, bad ones among them.

    Raises:
        ValueError: If their number or order is not that of the votes.
    """
    table = tables.sniff(file)
    if table is None or not table.is_ferplus:
        raise ValueError(f"{file.name} has not the columns of FER+'s votes: {', '.join(FERPLUS)}.")
    voted, faults = _apart(list(tables.rows_of(table)))
    in_order = len(rows) and rows[-1] < total and (np.diff(rows) > 0).all()
    if faults:
        problem = str(faults[0])
    elif len(voted) != total or not in_order:
        problem = f"there are {len(voted)} rows of votes and {total} of pictures"
    else:
        voted = [voted[row] for row in rows]
        problem = _misfit(voted, data)
    if problem:
        raise ValueError(
            f"The FER+ votes do not fit {data.origin}: {problem}. They join by row: take those of "
            "this very file, or leave them out with votes=None."
        )
    return np.array([row.votes for row in voted], np.float32)


def _misfit(voted: list[Row], data: FERData) -> str:
    """Returns why votes do not belong to the data, "" where they do."""
    usage = np.array([row.split for row in voted])
    wrong = (data.split != usage) & (data.split != "")
    if wrong.any():
        return f"{data.names[wrong.argmax()]} has another Usage there"
    most = np.argmax([row.votes or [] for row in voted], axis=1)
    told = ferplus_labels(EMOTIONS)[most]
    agree = (told == data.labels)[told >= 0]
    few_or_merged = len(agree) < 500 or data.classes != EMOTIONS
    if few_or_merged or agree.mean() > 0.4:  # 0.64 in this order, 0.2 in any other
        return ""
    return f"only {agree.mean():.0%} of the labels are the majority there"
