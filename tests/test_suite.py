"""The suite, on folders of tiny notebooks that need no Keras."""

import dataclasses
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import psutil
import pytest

from ferlib import suite

COMMON = """data: str = ""  # where the data is
out: str = ""  # folder for what this makes
seed: int = 0  # seed of every random choice
pictures: int = 0  # at most this many pictures; 0 is all
"""
BEGIN = "from ferlib import suite\nstage = suite.begin({name!r}, data=data, out=out, seed=seed)"
OPEN = "from pathlib import Path\nhere = Path(out)\nhere.mkdir(parents=True, exist_ok=True)"


def write(project, name, *code, own="", reads=(), makes=()):
    """Writes one notebook of a project."""
    cell = nbformat.v4.new_code_cell(COMMON + own, metadata={"tags": ["parameters"]})
    nb = nbformat.v4.new_notebook(cells=[cell, *map(nbformat.v4.new_code_cell, (OPEN, *code))])
    nb.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    nb.metadata["ferlib"] = {"reads": list(reads), "makes": list(makes)}
    path = project / "notebooks" / f"{name}.ipynb"
    path.parent.mkdir(exist_ok=True)
    nbformat.write(nb, path)
    smoke = project / "profiles" / "smoke.yaml"
    smoke.parent.mkdir(exist_ok=True)
    smoke.write_text("all:\n  pictures: 700\n")


@pytest.fixture
def project(tmp_path):
    """Makes three notebooks: 02 reads what 01 makes, 03 stands alone."""
    write(
        tmp_path,
        "01_first",
        "import json\nprint('factor', factor)",
        "(here / 'metrics.json').write_text(json.dumps("
        "{'cnn': {'accuracy': factor / 10, 'low': 0.1, 'high': 0.9, 'split': 'val'}}))",
        own="factor: int = 2  # tenths right\nfast: bool = False  # whether to hurry\n",
        makes=["metrics.json"],
    )
    write(
        tmp_path,
        "02_second",
        "text = (here.parent / '01_first' / 'metrics.json').read_text()\n"
        "(here / 'copy.txt').write_text(text)",
        reads=["01_first/metrics.json"],
        makes=["copy.txt"],
    )
    write(tmp_path, "03_third", "(here / 'three.txt').write_text('3')", makes=["*.txt"])
    return tmp_path


def run(project, **options):
    return suite.run("smoke", "drawn:70", project=project, **options)


def notebooks_run(capsys):
    """Names the notebooks that the last run has executed."""
    lines = capsys.readouterr().out.splitlines()
    return [line.split(":")[0] for line in lines if line.endswith(": running")]


def test_run_in_order_then_left_out_then_only_dependants(project, capsys):
    made = run(project)
    text = capsys.readouterr().out
    assert text.index("01_first: running") < text.index("    factor 2") < text.index("02_second: r")
    assert "DRAWN FACES" in text
    assert made["status"] == "done"
    assert list(made["stages"]) == ["01_first", "02_second", "03_third"]
    folder = project / "runs" / "smoke"
    assert json.loads((folder / "manifest.json").read_text())["status"] == "done"
    assert made["stages"]["01_first"]["outputs"] == ["01_first/metrics.json"]
    assert made["stages"]["01_first"]["parameters"] == {"seed": 0, "pictures": 700}

    page = (folder / "report.html").read_text()
    assert suite.ON_VAL in page
    assert "DRAWN FACES" in page and "20.0 %" in page and "10.0–90.0 %" in page
    assert 'href="02_second.ipynb"' in page and str(project) not in page
    row = suite.results(folder).iloc[0]
    assert (row.stage, row.model, row.split, row.data) == ("01_first", "cnn", "val", "drawn faces")

    run(project)
    assert notebooks_run(capsys) == []
    run(project, parameters={"01.factor": "5"})
    assert notebooks_run(capsys) == ["01_first", "02_second"]
    (folder / "03_third" / "three.txt").unlink()
    run(project, parameters={"01_first.factor": 5})
    assert notebooks_run(capsys) == ["03_third"]
    run(project, only=("03",), seed=1)
    assert notebooks_run(capsys) == ["03_third"]


def test_a_changed_file_that_a_parameter_names_is_a_change(project, capsys, monkeypatch):
    own = 'models: str = ""  # files, with commas between\n'
    write(project, "01_first", "(here / 'said.txt').write_text(models)", own=own, makes=["*.txt"])
    monkeypatch.chdir(project)
    Path("mine.keras").write_text("one", encoding="utf-8")
    options = {"only": ("01",), "parameters": {"01.models": "compact,mine.keras"}}
    run(project, **options)
    said = (project / "runs" / "smoke" / "01_first" / "said.txt").read_text()
    assert said == "compact,mine.keras"
    capsys.readouterr()
    run(project, **options)
    assert notebooks_run(capsys) == []
    Path("mine.keras").write_text("two!", encoding="utf-8")
    run(project, **options)
    assert notebooks_run(capsys) == ["01_first"]


def test_an_archive_in_data_raw_is_found_by_the_notebooks_too(project, monkeypatch):
    import zipfile

    from ferlib import drawn

    faces = drawn.draw(70, seed=0)
    names = {"train": "Training", "val": "PublicTest", "test": "PrivateTest"}
    rows = [
        f"{label},{' '.join(map(str, image.ravel()))},{names[split]}"
        for label, image, split in zip(faces.labels, faces.images, faces.split.tolist())
    ]
    (project / "pyproject.toml").touch()
    (project / "ferlib").mkdir()
    (project / "data" / "raw").mkdir(parents=True)
    with zipfile.ZipFile(project / "data" / "raw" / "archive.zip", "w") as archive:
        archive.writestr("fer2013.csv", "\n".join(["emotion,pixels,Usage", *rows, ""]))
    count = "(here / 'n.txt').write_text(str(len(stage.raw)))"
    write(project, "01_first", BEGIN.format(name="01_first"), count)
    monkeypatch.chdir(project)
    monkeypatch.delenv("FERLIB_DATA", raising=False)
    made = suite.run("smoke", project=project, only=("01",))
    assert made["problem"] is None and made["data"]["train"] > 0 and not made["data"]["is_drawn"]
    assert (project / "runs" / "smoke" / "01_first" / "n.txt").read_text() == "70"


def test_a_failed_cell_stops_the_run_and_keeps_what_was_made(project, capsys):
    write(project, "02_second", "x = 1", "\n# a remark\nraise ValueError('no such thing')", "y = 1")
    made = run(project)
    assert made["status"] == "failed"
    assert {stage: e["status"] for stage, e in made["stages"].items()} == {
        "01_first": "done",
        "02_second": "failed",
    }
    # After its parameters, and those injected, comes the second of its own cells.
    problem = made["stages"]["02_second"]["problem"]
    assert problem.startswith("In [5]") and problem.endswith("ValueError: no such thing")
    folder = project / "runs" / "smoke"
    executed = nbformat.read(folder / "02_second.ipynb", as_version=4)
    assert "no such thing" in json.dumps(executed)
    assert "no such thing" in (folder / "report.html").read_text()
    capsys.readouterr()

    write(project, "02_second", "x = 1")
    assert run(project)["status"] == "done"
    assert notebooks_run(capsys) == ["02_second", "03_third"]


def test_a_dead_kernel_a_timeout_and_a_missing_file_are_failures(project):
    write(project, "02_second", "import os", "os._exit(9)", "x = 1")
    made = run(project, only=("02",))
    assert made["stages"]["02_second"]["problem"].startswith("In [5] (os._exit(9))")
    executed = (project / "runs" / "smoke" / "02_second.ipynb").read_text()
    assert "DeadKernelError" in executed
    write(project, "02_second", "import time\ntime.sleep(600)")
    problem = run(project, only=("02",), timeout=4)["stages"]["02_second"]["problem"]
    assert "it was not done within 4 s (--timeout)" in problem
    write(project, "02_second", makes=["model.keras"])
    problem = run(project, only=("02",))["stages"]["02_second"]["problem"]
    assert "without making model.keras" in problem


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"parameters": {"01.epochs": 5}}, "factor"),
        ({"parameters": {"01.factor": "many"}}, "must be int.*: tenths right"),
        ({"parameters": {"01.factor": "2.5"}}, "must be int"),
        ({"parameters": {"01.factor": "-1"}}, "must be int, not negative: tenths right"),
        ({"parameters": {"01.fast": "maybe"}}, "must be bool"),
        ({"parameters": {"01.out": "x"}}, "01_first has no parameter 'out' to change"),
        ({"parameters": {"09.factor": "2"}}, "01_first, 02_second, 03_third"),
        ({"only": ("0",)}, "01_first, 02_second, 03_third"),
        ({"seed": -1}, "0 to 4294967295"),
    ],
)
def test_a_wrong_option_is_an_error_before_anything_runs(project, options, said):
    with pytest.raises(ValueError, match=said):
        run(project, **options)
    assert not (project / "runs").exists()


def test_a_profile_is_a_file_of_parameters(project):
    (project / "profiles" / "mine.yaml").write_text("all: {seed: 3}\n01_first: {factor: 4}\n")
    made = suite.run("mine", "drawn:70", project=project, only=("01", "03"))
    assert made["folder"] == str(project / "runs" / "mine")
    assert made["stages"]["01_first"]["parameters"] == {"seed": 3, "factor": 4}
    assert made["stages"]["03_third"]["parameters"] == {"seed": 3}
    changed = {"01.factor": 5}
    made = suite.run("mine", "drawn:70", project=project, only=("01",), parameters=changed)
    assert made["stages"]["01_first"]["parameters"]["factor"] == 5
    made = suite.run("quick", "drawn:70", project=project, only=("01",))
    assert made["stages"]["01_first"]["parameters"] == {"seed": 0}

    (project / "profiles" / "mine.yaml").write_text("01_first: {factors: 4}\n")
    with pytest.raises(ValueError, match="01_first has no parameter 'factors'"):
        suite.run("mine", "drawn:70", project=project)
    (project / "profiles" / "mine.yaml").write_text("09_none: {factor: 4}\n")
    with pytest.raises(ValueError, match="'09_none' means no notebook"):
        suite.run("mine", "drawn:70", project=project)


@pytest.mark.parametrize(
    ("value", "said"),
    [("0", "must be int, not negative: pictures in a row, 1 to 40"), ("41", "1 to 40")],
)
def test_a_range_in_the_meaning_of_a_parameter_is_kept(project, value, said):
    write(project, "01_first", own="columns: int = 10  # pictures in a row, 1 to 40\n")
    with pytest.raises(ValueError, match=said):
        run(project, only=("01",), parameters={"01.columns": value})


def test_a_notebook_that_computes_in_silence_shows_a_sign_of_life(project, capsys, monkeypatch):
    monkeypatch.setattr(suite, "SILENCE", 1)
    write(project, "03_third", "import time\ntime.sleep(4)")
    run(project, only=("03",))
    # After the parameters, those injected and the folder comes the cell that sleeps.
    assert re.search(r"03_third: cell 4 of 4, \d s", capsys.readouterr().out)


def test_says_how_long_it_will_take(project, capsys, monkeypatch):
    times = {"quick": {"seconds_per_epoch": 10, "seconds": {"01_first": 300, "03_third": 600}}}
    (project / "profiles" / "times.json").write_text(json.dumps(times))
    monkeypatch.setattr(suite, "_MEASURE", "print('noise')\nprint(20.0)")
    suite.run("quick", "drawn:70", project=project, only=("01", "03"))
    assert "takes 20 s, so this run takes about 30 minutes." in capsys.readouterr().out
    suite.run("quick", "drawn:70", project=project, only=("01", "03"), parameters={"01.factor": 3})
    assert "about 10 minutes.\nIn a hurry? Profile smoke" in capsys.readouterr().out
    suite.run("quick", "drawn:70", project=project, only=("03",))
    run(project, only=("03",))
    assert "Measuring" not in capsys.readouterr().out  # nothing to do, and nothing known of smoke
    monkeypatch.setattr(suite, "_MEASURE", "raise ValueError('no pictures')")
    made = suite.run("quick", "drawn:70", project=project, only=("03",), seed=1)
    assert "could not be measured: ValueError: no pictures" in capsys.readouterr().out
    assert made["status"] == "done"


def test_a_wrong_profile_or_no_notebooks(project, tmp_path_factory):
    with pytest.raises(ValueError, match="it can be quick, smoke"):
        suite.run("fast", "drawn:70", project=project)
    with pytest.raises(FileNotFoundError, match="no notebooks"):
        run(tmp_path_factory.mktemp("empty"))
    with pytest.raises(FileNotFoundError, match="nowhere.csv"):
        suite.run("smoke", "nowhere.csv", project=project)


def wait_for(path, seconds=600):
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} was not made in {seconds} s"
        time.sleep(0.1)
    return path


def test_a_run_that_was_moved_is_not_run_again(project, capsys, tmp_path):
    run(project, name="here")
    (project / "runs" / "here").rename(project / "runs" / "there")
    moved = project.rename(tmp_path.with_name(f"{tmp_path.name}-moved"))
    capsys.readouterr()
    run(moved, name="there")
    assert notebooks_run(capsys) == []


def test_the_clock_does_not_decide_which_figures_are_of_this_run(project):
    figure = "path = here / 'figures/x.png'\npath.parent.mkdir(exist_ok=True)\n"
    figure += "path.write_bytes(b'x')\nimport os\nos.utime(path, (10**9, 10**9))"
    write(project, "03_third", figure, "(here / 'three.txt').write_text('3')", makes=["*.txt"])
    made = run(project, only=("03",))
    assert made["stages"]["03_third"]["outputs"] == ["03_third/three.txt", "03_third/figures/x.png"]


def test_what_was_damaged_in_a_run_is_made_again(project, capsys):
    folder = Path(run(project)["folder"])
    (folder / "03_third/three.txt").write_text("4")
    run(project)
    assert (folder / "03_third/three.txt").read_text() == "3"
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"seed": 0', '"seed": 1', 1))
    with pytest.raises(ValueError, match=r"manifest\.json is damaged"):
        suite.results(folder)
    capsys.readouterr()
    run(project)
    assert len(notebooks_run(capsys)) == 3
    (folder / "01_first/metrics.json").write_text("{}")
    with pytest.warns(UserWarning, match=r"metrics\.json is not as the run wrote it"):
        assert len(suite.results(folder)) == 0


@pytest.mark.parametrize("victims", [("runner",), ("runner", "kernel")])
def test_killed_in_the_middle_then_run_again(project, capsys, victims):
    slow = "import os, time\nfrom ferlib import files\n"
    slow += "files.write(here / 'pid', str(os.getpid()))\n"
    slow += "while not (here / 'go').exists(): time.sleep(0.1)"
    write(project, "02_second", BEGIN.format(name="02_second"), slow, makes=["go"])
    code = (
        "import sys\nfrom ferlib import suite\n"
        "suite.run('smoke', 'drawn:70', only=('02',), project=sys.argv[1])"
    )
    runner = subprocess.Popen([sys.executable, "-c", code, project], env=environment())
    folder = project / "runs" / "smoke"
    kernel = int(wait_for(folder / "02_second" / "pid").read_text(encoding="utf-8"))
    with pytest.raises(RuntimeError, match=f"in use by process {runner.pid}"):
        run(project)
    runner.kill()
    if "kernel" in victims:
        psutil.Process(kernel).kill()
    runner.wait()
    status = json.loads((folder / "manifest.json").read_text())["stages"]["02_second"]["status"]
    assert status == "running"
    (folder / "02_second" / "go").touch()
    capsys.readouterr()
    assert run(project, only=("02",))["status"] == "done"
    assert notebooks_run(capsys) == ["02_second"]


def test_what_native_libraries_print_goes_to_a_file(project):
    begin = BEGIN.format(name="02_second")
    write(project, "02_second", f"import os\n{begin}", "os.write(2, b'noise')")
    made = run(project, only=("02",))
    executed = (project / "runs" / "smoke" / "02_second.ipynb").read_text()
    assert made["status"] == "done"
    assert '"name": "stderr"' not in executed and "drawn faces" in executed
    log = (project / "runs" / "smoke" / "02_second" / "log.txt").read_text()
    assert log.startswith("noise")  # libzmq may add a line when the kernel ends


def test_a_class_called_accuracy_is_no_model(project):
    values = "{'cnn': {'accuracy': 0.5, 'split': 'val'}, 'recall': {'accuracy': 0.1, 'happy': 0.2}}"
    write(
        project,
        "01_first",
        f"import json\n(here / 'metrics.json').write_text(json.dumps({values}))",
        makes=["metrics.json"],
    )
    made = run(project, only=("01",))
    assert made["status"] == "done"
    assert suite.results(project / "runs" / "smoke").model.tolist() == ["cnn"]


def environment():
    return os.environ | {"PYTHONPATH": str(suite.PACKAGE.parent)}


def test_two_runs_side_by_side(project):
    run(project, only=("01",))
    run(project, only=("01",), name="other", parameters={"01.factor": 7})
    runs = project / "runs"
    table = suite.compare(runs / "smoke", runs / "other")
    assert list(table.loc["01_first cnn accuracy"]) == [0.2, 0.7, True]
    assert list(table.loc["profile"]) == ["smoke", "smoke", False]
    assert table.loc["01_first factor"].iloc[1] == 7
    with pytest.raises(FileNotFoundError, match="no run"):
        suite.compare(runs / "smoke", runs / "none")
    with pytest.raises(ValueError, match="name two"):
        suite.compare("smoke", "smoke")


def test_changed_code_is_a_change(project, capsys, monkeypatch, tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    for name in ("a.py", "report.html"):
        (package / name).write_text("one = 1")
    monkeypatch.setattr(suite, "PACKAGE", package)
    run(project, only=("03",))
    run(project, only=("03",))
    assert notebooks_run(capsys) == ["03_third"]
    (package / "a.py").write_text("one = 2")
    run(project, only=("03",))
    assert notebooks_run(capsys) == ["03_third"]
    write(project, "03_third", "(here / 'three.txt').write_text('3')  # said otherwise")
    run(project, only=("03",))
    assert notebooks_run(capsys) == ["03_third"]


class TestStage:
    @pytest.fixture
    def stage(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        return suite.begin("06_x", data="drawn:70", out=str(tmp_path / "a/06_x"))

    def test_says_what_it_found(self, stage, capsys):
        suite.begin("06_x", data="drawn:70", out=str(stage.out))
        text = capsys.readouterr().out
        assert "drawn faces, 70 pictures" in text and "DRAWN FACES" in text and "Device:" in text

    def test_pictures_is_a_sample_of_the_same_pictures(self, stage, capsys):
        part = suite.begin("06_x", data="drawn:70", out=str(stage.out), pictures=40)
        assert "a sample of 40 is used" in capsys.readouterr().out
        assert len(part.raw) == len(part.data) == 40
        assert set(part.data.names) <= set(stage.loaded.names)

    def test_another_process_is_kept_out(self, stage):
        code = "import sys; from ferlib import files\nfiles.hold(sys.argv[1], wait=0)"
        told = subprocess.run(
            [sys.executable, "-c", code, stage.out],
            capture_output=True,
            text=True,
            env=environment(),
        )
        assert told.returncode == 1 and f"in use by process {os.getpid()}" in told.stderr

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ({"pictures": -1}, "pictures is -1; it must be a whole number"),
            ({"seed": 1.5}, "whole number"),
            ({"seed": True}, "whole number"),
        ],
    )
    def test_refuses_wrong_parameters(self, tmp_path, wrong, said):
        with pytest.raises(ValueError, match=said):
            suite.begin("06_x", data="drawn:70", out=str(tmp_path), **wrong)

    def test_records_metrics_and_figures(self, stage):
        import matplotlib.pyplot as plt

        stage.record(cnn={"accuracy": np.float32(0.5), "low": np.nan}, counts=np.arange(2))
        stage.record(other=1)
        metrics = json.loads((stage.out / "metrics.json").read_text())
        assert metrics == {"cnn": {"accuracy": 0.5, "low": None}, "counts": [0, 1], "other": 1}
        figure, axes = plt.subplots(1, 2)
        stage.show(axes, "both")
        stage.show(figure, "figure")
        stage.show(axes[0], "one")
        assert len(list((stage.out / "figures").glob("*.png"))) == 3

    def test_logarithmic_axes_are_numbered_in_plain_text(self, stage):
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots(1, 2)
        axes[0].set(xscale="log", xlim=(2e-4, 2e-2))
        axes[1].set(yscale="log", ylim=(2, 12))
        stage.show(figure, "powers")
        told = [text.get_text() for ax in axes for text in ax.get_xticklabels(which="both")]
        told += [text.get_text() for ax in axes for text in ax.get_yticklabels(which="both")]
        assert not [text for text in told if "$" in text]
        assert {"1e\N{MINUS SIGN}03", "6", "10"} <= set(told)

    def test_finds_files_of_the_same_run(self, stage, capsys):
        assert stage.find("03_cnn_training/model.keras") is None
        path = stage.out.parent / "03_cnn_training" / "model.keras"
        path.parent.mkdir()
        path.touch()
        assert stage.find("03_cnn_training/model.keras") == path
        assert stage.model("04/best.keras", "03_cnn_training/model.keras") == path
        assert "03_cnn_training/model.keras of this run" in capsys.readouterr().out

    def test_a_row_of_results(self, stage):
        accuracy = SimpleNamespace(value=0.5, low=0.4, high=0.6)
        report = SimpleNamespace(metrics={"accuracy": accuracy}, split="val")
        row = stage.row("cnn", report, parameters=7)
        stage.row("other", report, seeds=3)
        assert row == {"accuracy": 0.5, "low": 0.4, "high": 0.6, "split": "val", "parameters": 7}
        metrics = json.loads((stage.out / "metrics.json").read_text())
        assert metrics["cnn"] == row and metrics["other"]["seeds"] == 3

    def test_a_stand_in_is_trained_where_there_is_nothing_else(self, stage, monkeypatch, capsys):
        from ferlib import training

        monkeypatch.setattr(training, "train", lambda recipe, data, out, **_: out.mkdir())
        path = stage.model("03_cnn_training/compact/model.keras")
        assert path == stage.out / "stand_in" / "model.keras" and path.parent.is_dir()
        assert "Model: a small stand-in that is trained here" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("shipped", "taken"), [(("compact", "other", "tiny"), "compact"), (("tiny",), "tiny")]
    )
    def test_a_shipped_model_is_used(self, stage, shipped, taken, monkeypatch, capsys):
        from ferlib import zoo

        photographs = dataclasses.replace(stage.loaded, origin="fer2013.csv")
        monkeypatch.setattr(stage, "loaded", photographs)
        monkeypatch.setattr(zoo, "shipped", lambda: shipped)
        assert stage.model("03_cnn_training/model.keras") == taken
        assert f"Model: {taken} as shipped" in capsys.readouterr().out

    def test_default_folder(self, tmp_path, monkeypatch):
        (tmp_path / "ferlib").mkdir()
        (tmp_path / "pyproject.toml").touch()
        (tmp_path / "notebooks").mkdir()
        monkeypatch.chdir(tmp_path / "notebooks")
        stage = suite.begin("01_x", data="drawn:70")
        assert stage.out == Path(tmp_path / "runs" / "quick" / "01_x") and stage.out.is_dir()


def test_under_papermill_side_by_side_from_any_folder(tmp_path):
    record = "stage.record(cnn=dict(accuracy=tenths / 10))"
    own = "tenths: int = 3  # tenths right, 0 to 10"
    write(tmp_path, "01_x", BEGIN.format(name="01_x"), record, own=own)
    running = {}
    for tenths in "47":
        made, out = tmp_path / f"{tenths}.ipynb", tmp_path / tenths
        given = ["-p", "data", "drawn:70", "-p", "out", out, "-p", "tenths", tenths]
        command = [sys.executable, "-m", "papermill", tmp_path / "notebooks/01_x.ipynb", made]
        options = {
            "env": environment(),
            "cwd": Path.cwd().anchor,
            "stderr": subprocess.PIPE,
            "encoding": "utf-8",
        }
        running[out] = subprocess.Popen([*map(str, [*command, *given])], **options)
    for out, process in running.items():
        _, told = process.communicate()
        assert process.returncode == 0, told
        made = json.loads((out / "metrics.json").read_text())
        assert made == {"cnn": {"accuracy": int(out.name) / 10}}
