"""What a full disk, a lack of permission, damage, kills and other users do to what is on disk."""

import contextlib
import dataclasses
import html.parser
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import damage
import kills
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from matplotlib.text import Text
from PIL import Image

from ferlib import (
    cleaning,
    drawn,
    evaluation,
    exports,
    files,
    labels,
    plots,
    prediction,
    recipes,
    runtimes,
    sources,
    suite,
    training,
    tuning,
    zoo,
)
from ferlib.backend import keras

posix = pytest.mark.skipif(sys.platform == "win32", reason="limits and mounts of POSIX")
SMALL = recipes.Recipe(model="residual", options={"widths": [8], "blocks": 1}, epochs=2)


@pytest.fixture(scope="module")
def data():
    return drawn.draw(70, seed=0)


def content(folder):
    """Reads the files of a folder that are meant for people, by their path."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): path.read_bytes() for path in found if path.name not in (".lock", ".pid")}


# ---- the disk ----------------------------------------------------------------------------


@contextlib.contextmanager
def full(folder):
    """Has every write end after 600 bytes, as on a disk that is all but full."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, before[1]))
    try:
        yield "File too large"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def read_only(folder):
    """Takes the permission to write in a folder; from root, who needs none, with a mount."""
    folder.mkdir(exist_ok=True)
    if os.geteuid():
        places = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
        for place in places:
            place.chmod(0o555)
        try:
            yield "Permission denied"
        finally:
            for place in places:
                place.chmod(0o755)
        return
    if subprocess.run(["mount", "--bind", folder, folder], capture_output=True).returncode:
        pytest.skip("root may not mount here")
    subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
    try:
        yield "Read-only file system"
    finally:
        subprocess.run(["umount", folder], check=True)


def modelled(folder, data, turn):
    zoo.save(keras.Sequential([keras.Input((48, 48, 1)), keras.layers.Flatten(),
                               keras.layers.Dense(7)]), folder / "model.keras")  # fmt: skip


def exported(folder, data, turn):
    pytest.importorskip("tf2onnx")
    folder.mkdir(exist_ok=True)
    exports.export("tiny", folder / "tiny.onnx")


def photos(folder, data):
    for number in range(24):
        path = folder / str(number // 12) / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(data.images[number]).save(path)


def predicted(folder, data, turn):
    if not turn:
        photos(folder.with_name("photos"), data)
    folder.mkdir(exist_ok=True)
    options = {"model": "tiny", "detect": False, "progress": False}
    source = folder.with_name("photos") / str(turn)
    prediction.predict_to_csv(source, folder / "found.csv", **options)


def listed(folder, data, turn):
    recipes.RECIPES["quick"].replace(seed=turn).to_json(folder / "recipe.json")


@posix
@pytest.mark.parametrize(
    ("problem", "make"),
    [*((full, make) for make in (modelled, predicted, listed)),
     *((read_only, make) for make in (modelled, exported, predicted, listed))],
)  # fmt: skip
def test_what_cannot_be_written_is_named_and_the_old_file_stays(problem, make, data, tmp_path):
    folder = tmp_path / "out"
    make(folder, data, 0)
    before = content(folder)
    with problem(folder) as why, pytest.raises(files.Unwritable) as error:
        make(folder, data, 1)
    assert why in str(error.value) and str(folder) in str(error.value)
    assert content(folder) == before
    make(folder, data, 1)
    assert content(folder).keys() == before.keys()


@posix
def test_a_csv_is_continued_when_there_is_room_again(data, tmp_path):
    photos(tmp_path / "photos", data)
    with full(tmp_path), pytest.raises(files.Unwritable, match=tempfile.gettempdir()):
        zoo.load("tiny")  # Keras unpacks it there
    prediction.open_classifier("tiny")
    with full(tmp_path), pytest.raises(files.Unwritable, match=r"found\.csv cannot be written"):
        predicted(tmp_path / "out", data, 1)
    predicted(tmp_path / "out", data, 1)
    table = pd.read_csv(tmp_path / "out" / "found.csv")
    assert len(table) == table.file.nunique() == 12


@posix
@pytest.mark.parametrize("problem", [full, read_only])
def test_a_cache_that_cannot_be_written_is_named_and_the_data_is_read(problem, data, tmp_path):
    def write(turn):
        rows = [f"{i % 7},{' '.join(map(str, data.images[i + turn].ravel()))}" for i in range(28)]
        (tmp_path / "faces.csv").write_text("emotion,pixels\n" + "\n".join(rows) + "\n")

    def load():
        return sources.load(tmp_path / "faces.csv", cache=tmp_path / "cache").images

    write(0)
    load()
    before = content(tmp_path / "cache")
    write(1)
    with problem(tmp_path / "cache") as why, pytest.warns(UserWarning, match=why):
        np.testing.assert_array_equal(load(), data.images[1:29])
    assert content(tmp_path / "cache") == before
    np.testing.assert_array_equal(load(), data.images[1:29])
    assert content(tmp_path / "cache") != before


class Fill(keras.callbacks.Callback):
    """Fills the disk after the first epoch."""

    def __init__(self, disk):
        super().__init__()
        self.disk = disk

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            self.disk.enter_context(full(None))


@posix
def test_a_training_continues_when_there_is_room_again(data, tmp_path):
    training.train(SMALL, data, tmp_path / "whole", verbose=False)
    too_large = pytest.raises(files.Unwritable, match=r"epoch-0002\.npz .* too large")
    with too_large, contextlib.ExitStack() as disk:
        training.train(SMALL, data, tmp_path / "out", callbacks=[Fill(disk)], verbose=False)
    assert [path.name for path in (tmp_path / "out/state").glob("e*")] == ["epoch-0001.npz"]
    training.train(SMALL, data, tmp_path / "out", verbose=False)
    models = [zoo.load(tmp_path / name / "model.keras") for name in ("whole", "out")]
    for left, right in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(left, right)


@posix
def test_a_search_stops_where_the_disk_is_full_and_blames_no_trial(data, tmp_path, monkeypatch):
    def train(recipe, data, out, **_):
        recipe.to_json(out / "recipe.json")
        if broken:
            with full(out):
                files.write(out / "state" / "epoch-0001.npz", bytes(1000))
        files.write_json(out / "metrics.json", {"val_accuracy": recipe.learning_rate})

    monkeypatch.setattr(training, "train", train)
    options = {"method": "random", "trials": 3, "verbose": False}
    broken = True
    with pytest.raises(OSError, match=r"trial_0/state/epoch-0001\.npz cannot be written: File too"):
        tuning.tune(data, tmp_path, **options)
    broken = False
    table = tuning.tune(data, tmp_path, **options)
    assert list(table.number) == [0, 1, 2] and set(table.status) == {"completed"}


# ---- the home ----------------------------------------------------------------------------


def in_a_home(home, code, *arguments, cwd):
    """Runs Python as somebody who has this home and no other setting."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(ROOT)}
    environment |= {"TMPDIR": tempfile.gettempdir(), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    options = {"capture_output": True, "text": True, "timeout": 900}
    told = subprocess.run(command, cwd=cwd, env=environment, **options)
    assert told.returncode == 0, told.stdout[-2000:] + told.stderr[-4000:]


@posix
@pytest.mark.slow
def test_every_command_works_where_the_home_cannot_be_written_to(data, tmp_path):
    for name in ("notebooks", "profiles", "ferlib"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "pyproject.toml").touch()
    SMALL.to_json(tmp_path / "recipe.json")
    photos(tmp_path / "photos", data)
    commands = [
        "data drawn:70",
        "train recipe.json --data drawn:70 --out trained",
        "tune --method random --trials 1 --epochs 1 --data drawn:70 --out search",
        "evaluate trained/model.keras --data drawn:70",
        "predict photos --model trained/model.keras --out found.csv",
        "export trained/model.keras --out small.onnx",
        "export trained/model.keras --to litert --out small.tflite",
        "kernel 01 --for colab --out packed",
        "run --profile smoke --data drawn:140 --only 01",
    ]
    code = "import sys\nfrom ferlib.__main__ import main\nfor command in sys.argv[1:]:\n"
    code += "    assert main(command.split()) == 0, command"
    with read_only(tmp_path / "home"):
        in_a_home(tmp_path / "home", code, *commands, cwd=tmp_path)


def test_onnxruntime_keeps_no_id_and_reports_to_nobody(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    sides = [onnx.helper.make_tensor_value_info(name, 1, [1]) for name in "xy"]
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "g", sides[:1], sides[1:])
    version = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=version, ir_version=8), tmp_path / "m")
    (tmp_path / "home").mkdir()
    code = "import sys, ferlib, onnxruntime\nonnxruntime.InferenceSession(sys.argv[1])"
    in_a_home(tmp_path / "home", code, tmp_path / "m", cwd=tmp_path)
    assert not list((tmp_path / "home").rglob("deviceid"))


# ---- damage ------------------------------------------------------------------------------


def test_a_manifest_or_a_result_that_was_changed_is_noticed(tmp_path):
    value = {"stages": {"01": {"seconds": 3.25}}, "seed": 7}
    files.write_json(tmp_path / "a.json", value, sealed=True)
    assert files.read_json(tmp_path / "a.json") == value
    text = (tmp_path / "a.json").read_text()
    for changed in (text.replace("3.25", "3.35"), text[:40], ""):
        (tmp_path / "a.json").write_text(changed)
        with pytest.raises(ValueError, match=r"a\.json is damaged"):
            files.read_json(tmp_path / "a.json")


def test_a_checkpoint_that_was_emptied_is_refused_by_name(tmp_path):
    damage.make_half(tmp_path)
    (tmp_path / "state" / "epoch-0001.npz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"epoch-0001\.npz is damaged"):
        damage.ask_half(tmp_path)


def test_what_was_damaged_is_refused_by_name_or_made_again():
    counts, faults, _ = damage.main(24, 1, ("cache", "csv", "search"))
    assert not faults and sum(counts.values()) == 24
    assert counts["csv", "refused by name"] > 4 and counts["cache", "the same"] == 8


@pytest.mark.slow
def test_more_that_was_damaged():
    counts, faults, _ = damage.main(64, 2)
    assert not faults and sum(counts.values()) == 64


@pytest.mark.slow
def test_a_tflite_file_that_was_cut_off_is_an_error_and_no_signal(tmp_path):
    path = exports.export("tiny", tmp_path / "tiny.tflite", to="litert")
    content = path.read_bytes()
    for kept in (len(content) // 20, len(content) // 2, len(content) - 300):
        path.write_bytes(content[:kept])
        with pytest.raises(ValueError, match=r"tiny\.tflite is damaged"):
            runtimes.open_model(path)


@posix
@pytest.mark.slow
def test_a_tflite_file_is_not_written_by_half(tmp_path):
    path = tmp_path / "tiny.tflite"
    path.write_text("old")
    with full(tmp_path), pytest.raises(files.Unwritable, match="cannot be written"):
        exports.export("tiny", path, to="litert")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


# ---- kills -------------------------------------------------------------------------------


@posix
@pytest.mark.slow
def test_twenty_kills_lose_nothing():
    killer = kills.main(seed=3, kills=20)
    assert not killer.faults
    assert sum(count["kills"] for count in killer.counts.values()) == 20


# ---- two at once -------------------------------------------------------------------------


def test_two_do_not_write_one_csv_or_one_search(data, tmp_path):
    code = "import sys\nfrom ferlib import files\nheld = []\nfor folder, name in [(sys.argv[1], "
    code += "'found.csv'), (sys.argv[1] + '/workers/worker', '')]:\n    held.append(files.hold("
    code += "folder, wait=0, name=name))\nprint('held', flush=True)\nsys.stdin.read()"
    command = [sys.executable, "-c", code, str(tmp_path / "out")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RuntimeError, match=f"found.csv is in use by process {other.pid}"):
            predicted(tmp_path / "out", data, 0)
        with pytest.raises(RuntimeError, match=f"in use by process {other.pid}"):
            tuning.tune(data, tmp_path / "out", method="random", trials=1, verbose=False)
    predicted(tmp_path / "out", data, 0)


# ---- names -------------------------------------------------------------------------------

NAMES = ("<script>alert(1)</script>", "=cmd()|' /c calc'!A1", "a,b;c", "two\nlines", "$\\frac{$",
         "$x^2$ a_{b", "**7** {{ 7 * 7 }} [l](javascript:alert(1))")  # fmt: skip
TITLE = "<img src=x onerror=alert(1)> $y^2$ =cmd() **8** {{ 8 * 8 }} `'\".csv"


def test_names_are_text_in_a_report(tmp_path):
    about = {"title": NAMES[0], "is_drawn": False}
    parameters = dict(zip(NAMES, reversed(NAMES), strict=True))
    entry = {"status": "done", "parameters": parameters, "outputs": [f"x/{NAMES[0]}.png"],
             "data": NAMES[0], "seconds": 1, "problem": NAMES[0]}  # fmt: skip
    manifest = {"status": "done", "profile": NAMES[0], "seed": 0, "data": about, "revision": None,
                "versions": {}, "stages": {"01_x": entry}}  # fmt: skip
    row = {"accuracy": 0.5, "low": 0.4, "high": 0.6, "split": NAMES[0]}
    files.write_json(tmp_path / "01_x" / "metrics.json", {NAMES[0]: row})
    files.write_json(tmp_path / "manifest.json", manifest, sealed=True)
    suite._report(manifest, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page and page.count("&lt;script&gt;") >= 7


@posix
def test_names_are_text_in_a_csv_also_when_it_is_continued(data, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        Image.fromarray(data.images[number]).save(folder / f"{name.replace('/', ' ')}.png")
    wanted = {str(path) for path in folder.iterdir()}
    for _ in range(2):
        options = {"model": "tiny", "detect": False, "progress": False}
        prediction.predict_to_csv(folder, tmp_path / "found.csv", **options)
        table = pd.read_csv(tmp_path / "found.csv")
        assert len(table) == len(NAMES) and set(table.file) == wanted


def named_wildly(path, data):
    """Writes data as a csv with labels that somebody may mean ill with."""
    rows = [[NAMES[data.labels[i]], " ".join(map(str, image.ravel())), f"{data.split[i]}"]
            for i, image in enumerate(data.images)]  # fmt: skip
    pd.DataFrame(rows, columns=["emotion", "pixels", "Usage"]).to_csv(path, index=False)
    return path


@pytest.mark.parametrize("parse_math", [True, False])
def test_labels_are_text_in_data_and_figures(data, tmp_path, parse_math, monkeypatch):
    monkeypatch.setitem(plt.rcParams, "text.parse_math", parse_math)
    source = named_wildly(tmp_path / "faces.csv", data)
    found = sources.load(source, cache=tmp_path / "cache")
    names = {found.classes[label] for label in found.labels}
    assert names == set(map(labels.canonical, NAMES))
    assert sources.describe(found).loc["all", "all"] == 70
    many = len(found.classes)
    answers = np.eye(many)[found.labels] * 0.9 + 0.1 / many
    report = evaluation.report_on(answers, found, "all", resamples=20)
    shown = {"classes": found.classes}
    voted = dataclasses.replace(found, votes=np.ones((70, 10), "float32"))
    told = pd.DataFrame(answers, columns=found.classes)
    told = told.assign(person=1, seconds=np.arange(70) / 25)
    for draw in (
        lambda: plots.gallery(found.images, found.labels, **shown),
        lambda: plots.gallery(found.images[:7], captions=sorted(names)),
        lambda: plots.confusion_matrix(report.confusion, **shown),
        lambda: plots.one_vs_rest(report),
        lambda: plots.prediction(found.images[0], answers[0], **shown),
        lambda: plots.augmentations({name: found.images[:2] for name in names}),
        lambda: plots.votes_against_labels(voted),
        lambda: plots.emotions_over_time(told, **shown)[0].figure,
    ):
        plt.close("all")
        drawn_on = draw()
        drawn_on.figure.canvas.draw()
        parts = [text._preprocess_math(text.get_text()) for text in drawn_on.findobj(Text)]
        assert not [name for name in names if not any(name in text for text, _ in parts)]
        assert not any(is_maths for _, is_maths in parts)
    plt.close("all")


class Page(html.parser.HTMLParser):
    """Collects what a page starts or links to, and its text that MathJax and Markdown reach."""

    def __init__(self, text):
        super().__init__()
        self.open, self.active, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        told = {name: value or "" for name, value in attrs}
        self.active += [name for name in told if name.startswith("on")]
        self.active += [value for value in told.values() if value.startswith("javascript:")]
        if tag not in ("img", "br", "meta", "link", "input", "hr", "col"):
            is_text = tag in ("pre", "code", "script", "style", "title")
            self.open.append((tag, is_text or "mathjax_ignore" in told.get("class", "")))

    def handle_endtag(self, tag):
        while self.open and self.open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        if [tag for tag, _ in self.open][-1:] == ["script"] and "alert" in data:
            self.active.append(data)
        if not any(is_text for _, is_text in self.open):
            self.text += data


def pages_of_a_run(project, source, stages, wanted=("done",), **options):
    """Runs notebooks on data that is named wildly; gives them as HTML, and the report."""
    nbconvert = pytest.importorskip("nbconvert", reason="the extra lab is not installed")
    for name in ("notebooks", "profiles"):
        shutil.copytree(ROOT / name, project / name, dirs_exist_ok=True)
    made = suite.run("smoke", str(source), project=project, only=stages, **options)
    assert {entry["status"] for entry in made["stages"].values()} == {*wanted}, made["stages"]
    executed = [Path(made["folder"], f"{stage}.ipynb") for stage in made["stages"]]
    for path in executed:  # no name passes a renderer of Markdown
        assert "text/markdown" not in path.read_text(encoding="utf-8")
    told = [nbconvert.HTMLExporter().from_filename(path)[0] for path in executed]
    return [*told, Path(made["folder"], "report.html").read_text(encoding="utf-8")]


def check_text(page):
    """Checks that the names are on a page, and nothing but text."""
    seen = Page(page)
    assert not seen.active
    assert not [name for name in (*NAMES[:5], "^2$", "javascript") if name in seen.text]
    assert "&lt;img src=x onerror=alert(1)&gt; $y^2$ =cmd() **8** {{ 8 * 8 }} `" in page


@posix
def test_names_are_text_in_an_executed_notebook(data, tmp_path):
    notebook, report = pages_of_a_run(tmp_path, named_wildly(tmp_path / TITLE, data), ("01",))
    check_text(notebook)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in notebook
    assert not Page(report).active and "&lt;img src=x onerror=alert(1)&gt; $y^2$" in report


@posix
@pytest.mark.slow
def test_names_are_text_in_notebooks_of_models(tmp_path):
    source = named_wildly(tmp_path / TITLE, drawn.draw(280, seed=0))
    trained = tmp_path / "runs" / "smoke" / "03_cnn_training" / "compact"
    training.train(SMALL, cleaning.prepare(source), trained, verbose=False)
    *notebooks, _ = pages_of_a_run(tmp_path, source, ("06", "07"))
    for notebook in notebooks:
        check_text(notebook)
    wrong = {"06.models": NAMES[0]}
    failed, _, report = pages_of_a_run(
        tmp_path, source, ("06",), ["failed", "done"], parameters=wrong
    )
    for page in (failed, report):
        assert not Page(page).active and "&lt;script&gt;alert(1)&lt;" in page


# ---- the web -----------------------------------------------------------------------------


def test_a_name_that_means_another_address_the_second_time_is_no_way_in(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    asked, connected = [], []

    def look_up(host, port, **_):
        asked.append(host)
        address = "93.184.215.14" if len(asked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    def connect(address, *_):
        connected.append(address)
        raise ConnectionRefusedError("nobody there")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(socket, "create_connection", connect)
    for url in ("http://two.example/a.png", "https://two.example/a.png"):
        asked.clear()
        with pytest.raises(ValueError, match="nobody there"):
            prediction.predict(url, model="tiny")
    assert connected == [("93.184.215.14", 80), ("93.184.215.14", 443)]
    with pytest.raises(ValueError, match=r"two\.example \(127\.0\.0\.1\) is this machine"):
        prediction.predict("http://two.example/a.png", model="tiny")
    assert len(connected) == 2
