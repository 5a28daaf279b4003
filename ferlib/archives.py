"""Lists what lies in a folder and in archives, by what each file is rather than by its name.

Nothing is extracted to disk and no program is started. A folder is walked once, by what it really
is, and an archive is opened within limits, so that none keeps a reader busy for ever.
"""

import bz2
import gzip
import io
import lzma
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from ferlib.faces import Fault, LeftOut

DEPTH = 5
"""How deep archives may lie in archives; a .tar.gz counts as two."""

MEMBERS = 1_000_000
"""How many members an archive may have, with those of archives in it."""

RATIO, FLOOR, CEILING = 50, 32 * 2**20, 64 * 2**30
"""An archive may unpack to 50 times its size and 32 MB more, but never to more than 64 GB."""

HIDDEN = "hidden"

DAMAGED = (
    OSError, EOFError, RuntimeError, MemoryError, zlib.error, lzma.LZMAError, zipfile.BadZipFile,
    tarfile.TarError,
)  # fmt: skip
"""What reading a damaged archive raises."""

_HEAD = 1024
_OF_SYSTEMS = ("thumbs.db", "desktop.ini", "$recycle.bin", "system volume information")
_NOT_REGULAR = "no regular file (a pipe, socket or device)"
_PICTURES = (
    ".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".jp2", ".pgm",
    ".ppm", ".pbm", ".avif", ".heic", ".heif",
)  # fmt: skip
_MAGIC = {
    "zip": (b"PK\3\4", b"PK\5\6"),
    "gzip": (b"\x1f\x8b",),
    "bzip2": (b"BZh",),
    "xz": (b"\xfd7zXZ\0",),
    "npy": (b"\x93NUMPY",),
    "parquet": (b"PAR1",),
    "picture": (
        b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"\xff\x4f\xff\x51",
        b"\0\0\0\x0cjP  ", b"P1\n", b"P2\n", b"P3\n", b"P4\n", b"P5\n", b"P6\n", b"P5 ", b"P6 ",
    ),
    "a Git LFS pointer, not the file itself: run `git lfs pull`": (b"version https://git-lfs",),
    "arrow": (b"ARROW1", b"\xff\xff\xff\xff"),
    "HDF5, weights of a model or arrays: save arrays with np.savez": (b"\x89HDF",),
    "a MATLAB file: save its arrays with np.savez": (b"MATLAB ",),
    "a Zstandard archive: unpack it": (b"\x28\xb5\x2f\xfd",),
    "an SQLite database: save its tables as csv": (b"SQLite format 3",),
    "a PDF": (b"%PDF",),
    "PostScript, which is never opened": (b"%!PS", b"\xc5\xd0\xd3\xc6"),
    "an old Excel workbook: save it as csv": (b"\xd0\xcf\x11\xe0",),
    "a 7-Zip archive: unpack it": (b"7z\xbc\xaf",),
    "a RAR archive: unpack it": (b"Rar!",),
    "a pickle, which is never opened: save the arrays with np.savez": (b"\x80\2", b"\x80\3",
                                                                       b"\x80\4", b"\x80\5"),
}  # fmt: skip
_ZIPS = {
    "[Content_Types].xml": "an Excel or Office file: save it as csv",
    "data.pkl": "a PyTorch file, no pictures",
    "model.weights.h5": "a Keras model, no pictures",
}
_COMPRESSED = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}


class TooLarge(ValueError):
    """An archive that unpacks to more than the limits allow."""


@dataclass
class File:
    """A file on disk or in an archive.

    Args:
        name: Its path in the source, parts separated by "/".
        open: Opens it for reading bytes.
        size: Its size in bytes.
        path: Its path on disk, "" in an archive.
        head: Its first bytes.
        kind: "picture", "table" (text), "npy", "parquet", "arrow", or in words what else it is.
    """

    name: str
    open: Callable[[], BinaryIO]
    size: int
    path: str = ""
    head: bytes = b""
    kind: str = ""

    @property
    def folder(self) -> str:
        """The folder that it lies in, "" for that of the source."""
        return self.name.rpartition("/")[0]

    @property
    def base(self) -> str:
        """Its name without folders."""
        return self.name.rpartition("/")[2]


@dataclass
class Tree:
    """What a source holds.

    Args:
        files: Its files; after `unpack` also those in archives, without the archives.
        folders: Names of its folders.
        left_out: What is no file, or would be read twice.
        faults: Archives and folders that cannot be read.
        cut: Archives that can be read only in part, and why.
    """

    files: list[File] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    cut: list[Fault] = field(default_factory=list)

    def leave_out(self, name: str, reason: str) -> None:
        """Notes that something is not read."""
        self.left_out.append(LeftOut(name, 0, reason))


def kind_of(head: bytes, name: str = "") -> str:
    r"""Tells what a file is by its first bytes.

    Args:
        head: Its first 1,024 bytes, or all of them.
        name: Its name; the suffix counts only where the bytes say nothing.

    Returns:
        As `File.kind`; also "zip", "tar", "gzip", "bzip2" and "xz".

    Example:
        >>> kind_of(b"PK\3\4"), kind_of(b"emotion,pixels\n"), kind_of(b"<html>", "fer2013.csv")
        ('zip', 'table', 'a web page, perhaps a login: download the file itself')
    """
    known = [kind for kind, starts in _MAGIC.items() if head.startswith(starts)]
    if known and (" " not in known[0] or not is_picture_name(name)):
        return known[0]
    if _is_tar(head):
        return "tar"
    is_heif = head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"avif")
    is_webp = head.startswith(b"RIFF") and head[8:12] == b"WEBP"
    if is_heif or is_webp or is_picture_name(name):
        return "picture"
    text = head.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<?xml")):
        return "a web page, perhaps a login: download the file itself"
    if not text:
        return "an empty file"
    if b"\0" in head and not head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return f"of an unknown kind (it begins with {head[:12]!r})"
    return "table"


def why(head: bytes, error: Exception) -> str:
    """Says why a picture cannot be read, from its first bytes and what Pillow says."""
    if head[4:8] == b"ftyp" and head[8:10] in (b"he", b"mi", b"ms"):
        return f"HEIC, read with `pip install pillow-heif`, or damaged ({error})"
    kind = kind_of(head)
    text = re.sub(r"<_io.*?>|<ferlib.*?>", "its format", str(error))
    if " " in kind:
        return kind
    return text if text and type(error) is ValueError else f"{type(error).__name__}: {text}"


def is_picture_name(name: str) -> bool:
    """Returns whether a file is a picture by its suffix."""
    return name.lower().endswith(_PICTURES)


def is_hidden(name: str) -> bool:
    """Returns whether a system or a program keeps a file or folder of that name for itself."""
    return name.startswith((".", "__MACOSX", "@eaDir")) or name.lower() in _OF_SYSTEMS


def _is_tar(head: bytes) -> bool:
    with suppress(tarfile.TarError, ValueError):
        tarfile.TarInfo.frombuf(head[:512], "utf-8", "replace")
        return True
    return False


# ---- on disk -----------------------------------------------------------------------------


def walk(root: Path) -> Tree:
    """Lists the files of a folder, each real folder once; or the one file.

    Links are followed, except to folders above the source or to what is listed already.

    Args:
        root: A folder or a file.

    Returns:
        The files, in the order of their names.
    """
    tree = Tree()
    seen = {_identity(folder.stat()) for folder in root.resolve().parents}
    found, links = [("" if root.is_dir() else root.name, str(root))], []
    while found or links:
        is_link = not found  # links come after all that lies here itself
        name, path = links.pop(0) if is_link else found.pop()
        try:
            status = Path(path).stat()
        except OSError as error:
            tree.leave_out(name, f"a link to nothing ({error.strerror})")
            continue
        is_folder = stat.S_ISDIR(status.st_mode)
        if (is_link or is_folder) and _identity(status) in seen:
            tree.leave_out(name, "a link to a folder above, or to what is read already")
            continue
        seen.add(_identity(status))
        if stat.S_ISREG(status.st_mode):
            opener = partial(open, path, "rb", buffering=2**20)
            tree.files.append(File(name, opener, status.st_size, path))
        elif not is_folder:
            tree.leave_out(name, _NOT_REGULAR)
        else:
            for inside, entry in _entries(path, name, tree):
                (links if entry.is_symlink() else found).append((inside, entry.path))
    tree.files.sort(key=lambda file: file.name)
    tree.folders.sort()
    return tree


def readable(name: str | bytes) -> str:
    """Returns a file's name, or any bytes, as text that can be shown, also where no UTF-8."""
    raw = os.fsencode(name)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _entries(path: str, name: str, tree: Tree) -> Iterator[tuple[str, os.DirEntry]]:
    """Yields what lies in a folder and is not hidden, with its name in the source."""
    tree.folders += [name] if name else []
    try:
        with os.scandir(path) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        tree.faults.append(Fault(name, None, f"the folder cannot be read: {error.strerror}"))
        return
    for entry in found:
        inside = f"{name}/{readable(entry.name)}".lstrip("/")
        if is_hidden(entry.name):
            tree.leave_out(inside, HIDDEN)
        else:
            yield inside, entry


# ---- archives ----------------------------------------------------------------------------


class _Limited(io.RawIOBase):
    """A stream that unpacks no more than a limit."""

    def __init__(self, file: Any, name: str, take: Callable[[int, str], None]):
        self._file, self._name, self._take = file, name, take
        self._furthest = 0

    def readinto(self, buffer: Any) -> int:
        n = self._file.readinto(buffer)
        self._spend(self._file.tell())
        return n

    def _spend(self, at: int) -> None:
        if at > self._furthest:
            self._take(at - self._furthest, self._name)
            self._furthest = at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence == 0:
            self._spend(offset)
        if whence == 2:  # counts what lies on the way to the end
            while self.read(2**20):
                pass
        return self._file.seek(offset, whence)


def unpack(tree: Tree, stack: ExitStack) -> None:
    """Replaces the archives of a tree by what they hold, and tells what every file is.

    Args:
        tree: What lies on disk; it is changed.
        stack: Closes the archives.

    Raises:
        TooLarge: If an archive unpacks to more than the limits allow; names the member.
    """
    files = []
    for file in tree.files:
        _identify(file, tree.faults)
        files += _Unpacker(tree, stack, min(FLOOR + RATIO * file.size, CEILING)).inside(file)
    tree.files = files


def _identify(file: File, faults: list[Fault]) -> None:
    """Reads the first bytes of a file."""
    try:
        with file.open() as stream:
            file.head = stream.read(_HEAD)
        file.kind = kind_of(file.head, file.name)
    except TooLarge:
        raise
    except Exception as error:  # a damaged archive raises almost anything
        faults.append(Fault(file.name, None, f"it cannot be read: {error}"))
        file.kind = "damaged"


@dataclass
class _Unpacker:
    """Unpacks an archive on disk, with all that lies in it.

    Args:
        tree: What was found so far; it is changed.
        stack: Closes the archives.
        bytes: How many may still be unpacked.
        members: How many may still come.
    """

    tree: Tree
    stack: ExitStack
    bytes: int
    members: int = MEMBERS

    def take(self, n: int, name: str) -> None:
        """Counts what is unpacked."""
        self.bytes -= n
        if self.bytes < 0:
            raise TooLarge(
                f"{name} unpacks to far more than its archive's size allows (at most {RATIO} times "
                f"its size and {FLOOR >> 20} MB). It is damaged or made to harm; if you trust it, "
                "unpack it and name the folder."
            )

    def inside(self, file: File, depth: int = 0) -> Iterator[File]:
        """Yields a file, or all files that an archive holds at any depth."""
        openers = {"zip": self._zip, "tar": self._tar}
        openers |= dict.fromkeys(_COMPRESSED, self._compressed)
        if file.kind not in openers:
            if file.kind != "damaged":
                yield file
            return
        if depth == DEPTH:
            raise TooLarge(f"{file.name}: archives lie more than {DEPTH} deep in it; unpack it.")
        members = []
        try:
            for member in openers[file.kind](file):
                self.members -= 1
                if self.members < 0:
                    raise TooLarge(f"{file.name} has more than {MEMBERS:,} members; unpack it.")
                is_picture = is_picture_name(member.name)
                _identify(member, self.tree.faults if is_picture else self.tree.cut)
                members.append(member)
        except TooLarge:
            raise
        except Exception as error:  # a damaged archive raises almost anything
            fault = Fault(file.name, None, f"the archive cannot be read: {error}")
            (self.tree.cut if members else self.tree.faults).append(fault)
        for member in members:
            yield from self.inside(member, depth + 1)

    def _compressed(self, file: File) -> Iterator[File]:
        opener = _COMPRESSED[file.kind]
        limit = self.bytes  # each time that it is opened it is unpacked anew

        def unpacked() -> BinaryIO:
            self.bytes = max(self.bytes, limit)
            return io.BufferedReader(_Limited(opener(file.open()), file.name, self.take), 2**20)

        yield File(str(PurePosixPath(file.name).with_suffix("")), unpacked, file.size)

    def _zip(self, file: File) -> Iterator[File]:
        archive = self.stack.enter_context(zipfile.ZipFile(self.stack.enter_context(file.open())))
        infos = archive.infolist()
        for sign, what in _ZIPS.items():
            if any(info.filename.rpartition("/")[2] == sign for info in infos):
                self.tree.leave_out(file.name, what)
                return
        for info in infos:
            self.take(info.file_size, f"{file.name}/{info.filename}")
            opener = partial(_buffered, archive.open, info)
            yield from self._member(file, info.filename, info.is_dir(), opener, info.file_size)

    def _tar(self, file: File) -> Iterator[File]:
        opened = self.stack.enter_context(file.open())
        archive = self.stack.enter_context(tarfile.open(fileobj=opened, mode="r:"))  # noqa: SIM115
        for info in archive:
            if info.issparse():
                raise TooLarge(f"{file.name}/{info.name} is a sparse member; unpack the archive.")
            if info.isdir() or info.isreg():
                opener = partial(_buffered, archive.extractfile, info)
                yield from self._member(file, info.name, info.isdir(), opener, info.size)
            else:
                self.tree.leave_out(f"{file.name}/{info.name}", "a link or device in an archive")
        archive.fileobj.seek(archive.offset)
        if archive.fileobj.read(512) != bytes(512):
            raise tarfile.ReadError("it is cut off, or damaged in the middle")

    def _member(
        self, file: File, member: str, is_folder: bool, opener: Callable, size: int
    ) -> Iterator[File]:
        """Yields a member of an archive, unless it is a folder, hidden, or lies outside."""
        path = PurePosixPath(member.replace("\\", "/"))
        name = f"{file.name}/{path}"
        if path.is_absolute() or ".." in path.parts or ":" in str(path)[:2]:
            problem = f"refused {member}, which lies outside of it"
            self.tree.faults.append(Fault(file.name, None, problem))
        elif any(map(is_hidden, path.parts)):
            self.tree.leave_out(name, HIDDEN)
        elif is_folder:
            self.tree.folders.append(name)
        else:
            yield File(name, opener, size)


def _buffered(opener: Callable, info: Any) -> BinaryIO:
    return io.BufferedReader(opener(info), 2**16)
