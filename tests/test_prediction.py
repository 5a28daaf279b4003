"""Prediction on pictures of every kind: what is read, found, written and refused."""

import csv
import functools
import http.server
import io
import json
import os
import struct
import subprocess
import sys
import threading
import time
import zipfile
import zlib

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageColor

from ferlib import cleaning, detection, exports, labels, models, plots, prediction, runtimes, zoo
from ferlib.__main__ import main
from ferlib.labels import EMOTIONS, PALETTE

PROBABILITIES = list(EMOTIONS)


@pytest.fixture(scope="session")
def network():
    """Gives a small untrained model whose answers depend strongly on what lies where."""
    keras.utils.set_random_seed(1)
    images = keras.Input((48, 48, 1), dtype="uint8", name="images")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(images)
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(x)
    x = keras.layers.AveragePooling2D(4)(x)
    x = keras.layers.Dense(
        7, name="logits", kernel_initializer=keras.initializers.RandomNormal(0, 0.8)
    )(keras.layers.Flatten()(x))
    return keras.Model(images, keras.layers.Softmax()(x), name="toy")


@pytest.fixture(scope="session")
def model(network, tmp_path_factory):
    """Gives the path of `network` on disk."""
    return zoo.save(network, tmp_path_factory.mktemp("model") / "toy.keras")


@pytest.fixture(scope="session")
def face(faces) -> np.ndarray:
    return np.asarray(faces.images[3])


@pytest.fixture
def no_extra(monkeypatch):
    """Hides the optional packages."""
    for name in ("mtcnn", "onnx", "onnxruntime", "tf2onnx"):
        monkeypatch.setitem(sys.modules, name, None)
    detection.detector.cache_clear()
    prediction._opened.cache_clear()


class Detector:
    """Stands in for MTCNN: the same boxes in every picture, as shares of its sides."""

    def __init__(self, *shares):
        self.shares, self.sizes = shares, []

    def detect_faces(self, picture, output_type, **thresholds):
        assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
        assert output_type == "numpy"
        self.sizes.append(picture.shape[:2])
        scale = np.array([picture.shape[1], picture.shape[0]] * 2)
        rows = [[0, *(np.array(share) * scale), 0.9, *[0] * 10] for share in self.shares]
        return np.array(rows).reshape(-1, 16)


@pytest.fixture
def detector(monkeypatch):
    def use(*shares):
        found = Detector(*shares)
        monkeypatch.setattr(detection, "detector", lambda: found)
        return found

    return use


def answers(network, picture) -> np.ndarray:
    return np.asarray(network(np.asarray(picture)[None, ..., None]))[0]


def test_a_face_crop_is_classified_as_it_is(network, face):
    result = prediction.predict(face, model=network)
    table = result.to_frame()
    assert list(table.columns) == list(prediction.columns()) and len(table) == 1
    row = table.iloc[0]
    assert (row.left, row.top, row.width, row.height) == (0, 0, 48, 48) and np.isnan(row.score)
    expected = answers(network, face)
    np.testing.assert_allclose(row[PROBABILITIES].astype(float), expected, atol=1e-5)
    assert row.emotion == EMOTIONS[expected.argmax()]
    assert (result.pictures, result.faces, result.without_face) == (1, 1, 0)


def test_the_model_of_these_tests_sees_orientation_and_light(network, face):
    for other in (face.T, face[::-1], face[:, ::-1], 255 - face, face // 2):
        assert np.abs(answers(network, other) - answers(network, face)).max() > 0.06


def encoded(picture: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def rotated(face, orientation, turn) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(Image.fromarray(face).transpose(turn), "PNG", exif=exif)


def with_alpha(face) -> Image.Image:
    """The face as darkness on nothing: on white it looks as it was."""
    return Image.merge("LA", [Image.new("L", (48, 48), 0), Image.fromarray(255 - face)])


CONTAINERS = {
    "colour array": lambda f: np.repeat(f[..., None], 3, axis=2),
    "array with a channel": lambda f: f[..., None],
    "16-bit array": lambda f: f.astype(np.uint16) * 257,
    "16-bit colour array": lambda f: np.repeat(f[..., None], 3, axis=2).astype(np.uint16) * 257,
    "integers": lambda f: f.astype(np.int64),
    "fractions": lambda f: f / 255,
    "floats": lambda f: f.astype(np.float32),
    "RGBA array": lambda f: np.dstack([f, f, f, np.full_like(f, 255)]),
    "PIL": Image.fromarray,
    "PIL palette": lambda f: Image.fromarray(f).convert("P"),
    "PIL transparent": with_alpha,
    "PIL CMYK": lambda f: Image.fromarray(f).convert("RGB").convert("CMYK"),
    "PIL float": lambda f: Image.fromarray(f.astype(np.float32)),
    "PNG bytes": lambda f: encoded(Image.fromarray(f), "PNG"),
    "PNG in memory": lambda f: io.BytesIO(encoded(Image.fromarray(f), "PNG")),
    "memoryview": lambda f: memoryview(encoded(Image.fromarray(f), "PNG")),
    "16-bit PNG": lambda f: encoded(Image.fromarray(f.astype(np.uint16) * 257), "PNG"),
    "16-bit TIFF": lambda f: encoded(Image.fromarray(f.astype(np.uint16) * 257), "TIFF"),
    "JPEG": lambda f: encoded(Image.fromarray(f), "JPEG", quality=98),
    "WebP": lambda f: encoded(Image.fromarray(f).convert("RGB"), "WEBP", lossless=True),
    "GIF": lambda f: encoded(Image.fromarray(f), "GIF"),
    "transparent PNG": lambda f: encoded(with_alpha(f), "PNG"),
    "on its side": lambda f: rotated(f, 6, Image.Transpose.ROTATE_90),
    "upside down": lambda f: rotated(f, 3, Image.Transpose.ROTATE_180),
    "mirrored": lambda f: rotated(f, 2, Image.Transpose.FLIP_LEFT_RIGHT),
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_the_container_does_not_change_the_answer(kind, network, face):
    result = prediction.predict(CONTAINERS[kind](face), model=network)
    got = result.to_frame()[PROBABILITIES].to_numpy()
    np.testing.assert_allclose(got, answers(network, face)[None], atol=0.03)


def test_16_bit_colour_files(network, face):
    cv2 = pytest.importorskip("cv2")
    colour = np.repeat(face[..., None], 3, axis=2).astype(np.uint16) * 257
    for suffix in (".png", ".tiff"):
        data = cv2.imencode(suffix, colour)[1].tobytes()
        got = prediction.predict(data, model=network).to_frame()[PROBABILITIES].to_numpy()
        np.testing.assert_allclose(got, answers(network, face)[None], atol=0.03)


@pytest.mark.parametrize("bad", [np.full((48, 48), -1), np.full((48, 48), np.nan), np.zeros(48)])
def test_an_array_that_is_no_picture_is_refused(bad, network):
    with pytest.raises(ValueError, match="no picture"):
        prediction.predict(bad, model=network)


def test_many_pictures_at_once(network, faces, tmp_path):
    stack = np.asarray(faces.images[:40])
    result = prediction.predict(stack, model=network)
    expected = np.asarray(network(stack[..., None]))
    np.testing.assert_allclose(result.to_frame()[PROBABILITIES], expected, atol=1e-5)
    assert result.to_frame().file.tolist() == [f"picture {i}" for i in range(40)]

    Image.fromarray(stack[0]).save(tmp_path / "a.png")
    mixed = prediction.predict([tmp_path / "a.png", str(tmp_path), stack[1]], model=network)
    assert mixed.pictures == 3 and mixed.to_frame().file[0] == str(tmp_path / "a.png")


def test_a_path_is_found_and_a_wrong_one_named(network, face, tmp_path):
    Image.fromarray(face).save(tmp_path / "face.png")
    for path in (tmp_path / "face.png", str(tmp_path / "face.png"), tmp_path):
        assert prediction.predict(path, model=network).faces == 1
    with pytest.raises(FileNotFoundError, match="gone.png"):
        prediction.predict(tmp_path / "gone.png", model=network)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no readable picture"):
        prediction.predict(tmp_path / "empty", model=network)


@pytest.fixture
def address(tmp_path):
    """Gives the address of a server of `tmp_path`."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_an_address(network, face, tmp_path, address, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    Image.fromarray(face).save(tmp_path / "face.png")
    result = prediction.predict(f"{address}/face.png", model=network)
    assert result.to_frame().file[0] == f"{address}/face.png"
    (tmp_path / "face.png").unlink()
    assert result.draw().size == (336, 336)
    with pytest.raises(ValueError, match="404"):
        prediction.predict(f"{address}/gone.png", model=network)
    with pytest.raises(FileNotFoundError):
        prediction.predict((tmp_path / "gone.png").as_uri(), model=network)


class Site(http.server.BaseHTTPRequestHandler):
    """A web site that behaves badly: /away, /around, /large and /slow."""

    def do_GET(self):
        if self.path == "/slow":
            self.send_response(200)
            self.end_headers()
            while not self.server.ends.wait(0.1):
                self.wfile.write(b"x")
            return
        places = {"/away": self.server.away, "/around": "/around2", "/around2": "/around3"}
        for n in range(3, 9):
            places[f"/around{n}"] = f"/around{n + 1}"
        place = places.get(self.path)
        self.send_response(302 if place else 200)
        self.send_header("Location", place or "")
        self.end_headers()
        if not place:
            self.wfile.write(bytes(3000))

    def log_message(self, *_):
        pass


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        server.ends = threading.Event()
        server.away = "http://192.168.7.7/face.png"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.ends.set()
        server.shutdown()


def test_what_comes_from_the_web_is_limited(network, site, monkeypatch):
    def refused(path, host="127.0.0.1"):
        with pytest.raises(ValueError, match="limits: .* redirects") as error:
            prediction.predict(f"http://{host}:{site.server_port}{path}", model=network)
        return str(error.value)

    assert "(192.168.7.7) is this machine or in a private network" in refused("/away")
    site.away = "ftp://example.org/face.png"
    assert "no http or https address" in refused("/away")
    site.away = "file:///etc/passwd"
    assert "not allowed" in refused("/away")
    assert "redirect" in refused("/around")
    assert "this machine" in refused("/face.png", host="127.0.0.2")
    assert "private network" in refused("/face.png", host="10.1.2.3")
    monkeypatch.setattr(prediction, "LARGEST", 1000)
    assert "too large" in refused("/face.png")
    monkeypatch.setattr(prediction, "SECONDS", 1)
    start = time.monotonic()
    assert "more than 1 s" in refused("/slow")
    assert time.monotonic() - start < 5


# ---- faces in larger pictures ------------------------------------------------------------


def test_a_large_picture_without_the_extra_is_an_error_that_names_it(network, face, no_extra):
    large = Image.fromarray(face).resize((65, 65))
    with pytest.raises(ImportError, match=r'detect=False.*pip install "ferlib\[faces\]"'):
        prediction.predict(large, model=network)
    assert prediction.predict(large, model=network, detect=False).faces == 1
    assert prediction.predict(large, model=network, detect=np.False_).faces == 1
    assert prediction.predict(large.resize((64, 64)), model=network).faces == 1
    with pytest.raises(ImportError):
        prediction.predict(face, model=network, detect=True)
    with pytest.raises(ValueError, match="detect is 'never'"):
        prediction.predict(face, model=network, detect="never")


def scene(faces, *places, size=(640, 480)) -> Image.Image:
    picture = Image.new("RGB", size, (90, 120, 150))
    for image, (left, top, side) in zip(faces, places, strict=True):
        picture.paste(Image.fromarray(np.asarray(image)).resize((side, side)), (left, top))
    return picture


def test_faces_of_a_large_picture_are_cut_out_and_classified(network, faces, detector):
    detector((0.25, 0.25, 0.15, 0.2), (0.0, 0.5, 0.15, 0.2))
    picture = scene(faces.images[:2], (152, 120, 96), (0, 240, 96))
    result = prediction.predict(picture, model=network)
    table = result.to_frame()
    boxes = table[["left", "top", "width", "height"]].to_numpy().tolist()
    assert boxes == [[0, 240, 96, 96], [160, 120, 96, 96]]
    assert table.score.tolist() == [0.9, 0.9]
    # the one at the border is cut out exactly; boxes of the crop stay inside the picture
    np.testing.assert_allclose(
        table[PROBABILITIES].to_numpy()[0], answers(network, faces.images[1]), atol=0.1
    )


def test_a_tall_box_is_cut_out_as_a_square_around_it(network, faces, detector):
    detector((210 / 640, 140 / 480, 60 / 640, 96 / 480))  # narrower than the pasted square
    picture = scene(faces.images[:1], (192, 140, 96))
    got = prediction.predict(picture, model=network).to_frame()[PROBABILITIES].to_numpy()[0]
    np.testing.assert_allclose(got, answers(network, faces.images[0]), atol=0.1)


def test_huge_pictures_are_searched_in_a_smaller_copy(network, faces, detector):
    found = detector((0.5, 0.5, 0.1, 0.2))
    picture = scene(faces.images[:1], (2000, 1000, 400), size=(4000, 2000))
    row = prediction.predict(picture, model=network).to_frame().iloc[0]
    assert found.sizes == [(640, 1280)]
    assert (row.left, row.top, row.width, row.height) == (2000, 1000, 400, 400)
    expected = answers(network, faces.images[0])
    np.testing.assert_allclose(row[PROBABILITIES].astype(float), expected, atol=0.1)


def test_no_face_is_an_answer(network, detector):
    detector()
    result = prediction.predict(Image.new("L", (300, 200)), model=network)
    assert len(result.to_frame()) == 0 and result.without_face == 1 and not result.unreadable
    assert result.draw().size == (300, 200)
    assert "1 without a face" in str(result)


@pytest.mark.parametrize(("size", "is_crop"), [((200, 190), True), ((200, 90), False)])
def test_a_crop_without_a_face_found_is_told_of(network, detector, tmp_path, size, is_crop):
    detector()
    picture = Image.new("L", size)
    result = prediction.predict(picture, model=network)
    assert result.without_face == 1 and result.crops == int(is_crop)
    assert ("--detect no" in str(result)) == is_crop
    assert prediction.predict(picture, model=network, detect=True).crops == 0
    tally = prediction.predict_to_csv(picture, tmp_path / "out.csv", model=network)
    assert tally == prediction.predict_to_csv(picture, tmp_path / "out.csv", model=network)
    note = pd.read_csv(tmp_path / "out.csv").note[0]
    assert note.startswith("no face") and ("--detect no" in note) == is_crop


def test_own_boxes(network, faces, tmp_path):
    picture = scene(faces.images[:2], (152, 120, 96), (0, 240, 96))
    for name in ("a.png", "b.png", "without.png"):
        picture.save(tmp_path / name)
    table = tmp_path / "boxes.csv"
    table.write_text(
        "file,left,top,width,height,by\n"
        f"a.png,152,120,96,96,me\na.png,0,240,96,96,me\n{tmp_path / 'b.png'},0,240,96,96.0,me\n"
        "without.png,,,,,\n",
        encoding="utf-8",
    )
    places = [tmp_path / name for name in ("a.png", "b.png", "without.png")]
    result = prediction.predict(places, model=network, boxes=table)
    got = result.to_frame()
    assert got.left.tolist() == [152, 0, 0] and got.score.isna().all()
    assert result.without_face == 1
    expected = answers(network, faces.images[0])
    np.testing.assert_allclose(got[PROBABILITIES].to_numpy()[0], expected, atol=0.1)

    out = tmp_path / "out.csv"
    tally = prediction.predict_to_csv(places, out, model=network, boxes=table)
    assert (tally.faces, tally.without_face) == (3, 1)
    again = prediction.predict(places, model=network, boxes=out).to_frame()
    pd.testing.assert_frame_equal(again, got)
    with pytest.warns(UserWarning, match="boxes of 2 files that are not among"):
        prediction.predict(places[0], model=network, boxes=table)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("file,left,top,width\na.png,1,2,3\n", r"boxes\.csv: its header lacks height"),
        ("", r"boxes\.csv: its header lacks file, height"),
        ("file,left,top,width,height\na.png,0,0,9,9\na.png,x,2,3,4\n", r"csv, row 2: x, 2, 3, 4"),
        ("file,left,top,width,height\na.png,1,2,nan,4\n", "row 1: 1, 2, nan, 4 .* no numbers"),
        ("file,left,top,width,height\na.png,1,2,0,4\n", "row 1: a box of 0x4 pixels"),
        ("file,left,top,width,height\na.png,1,2\n", "row 1: 1, 2, , "),
        ("left,top,width,height,file\n1,2,3,4\n", "row 1 names no file"),
        ("file,left,top,width,height\na.png,70,2,9,9\n", "row 1: the box lies outside of .* 48x48"),
    ],
)
def test_a_wrong_box_is_named_by_file_and_row(network, face, tmp_path, text, problem):
    Image.fromarray(face).save(tmp_path / "a.png")
    table = tmp_path / "boxes.csv"
    table.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=problem):
        prediction.predict(tmp_path / "a.png", model=network, boxes=table)


def test_drawing_frames_each_face_in_its_colour(network, faces, detector):
    detector((0.25, 0.25, 0.15, 0.2), (0.6, 0.5, 0.15, 0.2))
    result = prediction.predict(scene([], size=(640, 480)), model=network)
    drawn = result.draw("picture")
    assert drawn.size == (640, 480) and drawn.mode == "RGB"
    for row in result.to_frame().itertuples():
        colour = Image.new("RGB", (1, 1), PALETTE[row.emotion]).getpixel((0, 0))
        middle = row.top + row.height // 2
        assert drawn.getpixel((row.left, middle)) == colour
        assert drawn.getpixel((row.left + row.width - 1, middle)) == colour
    with pytest.raises(KeyError):
        result.draw("another")


def test_mtcnn_finds_real_faces_and_none_in_a_landscape(network, fer2013):
    pytest.importorskip("mtcnn")
    rows = pd.read_csv(fer2013, nrows=8)
    some = [np.array(p.split(), "u1").reshape(48, 48) for p in rows.pixels]
    scenes = [scene([image], (50, 40, 192), size=(300, 280)) for image in some]
    found = prediction.predict(scenes, model=network)
    assert found.pictures - found.without_face >= 4  # mtcnn finds most of FER2013's faces
    sky = Image.linear_gradient("L").resize((300, 200))
    assert prediction.predict(sky, model=network).without_face == 1


# ---- files that cannot be read, and folders ----------------------------------------------


def bomb(side: int) -> bytes:
    """A PNG of `side` x `side` pixels in a few hundred bytes."""

    def chunk(kind, data):
        whole = kind + data
        return struct.pack(">I", len(data)) + whole + struct.pack(">I", zlib.crc32(whole))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 10_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels)


@pytest.fixture
def folder(face, faces, tmp_path):
    """Gives a folder with every bad file of the issue between good ones, and the bad names."""
    place = tmp_path / "photos"
    (place / "deep" / "deeper").mkdir(parents=True)
    for number, image in enumerate(faces.images[:5]):
        Image.fromarray(np.asarray(image)).save(place / f"good {number}.png")
    Image.fromarray(face).save(place / "deep" / "deeper" / "UPPER.JPG", quality=95)
    (place / "notes.txt").write_text("not a picture, and not called one", encoding="utf-8")
    (place / "bomb.png").write_bytes(bomb(30_000))
    (place / "small bomb.png").write_bytes(bomb(10_000))
    jpeg = encoded(Image.fromarray(face), "JPEG")
    (place / "truncated.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (place / "text.png").write_text("these are words", encoding="utf-8")
    (place / "empty.png").write_bytes(b"")
    Image.new("L", (1, 1)).save(place / "dot.png")
    bad = {"bomb.png", "small bomb.png", "truncated.jpg", "text.png", "empty.png", "dot.png"}
    if sys.platform != "win32":  # which has no pipes in folders, and links for administrators only
        (place / "deep" / "loop").symlink_to(place, target_is_directory=True)
        (place / "itself.png").symlink_to(place / "itself.png")
        (place / "gone.png").symlink_to(place / "nowhere.png")
        os.mkfifo(place / "pipe.png")
        bad |= {"deep/loop", "itself.png", "gone.png", "pipe.png"}
    return place, {str(place / name) for name in bad}


def test_bad_files_are_named_and_stop_nothing(network, folder):
    place, bad = folder
    result = prediction.predict(place, model=network)
    assert result.faces == 6
    assert set(result.unreadable) == bad
    assert all(result.unreadable.values())
    assert str(place / "deep" / "deeper" / "UPPER.JPG") in set(result.to_frame().file)
    for name in bad:
        assert name in str(result)
    assert result.unreadable[str(place / "empty.png")] == "an empty file"
    assert "DecompressionBomb" in result.unreadable[str(place / "small bomb.png")]


def test_a_bad_file_alone_is_an_error_that_says_why(network, folder):
    with pytest.raises(ValueError, match="truncated"):
        prediction.predict(folder[0] / "truncated.jpg", model=network)
    if sys.platform != "win32":
        for name in ("pipe.png", "itself.png", "gone.png"):
            with pytest.raises(ValueError, match="no regular file"):
                prediction.predict(folder[0] / name, model=network)


@pytest.mark.skipif(sys.platform == "win32", reason="links need an administrator on Windows")
def test_a_link_to_a_folder_elsewhere_is_followed(network, face, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    Image.fromarray(face).save(tmp_path / "elsewhere" / "face.png")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert prediction.predict(tmp_path / "photos", model=network).faces == 1


def test_a_folder_to_csv(network, folder, detector, tmp_path):
    place, bad = folder
    detector()
    Image.new("RGB", (200, 100)).save(place / "landscape.png")
    tally = prediction.predict_to_csv(place, tmp_path / "out.csv", model=network)
    table = pd.read_csv(tmp_path / "out.csv")
    assert tuple(table.columns) == (*prediction.columns(moving=True), "model", "note")
    assert set(table.file[table.note.notna()]) == bad | {str(place / "landscape.png")}
    good = table[table.note.isna()]
    assert len(good) == 6 == tally.faces and tally.pictures == len(table)
    np.testing.assert_allclose(good[PROBABILITIES].sum(axis=1), 1, atol=1e-3)
    assert set(tally.unreadable) == bad and tally.without_face == 1

    again = prediction.predict_to_csv(place, tmp_path / "out.csv", model=network)
    assert again == tally
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out.csv"), table)


def test_every_file_of_a_folder_is_answered_named_or_counted(network, face, tmp_path, monkeypatch):
    photos = tmp_path / "photos"
    photos.mkdir()
    png = encoded(Image.fromarray(face), "PNG")
    for name in ("without_suffix", "c.jfif", ".hidden", "wrong.txt", "UPPER.PNG"):
        (photos / name).write_bytes(png)
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 48 48\n%%EndComments\nshowpage\n"
    (photos / "drawing.png").write_bytes(eps)
    (photos / "drawing.eps").write_bytes(eps)
    (photos / "phone.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    (photos / "phone").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    (photos / "pointer.jpg").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    (photos / "notes.txt").write_text("a diary", encoding="utf-8")
    (photos / "form.pdf").write_bytes(b"%PDF-1.7")
    (tmp_path / "bin").mkdir()
    started = tmp_path / "started"
    ghostscript = tmp_path / "bin" / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {started}\n", encoding="utf-8")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")

    result = prediction.predict(photos, model=network)
    assert result.faces == 5 and not started.exists()
    unreadable = {os.path.basename(file): why for file, why in result.unreadable.items()}
    assert set(unreadable) == {"drawing.png", "phone.HEIC", "phone", "pointer.jpg"}
    assert "never opened" in unreadable["drawing.png"]
    assert "pillow-heif" in unreadable["phone.HEIC"] and "pillow-heif" in unreadable["phone"]
    assert "git lfs pull" in unreadable["pointer.jpg"]
    assert {os.path.basename(file) for file in result.others} == {
        "drawing.eps", "notes.txt", "form.pdf",
    }  # fmt: skip
    assert len(list(photos.iterdir())) == result.pictures + len(result.others)
    assert "3 files that are no pictures" in str(result)


@pytest.mark.skipif(sys.platform == "win32", reason="links need an administrator on Windows")
def test_a_folder_is_walked_once_whatever_its_links(network, face, tmp_path):
    one, two = tmp_path / "in" / "one", tmp_path / "in" / "two"
    for folder in (one, two):
        folder.mkdir(parents=True)
        Image.fromarray(face).save(folder / "face.png")
    (tmp_path / "outside.png").write_bytes((one / "face.png").read_bytes())
    for name, place in {"a": ".", "b": ".", "c": "../..", "d": "../two"}.items():
        (one / name).symlink_to(place, target_is_directory=True)
    (two / "back").symlink_to(one, target_is_directory=True)
    result = prediction.predict(tmp_path / "in", model=network)
    assert result.faces == 2 and len(result.unreadable) == 5
    assert all("a link to a folder" in why for why in result.unreadable.values())


def test_a_missing_path_among_good_ones_is_named(network, face, tmp_path):
    Image.fromarray(face).save(tmp_path / "a.png")
    places = [tmp_path / "gone.png", tmp_path / "a.png"]
    result = prediction.predict(places, model=network)
    assert result.faces == 1 and "no such file" in result.unreadable[str(places[0])]
    out = tmp_path / "out.csv"
    assert prediction.predict_to_csv(places, out, model=network).unreadable == result.unreadable
    Image.fromarray(face).save(places[0])  # now that it is there it is answered
    assert not prediction.predict_to_csv(places, out, model=network).unreadable
    assert sorted(pd.read_csv(out).file) == sorted(map(str, places))


def test_the_program_answers_the_rest_and_ends_with_1(model, face, tmp_path, capsys):
    Image.fromarray(face).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"broken")
    good, bad, gone = (str(tmp_path / name) for name in ("a.png", "b.png", "gone.png"))
    command = ["predict", "--json", "--model", str(model)]
    for paths, status in {(good,): 0, (str(tmp_path),): 0, (good, gone): 1, (good, bad): 1}.items():
        assert main([*command, *paths]) == status
        assert [row["file"] for row in json.loads(capsys.readouterr().out)] == [good]
    for paths in ((bad,), (gone,), (bad, gone)):
        assert main([*command, *paths]) == 1
        assert os.path.basename(paths[0]) in capsys.readouterr().err
    assert main([*command, good, bad, "--out", str(tmp_path / "out.csv")]) == 1
    assert json.loads(capsys.readouterr().out)["faces"] == 1


def test_rows_of_a_table_with_labels_or_without(network, faces, tmp_path):
    stack = np.asarray(faces.images[:6])
    texts = [" ".join(map(str, image.ravel())) for image in stack]
    (tmp_path / "test.csv").write_text("\n".join(["pixels", *texts]), encoding="utf-8")
    lines = ["emotion,pixels,Usage", f"3,{texts[0]},Training", f",{texts[1]},PublicTest"]
    lines += [f"3,{texts[2]} 7,Training", f"9,{texts[3]},Training"]
    (tmp_path / "mixed.csv").write_text("\n".join(lines), encoding="utf-8")
    result = prediction.predict(tmp_path / "test.csv", model=network)
    table = result.to_frame()
    assert table.file.tolist() == [f"row {n}" for n in range(1, 7)]
    expected = np.asarray(network(stack[..., None]))
    np.testing.assert_allclose(table[PROBABILITIES], expected, atol=1e-5)

    result = prediction.predict(tmp_path / "mixed.csv", model=network)
    assert result.to_frame().file.tolist() == ["row 1", "row 2", "row 4"]
    assert "2305" in result.unreadable["row 3"]

    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(tmp_path / "test.csv", "test.csv")
        archive.writestr("photos/face.png", encoded(Image.fromarray(stack[0]), "PNG"))
        archive.writestr("readme.pdf", "%PDF")
    out = tmp_path / "out.csv"
    both = [tmp_path / "all.zip", tmp_path / "mixed.csv"]
    tally = prediction.predict_to_csv(both, out, model=network)
    assert tally == prediction.predict_to_csv(both, out, model=network)
    assert (tally.faces, len(tally.unreadable), len(tally.others)) == (10, 1, 1)
    named = pd.read_csv(out).file.tolist()
    inside = tmp_path / "all.zip"
    assert f"{inside / 'test.csv'}, row 6" in named and str(inside / "photos" / "face.png") in named
    assert f"{tmp_path / 'mixed.csv'}, row 4" in named

    (tmp_path / "diary.csv").write_text("day,text\n1,rain\n", encoding="utf-8")
    with pytest.raises(ValueError, match="day,text"):
        prediction.predict(tmp_path / "diary.csv", model=network)


class Stop(Exception):
    pass


@pytest.mark.parametrize("torn", [0, 1, 10, 60, 150, 300, 700])
def test_an_interrupted_folder_goes_on(network, faces, detector, tmp_path, monkeypatch, torn):
    detector((0.1, 0.1, 0.2, 0.4), (0.6, 0.5, 0.2, 0.4))  # two faces, so two rows a picture
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "notes.txt").write_text("no picture", encoding="utf-8")
    for number in range(50):
        scene(faces.images[number : number + 1], (7 * number, 96, 96), size=(480, 240)).save(
            photos / f"{number}.png"
        )
    whole, part = tmp_path / "whole.csv", tmp_path / "part.csv"
    expected = prediction.predict_to_csv(photos, whole, model=network)
    assert expected.faces == 100

    looked = []
    look = prediction._look

    def limited(file, source, problem, *rest):
        if len(looked) == 40:
            raise Stop
        if not problem:
            looked.append(file)
        return look(file, source, problem, *rest)

    monkeypatch.setattr(prediction, "_look", limited)
    with pytest.raises(Stop):
        prediction.predict_to_csv(photos, part, model=network)
    data = part.read_bytes()
    assert len(data) > 1000
    part.write_bytes(data[: len(data) - torn])  # a kill can leave half a row
    looked.clear()
    tally = prediction.predict_to_csv(photos, part, model=network)
    assert tally == expected
    assert len(looked) == 34  # all but the first batch of 16: the second was not whole
    expected, got = pd.read_csv(whole), pd.read_csv(part)
    pd.testing.assert_frame_equal(got, expected, check_exact=False, rtol=0, atol=1.5e-4)


def test_a_csv_is_rounded_after_the_emotion_was_taken(network, faces, tmp_path):
    stack = np.asarray(faces.images[:20])
    exact = prediction.predict(stack, model=network).to_frame()
    prediction.predict_to_csv(stack, tmp_path / "out.csv", model=network)
    written = pd.read_csv(tmp_path / "out.csv", dtype=dict.fromkeys(PROBABILITIES, str))
    assert written[PROBABILITIES].map(lambda text: len(text.partition(".")[2]) <= 4).all(axis=None)
    got = written[PROBABILITIES].astype(float)
    np.testing.assert_allclose(got, exact[PROBABILITIES], rtol=0, atol=1e-4)
    assert written.emotion.tolist() == exact.emotion.tolist()

    tie = keras.Sequential([keras.Input((48, 48, 1), dtype="uint8"), keras.layers.Flatten()])
    tie.add(keras.layers.Dense(7, kernel_initializer="zeros", activation="softmax", name="tie"))
    tie.layers[-1].bias.assign([0, 0, 0, 1e-5, 0, 0, 0])  # "happy", by less than is written
    prediction.predict_to_csv(stack[:1], tmp_path / "tie.csv", model=tie)
    written = pd.read_csv(tmp_path / "tie.csv")
    assert written[PROBABILITIES].nunique(axis=1).tolist() == [1]
    assert written.emotion.tolist() == ["happy"]


def test_a_csv_of_another_model_or_kind_is_left_alone(network, model, faces, tmp_path):
    stack, out = np.asarray(faces.images[:3]), tmp_path / "out.csv"
    prediction.predict_to_csv(stack, out, model=network)
    before = out.read_bytes()
    with pytest.raises(ValueError, match="is of the model toy, not"):
        prediction.predict_to_csv(stack, out, model=model)
    assert out.read_bytes() == before

    table = tmp_path / "budget.csv"
    table.write_text("month,amount\nMay,3\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"budget\.csv is not a CSV of predictions"):
        prediction.predict_to_csv(stack, table, model=network)
    assert table.read_text(encoding="utf-8") == "month,amount\nMay,3\n"

    with pytest.raises(FileNotFoundError, match="no such model"):
        prediction.predict_to_csv(stack, tmp_path / "new.csv", model="no such model.keras")
    there = sorted(p.name for p in tmp_path.iterdir())
    assert there == [".out.csv.sha256", "budget.csv", "out.csv"]


def test_file_names_of_all_kinds_survive_the_csv(network, face, tmp_path):
    (tmp_path / "in").mkdir()
    names = [
        b"comma, .png",
        b"=1+1.png",
        b"@SUM(1).png",
        b"-1+cmd().png",
        "gl\u00fccklich.png".encode(),
    ]
    if sys.platform != "win32":  # which has no such names
        names += [b'quote" .png', b"line\nbreak.png"]
    if sys.platform == "linux":  # elsewhere a name is text
        names += [b"raw\xff.png"]
    data = encoded(Image.fromarray(face), "PNG")
    for name in names:
        with open(os.path.join(os.fsencode(tmp_path / "in"), name), "wb") as file:
            file.write(data)
    prediction.predict_to_csv(tmp_path / "in", tmp_path / "out.csv", model=network)
    prediction.predict_to_csv(tmp_path / "in", tmp_path / "out.csv", model=network)
    with open(tmp_path / "out.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
        found = [os.path.basename(os.fsencode(row["file"])) for row in csv.DictReader(file)]
    assert sorted(found) == sorted(names)


@pytest.mark.slow
def test_memory_stays_flat_over_20000_pictures(model, faces, tmp_path):
    (tmp_path / "in").mkdir()
    data = [encoded(Image.fromarray(np.asarray(image)), "PNG") for image in faces.images[:100]]
    for number in range(20_000):
        (tmp_path / "in" / f"{number:05d}.png").write_bytes(data[number % 100])
    script = """
import psutil, sys
from ferlib import prediction, zoo
pictures, out, model = sys.argv[1:]
memory = lambda: psutil.Process().memory_info().rss / 2**20
for number, _ in enumerate(prediction.stream(pictures, model=model)):
    if number == 2000:
        print(memory())
print(memory())
print(prediction.predict_to_csv(pictures, out, model=model), memory())
"""
    arguments = [str(tmp_path / "in"), str(tmp_path / "out.csv"), str(model)]
    told = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        encoding="utf-8",
        check=True,
    ).stdout.split()
    early, late = float(told[0]), float(told[1])
    assert "20,000 pictures, 20,000 faces" in " ".join(told)
    assert late - early < 60, f"{early:.0f} MB after 2,000 pictures, {late:.0f} MB after 20,000"


# ---- the model ---------------------------------------------------------------------------


def test_a_model_that_would_run_code_is_refused(face, tmp_path):
    images = keras.Input((48, 48, 1), dtype="uint8")
    evil = keras.layers.Lambda(lambda x: x, output_shape=(48, 48, 1))(images)
    x = keras.layers.Dense(7, activation="softmax")(keras.layers.Flatten()(evil))
    keras.Model(images, x).save(tmp_path / "evil.keras")
    with pytest.raises(ValueError, match=r"evil\.keras cannot be loaded safely"):
        prediction.predict(face, model=tmp_path / "evil.keras")
    with pytest.raises(ValueError, match="code in a model file is never run"):
        prediction.predict_to_csv(face, tmp_path / "out.csv", model=tmp_path / "evil.keras")
    assert not (tmp_path / "out.csv").exists()


@pytest.fixture(scope="session")
def moods(tmp_path_factory):
    """Gives the path of a model of three classes that are no emotions."""
    images = keras.Input((48, 48, 1), dtype="uint8")
    x = keras.layers.Flatten()(images)
    network = keras.Model(images, keras.layers.Dense(3, activation="softmax")(x), name="moods")
    place = tmp_path_factory.mktemp("moods") / "moods.keras"
    return zoo.save(network, place, card={"classes": ["happy", "bored", "focused"]})


def test_classes_are_those_of_the_model(moods, network, faces, tmp_path):
    stack, names = np.asarray(faces.images[:5]), ("happy", "bored", "focused")
    result = prediction.predict(stack, model=moods)
    table = result.to_frame()
    assert tuple(table.columns) == prediction.columns(names)
    expected = zoo.load(moods).predict(stack[..., None], verbose=0)
    np.testing.assert_allclose(table[list(names)], expected, atol=1e-5)
    assert table.emotion.tolist() == [names[i] for i in expected.argmax(axis=1)]
    colour = labels.colours(names)[table.emotion[0]]
    assert result.draw().getpixel((0, 200)) == ImageColor.getrgb(colour)

    out = tmp_path / "out.csv"
    prediction.predict_to_csv(stack, out, model=moods)
    assert tuple(pd.read_csv(out).columns) == (
        *prediction.columns(names, moving=True),
        "model",
        "note",
    )
    before = out.read_bytes()
    with pytest.raises(ValueError, match=r"out\.csv is of the classes happy, bored, focused, and"):
        prediction.predict_to_csv(stack, out, model=network)
    assert out.read_bytes() == before


def test_classes_called_as_other_columns(faces, tmp_path):
    names = ("left", "file", "note", "person")
    images = keras.Input((48, 48, 1), dtype="uint8")
    x = keras.layers.Flatten()(images)
    network = keras.Model(images, keras.layers.Dense(4, activation="softmax")(x))
    model = zoo.save(network, tmp_path / "sides.keras", card={"classes": names})
    result = prediction.predict(np.asarray(faces.images[:3]), model=model)
    table = result.to_frame()
    expected = zoo.load(model).predict(np.asarray(faces.images[:3])[..., None], verbose=0)
    answers = [f"{name} (probability)" for name in names]
    np.testing.assert_allclose(table[answers], expected, atol=1e-5)
    assert table.left.tolist() == [0] * 3 and table.file.is_unique
    others = set(prediction.columns((), moving=True)) | {"model", "note"}
    assert not others & set(labels.answer_columns(others))
    prediction.predict_to_csv(np.asarray(faces.images[:3]), tmp_path / "out.csv", model=model)
    written = pd.read_csv(tmp_path / "out.csv")
    np.testing.assert_allclose(written[answers], expected, atol=1e-4)
    assert written.emotion.tolist() == table.emotion.tolist() and written.note.isna().all()


def test_a_model_from_elsewhere_is_read_as_it_is_said(network, faces, tmp_path):
    inputs = keras.Input((64, 64, 3))
    x = keras.layers.GlobalAveragePooling2D()(inputs)
    foreign = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(x))
    foreign.save(tmp_path / "foreign.h5")
    stack = np.asarray(faces.images[:4])
    with pytest.warns(UserWarning, match=r"foreign\.h5 does not say .*64x64x3, pixels 0-255"):
        table = prediction.predict(stack, model=tmp_path / "foreign.h5").to_frame()
    assert tuple(table.columns) == prediction.columns(("class 0", "class 1"))
    opened = runtimes.open_model(tmp_path / "foreign.h5", scaling="0-1", classes="awake,asleep")
    table = prediction.predict(stack, model=opened).to_frame()
    assert tuple(table.columns) == prediction.columns(("awake", "asleep"))
    np.testing.assert_allclose(table[["awake", "asleep"]], opened(stack), atol=1e-5)
    prediction.predict_to_csv(stack, tmp_path / "out.csv", model=opened)
    again = runtimes.open_model(opened, scaling="-1-1")
    with pytest.raises(ValueError, match="is of the model .* pixels 0-1.* not .* pixels -1-1"):
        prediction.predict_to_csv(stack, tmp_path / "out.csv", model=again)
    with pytest.raises(ValueError, match="of the classes"):
        prediction.predict_to_csv(stack, tmp_path / "out.csv", model=network)


def test_importing_prediction_imports_no_keras():
    script = (
        "import sys, ferlib.prediction; print([m for m in ('keras', 'pandas') if m in sys.modules])"
    )
    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, encoding="utf-8", check=True
    )
    assert told.stdout.strip() == "[]"


@pytest.fixture(scope="session")
def onnx(model):
    """Gives the path of `model` exported beside itself."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    return exports.export(model)


def test_an_export_is_used_where_it_lies_beside_the_model(
    model, network, onnx, faces, tmp_path, monkeypatch
):
    monkeypatch.setattr(keras.saving, "load_model", None)  # Keras is not needed
    prediction._opened.cache_clear()
    stack = np.asarray(faces.images[:20])
    for given in (model, str(model), onnx):
        got = prediction.predict(stack, model=given).to_frame()[PROBABILITIES]
        np.testing.assert_allclose(got, np.asarray(network(stack[..., None])), atol=1e-4)


def test_an_export_keeps_its_classes_and_needs_no_tensorflow(moods, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    file = tmp_path / "moods.keras"
    file.write_bytes(moods.read_bytes())
    out = exports.export(file)
    script = """
import sys, numpy as np
from ferlib import prediction
for model in sys.argv[1:]:
    found = prediction.predict(np.zeros((3, 48, 48), "uint8"), model=model)
    print(found.classes, [name for name in ("keras", "tensorflow") if name in sys.modules])
"""
    told = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", script, str(file), str(out)],
        capture_output=True,
        encoding="utf-8",
        check=True,
    ).stdout.splitlines()
    assert told == ["('happy', 'bored', 'focused') []"] * 2
    out.write_bytes(out.read_bytes()[:500])
    assert prediction.predict(np.zeros((48, 48), "uint8"), model=file).faces == 1


def test_an_export_answers_as_in_inference(faces, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    pictures = keras.Input((48, 48, 1), dtype="uint8", name="another_name")
    x = keras.layers.Resizing(32, 32)(pictures)  # before it, Keras forgets that nobody trains
    x = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(x))
    x = keras.layers.Dense(7, activation="softmax")(keras.layers.Flatten()(x))
    network = keras.Model(pictures, x)
    network.layers[2].set_weights([np.array([v], "float32") for v in (1.5, 0.2, 120, 4000)])
    file = zoo.save(network, tmp_path / "resizing.keras")
    stack = np.asarray(faces.images[:20])
    expected = network.predict(stack[..., None], verbose=0)
    for options in ({}, {"int8": True, "calibration": stack}):
        out = exports.export(file, **options)
        got = prediction.predict(stack, model=out).to_frame()[PROBABILITIES]
        np.testing.assert_allclose(got, expected, atol=1e-4)


def test_an_export_of_an_ensemble_answers_with_the_mean(model, onnx, faces, tmp_path):
    other = models.build("vgg", widths=(8, 8))
    file = zoo.save(zoo.average([model, other]), tmp_path / "both.keras")
    stack = np.asarray(faces.images[:20])
    got = prediction.predict(stack, model=exports.export(file)).to_frame()[PROBABILITIES]
    each = [m.predict(stack[..., None], verbose=0) for m in (zoo.load(model), other)]
    np.testing.assert_allclose(got, np.mean(each, axis=0), atol=1e-4)


def test_an_export_of_another_model_is_not_used(model, onnx, face, network, tmp_path):
    other = zoo.save(keras.models.clone_model(network), tmp_path / "toy.keras")
    (tmp_path / "toy.onnx").write_bytes(onnx.read_bytes())
    got = prediction.predict(face, model=other).to_frame()[PROBABILITIES].to_numpy()[0]
    np.testing.assert_allclose(got, answers(zoo.load(other), face), atol=1e-5)
    assert np.abs(got - answers(network, face)).max() > 0.01


def int8_weights(path) -> list[np.ndarray]:
    """Gives the kernels of an exported model that are 8-bit integers."""
    import onnx

    stored = [onnx.numpy_helper.to_array(x) for x in onnx.load(path).graph.initializer]
    return [values for values in stored if values.dtype == np.int8 and values.ndim == 4]


def test_an_8_bit_export_answers_nearly_the_same(model, network, onnx, faces, tmp_path):
    stack = np.asarray(faces.images)
    out = exports.export(model, tmp_path / "small.onnx", int8=True, calibration=stack[:100])
    got = prediction.predict(stack, model=out).to_frame()[PROBABILITIES].to_numpy()
    expected = np.asarray(network(stack[..., None]))
    assert (got.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.9
    assert 0 < np.abs(got - expected).max() < 0.3
    weights = int8_weights(out)
    assert weights and all(np.abs(values.astype(int)).max() <= 64 for values in weights)
    with pytest.raises(ValueError, match="calibration"):
        exports.export(model, int8=True)
    with pytest.raises(ValueError, match="'onyx'"):
        exports.export(model, to="onyx")
    assert [p.name for p in tmp_path.iterdir()] == ["small.onnx"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny", "compact", "accurate"])
def test_8_bits_cost_a_shipped_model_at_most_half_a_point(name, fer2013, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    data = cleaning.prepare(fer2013, cache=tmp_path)
    val, train = data.of("val"), data.of("train").sample(500)
    exact = exports.export(name, tmp_path / "exact.onnx")
    small = exports.export(name, tmp_path / "small.onnx", int8=True, calibration=train.images)
    images, names = np.asarray(val.images), np.array(EMOTIONS)[val.labels]
    exact, small = (
        (prediction.predict(images, model=path).to_frame().emotion == names).mean()
        for path in (exact, small)
    )
    assert small >= exact - 0.005, f"{exact:.2%} in 32 bits, {small:.2%} in 8"


def test_without_the_extra_an_export_names_it_and_keras_predicts(model, face, no_extra, tmp_path):
    with pytest.raises(ImportError, match=r'pip install "ferlib\[onnx\]"'):
        exports.export(model, tmp_path / "out.onnx")
    assert prediction.predict(face, model=model).faces == 1
    (tmp_path / "out.onnx").write_bytes(b"whatever")
    with pytest.raises(ImportError, match="onnxruntime"):
        prediction.predict(face, model=tmp_path / "out.onnx")


def test_the_figure_of_a_prediction(face):
    probabilities = np.array([0.1, 0, 0.2, 0.5, 0.1, 0.1, 0])
    ax = plots.prediction(face, probabilities, label=EMOTIONS.index("fear"), title="row 3")
    assert [bar.get_width() for bar in ax.patches] == probabilities.tolist()
    assert ax.get_title() == "row 3"
    bold = [text.get_text() for text in ax.get_yticklabels() if text.get_fontweight() == "bold"]
    assert bold == ["fear"]
