"""The page in the book that answers in the visitor's own browser, in Chromium."""

import functools
import http.server
import importlib.util
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from ferlib import drawn, prediction
from ferlib.labels import EMOTIONS

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--use-fake-device-for-media-stream --use-fake-ui-for-media-stream"
).split()
ANSWERED = "number => Number(document.body.dataset.answers ?? 0) >= number"
PROBABILITIES = "() => [...document.querySelectorAll('li')].map(row => +row.dataset.probability)"

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Builds the page, and gives the address where it is served."""
    pytest.importorskip("tf2onnx")
    if not shutil.which("npm"):
        pytest.skip("needs npm, which brings onnxruntime-web")
    spec = importlib.util.spec_from_file_location("build", ROOT / "docs" / "browser" / "build.py")
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    out = tmp_path_factory.mktemp("site")
    try:
        build.build(out, ["tiny"])
    except SystemExit as error:
        if "npm did not bring" in str(error):
            pytest.skip(str(error))
        raise
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=out)
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def page(site):
    """Gives the page, loaded, in a browser with a camera of drawn pictures."""
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("needs chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1000, "height": 800})
        page.set_default_timeout(120_000)
        page.errors, page.asked = [], []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(site)
        page.wait_for_selector("#file:enabled")
        yield page
        assert not page.errors
        browser.close()


def ask(page, path):
    """Gives the page a picture, and what it answers."""
    before = page.evaluate("() => Number(document.body.dataset.answers ?? 0)")
    page.set_input_files("#file", path)
    page.wait_for_function(ANSWERED, arg=before + 1)
    return page.evaluate(PROBABILITIES)


def picture(kind, face):
    """Makes a picture of a drawn face: other sizes, colours, noise, transparency."""
    image = Image.fromarray(face)
    noise = np.random.default_rng(0).integers(0, 256, (131, 90, 3), "uint8")
    return {
        "as it is": image,
        "enlarged": image.resize((301, 200)).convert("RGB"),
        "reduced": image.resize((30, 41)),
        "noise": Image.fromarray(noise),
        "transparent": Image.fromarray(
            np.dstack([noise, np.where(noise[..., 0] > 99, 255, 0).astype("uint8")]), "RGBA"
        ),
    }[kind]


@pytest.mark.parametrize("kind", ["as it is", "enlarged", "reduced", "noise", "transparent"])
def test_the_page_answers_as_ferlib_does(page, tmp_path, kind):
    path = tmp_path / "face.png"
    picture(kind, drawn.draw(70).images[3].reshape(48, 48)).save(path)
    (row,) = prediction.predict(path, model="tiny", detect=False).rows
    np.testing.assert_allclose(ask(page, path), row[-8:-1], rtol=0, atol=1e-4)
    assert row[-1] in page.inner_text("#status")


def test_a_square_is_drawn_around_a_face(page, tmp_path):
    face = Image.fromarray(drawn.draw(70).images[5].reshape(48, 48)).resize((96, 96))
    scene = Image.new("L", (400, 300), 200)
    scene.paste(face, (200, 100))
    scene.save(tmp_path / "scene.png")
    (tmp_path / "boxes.csv").write_text("file,left,top,width,height\nscene.png,200,100,96,96\n")
    ask(page, tmp_path / "scene.png")
    box = page.locator("#picture").bounding_box()
    zoom = box["width"] / 400
    before = page.evaluate("() => Number(document.body.dataset.answers)")
    page.mouse.move(box["x"] + 200 * zoom, box["y"] + 100 * zoom)
    page.mouse.down()
    page.mouse.move(box["x"] + 296 * zoom, box["y"] + 196 * zoom)
    page.mouse.up()
    page.wait_for_function(ANSWERED, arg=before + 1)
    given = {"model": "tiny", "boxes": tmp_path / "boxes.csv"}
    (row,) = prediction.predict(tmp_path / "scene.png", **given).rows
    np.testing.assert_allclose(page.evaluate(PROBABILITIES), row[-8:-1], rtol=0, atol=1e-4)
    if os.environ.get("FERLIB_SCREENSHOTS"):
        page.screenshot(path=Path(os.environ["FERLIB_SCREENSHOTS"], "page.png"))


def test_the_camera_is_answered_and_nothing_leaves_the_machine(page, site):
    before = page.evaluate("() => Number(document.body.dataset.answers ?? 0)")
    page.click("#camera")
    page.wait_for_function(ANSWERED, arg=before + 3)
    answers = page.evaluate(PROBABILITIES)
    assert len(answers) == len(EMOTIONS) and sum(answers) == pytest.approx(1, abs=1e-4)
    page.click("#camera")
    assert page.inner_text("#camera") == "Use the camera"
    assert all(url.startswith((site, "blob:", "data:")) for url in page.asked)
    with pytest.raises(Exception, match="Failed to fetch"):
        page.evaluate("() => fetch('http://127.0.0.2:9/')")


def test_what_is_no_picture_is_named(page, tmp_path):
    (tmp_path / "notes.txt").write_text("no picture", encoding="utf-8")
    page.set_input_files("#file", tmp_path / "notes.txt")
    page.wait_for_function("() => document.body.innerText.includes('notes.txt is no picture')")
