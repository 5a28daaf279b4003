"""Hostile and broken sources: nothing hangs, nothing is started, nothing is lost without a word."""

import bz2
import gzip
import io
import lzma
import os
import socket
import sys
import tarfile
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

from ferlib import pictures, sources
from ferlib.labels import EMOTIONS

posix = pytest.mark.skipif(sys.platform == "win32", reason="links and pipes of POSIX")
IMAGES = np.random.default_rng(2).integers(0, 256, (28, 48, 48), np.uint8)


def load(source, **options):
    start = time.process_time()
    try:
        return sources.load(source, cache=False, **options)
    finally:
        assert time.process_time() - start < 5


def write(path, n=28):
    rows = [f"{i % 7},{' '.join(map(str, IMAGES[i].ravel()))}" for i in range(n)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("emotion,pixels\n" + "\n".join(rows) + "\n")
    return path


def folders(root):
    for i in range(28):
        path = root / "train" / EMOTIONS[i % 7] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(IMAGES[i]).save(path)
    return root


# ---- pictures ----------------------------------------------------------------------------

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 48 48\n%%EndComments\nshowpage\n"


@posix
@pytest.mark.parametrize("kind", ["EPS", "PSD", "FITS", "WMF", "PCX", "TGA"])
def test_only_formats_of_photos_are_opened(tmp_path, monkeypatch, kind):
    started = tmp_path / "started"
    ghostscript = tmp_path / "bin" / "gs"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\ntouch {started}\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ghostscript.parent}:{os.environ['PATH']}")
    root = folders(tmp_path / "data")
    victim = root / "train" / "happy" / "3.png"
    if kind in ("PCX", "TGA"):
        Image.fromarray(IMAGES[3]).save(victim, format=kind)
    else:
        starts = {"PSD": b"8BPS\0\1", "FITS": b"SIMPLE  = T", "WMF": b"\xd7\xcd\xc6\x9a"}
        victim.write_bytes(starts.get(kind, EPS) + bytes(4000) * (kind != "EPS"))
    with pytest.raises(Exception, match="cannot identify"):
        pictures.open_picture(victim)
    with pytest.warns(UserWarning, match="1 fault"):
        data = load(root)
    assert data.faults[0].file == "train/happy/3.png" and len(data) == 27
    assert not started.exists()


# ---- archives ----------------------------------------------------------------------------


def zipped(**members) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def deep(content: bytes, levels: int) -> bytes:
    for _ in range(levels):
        content = zipped(inside=content)
    return content


@pytest.mark.parametrize(
    "kind", ["zip", "many zips", "gzip", "xz", "bzip2", "deep", "zeros", "tar", "zip in gzip"]
)
def test_bombs_end_soon_with_an_error_that_names_the_member(tmp_path, kind):
    lines, path = b"\n" * 2**26, tmp_path / "bomb.zip"
    head = b"emotion,pixels\n"
    if kind == "many zips":
        bomb = zipped(a=lines)
        content = zipped(**{f"{i}.zip": bomb for i in range(200)})
    elif kind == "tar":
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w:gz") as archive:
            info = tarfile.TarInfo("member.csv")
            info.size = 2**29
            archive.addfile(info, open("/dev/zero", "rb"))
        content = file.getvalue()
    else:
        content = {
            "zip": lambda: zipped(**{"member.csv": head + lines}),
            "gzip": lambda: gzip.compress(head + lines * 8, 9),
            "xz": lambda: lzma.compress(head + lines, preset=0),
            "bzip2": lambda: bz2.compress(head + lines),
            # Cut: who unpacks all of it before asking for the limit says that it is damaged.
            "zip in gzip": lambda: gzip.compress(zipped(**{"member.csv": head}) + lines, 9)[:-9],
            "deep": lambda: deep(b"x", 9),
            "zeros": lambda: zipped(**{"member.csv": head + b"0" * 2**26}),
        }[kind]()
    path.write_bytes(content)
    what = "unpacks to far more" if kind == "zip in gzip" else "unpack|line"
    with pytest.raises(ValueError, match=f"(?s)bomb.*({what})"):
        load(path)


def test_blank_and_endless_lines_end_soon(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"emotion,pixels\n" + b"\n" * 2**24)
    with pytest.raises(ValueError, match="blank lines"):
        load(path)
    path.write_bytes(b"emotion,pixels\n3," + b"1 " * 2**24)
    with pytest.raises(ValueError, match="line of more than"):
        load(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_DEFLATED])
def test_a_broken_stream_in_a_zip(tmp_path, method):
    csv = write(tmp_path / "fer.csv").read_bytes()
    path = tmp_path / "fer.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("fer.csv", csv)
    assert len(load(path)) == 28
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 50] = b"\xff" * 50
    path.write_bytes(content)
    with pytest.raises(ValueError, match="fer.zip"):
        load(path)


@pytest.mark.parametrize("damage", ["header", "end"])
def test_a_tar_that_is_damaged_in_the_middle_is_an_error(tmp_path, damage):
    path = tmp_path / "fer.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(folders(tmp_path / "data"), "data")
    content = path.read_bytes()
    at = content.index(b"data/train/sad/11.png")
    content = content[:at] + b"\xff" * 200 + content[at + 200 :] if damage == "header" else (
        content[: at // 512 * 512])  # fmt: skip
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"(?s)fer.tar.*damaged.*partial=True"):
        load(path)
    assert 0 < len(load(path, partial=True)) < 28


# ---- folders -----------------------------------------------------------------------------


@posix
def test_pipes_and_sockets_are_left_out_and_named(tmp_path, monkeypatch):
    write(tmp_path / "fer.csv")
    os.mkfifo(tmp_path / "x.csv")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # a path of a socket must be short
        server.bind("y.csv")
        data = load(tmp_path)
    assert len(data) == 28
    assert {left.file for left in data.left_out} == {"x.csv", "y.csv"}
    with pytest.raises(ValueError, match="regular file"):
        load(tmp_path / "x.csv")


def test_a_folder_named_as_a_file_is_walked(tmp_path):
    write(tmp_path / "archive.zip" / "x.csv" / "fer.csv")
    assert len(load(tmp_path)) == 28
    assert len(load(tmp_path / "archive.zip")) == 28


@posix
def test_a_broken_link_is_named_and_never_replaced(tmp_path, monkeypatch):
    raw = tmp_path / "project" / "data" / "raw"
    write(raw / "good.csv")
    (raw / "old.csv").symlink_to(tmp_path / "gone.csv")
    data = load(raw)
    assert len(data) == 28 and "link to nothing" in data.left_out[0].reason
    (raw / "good.csv").unlink()
    monkeypatch.delenv("FERLIB_DATA", raising=False)
    monkeypatch.setattr(sources, "project_folder", lambda: tmp_path / "project")
    with pytest.raises(ValueError, match=r"old.csv: a link to nothing"):
        sources.load(cache=False)
    with pytest.raises(FileNotFoundError, match="old.csv"):
        load(raw / "old.csv")


@posix
def test_a_folder_is_walked_once(tmp_path):
    root = folders(tmp_path / "above" / "data")
    write(tmp_path / "above" / "other.csv")
    links = [("a", "."), ("b", "."), ("up", ".."), ("root", "/"), ("train/again", "happy")]
    for at, (name, target) in enumerate([*links, ("train/up", "../..")]):
        (root / name).symlink_to(target)
        data = load(root)
        assert len(data) == 28 and len(data.left_out) == at + 1
    (tmp_path / "real").mkdir()
    (root / "train").rename(tmp_path / "real" / "train")
    (root / "train").symlink_to(tmp_path / "real" / "train")
    assert len(load(root)) == 28


@posix
def test_names_that_are_not_utf8(tmp_path):
    root = os.fsencode(tmp_path) + b"/m\xfcde"
    os.makedirs(root + b"/tr\xe9s")
    for i, label in enumerate([b"happy", b"m\xfcde"] * 10):
        os.makedirs(root + b"/" + label, exist_ok=True)
        Image.fromarray(IMAGES[i]).save(os.fsdecode(root + b"/" + label + b"/%d\xff.png" % i))
    for _ in range(2):
        data = sources.load(os.fsdecode(root), cache=tmp_path / "cache")
        assert len(data) == 20 and data.classes == ("happy", "müde")
        "".join(data.names).encode()


def test_the_folder_cannot_be_read(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    write(tmp_path / "fer.csv")
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.warns(UserWarning, match="closed: the folder cannot be read"):
        assert len(load(tmp_path)) == 28
