"""What a full disk, a lack of permission, damage, kills and other users do to what is on disk."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile

import damage
import kills
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from PIL import Image

from ferlib import (
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

NAMES = ("<script>alert(1)</script>", "=cmd()|' /c calc'!A1", "a,b;c", "two\nlines", "$\\frac{$")


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


def test_labels_are_text_in_data_and_figures(data, tmp_path):
    rows = [[NAMES[(i + 2) % 5], " ".join(map(str, data.images[i].ravel()))] for i in range(70)]
    table = pd.DataFrame(rows, columns=["emotion", "pixels"])
    table.to_csv(tmp_path / "faces.csv", index=False)
    found = sources.load(tmp_path / "faces.csv", cache=tmp_path / "cache")
    names = {found.classes[label] for label in found.labels}
    assert names == set(map(labels.canonical, NAMES))
    assert sources.describe(found).loc["all", "all"] == 70
    many = len(found.classes)
    answers = np.eye(many)[found.labels] * 0.9 + 0.1 / many
    report = evaluation.report_on(answers, found, "all", resamples=20)
    shown = {"classes": found.classes}
    for draw in (
        lambda: plots.gallery(found.images, found.labels, **shown),
        lambda: plots.gallery(found.images[:5], captions=sorted(names)),
        lambda: plots.confusion_matrix(report.confusion, **shown),
        lambda: plots.one_vs_rest(report),
        lambda: plots.prediction(found.images[0], answers[0], **shown),
    ):
        plt.close("all")
        ax = draw()
        ax.figure.canvas.draw()
        texts = [text.get_text().replace(r"\$", "$") for text in ax.findobj(Text)]
        assert all(any(name in text for text in texts) for name in names)
    plt.close("all")


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
