"""Files that appear whole or not at all, and folders that one process at a time works in."""

import hashlib
import json
import math
import os
import pathlib
import sys
import time
from dataclasses import is_dataclass
from typing import Any


def write(path, text: str):
    """Writes a text file in one step: nobody reads half of it, however this process ends.

    Args:
        path: Where to write; its folder is made.
        text: What to write, in UTF-8, with its line ends as they are.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(text, encoding="utf-8", newline="")
    replace(unfinished, path)


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


def write_json(path, value):
    """Writes a value as indented JSON in one step."""
    write(path, json.dumps(value, indent=1) + "\n")


def digest(path) -> str:
    """Gives the SHA-256 of a file, in hexadecimal digits."""
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


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


def hold(folder, *, wait: float):
    """Locks a folder until the lock that is returned is released or its process ends.

    Args:
        folder: The folder; it is made.
        wait: Seconds to wait for another process that is about to end.

    Raises:
        RuntimeError: If another process holds it; names the process.
    """
    from filelock import FileLock, Timeout

    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    owner = folder / ".pid"
    try:
        held = FileLock(folder / ".lock", is_singleton=True).acquire(timeout=wait)
    except Timeout:
        process = owner.read_text(encoding="utf-8") if owner.exists() else "?"
        raise RuntimeError(
            f"{folder} is in use by process {process}. Wait until it ends, or choose another "
            "folder (--name of a run, out of a training)."
        ) from None
    owner.write_text(str(os.getpid()), encoding="utf-8")
    return held


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
