"""The committed notebooks: their form, and all of them in one run."""

import ast
import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import book
import nbformat
import numpy as np
import pandas as pd
import papermill
import psutil
import pytest
import yaml
from conftest import ROOT

from ferlib import cleaning, drawn, recipes, suite, training
from ferlib.labels import EMOTIONS, FERPLUS

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REPOSITORY = PROJECT["urls"]["Repository"]
NAMES = (
    "01_exploration",
    "02_preprocessing",
    "03_cnn_training",
    "04_hyperparameter_tuning",
    "05_transfer_learning",
    "06_error_analysis",
    "07_what_the_model_sees",
    "08_prediction",
)
PROFILES = sorted((ROOT / "profiles").glob("*.yaml"))
NOTEBOOKS = {name: ROOT / "notebooks" / f"{name}.ipynb" for name in NAMES}
PARTS = ("What we found", "Questions", "Exercises", "To try next")
COMMON = """\
data: str = ""  # file, folder, archive, Kaggle handle or "drawn"; empty finds it
out: str = ""  # folder for what this notebook makes; empty is runs/quick/<notebook>
seed: int = 0  # seed of every random choice
pictures: int = 0  # at most this many pictures; 0 is all"""
BOOTSTRAP = f"""\
try:
    import ferlib
except ImportError:
    %pip install -q "ferlib @ git+{REPOSITORY}"
    import ferlib"""


def read(name):
    return nbformat.read(NOTEBOOKS[name], as_version=4)


def code_cells(name):
    return [cell for cell in read(name).cells if cell.cell_type == "code"]


def solution(name):
    return nbformat.read(ROOT / "notebooks" / "solutions" / f"{name}.ipynb", as_version=4)


def checks(notebook):
    """Gives the cells that check exercises, by the number of the exercise."""
    said = re.compile(r"Exercise (\d) is solved")
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return {found[1]: cell for cell in cells if (found := said.search(cell))}


def parameters_cell(name):
    return next(c for c in code_cells(name) if "parameters" in c.metadata.get("tags", []))


def test_these_are_all_there_is():
    assert sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb")) == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
class TestForm:
    def test_is_clean(self, name):
        notebook = read(name)
        nbformat.validate(notebook)
        assert notebook.metadata.kernelspec.name == "python3"
        for cell in code_cells(name):
            assert not cell.outputs and cell.execution_count is None
            assert len(cell.source.splitlines()) <= 12, cell.source

    def test_branches_on_no_profile_and_on_nothing_that_data_lacks(self, name):
        code = "\n".join(cell.source for cell in code_cells(name))
        assert not re.findall(r"\bprofile\b|is_drawn|votes is|if .*votes", code)

    def test_begins_with_title_and_badges_in_step_with_the_repository(self, name):
        first = read(name).cells[0].source
        assert re.match(r"# \S", first)
        assert book.badges(f"notebooks/{name}.ipynb") in first.splitlines()
        text = json.dumps(read(name))
        own = [url for url in re.findall(r"github\.com/[\w.-]+/ferlib", text)]
        assert set(own) == {REPOSITORY.removeprefix("https://")}

    def test_has_the_parts_of_a_notebook(self, name):
        text = "\n".join(cell.source for cell in read(name).cells if cell.cell_type == "markdown")
        for part in ("**Reads**", "**Makes**", "**Takes**", "**You will learn**"):
            assert part in text
        parts = [part for part in re.findall(r"^## (.*)", text, re.MULTILINE) if part in PARTS]
        assert parts == list(PARTS)
        assert 5 <= text.count("<details><summary>") <= 8
        assert text.count("<details><summary>") == text.count("</details>")

    def test_prose_states_no_finding_that_no_cell_computed(self, name):
        text = "\n".join(c.source for c in read(name).cells if c.cell_type == "markdown")
        text = re.sub(r"`[^`]*`|\]\([^)]*\)", "", text.partition("## Questions")[0])
        found = re.findall(r"\d[\d.]* ?%|\d+\.\d+|\d+,\d{3}", text)
        assert set(found) <= {"95 %", "80 %"}  # intervals, and what calibration means

    def test_its_exercises_are_those_of_its_solutions(self, name):
        asked = checks(read(name))
        assert 2 <= len(asked) <= 3
        assert asked == checks(solution(name))
        text = "\n".join(cell.source for cell in read(name).cells)
        assert f"](solutions/{name}.ipynb)" in text

    def test_links_to_the_notebooks_before_and_after_it(self, name):
        first, *_, last = [c.source for c in read(name).cells if c.cell_type == "markdown"]
        at = NAMES.index(name)
        beside = {*NAMES[max(at - 1, 0) : at], *NAMES[at + 1 : at + 2]}
        assert set(re.findall(r"\]\((\w+)\.ipynb\)", first)) == beside
        assert set(re.findall(r"\]\((\w+)\.ipynb\)", last)) >= set(NAMES[at + 1 : at + 2])

    def test_has_headings_for_a_table_of_contents(self, name):
        cells = [c.source for c in read(name).cells if c.cell_type == "markdown"]
        levels = [len(mark) for mark in re.findall(r"^(#+) ", "\n".join(cells), re.MULTILINE)]
        assert levels[0] == 1 and levels.count(1) == 1 and len(levels) >= 5
        assert max(levels) <= 3

    def test_bootstraps_before_its_parameters(self, name):
        cells = code_cells(name)
        assert cells[0].source == BOOTSTRAP
        assert "parameters" in cells[1].metadata.tags

    def test_parameters_can_be_read_by_people_and_papermill(self, name):
        lines = parameters_cell(name).source.splitlines()
        assert "\n".join(lines[:4]) == COMMON
        known = papermill.inspect_notebook(NOTEBOOKS[name])
        assert len(known) == len(lines)
        for line in lines:
            form = re.fullmatch(r"(\w+): (str|int|float|bool) = ([^=#]+)  # ([^=]+)", line)
            assert form, line
            assert known[form[1]]["inferred_type_name"] == form[2]
            assert type(ast.literal_eval(form[3])).__name__ == form[2]
            assert known[form[1]]["default"] == form[3] and known[form[1]]["help"] == form[4]

    def test_opens_with_its_own_name(self, name):
        assert f'suite.begin("{name}"' in "".join(cell.source for cell in code_cells(name))


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_a_profile_changes_parameters_that_there_are(path):
    for name, changes in yaml.safe_load(path.read_text()).items():
        for notebook in NAMES if name == "all" else [name]:
            known = papermill.inspect_notebook(NOTEBOOKS[notebook])
            assert changes.keys() <= known.keys() - {"data", "out"}
            for parameter, value in changes.items():
                assert type(value).__name__ == known[parameter]["inferred_type_name"]


def test_each_file_that_is_read_is_made_by_an_earlier_notebook():
    made = []
    for name in NAMES:
        plan = read(name).metadata["ferlib"]
        for wanted in plan["reads"]:
            hits = [m for m in made if fnmatch.fnmatch(m, wanted) or fnmatch.fnmatch(wanted, m)]
            assert hits, f"{name} reads {wanted}, which no notebook before it makes"
        made += [f"{name}/{path}" for path in plan["makes"]]


@pytest.fixture
def project(tmp_path):
    """Gives a folder with the notebooks of this project and no runs."""
    for name in ("notebooks", "profiles"):
        shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path


def check(made):
    """Checks that every notebook of a run is done and measured what it should."""
    problems = {stage: entry["problem"] for stage, entry in made["stages"].items()}
    assert made["status"] == "done", problems
    table = suite.results(made["folder"])
    assert {"classic", "compact"} <= set(table.loc[table.stage == "03_cnn_training", "model"])
    for stage in ("03_cnn_training", "04_hyperparameter_tuning", "05_transfer_learning"):
        assert stage in set(table["stage"]), f"{stage} recorded no accuracy"
    shares = table[["accuracy", "low", "high"]].astype(float)
    assert ((shares.low <= shares.accuracy) & (shares.accuracy <= shares.high)).all()
    for stage, entry in made["stages"].items():
        saved = [path for path in entry["outputs"] if path.endswith(".png")]
        executed = nbformat.read(f"{made['folder']}/{stage}.ipynb", as_version=4)
        assert "is not solved yet" in str(executed), f"{stage}: the exercises are solved already"
        outputs = [out for cell in executed.cells for out in cell.get("outputs", ())]
        shown = [out for out in outputs if "image/png" in out.get("data", {})]
        figures = f"{stage} saves {len(saved)} figures and shows {len(shown)}"
        assert len(shown) >= len(saved) > 0, figures
        told = [out.text for out in outputs if out.get("name") == "stderr"]
        assert not told, f"{stage} writes to stderr: {told[0][:500]}"


def test_all_in_smoke(project, request):
    named = os.environ.get("FERLIB_DATA")
    data = request.getfixturevalue("fer2013") if named else "drawn:700"
    made = suite.run("smoke", data, project=project)
    check(made)
    assert list(made["stages"]) == list(NAMES)
    again = suite.run("smoke", data, project=project)
    assert again["stages"] == made["stages"]


@pytest.mark.slow
def test_all_in_quick_on_drawn_faces(project):
    check(suite.run("quick", "drawn", project=project))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_its_solutions_solve_its_exercises(project, name):
    path = ROOT / "notebooks" / "solutions" / f"{name}.ipynb"
    made = papermill.execute_notebook(path, project / "out.ipynb", progress_bar=False)
    outputs = [out for cell in made.cells for out in cell.get("outputs", ())]
    said = "".join(out.get("text", "") for out in outputs)
    assert sorted(re.findall(r"Exercise (\d) is solved", said)) == sorted(checks(made))
    assert "is not solved" not in said


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES[3:])
def test_alone_with_no_run_before_it(project, name):
    made = suite.run("smoke", "drawn:700", only=(name,), project=project)
    assert made["status"] == "done", made["stages"][name]["problem"]


@pytest.mark.slow
def test_votes_for_classes_that_the_data_have_merged(project, monkeypatch):
    faces = drawn.draw(140)
    usage = np.where(faces.split == "train", "Training", "PublicTest")
    pixels = [" ".join(map(str, face.ravel())) for face in faces.images]
    table = pd.DataFrame({"emotion": faces.labels, "pixels": pixels, "Usage": usage})
    table.to_csv(project / "fer2013.csv", index=False)
    votes = pd.DataFrame(faces.votes.astype(int), columns=FERPLUS)
    votes.insert(0, "Image name", faces.names)
    votes.insert(0, "Usage", usage)
    votes.to_csv(project / "fer2013new.csv", index=False)
    merged = dict.fromkeys(("angry", "disgust", "fear", "sad"), "negative")
    merged |= dict.fromkeys(("happy", "surprise"), "positive")
    (project / "merged.json").write_text(json.dumps(merged))
    monkeypatch.setenv("FERLIB_LABELS", str(project / "merged.json"))
    made = suite.run("smoke", project / "fer2013.csv", only=("01", "02"), project=project)
    assert made["status"] == "done", made["stages"]
    said = Path(made["folder"], "01_exploration.ipynb").read_text()
    neutral = faces.labels == EMOTIONS.index("neutral")  # the others have no column of votes
    right = (faces.votes.argmax(axis=1) == FERPLUS.index("neutral"))[neutral]
    assert f"For {right.sum()} of {neutral.sum()} the most voted emotion is the label" in said


@pytest.mark.slow
def test_error_analysis_of_a_model_without_mistakes(project):
    data = "drawn:140"
    form = {"model": "residual", "options": {"widths": [16, 32, 64, 112]}}
    recipe = recipes.Recipe(**form, epochs=40, batch_size=16, augmentation=None, label_smoothing=0)
    training.train(recipe, cleaning.prepare(data), project / "perfect", verbose=False)
    file, out = project / "perfect/model.keras", project / "out"
    given = dict(data=data, models=str(file), split="train", out=str(out))
    with_kernel = dict(cwd=project / "notebooks", progress_bar=False, start_timeout=600)
    papermill.execute_notebook(NOTEBOOKS["06_error_analysis"], None, given, **with_kernel)
    answers = json.loads((out / "metrics.json").read_bytes())
    assert answers["models"]["perfect"]["metrics"]["accuracy"]["value"] == pytest.approx(1)
    assert answers["confused_pairs"] == []


@pytest.mark.slow
def test_a_training_killed_in_the_middle_goes_on_and_ends_the_same(project):
    changes = {"03.epochs": 4, "03.classic_epochs": 1}
    options = {"only": ("03",), "parameters": changes, "project": project}
    code = f"from ferlib import suite; suite.run('smoke', 'drawn:700', **{options!r})"
    code = code.replace(repr(project), repr(str(project)))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    runner = subprocess.Popen([sys.executable, "-c", code], env=environment)
    stage = project / "runs" / "smoke" / "03_cnn_training"
    history = stage / "compact" / "history.csv"
    while not history.exists() or len(pd.read_csv(history)) < 2:
        assert runner.poll() is None, "the run ended before its second epoch"
        time.sleep(0.2)
    runner.kill()
    psutil.Process(int((stage / ".pid").read_text(encoding="utf-8"))).kill()
    runner.wait()
    assert not (stage / "compact" / "model.keras").exists()

    assert suite.run("smoke", "drawn:700", **options)["status"] == "done"
    assert suite.run("smoke", "drawn:700", name="whole", **options)["status"] == "done"
    whole = project / "runs" / "whole" / "03_cnn_training" / "compact" / "history.csv"
    resumed, once = pd.read_csv(history), pd.read_csv(whole)
    assert len(resumed) == 4
    pd.testing.assert_frame_equal(
        resumed.drop(columns="seconds"), once.drop(columns="seconds"), check_exact=True
    )
