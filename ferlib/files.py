"""Files that appear whole or not at all, and folders that one process at a time works in."""

import contextlib
import errno
import hashlib
import json
import math
import os
import pathlib
import re
import sys
import time
from dataclasses import is_dataclass
from typing import Any

NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EROFS)
"""What the system says where a file cannot be written because of the disk."""
_SEAL = "sha256"
"""Where JSON that is sealed keeps its digest."""


class Unwritable(OSError):
    """A file could not be written: the disk is full, or there is no permission."""


@contextlib.contextmanager
def naming(path):
    """Says of any error of the disk within it which file could not be written, and why.

    Args:
        path: The file or folder.

    Raises:
        Unwritable: In place of what the system says; an error without its number is left alone.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, Unwritable) or not isinstance(error.errno, int):
            raise
        raise Unwritable(
            f"{path} cannot be written: {error.strerror}. What was there before is unharmed; mend "
            "that, and the same command continues."
        ) from error


@contextlib.contextmanager
def whole(path):
    """Lets a file be made beside its place, which it takes in one step at the end.

    Args:
        path: The file; its folder is made.

    Yields:
        Where to write: another name with the same ending, in the same folder.

    Raises:
        Unwritable: If that cannot be done; what lay at `path` is as it was.
    """
    path = pathlib.Path(path)
    unfinished = path.with_name(f".{os.getpid()}-{path.name}")
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield unfinished
            replace(unfinished, path)
        finally:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)


def write(path, content: str | bytes):
    """Writes a file in one step: nobody reads half of it, however this process ends.

    Args:
        path: Where to write; its folder is made.
        content: What to write; text in UTF-8, with its line ends as they are.

    Raises:
        Unwritable: If the disk is full, or there is no permission; the old file stays.
    """
    with whole(path) as unfinished:
        unfinished.write_bytes(content.encode() if isinstance(content, str) else content)


def plain(value: Any) -> Any:
    """Turns numpy's numbers and arrays, dataclasses and NaN (None) into what JSON knows."""
    if is_dataclass(value):
        value = vars(value)
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path, value, *, sealed: bool = False):
    """Writes a value as indented JSON in one step; a dict `sealed` by its own digest."""
    if sealed:
        value = value | {_SEAL: _digest_of(value)}
    write(path, json.dumps(value, indent=1) + "\n")


def read_json(path):
    """Reads JSON; where it is sealed, that is checked and left out.

    Raises:
        ValueError: If it is damaged; names the file.
    """
    try:
        value = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        seal = value.pop(_SEAL, None) if isinstance(value, dict) else None
    except ValueError:
        raise damaged(path) from None
    if seal not in (None, _digest_of(value)):
        raise damaged(path)
    return value


def _digest_of(value):
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def damaged(path):
    """Gives the error of a file that is not as it was written."""
    return ValueError(
        f"{path} is damaged: it is not as it was written. Put a copy in its place, or remove it "
        "and make it again."
    )


def seal(data: bytes, start: bytes | None = None) -> bytes:
    """Gives a file's content with the SHA-256 of all of it as its last 64 characters.

    Args:
        data: The content.
        start: What stands before the digest, so that readers of its format pass over it; None is
            for a zip without a comment, whose comment it becomes.
    """
    data = data[:-2] + b"\x40\0" if start is None else data + start
    return data + hashlib.sha256(data).hexdigest().encode()


def check(path) -> bool:
    """Refuses a file with the digest of another content at its end, or with nothing in it.

    One without any digest passes.

    Returns:
        Whether it has its digest.

    Raises:
        ValueError: If it is damaged; names the file.
    """
    data = pathlib.Path(path).read_bytes()
    content, end = data[:-64], data[-64:].decode("latin-1")
    is_digest = bool(re.fullmatch("[0-9a-f]{64}", end))
    if not data or (is_digest and hashlib.sha256(content).hexdigest() != end):
        raise damaged(path)
    return is_digest


def head(path) -> bytes:
    """Reads the first 1,024 bytes of a file, by which its kind is known."""
    with pathlib.Path(path).open("rb") as file:
        return file.read(1024)


def digest(path) -> str:
    """Gives the SHA-256 of a file, in hexadecimal digits."""
    with pathlib.Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def replace(new, path, *, wait: float = 10):
    """Puts a file in another's place in one step.

    Windows refuses that while any process has the other open, if only to scan it for viruses.

    Args:
        new: The file to move; in the same folder, or at least on the same disk.
        path: Where to; a file there is replaced.
        wait: Seconds during which it is tried again on Windows.

    Raises:
        OSError: If it cannot be done.
    """
    end = time.monotonic() + wait
    while True:
        try:
            pathlib.Path(new).replace(path)
            return
        except PermissionError:
            if sys.platform != "win32" or time.monotonic() > end:
                raise
            time.sleep(0.05)


def hold(folder, *, wait: float, name: str = ""):
    """Locks a folder until the lock that is returned is released or its process ends.

    Args:
        folder: The folder; it is made.
        wait: Seconds to wait for another process that is about to end.
        name: A file in it, which alone is locked.

    Raises:
        RuntimeError: If another process holds it; names the process.
    """
    from filelock import FileLock, Timeout

    folder = pathlib.Path(folder)
    stem = f".{name}" if name else ""
    owner, lock = folder / f"{stem}.pid", folder / f"{stem}.lock"
    with naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            held = FileLock(lock, is_singleton=True).acquire(timeout=wait)
        except Timeout:
            process = owner.read_text(encoding="utf-8") if owner.exists() else "?"
            raise RuntimeError(
                f"{folder / name} is in use by process {process}. Wait until it ends, or choose "
                "another (--name of a run, --out of other commands)."
            ) from None
    write(owner, str(os.getpid()))
    return held


@contextlib.contextmanager
def alone(path, *, wait: float):
    """Locks one file while it is written to, and leaves no lock behind.

    Raises:
        RuntimeError: If another process writes to it; names the process.
    """
    with hold(path.parent, wait=wait, name=path.name):
        try:
            yield
        finally:
            for end in ("lock", "pid"):
                with contextlib.suppress(OSError):
                    path.with_name(f".{path.name}.{end}").unlink()


def project_folder() -> pathlib.Path:
    """Finds the folder of data/ and runs/.

    Returns:
        The project that the working folder lies in, else the one that ferlib lies in, else the
        working folder.
    """
    here = pathlib.Path.cwd()
    package = pathlib.Path(__file__).resolve()
    for folder in (here, *here.parents, package.parents[1]):
        if (folder / "pyproject.toml").is_file() and (folder / "ferlib").is_dir():
            return folder
    return here
