"""Opens one notebook (`begin`) and runs all of them in order (`run`).

A run is a folder: the executed notebooks, a folder for what each stage made, `manifest.json` and
`report.html`. A second run skips a stage while its key stays the same: the code of its notebook
and of ferlib, its parameters, the data, and the files of other stages that it reads.
"""

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import math
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from ferlib import cleaning, faces, files, sources, zoo

PACKAGE = Path(__file__).resolve().parent
VERSIONED = ("ferlib", "tensorflow", "keras", "keras-tuner", "numpy", "pandas", "scikit-learn")
STAND_INS = ("compact", "tiny")
"""Shipped models that a notebook uses where a run has none of its own, the preferred one first."""

ON_VAL = "Choices were made on val: on new pictures, expect less than what it says there."
DRAWN = "DRAWN FACES stand in for the data: the results say nothing about people."
SILENCE = 30
"""Seconds of a run after which a notebook that prints nothing is said to be at work."""

_SET_BY_RUN = ("data", "out")
_BOOLEANS = {"True": True, "true": True, "False": False, "false": False}
_KINDS = {"str": str, "int": int, "float": float, "bool": _BOOLEANS.__getitem__}
_MEASURE = """\
import sys
from ferlib import cleaning, recipes, training
data = cleaning.prepare(sys.argv[1] or None)
print(training.seconds_per_epoch(recipes.RECIPES["quick"], data))"""


def notebooks(project: Path | str | None = None) -> dict[str, Path]:
    """Finds a project's notebooks.

    Args:
        project: Folder of `notebooks/`; None finds it.

    Returns:
        Their paths by name without the ending, in order.

    Raises:
        FileNotFoundError: If there are none.
    """
    project = Path(project or files.project_folder()).resolve()
    paths = sorted(project.glob("notebooks/[0-9][0-9]_*.ipynb"))
    if not paths:
        raise FileNotFoundError(f"There are no notebooks in {project}: run this in the project.")
    return {path.stem: path for path in paths}


def pick(prefix: str, names: dict[str, Any]) -> str:
    """Finds the one name that "03" or "03_cnn_training" means.

    Args:
        prefix: Beginning of the name.
        names: What there is to choose from.

    Raises:
        ValueError: If no name begins so, or several do.
    """
    found = [name for name in names if prefix and name.startswith(prefix)]
    if len(found) != 1:
        raise ValueError(f"{prefix!r} means no notebook; there are {', '.join(names)}.")
    return found[0]


@dataclasses.dataclass
class Stage:
    """One notebook at work: what it was asked for, its data and its folder.

    Args:
        name: Name of the notebook without its ending.
        seed: Seed of every random choice.
        pictures: The most pictures that are used; 0 is all.
        out: Folder for what the notebook makes.
        loaded: All that the source holds, an FERData.
        lock: Lock on `out`, held while the kernel lives.
        metrics: What was recorded so far.
    """

    name: str
    seed: int
    pictures: int
    out: Path
    loaded: faces.FERData = dataclasses.field(repr=False)
    lock: Any = dataclasses.field(repr=False)
    metrics: dict[str, Any] = dataclasses.field(default_factory=dict, repr=False)

    def _part(self, data):
        return data.sample(self.pictures, seed=self.seed) if self.pictures else data

    @functools.cached_property
    def raw(self) -> faces.FERData:
        """The data as the source has it; a sample where `pictures` limits it."""
        return self._part(self.loaded)

    @functools.cached_property
    def data(self) -> faces.FERData:
        """The clean data; a sample where `pictures` limits it."""
        return self._part(cleaning.clean(self.loaded, seed=self.seed)[0])

    def find(self, path: str) -> Path | None:
        """Finds what another stage of the same run made.

        Args:
            path: Path from the run's folder, as "03_cnn_training/compact/model.keras".

        Returns:
            The file or folder, or None where it is not there.
        """
        found = self.out.parent / path
        return found if found.exists() else None

    def model(self, *candidates: str) -> Path | str:
        """Finds a model to work with, and says which.

        Args:
            *candidates: Paths from the run's folder, the preferred one first.

        Returns:
            The path of the first candidate that exists, else the first of `STAND_INS` that is
            shipped; on drawn faces, or where none is, the path of a small one trained here.
        """
        for candidate in candidates:
            if path := self.find(candidate):
                print(f"Model: {candidate} of this run.")
                return path
        shipped = [name for name in STAND_INS if name in zoo.shipped()]
        if shipped and not self.loaded.is_drawn:
            print(f"Model: {shipped[0]} as shipped with ferlib, as this run has none.")
            return shipped[0]
        print("Model: a small stand-in that is trained here, as this run has none.")
        from ferlib import recipes, training

        recipe = recipes.Recipe("residual", {"widths": [16, 32, 64, 112]}, epochs=8, batch_size=16)
        recipe = recipe.replace(augmentation=None, seed=self.seed)
        training.train(recipe, self.data, self.out / "stand_in", overwrite=True)
        return self.out / "stand_in" / "model.keras"

    def show(self, figure: Any, name: str) -> None:
        """Saves a figure as `figures/<name>.png` and leaves it open for the notebook to show.

        Args:
            figure: A Figure, an Axes, an array of Axes or a seaborn grid.
            name: Name of the file without its ending.
        """
        if hasattr(figure, "flat"):
            figure = figure.flat[0]
        path = self.out / "figures" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        _write_powers_plainly(figure.figure)
        figure.figure.savefig(path, dpi=120, bbox_inches="tight")

    def record(self, **metrics: Any) -> None:
        """Adds metrics to `metrics.json`.

        Args:
            **metrics: Numbers, or dictionaries of them. One with "accuracy" and "split" is a row
                in the run's table of results (see `row`).
        """
        self.metrics |= files.plain(metrics)
        files.write_json(self.out / "metrics.json", self.metrics)

    def row(self, name: str, report: Any, **more: Any) -> dict[str, Any]:
        """Records the accuracy of a model as a row in the run's table of results.

        Args:
            name: What the table calls the model.
            report: Its `evaluation.Report`.
            **more: What else the row holds, as parameters=1_200_000.

        Returns:
            The row: "accuracy" and its interval "low" to "high", "split", and what `more` holds.
        """
        accuracy = report.metrics["accuracy"]
        row = {"accuracy": accuracy.value, "low": accuracy.low, "high": accuracy.high}
        row |= {"split": report.split} | more
        self.record(**{name: row})
        return row


def begin(
    name: str, *, data: str = "", labels: str = "", out: str = "", seed: int = 0, pictures: int = 0
) -> Stage:
    """Opens a notebook: checks its parameters, finds its data and says what it found.

    Args:
        name: Name of the notebook without its ending.
        data: File, folder, archive, Kaggle handle or "drawn"; empty finds it.
        labels: What labels mean, as in `sources.load`; empty takes `$FERLIB_LABELS`, if set.
        out: Folder for what the notebook makes; empty is `runs/quick/<name>`.
        seed: Seed of every random choice, 0 to 4294967295.
        pictures: The most pictures that are used, a sample; 0 is all.

    Raises:
        ValueError: If a parameter is not one of those allowed.
        FileNotFoundError: If there is no such data.
        RuntimeError: If another process works in that folder.
    """
    import matplotlib

    _check_numbers(seed=seed, pictures=pictures)
    default = files.project_folder() / "runs" / "quick" / name
    folder = Path(out).expanduser().resolve() if out else default
    lock = files.hold(folder, wait=15)
    _divert(folder / "log.txt")
    stage = Stage(name, seed, pictures, folder, sources.load(data, labels=labels), lock)
    pd.set_option("display.html.use_mathjax", False)  # names are text, in tables and figures
    matplotlib.rcParams["text.parse_math"] = False
    print(_describe(stage.loaded, pictures))
    print(f"Device: {_device()}.")
    return stage


def _check_numbers(**numbers):
    """Refuses what is no whole number that a seed can be."""
    for name, value in numbers.items():
        if type(value) is not int or not 0 <= value < 2**32:
            raise ValueError(f"{name} is {value!r}; it must be a whole number, 0 to {2**32 - 1}.")


def _divert(log):
    """Sends what native libraries print in a kernel to a file, away from the notebook.

    On Windows ipykernel does not show it anyway.
    """
    from IPython import get_ipython

    if getattr(get_ipython(), "kernel", None) and os.name == "posix":
        with log.open("wb") as file:
            os.dup2(file.fileno(), 2)


def _write_powers_plainly(figure):
    """Numbers logarithmic axes as 1e-03: by itself matplotlib does it in mathtext, which is off."""
    from matplotlib import ticker

    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if isinstance(axis.get_major_formatter(), ticker.LogFormatterMathtext):
                axis.set_major_formatter(ticker.LogFormatter())
            if isinstance(axis.get_minor_formatter(), ticker.LogFormatterMathtext):
                axis.set_minor_formatter(ticker.LogFormatter(labelOnlyBase=False))


def _describe(data, pictures):
    """Says what the data is, in one line; of drawn faces in two."""
    splits = ", ".join(f"{split} {(data.split == split).sum():,}" for split in data.splits)
    line = f"Data: {data.title}, {len(data):,} pictures ({splits or 'no splits'})"
    if 0 < pictures < len(data):
        line += f"; a sample of {pictures} is used"
    return f"{line}.\n{DRAWN}" if data.is_drawn else f"{line}."


def _device():
    """Names what Keras computes on; where it is not imported, nothing but the CPU is used."""
    keras = sys.modules.get("keras")
    names = keras.distribution.list_devices() if keras else []
    names = [name for name in names if not name.lower().startswith("cpu")]
    return ", ".join(names) or f"CPU, {os.cpu_count()} cores"


def run(
    profile: str = "quick",
    data: str | Path | None = None,
    *,
    name: str | None = None,
    seed: int = 0,
    only: tuple[str, ...] = (),
    parameters: dict[str, Any] | None = None,
    timeout: float | None = None,
    project: Path | str | None = None,
) -> dict[str, Any]:
    """Runs the notebooks in order, and skips those that would make the same again.

    Args:
        profile: "quick", which is what the notebooks' cells say, or the name of a file in
            `profiles/`, such as "smoke" or "full".
        data: File, folder, archive, Kaggle handle or "drawn"; None finds it.
        name: Name of the run's folder in `runs/`; None is the profile.
        seed: Seed of every random choice.
        only: Stages to run, as ("03", "06"); empty is all.
        parameters: Changed parameters of notebooks, as {"03.epochs": 5}.
        timeout: Seconds that a stage may take; None is no limit.
        project: Folder of `notebooks/`, `profiles/` and `runs/`; None finds it.

    Returns:
        The manifest, as in `manifest.json`: "status" is "done", or "failed" and "problem" says
        in which notebook and cell, and how.

    Raises:
        ValueError: If a profile, stage or parameter is not one of those there are.
        FileNotFoundError: If there are no notebooks, or no data where `data` names it.
        RuntimeError: If another process works in the run's folder.
    """
    _check_numbers(seed=seed)
    project = Path(project or files.project_folder()).resolve()
    paths = notebooks(project)
    wanted = _profile(profile, project, paths)
    paths = {stage: paths[stage] for stage in sorted(pick(text, paths) for text in only)} or paths
    given = _parameters(paths, seed, wanted, parameters or {})
    folder = project / "runs" / (name or profile)
    # A kernel must find this ferlib, also where it is not installed.
    os.environ["PYTHONPATH"] = f"{PACKAGE.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    os.environ.pop("MPLBACKEND", None)  # "agg", as many servers set it, would show no figure
    with files.hold(folder, wait=0):
        loaded = sources.load(data)
        source = str(data or os.environ.get("FERLIB_DATA", ""))
        if loaded.is_drawn:  # else each notebook would look for data again
            source = source or "drawn"
        _say(_describe(loaded, wanted.get("all", {}).get("pictures", 0)))
        manifest = _manifest(folder, profile, seed, loaded)
        keys = {stage: _key(paths[stage], folder, given[stage], loaded) for stage in paths}
        todo = [x for x in paths if not _is_done(paths[x], folder, keys[x], manifest)]
        _say_how_long(profile, todo, source, project)
        for stage, path in tqdm(paths.items(), desc=folder.name, unit="notebook", disable=None):
            entry = _stage(folder, path, given[stage], loaded, source, timeout, manifest)
            if entry["status"] == "failed":
                break
        problem = entry["problem"] and f"{stage} failed. {entry['problem']}"
        manifest |= {"status": entry["status"], "problem": problem}
        _write_manifest(folder, manifest)
        _report(manifest, folder)
    return manifest | {"folder": str(folder)}


def _profile(profile, project, paths):
    """Reads the parameters that a profile changes, by notebook; "all" has those of every one."""
    import yaml

    found = {path.stem: path for path in sorted(project.glob("profiles/*.yaml"))}
    if profile not in {"quick", *found}:
        raise ValueError(f"profile is {profile!r}; it can be quick, {', '.join(found)}.")
    if profile not in found:
        return {}
    wanted = yaml.safe_load(found[profile].read_text(encoding="utf-8"))
    return {key if key == "all" else pick(key, paths): values for key, values in wanted.items()}


def _parameters(paths, seed, wanted, changes):
    """Returns what each notebook is given: the profile's parameters, changed as the user says."""
    given = {}
    for stage in paths:
        given[stage] = {"seed": seed} | wanted.get("all", {}) | wanted.get(stage, {})
    for key, value in changes.items():
        prefix, _, name = key.partition(".")
        given[pick(prefix, paths)][name] = value
    return {stage: _check(paths[stage], values) for stage, values in given.items()}


def _check(path, values):
    """Returns parameters for a notebook, each of the type that its parameters cell declares."""
    import papermill

    known = papermill.inspect_notebook(path)
    checked: dict[str, Any] = {}
    for name, value in values.items():
        if name in _SET_BY_RUN or name not in known:
            own = ", ".join(known.keys() - set(_SET_BY_RUN))
            raise ValueError(f"{path.stem} has no parameter {name!r} to change; it has {own}.")
        kind, meaning = known[name]["inferred_type_name"], known[name]["help"]
        span = re.search(r"([\d.]+) to ([\d.]*\d)", meaning)  # as "1 to 40"
        low, high = map(float, span.groups() if span else (0, math.inf))
        try:
            checked[name] = _KINDS[kind](str(value))
            fits = kind in ("str", "bool") or low <= checked[name] <= high
        except (ValueError, KeyError):
            fits = False
        if not fits:
            least = ", not negative" if kind in ("int", "float") else ""
            must = f"it must be {kind}{least}: {meaning}."
            raise ValueError(f"{path.stem}: {name} is {value!r}; {must}")
    return checked


def _plan(path):
    """Returns a notebook's code, and what it "reads" of a run and "makes" in its folder."""
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return code, {"reads": [], "makes": []} | notebook.metadata.get("ferlib", {})


def _key(path, folder, given, data):
    """Returns the digest of everything that decides what a stage makes."""
    code, plan = _plan(path)
    used = [*PACKAGE.glob("*.py"), *PACKAGE.rglob("*.json")]
    for name in plan["reads"]:
        used += folder.glob(name)
    for text in ",".join(map(str, given.values())).split(","):
        if text.strip():  # a parameter may name files, or a folder of them
            used += [Path(text.strip()), *Path(text.strip()).rglob("*")]
    used = sorted(path for path in used if path.is_file())
    votes = b"" if data.votes is None else data.votes.tobytes()
    about = [code, given, data.title, data.fingerprint, hashlib.sha256(votes).hexdigest()]
    for path in used:  # of a run that was moved, names stay
        name = path.relative_to(folder).parts if folder in path.parents else path.parts[-3:]
        about.append([name, files.digest(path)])
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]


def _missing(path, folder):
    """Names what a stage should have made and has not."""
    out = folder / path.stem
    return [name for name in _plan(path)[1]["makes"] if not any(out.glob(name))]


def _is_done(path, folder, key, manifest):
    """Whether a stage would make again what is there."""
    entry = manifest["stages"].get(path.stem, {})
    is_there = (folder / path.name).exists() and not _missing(path, folder)
    is_same = entry.get("status") == "done" and entry["key"] == key
    return is_there and is_same and not _changed(folder, entry)


def _changed(folder, entry):
    """Names what a stage made and is no longer as it was: damaged, or made by hand since."""
    made = entry.get("sha256", {})
    now = {name: files.digest(folder / name) for name in made if (folder / name).is_file()}
    return [name for name in made if now.get(name) != made[name]]


def _say_how_long(profile, stages, source, project):
    """Says how long stages will take: as long as measured once, at this machine's speed."""
    times = project / "profiles" / "times.json"
    known = json.loads(times.read_text(encoding="utf-8")) if times.exists() else {}
    if profile not in known or not stages:
        return
    _say("Measuring how fast this machine trains ...")
    command = [sys.executable, "-c", _MEASURE, source]
    told = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    if told.returncode:
        why = told.stderr.strip().split("\n")[-1]
        _say(f"It could not be measured: {why or told.returncode}")
        return
    measured = float(told.stdout.split()[-1])
    slower = measured / known[profile]["seconds_per_epoch"]
    seconds = slower * sum(known[profile]["seconds"].get(stage, 0) for stage in stages)
    minutes = f"{max(1, seconds / 60):.0f} minutes"
    _say(f"An epoch of the recipe quick takes {measured:.0f} s, so this run takes about {minutes}.")
    _say("In a hurry? Profile smoke trains on few pictures: --profile smoke, or PROFILE=smoke.")


def _say(line):
    """Prints a line above the bar, at once."""
    tqdm.write(line)
    sys.stdout.flush()


def _manifest(folder, profile, seed, data):
    """Begins the manifest of a run, with what an earlier one in this folder has finished."""
    old = {}
    if (folder / "manifest.json").exists():
        try:
            old = read_manifest(folder)["stages"]
        except ValueError as error:
            _say(f"{error} All notebooks run anew.")
    about = {key: getattr(data, key) for key in ("title", "fingerprint", "is_drawn")}
    about |= {split: int((data.split == split).sum()) for split in data.splits}
    return {
        "status": "running",
        "profile": profile,
        "seed": seed,
        "data": about,
        "revision": _revision(),
        "versions": {"python": sys.version.split()[0]} | versions(VERSIONED),
        "stages": {stage: entry for stage, entry in old.items() if entry["status"] != "running"},
    }


def versions(names: Iterable[str]) -> dict[str, str | None]:
    """Gives the versions of packages; None for one that is not installed."""
    found = {item.name: item.version for item in importlib.metadata.distributions()}
    return {name: found.get(name) for name in names}


def _write_manifest(folder, manifest):
    files.write_json(folder / "manifest.json", manifest, sealed=True)


def _revision():
    """Names the git revision of ferlib; None where it lies in no repository."""
    if not shutil.which("git"):
        return None
    command = ["git", "describe", "--always", "--abbrev=12", "--dirty=+"]
    told = subprocess.run(
        command, cwd=PACKAGE.parent, capture_output=True, encoding="utf-8", errors="replace"
    )
    return told.stdout.strip() or None


def _stage(folder, path, given, data, source, timeout, manifest):
    """Runs one stage, unless it would make the same again; returns its entry in the manifest."""
    stage, out = path.stem, folder / path.stem
    key = _key(path, folder, given, data)
    if _is_done(path, folder, key, manifest):
        _say(f"{stage}: unchanged, skipped")
        return manifest["stages"][stage]
    _say(f"{stage}: running")
    entry = {"status": "running", "key": key, "parameters": given, "data": data.title}
    manifest["stages"] = dict(sorted((manifest["stages"] | {stage: entry}).items()))
    _write_manifest(folder, manifest)
    shutil.rmtree(out / "figures", ignore_errors=True)  # of an earlier run
    began = time.monotonic()
    problem = _execute(path, folder, given | {"data": source, "out": str(out)}, timeout)
    missing = _missing(path, folder)
    if missing and not problem:
        problem = f"It ended without making {', '.join(missing)}."
    names = [*_plan(path)[1]["makes"], "figures/*.png"]
    made = [path for name in names for path in sorted(out.glob(name))]
    entry["outputs"] = [path.relative_to(folder).as_posix() for path in made]
    there = [name for name in entry["outputs"] if (folder / name).is_file()]
    entry["sha256"] = {name: files.digest(folder / name) for name in there}
    entry |= {"status": "failed" if problem else "done", "problem": problem}
    entry["seconds"] = round(time.monotonic() - began, 1)
    _write_manifest(folder, manifest)
    _say(f"{stage}: {entry['status']} after {entry['seconds']:.0f} s")
    return entry


class _Watch:
    """Says what a kernel prints, and after some silence which cell computes."""

    def __init__(self, stage: str, cells: int):
        self.stage, self.cells, self.cell, self.rest = stage, cells, 0, ""
        self.began = self.said = time.monotonic()
        self.ended = threading.Event()
        threading.Thread(target=self.look, daemon=True).start()

    def write(self, text: str) -> None:
        """Says whole lines; of one that is drawn again and again, how it ended."""
        *lines, self.rest = (self.rest + text).split("\n")
        for line in filter(str.strip, lines):
            self.said = time.monotonic()
            _say("    " + line.rstrip("\r").split("\r")[-1])

    def flush(self) -> None:
        """Does nothing: a line is said as soon as it is whole."""

    def start(self, cell: Any, cell_index: int) -> None:
        """Notes that a cell begins."""
        self.cell += cell.cell_type == "code"
        self.began = time.monotonic()

    def look(self) -> None:
        """Says a line after each silence, until the notebook has ended."""
        while not self.ended.wait(0.5):
            now = time.monotonic()
            if now - self.said >= SILENCE:
                self.said = now
                place = f"cell {self.cell} of {self.cells}"
                _say(f"    {self.stage}: {place}, {now - self.began:.0f} s")


def _execute(path, folder, parameters, timeout):
    """Executes a notebook; returns where and how it failed, or None."""
    import papermill

    end = time.monotonic() + (timeout or 0)
    watch = _Watch(path.stem, len(_plan(path)[0]) + 1)  # papermill adds a cell of parameters
    try:
        papermill.execute_notebook(
            path,
            folder / path.name,
            parameters,
            progress_bar=False,
            stdout_file=watch,
            on_cell_start=watch.start,
            timeout_func=(lambda cell: max(1, int(end - time.monotonic()))) if timeout else None,
            start_timeout=600,  # a busy machine takes its time
            extra_arguments=["--log-level=CRITICAL"],
        )
    except Exception as error:
        if timeout and isinstance(error, TimeoutError):
            error = TimeoutError(f"it was not done within {timeout:g} s (--timeout)")
        elif isinstance(error, OSError) and not isinstance(error, TimeoutError):
            with files.naming(folder / path.name):
                raise
        return _explain(error, folder / path.name)
    finally:
        watch.ended.set()


def _explain(error, executed):
    """Says in which cell a notebook failed and how; writes it there where papermill has not."""
    import nbformat
    import papermill

    notebook = nbformat.read(executed, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    begun = [cell for cell in cells if cell.metadata.get("papermill", {}).get("start_time")]
    if isinstance(error, papermill.PapermillExecutionError):
        what = f"{error.ename}: {error.evalue}"
    else:  # a dead kernel or a timeout, which left no trace in the notebook
        name, what = type(error).__name__, str(error).strip().split("\n")[0]
        shown = nbformat.v4.new_output("error", ename=name, evalue=what, traceback=[what])
        (begun or cells)[-1].outputs.append(shown)
        nbformat.write(notebook, executed)
    line = begun[-1].source.strip().split("\n")[0] if begun else "before the first cell"
    return f"In [{len(begun)}] ({line}): {what}"


def _report(manifest, folder):
    """Writes `report.html`: results, figures and links on one page."""
    import jinja2

    page = (PACKAGE / "report.html").read_text(encoding="utf-8")
    template = jinja2.Environment(autoescape=True).from_string(page)
    drawn = DRAWN if manifest["data"]["is_drawn"] else ""
    rows = results(folder).to_dict("records")
    text = template.render(run=manifest, name=folder.name, rows=rows, drawn=drawn, on_val=ON_VAL)
    files.write(folder / "report.html", text)


def read_manifest(run: Path | str) -> dict[str, Any]:
    """Reads the `manifest.json` of a run, and adds the run's "folder".

    Args:
        run: Folder of the run, or its name in `runs/`.

    Raises:
        FileNotFoundError: If there is no such run.
    """
    for folder in (Path(run), files.project_folder() / "runs" / run):
        if (folder / "manifest.json").is_file():
            return files.read_json(folder / "manifest.json") | {"folder": folder.resolve()}
    raise FileNotFoundError(f"{run} is no run: it holds no manifest.json. Runs lie in runs/.")


def results(run: Path | str) -> pd.DataFrame:
    """Collects what the finished stages of a run have measured.

    Args:
        run: Folder of the run, or its name in `runs/`.

    Returns:
        A DataFrame with a row a model: stage, model, data, split, accuracy, low, high, parameters.

    Raises:
        FileNotFoundError: If there is no such run.
    """
    manifest, rows = read_manifest(run), []
    for stage, entry in manifest["stages"].items():
        path = manifest["folder"] / stage / "metrics.json"
        if f"{stage}/metrics.json" in _changed(manifest["folder"], entry):
            warnings.warn(f"{path} is not as the run wrote it, and is left out.", stacklevel=2)
        elif entry["status"] == "done" and path.is_file():
            about = {"stage": stage, "data": entry["data"]}
            for model, values in json.loads(path.read_text(encoding="utf-8")).items():
                if isinstance(values, dict) and {"accuracy", "split"} <= values.keys():
                    rows.append(about | {"model": model} | values)
    names = ["stage", "model", "data", "split", "accuracy", "low", "high", "parameters"]
    return pd.DataFrame(rows, columns=names)


def compare(first: Path | str, second: Path | str) -> pd.DataFrame:
    """Puts the parameters and the results of two runs side by side.

    Args:
        first: Folder of a run, or its name in `runs/`.
        second: The other run.

    Returns:
        A DataFrame with a row for each parameter and result; a column for each run, and "differs".

    Raises:
        FileNotFoundError: If one of them is no run.
        ValueError: If they are the same.
    """
    if str(first) == str(second):
        raise ValueError(f"{first} is one run: name two.")
    columns = []
    for run in (first, second):
        manifest = read_manifest(run)
        items = {key: manifest[key] for key in ("profile", "seed", "data", "revision", "versions")}
        for stage, entry in manifest["stages"].items():
            items[stage] = {"status": entry["status"]} | entry["parameters"]
        for row in results(run).drop(columns="data").to_dict("records"):
            items[f"{row.pop('stage')} {row.pop('model')}"] = row
        columns.append(pd.json_normalize(items, sep=" ").iloc[0].astype(object))
    table = pd.concat(columns, axis=1).set_axis([str(first), str(second)], axis=1)
    same = (table.iloc[:, 0] == table.iloc[:, 1]) | table.isna().all(axis=1)
    return table.assign(differs=~same)
