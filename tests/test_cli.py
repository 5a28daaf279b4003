"""The program `ferlib`: what it prints, and its exit status."""

import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from PIL import Image
from test_suite import write

import ferlib
from ferlib import cleaning, drawn, runtimes, zoo
from ferlib.__main__ import main, parser

WILD = ["-p", "learning_rate=1e30", "-p", "teachers=[]", "-p", "warmup_epochs=0", "-p", "ema=0"]


def commands():
    (action,) = [a for a in parser()._subparsers._group_actions if a.choices]
    return list(action.choices)


@pytest.mark.parametrize("command", commands())
def test_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert "--json" in capsys.readouterr().out


def answer(capsys, *arguments):
    """Runs a command with --json and gives what it answers."""
    capsys.readouterr()
    assert main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_data(capsys):
    assert answer(capsys, "data", "drawn:70")["pictures"] == 70
    assert main(["data", "drawn:70"]) == 0
    text = capsys.readouterr().out
    assert "drawn faces" in text and "surprise" in text and "copies surplus: 0" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["data", "nowhere.csv"], "nowhere.csv"),
        (["train", "nothing", "--out", "x"], "nothing"),
        (["compare", "runs/a", "runs/b"], "runs/a is no run"),
        (["run", "--data", "drawn:70", "-p", "03.epochs"], "-p 03.epochs=5"),
        (["train", "compact", "--out", "x", "-p", "epochs"], "-p epochs=20"),
        (["train", "compact", "--out", "x", "-p", "epoch=2"], "No recipe has epoch;"),
        (
            ["train", "compact", "--out", "x", "-p", "epochs=many"],
            "epochs=many does not fit a recipe: no JSON, such as 110.\n",
        ),
        (["train", "compact", "--out", "x", "-p", "learning_rate=-1"], "above 0.\n"),
        (["train", "mine.json", "--out", "x"], "no file 'mine.json'"),
        (["data", "drawn:many"], "as in drawn:2000"),
        (["data", "header.csv"], "holds no rows and no pictures"),
        (["evaluate", "tiny", "--data", "train.csv", "--split", "test"], "one of these"),
        (["predict", "face.png", "--boxes", "gone.csv"], "gone.csv: No such file"),
        (["predict", "face.png", "--out", "faces.xlsx"], "faces.xlsx: what is found is written as"),
        (["predict", "empty", "--out", "faces.csv"], "nothing in 'empty'"),
        (["predict", "ftp://example.org/face.png"], "http and https"),
        (["export", "tiny", "--out", "tiny.bin"], "a file of onnx ends in .onnx"),
        (["export", "tiny", "--out", "tiny.tflite", "--to", "onnx"], "onnx ends in .onnx"),
        (["train", "compact", "--out", "x", "-p", "epochs=2.5"], "a whole number, 1 or more"),
        (["train", "compact", "--out", "x", "-p", "batch_size=16.0"], "a whole number, 1 or more"),
        (
            ["train", "compact", "--out", "x", "--data", "drawn:70", "-p", 'options={"foo": 1}'],
            "vgg cannot be built with options {'dropout': 0.4, 'foo': 1}",
        ),
        (
            ["train", "tiny", "--out", "x", "--data", "drawn:140", *WILD],
            "a lower learning_rate",
        ),
    ],
)
def test_an_error_is_one_line_and_a_status(arguments, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "header.csv").write_text("emotion,pixels,Usage\n")
    rows = [f"{i % 7},{' '.join([str(i)] * 2303)} 0,Training" for i in range(70)]
    rows += [f"{i % 7},{' '.join([str(i)] * 2303)} 9,PublicTest" for i in range(70)]
    (tmp_path / "train.csv").write_text("\n".join(["emotion,pixels,Usage", *rows]))
    Image.fromarray(np.full((48, 48), 90, np.uint8)).save(tmp_path / "face.png")
    assert main(arguments) == 1
    assert not list(tmp_path.glob("faces.*"))
    told = capsys.readouterr()
    assert told.out == "" or told.out.startswith("training epoch 1/64")
    assert told.err.startswith("ferlib: ") and said in told.err and told.err.count("\n") == 1


def test_run_and_compare(tmp_path, monkeypatch, capsys):
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "ferlib").mkdir()
    monkeypatch.chdir(tmp_path)
    record = "from ferlib import suite\nstage = suite.begin('01_x', data=data, out=out)"
    result = "stage.record(cnn=dict(accuracy=tenths / 10, low=0.1, high=0.9, split='val'))"
    write(tmp_path, "01_x", record, result, own="tenths: int = 3  # tenths right")
    assert main(["run", "--profile", "smoke", "--data", "drawn:70"]) == 0
    text = capsys.readouterr().out
    assert "30.0%" in text and text.count("DRAWN FACES") >= 2 and "report.html" in text
    made = answer(capsys, "run", "--data", "drawn:70", "--name", "b", "-p", "01.tenths=4")
    assert made["status"] == "done"
    table = answer(capsys, "compare", "smoke", "runs/b")
    assert table["01_x cnn accuracy"] == {"smoke": 0.3, "runs/b": 0.4, "differs": True}
    assert table["01_x status"] == {"smoke": "done", "runs/b": "done", "differs": False}

    write(tmp_path, "02_y", "raise ValueError('never')")
    assert main(["run", "--profile", "smoke", "--data", "drawn:70"]) == 1
    told = capsys.readouterr()
    assert "ferlib: 02_y failed. In [4] (raise ValueError('never')): ValueError: never" in told.err
    assert "01_x: unchanged" in told.out and "30.0%" in told.out

    write(tmp_path, "02_y", "figures = 0")
    only = ["--only", "02", "--name", "c"]
    assert main(["run", "--profile", "smoke", "--data", "drawn:70", *only]) == 0
    text = capsys.readouterr().out
    assert re.search(r"02_y +done +[\d.]+ +0 +drawn faces", text)


def test_run_gives_labels_and_partial_to_its_notebooks(tmp_path, monkeypatch, capsys):
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "ferlib").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FERLIB_LABELS", "")  # what run sets is taken back after the test
    monkeypatch.setenv("FERLIB_PARTIAL", "")
    pixels = " ".join(["7"] * 2304)
    rows = [f"{i % 7 + 1},{pixels},Training" for i in range(70)]
    (tmp_path / "faces.csv").write_text("\n".join(["emotion,pixels,Usage", *rows, "1,7 7"]))
    record = "from ferlib import suite\nstage = suite.begin('01_x', data=data, out=out)"
    write(tmp_path, "01_x", record, "assert stage.raw.labels[0] == 5  # RAF-DB's 1 is surprise")
    given = ["--data", "faces.csv", "--labels", "rafdb"]
    assert main(["run", *given]) == 1
    assert "partial=True" in capsys.readouterr().err
    assert main(["run", *given, "--partial"]) == 0
    assert "row 71" in capsys.readouterr().err


@pytest.mark.parametrize("given", [["--input", "-1-1"], ["--input=-1-1"]])
def test_an_input_that_begins_like_an_option(given, capsys):
    assert main(["evaluate", "gone.keras", "--data", "drawn:70", *given]) == 1
    assert "gone.keras" in capsys.readouterr().err


def test_version_names_what_a_report_of_a_bug_needs(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    line = capsys.readouterr().out
    assert line.startswith(f"ferlib {ferlib.__version__}, Python 3.") and "keras 3." in line


def test_train_evaluate_predict_export(tmp_path, capsys, monkeypatch):
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({"model": "residual", "epochs": 1, "augmentation": None}))
    out = tmp_path / "out"
    change = ["-p", "seed=3", "-p", 'options={"widths": [8, 16]}']
    trained = answer(capsys, "train", recipe, "--out", out, "--data", "drawn:140", *change)
    assert trained["epochs"] == 1
    made = json.loads((out / "recipe.json").read_text())
    assert made["seed"] == 3 and made["options"] == {"widths": [8, 16]}
    model = out / "model.keras"
    report = answer(capsys, "evaluate", model, "--data", "drawn:140", "--split", "val")
    assert report["split"] == "val" and 0 <= report["metrics"]["accuracy"]["value"] <= 1
    assert main(["evaluate", str(model), "--data", "drawn:140", "--tta"]) == 0
    assert "on test of drawn faces" in capsys.readouterr().out
    options = ["--data", "drawn:140", "--prior", "uniform", "--crops"]
    report = answer(capsys, "evaluate", model, *options)
    assert "prior uniform (1)" in report["reading"]
    assert [row["strength"] for row in report["crops"][:4]] == [0.8, 0.9, 1.1, 1.25]

    picture = tmp_path / "face.png"
    Image.fromarray(np.full((48, 48), 90, np.uint8)).save(picture)
    (face,) = answer(capsys, "predict", picture, "--model", model)
    assert face["file"] == str(picture)
    table = tmp_path / "faces.csv"
    told = answer(capsys, "predict", picture, "--model", model, "--out", table, "--detect", "no")
    assert told["faces"] == 1 and table.read_text().count("\n") == 2
    balanced = tmp_path / "balanced.csv"
    options = ["--model", model, "--prior", "0.5", "--out", balanced]
    answer(capsys, "predict", picture, *options)
    assert "prior uniform (0.5)" in pd.read_csv(balanced)["model"][0]
    assert main(["predict", str(tmp_path / "none.png"), "--model", str(model)]) == 1

    pytest.importorskip("tf2onnx")
    pytest.importorskip("onnxruntime")
    monkeypatch.delenv("FERLIB_DATA", raising=False)
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "ferlib").mkdir()
    monkeypatch.chdir(tmp_path)
    made = answer(capsys, "export", model)
    assert made["file"] == str(out / "model.onnx") and "val" not in made
    named = out / "new" / "named.tflite"
    made = answer(capsys, "export", model, "--data", "drawn:140", "--out", named)
    assert made["file"] == str(named) and made["val"]["lost"] == 0
    named.replace(out / "model.tflite")
    made["file"] = str(out / "model.tflite")
    for export in ("model.onnx", "model.tflite"):
        shares = runtimes.open_model(out / export).shares
        assert shares == runtimes.open_model(model).shares and len(shares) == 7
    (same,) = answer(capsys, "predict", picture, "--model", made["file"])
    assert same["emotion"] == face["emotion"]
    onnx = str(out / "model.onnx")
    assert main(["evaluate", onnx, "--data", "drawn:140", "--device", "cpu"]) == 0
    assert main(["predict", str(picture), "--model", str(model), "--device", "cpu"]) == 1


def test_an_export_is_measured_on_what_lies_in_data_raw(tmp_path, monkeypatch, capsys):
    pytest.importorskip("tf2onnx")
    monkeypatch.delenv("FERLIB_DATA", raising=False)
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "ferlib").mkdir()
    monkeypatch.chdir(tmp_path)
    pictures = drawn.draw(140).of("val")
    (tmp_path / "data" / "raw").mkdir(parents=True)
    rows = zip(pictures.labels, pictures.images, strict=True)
    lines = [f"{label},{' '.join(map(str, image.ravel()))},PublicTest" for label, image in rows]
    table = "\n".join(["emotion,pixels,Usage", *lines])
    (tmp_path / "data" / "raw" / "faces.csv").write_text(table)
    made = answer(capsys, "export", "tiny", "--out", "tiny.onnx")
    assert made["val"]["pictures"] == len(pictures)


def test_pictures_without_a_face_are_named(tmp_path, capsys, monkeypatch):
    for number in range(12):
        Image.fromarray(np.full((48, 48), 90 + number, np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "boxes.csv").write_text("file,left,top,width,height\n3.png,0,0,48,48\n")
    monkeypatch.chdir(tmp_path)
    given = ["predict", ".", "--boxes", "boxes.csv", "--model", "tiny"]
    assert main(given) == 0
    told = capsys.readouterr()
    assert "  11.png: no face: no box is given for this picture\n" in told.err
    assert "  and 1 more without a face\n" in told.err and "3.png:" not in told.err
    (tmp_path / "boxes.csv").write_text("file,left,top,width,height\n3.png,,,,\n")
    assert main(["predict", "3.png", "--boxes", "boxes.csv", "--model", "tiny"]) == 0
    assert capsys.readouterr().out == ""  # no table without rows


@pytest.mark.skipif(sys.platform == "win32", reason="a closed pipe is another error there")
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_reader_who_has_enough_is_no_error(more):
    command = [sys.executable, "-m", "ferlib", "data", "drawn:70", *more]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as program:
        program.stdout.close()
        told = program.stderr.read().decode()
        assert "pipe" not in told.lower() and "Traceback" not in told
        assert program.wait() == 141


def test_the_module_is_the_program():
    told = subprocess.run(
        [sys.executable, "-m", "ferlib", "compare", "nothing", "none"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert told.returncode == 1
    assert told.stderr.startswith("ferlib: nothing is no run") and told.stderr.count("\n") == 1


def test_evaluate_counts_what_a_shipped_model_was_trained_on(fer2013, capsys, tmp_path):
    rows = pd.read_csv(fer2013, skiprows=lambda row: row % 30, usecols=[0, 1, 2])
    rows.columns = ["emotion", "pixels", "Usage"]
    shuffled = rows.sample(frac=1, random_state=0)
    shuffled[["emotion", "pixels"]].to_csv(tmp_path / "re-shared.csv", index=False)
    training = set(rows.pixels[rows.Usage == "Training"])
    told = answer(capsys, "evaluate", "compact", "--data", tmp_path / "re-shared.csv")
    held_out = cleaning.prepare(tmp_path / "re-shared.csv").of(told["split"])
    pixels = [" ".join(map(str, image.ravel())) for image in held_out.images]
    known = sum(picture in training for picture in pixels)
    assert told["pictures"] == len(held_out) and 0.7 * len(held_out) < known < len(held_out)
    assert known <= told["seen"] <= known + 0.03 * len(held_out)  # copies in the rows left out


def test_evaluate_against_ferplus(fer2013, capsys):
    if not (fer2013.parent / "fer2013new.csv").is_file():
        pytest.skip("no FER+ votes: put fer2013new.csv beside fer2013.csv")
    told = answer(
        capsys, "evaluate", "compact_ferplus", "--data", fer2013, "--split", "val",
        "--labels", "ferplus",
    )  # fmt: skip
    against = told["ferplus"]
    assert against["pictures"] + against["left_out"] == told["pictures"]
    for name in ("accuracy", "unseen"):
        on_card = zoo.read_card("compact_ferplus")["val"]["ferplus"][name]
        assert against[name]["value"] == pytest.approx(on_card["value"], abs=2e-3)
    assert 0.84 < against["unseen"]["value"] < against["accuracy"]["value"]
    assert 0.2 < against["entropy"]["value"] < against["cross_entropy"]["value"] < 0.6
