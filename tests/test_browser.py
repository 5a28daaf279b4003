"""The notebooks in JupyterLab, in a browser: what a person sees.

Screenshots are kept in `$FERLIB_SCREENSHOTS`, or in pytest's temporary folder.
"""

import base64
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import numpy as np
import pytest
from conftest import ROOT, profile_of
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from PIL import Image

from ferlib import drawn, prediction
from ferlib.labels import EMOTIONS

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync "
    "--use-fake-device-for-media-stream --use-fake-ui-for-media-stream"
).split()
TOKEN = "seven-notebooks"
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},  # else hidden cells are not drawn
}
OVERFLOWING = """() => [...document.querySelectorAll('.jp-OutputArea-output')]
    .filter(output => output.scrollWidth > output.clientWidth + 2)
    .map(output => output.innerText.slice(0, 80) || output.innerHTML.slice(0, 80))"""
ENDED = """() => {
    const cells = jupyterapp.shell.currentWidget.content.widgets.map(cell => cell.model);
    const code = cells.filter(cell => cell.type === 'code' && cell.sharedModel.source);
    const failed = cell => cell.outputs.toJSON().some(out => out.output_type === 'error');
    const ended = cell => cell.executionState === 'idle' && cell.executionCount;
    return code.some(failed) || code.every(ended);
}"""
PLAYED = """async source => {
    const video = document.createElement('video');
    video.muted = true;
    video.src = source;
    await new Promise((done, fail) => {
        video.onloadeddata = done;
        video.onerror = () => fail(video.error.message);
    });
    video.currentTime = 1.02;
    await new Promise(done => { video.onseeked = done; });
    const canvas = document.createElement('canvas');
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    const context = canvas.getContext('2d');
    const isBlack = () => context.getImageData(0, 0, canvas.width, canvas.height)
        .data.every((value, i) => i % 4 === 3 || !value);
    for (let tries = 0; tries < 100; tries++) {  // "seeked" may come before the frame
        context.drawImage(video, 0, 0);
        if (!isBlack()) break;
        await new Promise(done => setTimeout(done, 100));
    }
    return [video.duration, canvas.toDataURL('image/png')];
}"""
HEIGHT = "() => document.querySelector('.jp-WindowedPanel-outer').scrollHeight"
TO_TOP = "() => { document.querySelector('.jp-WindowedPanel-outer').scrollTop = 0; }"

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory):
    named = os.environ.get("FERLIB_SCREENSHOTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Serves a copy of the notebooks, in `$FERLIB_PROFILE`, in JupyterLab; gives its address."""
    project = tmp_path_factory.mktemp("lab")
    shutil.copy(ROOT / "pyproject.toml", project)
    (project / "ferlib").mkdir()  # this is the project, then
    (project / "notebooks").mkdir()
    data = {"data": "" if os.environ.get("FERLIB_DATA") else "drawn:700"}
    for path in NOTEBOOKS:
        values = data | profile_of(path)
        notebook = parameterize_notebook(load_notebook_node(str(path)), values)
        nbformat.write(notebook, project / "notebooks" / path.name)
    for name, value in SETTINGS.items():
        path = project / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--no-browser", "--allow-root", "--expose-app-in-browser", "--ip=127.0.0.1"]
    options += [f"--port={port}", f"--IdentityProvider.token={TOKEN}"]
    folders = {"SETTINGS_DIR": "settings", "WORKSPACES_DIR": "workspaces"}
    environment = {f"JUPYTERLAB_{k}": str(project / v) for k, v in folders.items()}
    environment |= {f"JUPYTER_{k}_DIR": str(project / k) for k in ("CONFIG", "DATA", "RUNTIME")}
    environment = os.environ | environment | {"PYTHONPATH": str(ROOT)}
    environment.pop("MPLBACKEND", None)  # figures are drawn where people see them
    log = (project / "lab.log").open("w")
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", "--notebook-dir", "notebooks", *options],
        cwd=project,
        env=environment,
        stdout=log,
        stderr=log,
    )
    address = f"http://127.0.0.1:{port}"
    end = time.monotonic() + 600
    while True:
        try:
            urllib.request.urlopen(f"{address}/api/status?token={TOKEN}", timeout=60).close()
            break
        except OSError:
            alive = server.poll() is None and time.monotonic() < end
            assert alive, (project / "lab.log").read_text()
            time.sleep(0.5)
    yield address, project / "notebooks"
    server.terminate()
    server.wait(120)
    log.close()


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Films two drawn persons for two seconds."""
    cv2 = pytest.importorskip("cv2")
    path = tmp_path_factory.mktemp("film") / "drawn.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (640, 480))
    for picture, _ in drawn.clip(2):
        writer.write(picture[..., ::-1])
    writer.release()
    return path


@pytest.fixture(scope="module")
def camera(tmp_path_factory):
    """Gives what Chromium's fake camera films: a drawn person, raw (YUV4MPEG2)."""
    cv2 = pytest.importorskip("cv2")
    path = tmp_path_factory.mktemp("camera") / "camera.y4m"
    with path.open("wb") as file:
        file.write(b"YUV4MPEG2 W640 H480 F25:1 Ip A1:1 C420mpeg2\n")
        for picture, _ in drawn.clip(0.8):
            file.write(b"FRAME\n" + cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420).tobytes())
    return path


@pytest.fixture(scope="module")
def browser(camera):
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("needs chromium: apt-get install chromium")
    flags = [*FLAGS, f"--use-file-for-fake-video-capture={camera}"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def page(lab, browser):
    """Gives a page as wide as a laptop's, and ends the kernels that it has started."""
    address, _ = lab
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(600_000)
    yield page
    head = {"Authorization": f"token {TOKEN}"}
    for kernel in page.request.get(f"{address}/api/kernels", headers=head).json():
        page.request.delete(f"{address}/api/kernels/{kernel['id']}", headers=head)
    page.close()


def visit(page, address, name):
    page.goto(f"{address}/lab/tree/{name}?reset&token={TOKEN}")
    page.wait_for_selector(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook .jp-Cell")


@pytest.mark.parametrize("name", [path.name for path in NOTEBOOKS])
def test_run_all(name, lab, page, screenshots):
    address, folder = lab
    visit(page, address, name)
    page.wait_for_function(
        "() => jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
    )
    page.click(".lm-MenuBar-itemLabel >> text='Run'")
    page.click("[data-command='runmenu:run-all']")
    page.wait_for_function(ENDED, timeout=1_800_000, polling=1000)
    page.evaluate("() => jupyterapp.commands.execute('docmanager:save')")
    overflowing = page.evaluate(OVERFLOWING)
    page.set_viewport_size({"width": 1280, "height": min(30_000, page.evaluate(HEIGHT) + 100)})
    page.evaluate(TO_TOP)
    page.wait_for_timeout(1000)
    page.screenshot(path=screenshots / f"{name.removesuffix('.ipynb')}.png")

    cells = [c for c in nbformat.read(folder / name, as_version=4).cells if c.cell_type == "code"]
    outputs = [(cell, out) for cell in cells for out in cell.outputs]
    for cell, out in outputs:
        assert out.output_type != "error", f"{cell.source}\n{out.ename}: {out.evalue}"
        assert out.get("name") != "stderr", f"{cell.source}\n{out.text[:1000]}"
    assert any("image/png" in out.get("data", {}) for _, out in outputs), "no figure"
    assert not overflowing, f"wider than the page: {overflowing}"
    if any("FileUpload(" in cell.source for cell in cells):
        upload(page, folder, screenshots)
    if any("camera.widget(" in cell.source for cell in cells):
        look(page, screenshots)


def upload(page, folder, screenshots):
    """Gives a face to the upload button of the notebook, and waits for what it says."""
    face = folder.parent / "face.png"
    Image.fromarray(drawn.draw(21, seed=1).images[0]).save(face)
    with page.expect_file_chooser() as chooser:
        page.click("button.jupyter-widgets.widget-upload")
    chooser.value.set_files(face)
    answer = page.locator(".jupyter-widgets.widget-output")
    answer.locator("img").wait_for()
    answer.locator("table").wait_for()
    answer.scroll_into_view_if_needed()
    answer.screenshot(path=screenshots / "upload.png")
    assert set(EMOTIONS) <= set(answer.locator("th").all_inner_texts())


def look(page, screenshots):
    """Starts the camera of the notebook, waits until a person is named, and stops it."""
    button = page.locator("button.ferlib-camera")
    button.scroll_into_view_if_needed()
    button.click()
    emotions = "|".join(EMOTIONS)
    page.wait_for_function(
        "wanted => new RegExp(wanted).test("
        "document.querySelector('button.ferlib-camera + span').textContent)",
        arg=f"^[0-9]+: ({emotions})",
    )
    page.locator("button.ferlib-camera ~ canvas").screenshot(path=screenshots / "camera.png")
    button.click()
    assert button.inner_text() == "Start the camera"


def test_a_written_clip_is_played(browser, film, tmp_path, screenshots):
    cv2 = pytest.importorskip("cv2")
    pytest.importorskip("imageio_ffmpeg", reason="the extra video is not installed")
    out = tmp_path / "faces.mp4"
    tally = prediction.predict_to_clip(film, out, model="tiny", detect=False, progress=False)
    assert tally.faces == 50
    page = browser.new_page()
    source = "data:video/mp4;base64," + base64.b64encode(out.read_bytes()).decode()
    seconds, shown = page.evaluate(PLAYED, source)
    page.close()
    assert seconds == pytest.approx(2, abs=0.05)
    shown = Image.open(io.BytesIO(base64.b64decode(shown.partition(",")[2]))).convert("RGB")
    shown.save(screenshots / "played.png")
    video = cv2.VideoCapture(str(out))
    frames = [video.read()[1][..., ::-1].astype(int) for _ in range(27)]
    apart = [np.abs(frame - np.asarray(shown)).mean() for frame in frames]
    assert np.argmin(apart) == 25 and min(apart) < 3, "it shows another frame than that at 1.02 s"


def test_contents_and_links(lab, page, screenshots):
    address, _ = lab
    visit(page, address, NOTEBOOKS[0].name)
    page.click(".lm-TabBar-tab[data-id='table-of-contents']")
    page.wait_for_selector(".jp-TableOfContents-tree .jp-tocItem")
    told = page.locator(".jp-TableOfContents-tree .jp-tocItem-content").all_inner_texts()
    page.screenshot(path=screenshots / "contents.png")
    text = "\n".join(cell.source for cell in nbformat.read(NOTEBOOKS[0], as_version=4).cells)
    written = [line.lstrip("# ") for line in text.splitlines() if line.startswith(("# ", "## "))]
    assert [line.strip() for line in told] == written
    page.click(f".jp-RenderedMarkdown a[href*='{NOTEBOOKS[1].name}'] >> nth=0")
    page.wait_for_function(
        f"() => jupyterapp.shell.currentWidget?.context?.path === '{NOTEBOOKS[1].name}'"
    )
