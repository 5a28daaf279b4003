"""Opens one notebook (`begin`) and runs all of them in order (`run`).

A run is a folder: the executed notebooks, a folder for what each stage made, `manifest.json` and
`report.html`. A second run leaves a stage out while its key stays the same: the code of its
notebook and of the ferlib modules behind it, its parameters, the data, and the files of other
stages that it reads.
"""

import ast
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from tqdm import tqdm

from ferlib import faces, files, sources

PROFILES = {"smoke": 700, "quick": None, "full": None}
"""The profiles, and the most pictures that each uses (None: all)."""

PACKAGE = Path(__file__).resolve().parent
VERSIONED = ("ferlib", "tensorflow", "keras", "keras-tuner", "numpy", "pandas", "scikit-learn")
STAND_INS = ("compact", "tiny")
"""Shipped models that stand in where a run has none of its own, the preferred one first."""

ON_VAL = "Choices were made on val: on new pictures, expect less than what it says there."
DRAWN = "DRAWN FACES stand in for the data: the results say nothing about people."
OF_A_RUN = ("profile", "data", "out")
_TYPES = {"str": str, "int": int, "float": float}
_TYPES["bool"] = {"True": True, "true": True, "False": False, "false": False}.__getitem__
_DECLARED = re.compile(r"^(\w+): (str|int|float|bool) = .*?  # (.+)$", re.MULTILINE)


def _check(profile, seed):
    """Refuses a profile or a seed that is not one."""
    if profile not in PROFILES:
        raise ValueError(f"profile is {profile!r}; it can be {', '.join(PROFILES)}.")
    if type(seed) is not int or not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed!r}; it can be a whole number from 0 to {2**32 - 1}.")


def _accept(name, value, kind, meaning):
    """Refuses a value of another kind; a number below 0, or out of a range such as "1 to 40"."""
    span = re.search(r"(\d+(?:\.\d+)?) to (\d+(?:\.\d+)?)", meaning)
    low, high = map(float, span.groups()) if span else (0, float("inf"))
    number = kind in ("int", "float")
    if type(value).__name__ not in (kind, "int" * (kind == "float")) or (
        number and not low <= value <= high
    ):
        sign = ", not negative" * (number and not span)
        raise ValueError(f"{name} is {value!r}; it must be {kind}{sign}: {meaning}.")


def _check_cells():
    """Refuses what was given as a parameter and is none of this notebook, or has a wrong value.

    Papermill puts what it was given into a cell under the one that declares the parameters.
    """
    from IPython import get_ipython

    shell = get_ipython()
    cells = shell.user_ns.get("In", []) if shell else []
    at = max((i for i, cell in enumerate(cells) if _DECLARED.match(cell)), default=None)
    if at is None:
        return
    known = {name: about for name, *about in _DECLARED.findall(cells[at])}
    given = [cell for cell in cells[at + 1 : at + 2] if cell.startswith("# Parameters\n")]
    if unknown := set(re.findall(r"^(\w+) = ", "".join(given), re.MULTILINE)) - known.keys():
        unknown = ", ".join(sorted(unknown))
        raise ValueError(f"No parameter {unknown} in this notebook; it has {', '.join(known)}.")
    for name, about in known.items():
        _accept(name, shell.user_ns[name], *about)


def _ask(command):
    """Gives what a command prints; nothing where there is no such command, or it fails."""
    options = {"shell": True, "capture_output": True, "text": True, "cwd": PACKAGE.parent}
    return subprocess.run(command, **options).stdout.strip()


def _divert(log):
    """Sends what native libraries print in a kernel to a file, away from the notebook."""
    from IPython import get_ipython

    if getattr(get_ipython(), "kernel", None):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), 2)


def _load(source):
    """Loads the data, and gives it with a source that finds it again from any folder."""
    source = str(source or os.environ.get("FERLIB_DATA", ""))
    data, path = sources.load(source), Path(source).expanduser()
    if source and path.exists():
        return data, str(path.resolve())
    return data, source or "drawn" * data.is_drawn  # notebooks look for it in the same places


def _describe(data, limit):
    """Says what the data is, in one line; of drawn faces in two."""
    splits = ", ".join(f"{split} {(data.split == split).sum():,}" for split in data.splits)
    part = f"; this profile uses {limit}" if limit and limit < len(data) else ""
    line = f"Data: {data.title}, {len(data):,} pictures ({splits or 'no splits'}){part}."
    return f"{line}\n{DRAWN}" if data.is_drawn else line


def _device():
    """Names what will compute: as Keras sees it where it is imported, else as the driver does."""
    keras = sys.modules.get("keras")
    ask = "nvidia-smi --query-gpu=name --format=csv,noheader"
    names = keras.distribution.list_devices() if keras else _ask(ask).splitlines()
    names = [name for name in names if not name.lower().startswith("cpu")]
    return ", ".join(names) or f"CPU, {os.cpu_count()} cores"


@dataclasses.dataclass
class Stage:
    """One notebook at work: what it was asked for, its data and its folder.

    Args:
        name: Name of the notebook without its ending.
        profile: "smoke", "quick" or "full".
        seed: Seed of every random choice.
        out: Folder for what the notebook makes.
        loaded: All that the source holds, an FERData.
        lock: Lock on `out`, held while the kernel lives.
        metrics: What was recorded so far.
    """

    name: str
    profile: str
    seed: int
    out: Path
    loaded: faces.FERData = dataclasses.field(repr=False)
    lock: object = dataclasses.field(repr=False)
    metrics: dict = dataclasses.field(default_factory=dict, repr=False)

    def _part(self, data):
        limit = PROFILES[self.profile]
        return data.sample(limit, seed=self.seed) if limit else data

    @functools.cached_property
    def raw(self):
        """The data as the source has it (FERData); in profile smoke a sample."""
        return self._part(self.loaded)

    @functools.cached_property
    def data(self):
        """The clean data (FERData); in profile smoke a sample."""
        from ferlib import cleaning

        return self._part(cleaning.clean(self.loaded, seed=self.seed)[0])

    def find(self, path) -> Path | None:
        """Finds what another stage of the same run made.

        Args:
            path: Path from the run's folder, as "03_cnn_training/compact/model.keras".

        Returns:
            The file or folder, or None where it is not there.
        """
        found = self.out.parent / path
        return found if found.exists() else None

    def model(self, *candidates):
        """Finds a model to work with, and says which.

        Args:
            *candidates: Paths from the run's folder, the preferred one first.

        Returns:
            The path of the first candidate that exists, else the first of `STAND_INS` that is
            shipped; on drawn faces, or where none is, the path of a small model trained here.
        """
        for candidate in candidates:
            if path := self.find(candidate):
                print(f"Model: {candidate} of this run.")
                return path
        from ferlib import recipes, training, zoo

        at_hand = [name for name in STAND_INS if name in zoo.shipped()]
        if at_hand and not self.loaded.is_drawn:
            print(f"Model: {at_hand[0]} as shipped with ferlib, as this run has none.")
            return at_hand[0]
        print("Model: a small one, trained here, as this run has none.")
        form = {"model": "residual", "options": {"widths": [16, 32, 64, 112]}}
        recipe = recipes.Recipe(**form, epochs=8, batch_size=16, augmentation=None, seed=self.seed)
        training.train(recipe, self.data, self.out / "tiny", overwrite=True)
        return self.out / "tiny" / "model.keras"

    def show(self, figure, name) -> None:
        """Saves a figure as `figures/<name>.png` and leaves it open for the notebook to show.

        Args:
            figure: A Figure, an Axes, an array of Axes or a seaborn grid.
            name: Name of the file without its ending.
        """
        figure = figure.flat[0] if hasattr(figure, "flat") else figure
        path = self.out / "figures" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        figure.figure.savefig(path, dpi=120, bbox_inches="tight")

    def record(self, **metrics) -> None:
        """Adds metrics to `metrics.json`.

        Args:
            **metrics: Numbers, or dictionaries of them. A dictionary with "accuracy" (and
                "low", "high", "split", "parameters") is a row in the run's table of results.
        """
        from ferlib import evaluation

        self.metrics |= evaluation.plain(metrics)
        files.write_json(self.out / "metrics.json", self.metrics)


def begin(
    name: str, *, profile: str = "quick", data: str = "", out: str = "", seed: int = 0
) -> Stage:
    """Opens a notebook: checks its parameters, finds its data and says what it found.

    Args:
        name: Name of the notebook without its ending.
        profile: "smoke" (at most 700 pictures), "quick" or "full".
        data: File, folder, archive, Kaggle handle or "drawn"; empty finds it.
        out: Folder for what the notebook makes; empty is `runs/<profile>/<name>`.
        seed: Seed of every random choice, 0 to 4294967295.

    Returns:
        The Stage.

    Raises:
        ValueError: If a parameter is not one of those allowed.
        FileNotFoundError: If there is no such data.
        RuntimeError: If another process works in that folder.
    """
    _check_cells()
    _check(profile, seed)
    default = files.project_folder() / "runs" / profile / name
    folder = Path(out).expanduser().resolve() if out else default
    lock = files.hold(folder, wait=15)
    _divert(folder / "log.txt")
    stage = Stage(name, profile, seed, folder, _load(data)[0], lock)
    print(_describe(stage.loaded, PROFILES[profile]))
    print(f"Device: {_device()}.")
    return stage


def _pick(prefix, stages):
    """Finds the one stage that "03" or "03_cnn_training" means."""
    found = [stage for stage in stages if prefix and stage.startswith(prefix)]
    if len(found) != 1:
        raise ValueError(f"{prefix!r} means no notebook of this run: {', '.join(stages)}.")
    return found[0]


def _changes(parameters, paths):
    """Turns {"03.epochs": "5"} into {stage: {"epochs": 5}}, each of its declared type."""
    import papermill

    changes = {stage: {} for stage in paths}
    for key, value in parameters.items():
        prefix, _, name = key.partition(".")
        stage = _pick(prefix, paths)
        known = papermill.inspect_notebook(paths[stage])
        if name in OF_A_RUN or name not in known:
            own = ", ".join(known.keys() - set(OF_A_RUN))
            raise ValueError(f"{stage} has no parameter {name!r} to change; it has {own}.")
        kind, meaning = known[name]["inferred_type_name"], known[name]["help"]
        try:
            changes[stage][name] = _TYPES[kind](str(value))
        except (ValueError, KeyError):
            raise ValueError(f"{key} is {value!r}; it must be {kind}: {meaning}.") from None
        _accept(key, changes[stage][name], kind, meaning)
        if kind == "str":  # a notebook runs in a folder of its own
            changes[stage][name] = ",".join(map(_absolute, changes[stage][name].split(",")))
    return changes


def _absolute(text):
    """Gives a path that is there, and is written as one, from any folder; else the text."""
    path = Path(text.strip())
    is_path = (path.suffix or os.sep in text) and path.exists()
    return str(path.resolve()) if is_path else text


def _sha(data):
    return hashlib.sha256(data).hexdigest()[:16]


def _code(notebook):
    """Gives digests of a notebook's code and of each ferlib module behind it.

    This module counts for none: what it hands to a notebook comes from `cleaning`.
    """
    from IPython.core.inputtransformer2 import TransformerManager

    plain = TransformerManager().transform_cell
    cells = [plain(cell.source) for cell in notebook.cells if cell.cell_type == "code"]
    modules = {path.stem: path for path in PACKAGE.glob("*.py") if path.stem != "suite"}
    found, todo = {}, {"notebook": "\n".join(cells), "cleaning": None}
    while todo:
        name, text = todo.popitem()
        tree = ast.parse(text if name == "notebook" else modules[name].read_text("utf-8"))
        found[name] = _sha(ast.dump(tree).encode())
        used = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                used |= set(re.findall(r"\w+", ast.unparse(node)))
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "ferlib":
                used.add(node.attr)
        todo |= dict.fromkeys((used & modules.keys()) - found.keys())
    return found


def _key(notebook, folder, given, data):
    """Gives the digest of everything that decides what a stage makes."""
    reads = notebook.metadata.get("ferlib", {}).get("reads", [])
    named = [Path(text) for value in given.values() for text in str(value).split(",")]
    paths = [path for name in reads for path in folder.glob(name)]
    paths += [path for top in named if top.is_absolute() for path in (top, *top.rglob("*"))]
    files = sorted(path for path in paths if path.is_file())
    digests = {os.path.relpath(path, folder): _sha(path.read_bytes()) for path in files}
    votes = b"" if data.votes is None else data.votes.tobytes()
    parts = [_code(notebook), given, digests, data.title, data.fingerprint, _sha(votes)]
    return _sha(json.dumps(parts, sort_keys=True).encode())


class _Lines:
    """A file that says whole lines; of one that is drawn again and again, how it ended."""

    rest = ""

    def write(self, text):
        *lines, self.rest = (self.rest + text).split("\n")
        for line in filter(str.strip, lines):
            _say("    " + line.rstrip("\r").split("\r")[-1])

    def flush(self):
        pass


def _say(line):
    """Prints a line above the bar, at once."""
    tqdm.write(line)
    sys.stdout.flush()


def _execute(path, executed, parameters, timeout):
    """Executes a notebook; gives where and how it failed, or nothing."""
    import nbformat
    import papermill

    end = time.monotonic() + (timeout or 0)
    left = (lambda cell: max(1, int(end - time.monotonic()))) if timeout else None
    options = {"cwd": path.parent, "progress_bar": False, "stdout_file": _Lines()}
    options |= {"timeout_func": left, "extra_arguments": ["--log-level=CRITICAL"]}
    options["start_timeout"] = 600  # a busy machine takes its time
    try:
        papermill.execute_notebook(path, executed, parameters, **options)
    except Exception as error:
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


def read_manifest(run) -> dict:
    """Reads the `manifest.json` of a run, and adds the run's "folder".

    Args:
        run: Folder of the run, or its name in `runs/`.

    Raises:
        FileNotFoundError: If there is no such run.
    """
    for folder in (Path(run), files.project_folder() / "runs" / run):
        if (folder / "manifest.json").is_file():
            text = (folder / "manifest.json").read_text(encoding="utf-8")
            return json.loads(text) | {"folder": folder.resolve()}
    raise FileNotFoundError(f"{run} is no run: it holds no manifest.json. Runs lie in runs/.")


def results(run):
    """Collects what the finished stages of a run have measured.

    Args:
        run: Folder of the run, or its name in `runs/`.

    Returns:
        A DataFrame with a row a model: stage, model, data, split, accuracy, low, high, parameters.

    Raises:
        FileNotFoundError: If there is no such run.
    """
    import pandas as pd

    manifest, rows = read_manifest(run), []
    for stage, entry in manifest["stages"].items():
        path = manifest["folder"] / stage / "metrics.json"
        if entry["status"] == "done" and path.is_file():
            about = {"stage": stage, "data": entry["data"]}
            for model, values in json.loads(path.read_text(encoding="utf-8")).items():
                if isinstance(values, dict) and "accuracy" in values:
                    rows.append(about | {"model": model} | values)
    names = ["stage", "model", "data", "split", "accuracy", "low", "high", "parameters"]
    return pd.DataFrame(rows, columns=names)


def compare(first, second):
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
    import pandas as pd

    if str(first) == str(second):
        raise ValueError(f"{first} is one run: name two.")
    columns = []
    for run in (first, second):
        manifest = read_manifest(run)
        items = {key: manifest[key] for key in ("profile", "seed", "data", "revision", "versions")}
        items |= {stage: entry["parameters"] for stage, entry in manifest["stages"].items()}
        for row in results(run).drop(columns="data").to_dict("records"):
            items[f"{row.pop('stage')} {row.pop('model')}"] = row
        columns.append(pd.json_normalize(items, sep=" ").iloc[0].astype(object))
    table = pd.concat(columns, axis=1).set_axis([str(first), str(second)], axis=1)
    same = (table.iloc[:, 0] == table.iloc[:, 1]) | table.isna().all(axis=1)
    return table.assign(differs=~same)


def run(
    profile: str = "quick",
    data: str | Path | None = None,
    *,
    name: str | None = None,
    seed: int = 0,
    only: tuple[str, ...] = (),
    parameters: dict | None = None,
    timeout: float | None = None,
    project: Path | None = None,
) -> dict:
    """Runs the notebooks in order, and leaves out those that would make the same again.

    Args:
        profile: "smoke", "quick" or "full".
        data: File, folder, archive, Kaggle handle or "drawn"; None finds it.
        name: Name of the run's folder in `runs/`; None is the profile.
        seed: Seed of every random choice.
        only: Stages to run, as ("03", "06"); empty is all.
        parameters: Changed parameters of notebooks, as {"03.epochs": 5}.
        timeout: Seconds that a stage may take; None is no limit.
        project: Folder of `notebooks/` and `runs/`; None finds it.

    Returns:
        The manifest, as in `manifest.json`: "status" is "done", or "failed" and "problem" says
        in which notebook and cell, and how.

    Raises:
        ValueError: If a profile, stage or parameter is not one of those there are.
        FileNotFoundError: If there are no notebooks, or no data where `data` names it.
        RuntimeError: If another process works in the run's folder.
    """
    _check(profile, seed)
    project = Path(project or files.project_folder()).resolve()
    paths = {path.stem: path for path in sorted(project.glob("notebooks/[0-9][0-9]_*.ipynb"))}
    if not paths:
        raise FileNotFoundError(f"There are no notebooks in {project}: run this in the project.")
    paths = {stage: paths[stage] for stage in sorted(_pick(p, paths) for p in only)} or paths
    changes = _changes(parameters or {}, paths)
    folder = project / "runs" / (name or profile)
    # A kernel must find this ferlib, also where it is not installed.
    os.environ["PYTHONPATH"] = f"{PACKAGE.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    with files.hold(folder, wait=0):
        data, source = _load(data)
        _say(_describe(data, PROFILES[profile]))
        manifest = _manifest(folder, profile, seed, data)
        for stage in tqdm(paths, desc=folder.name, unit="notebook", disable=None):
            given = {"profile": profile, "seed": seed} | changes[stage]
            entry = _stage(folder, paths[stage], given, data, source, timeout, manifest)
            if entry["status"] == "failed":
                break
        problem = entry["problem"] and f"{stage} failed. {entry['problem']}"
        manifest |= {"status": entry["status"], "problem": problem}
        files.write_json(folder / "manifest.json", manifest)
        _report(manifest, folder)
    return manifest | {"folder": str(folder)}


def _manifest(folder, profile, seed, data):
    """Begins the manifest of a run, with what an earlier one in this folder has finished."""
    old = read_manifest(folder)["stages"] if (folder / "manifest.json").exists() else {}
    about = {key: getattr(data, key) for key in ("title", "fingerprint", "is_drawn")}
    about |= {split: int((data.split == split).sum()) for split in data.splits}
    versions = {item.name: item.version for item in importlib.metadata.distributions()}
    versions = {name: versions.get(name) for name in VERSIONED}
    manifest = {"status": "running", "profile": profile, "seed": seed, "data": about}
    manifest["revision"] = _ask("git describe --always --abbrev=12 --dirty=+") or None
    manifest["versions"] = {"python": sys.version.split()[0]} | versions
    manifest["stages"] = {k: entry for k, entry in old.items() if entry["status"] != "running"}
    return manifest


def _stage(folder, path, given, data, source, timeout, manifest):
    """Runs one stage, unless it would make the same again; gives its entry in the manifest."""
    import nbformat

    stage, executed, out = path.stem, folder / path.name, folder / path.stem
    notebook = nbformat.read(path, as_version=4)
    makes = notebook.metadata.get("ferlib", {}).get("makes", [])
    key, entry = _key(notebook, folder, given, data), manifest["stages"].get(stage, {})
    there = executed.exists() and all(any(out.glob(name)) for name in makes)
    if there and entry.get("status") == "done" and entry["key"] == key:
        _say(f"{stage}: unchanged, left out")
        return entry
    _say(f"{stage}: running")
    entry = {"status": "running", "key": key, "parameters": given, "data": data.title}
    manifest["stages"] = dict(sorted((manifest["stages"] | {stage: entry}).items()))
    files.write_json(folder / "manifest.json", manifest)
    began = time.time()
    problem = _execute(path, executed, given | {"data": source, "out": str(out)}, timeout)
    if lacks := [name for name in makes if not any(out.glob(name))]:
        problem = problem or f"It ended without making {', '.join(lacks)}."
    made = [path for name in makes for path in sorted(out.glob(name))]
    made += [path for path in sorted(out.glob("figures/*.png")) if path.stat().st_mtime >= began]
    made = [path.relative_to(folder).as_posix() for path in made]
    entry |= {"status": "failed" if problem else "done", "problem": problem, "outputs": made}
    entry["seconds"] = round(time.time() - began, 1)
    files.write_json(folder / "manifest.json", manifest)
    _say(f"{stage}: {entry['status']} after {entry['seconds']:.0f} s")
    return entry


def _report(manifest, folder):
    """Writes `report.html`: results, figures and links on one page."""
    import jinja2

    page = (PACKAGE / "report.html").read_text(encoding="utf-8")
    template = jinja2.Environment(autoescape=True).from_string(page)
    rows, drawn = results(folder).to_dict("records"), DRAWN * manifest["data"]["is_drawn"]
    about = {"run": manifest, "name": folder.name, "rows": rows, "drawn": drawn, "on_val": ON_VAL}
    files.write(folder / "report.html", template.render(about))
