"""Packed notebooks: what is written, and that it runs where ferlib and a network are missing."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import tomllib
from pathlib import Path

import nbformat
import numpy as np
import pytest
from conftest import PROFILE, ROOT, profile_of

from ferlib import drawn, kernels
from ferlib.__main__ import main

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LACKS = {
    "kaggle": ["mtcnn", "tf2onnx", "onnxruntime", "nbstripout", "pytest", "ruff", "playwright"],
    "colab": ["mtcnn", "tf2onnx", "onnxruntime", "nbstripout", "ruff", "playwright", "papermill"],
}
BLOCK = """\
import sys
class Lacks:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {lacks}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Lacks())"""


def refused(folder):
    """Says why `kaggle kernels push -p FOLDER` would refuse it: the checks of kaggle 2.2.5."""
    meta = json.loads((folder / "kernel-metadata.json").read_bytes())
    owner, _, slug = meta["id"].partition("/")
    if len(meta["title"]) < 5:
        return "Title must be at least five characters"
    if re.sub(r"[^a-z0-9]+", "-", meta["title"].lower()).strip("-") != slug.lower():
        return "Your kernel title does not resolve to the specified id"
    if not (folder / meta["code_file"]).is_file():
        return "Source file not found"
    if not owner or not re.fullmatch("[a-z0-9-]{5,50}", slug):
        return "Kernel must be specified in the form of '{username}/{kernel-slug}'"
    if meta["language"] != "python" or meta["kernel_type"] != "notebook":
        return "A valid language and kernel type must be specified"
    for key in ("is_private", "enable_gpu", "enable_internet"):
        if not isinstance(meta[key], bool):
            return f"{key} must be a boolean"
    for key in ("dataset_sources", "competition_sources", "kernel_sources", "model_sources"):
        if not isinstance(meta[key], list):
            return f"{key} must be a list"
    for source in meta["dataset_sources"]:
        if not re.fullmatch("[^/]+/[^/]+(/[^/]+)?", source):
            return "Invalid dataset specification " + source
    sent = json.loads((folder / meta["code_file"]).read_bytes())
    for cell in sent["cells"]:
        cell["source"] = "".join(cell["source"])
    return "The source exceeds 1 MB" if len(json.dumps(sent)) > 1_000_000 else None


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_folder_that_kaggle_takes(notebook, tmp_path):
    path = kernels.pack(notebook, out=tmp_path, user="someone")
    assert refused(tmp_path) is None
    assert path == tmp_path / notebook.name
    made, source = nbformat.read(path, as_version=4), nbformat.read(notebook, as_version=4)
    nbformat.validate(made)
    cells = [[c.source for c in nb.cells if c.cell_type == "code"] for nb in (made, source)]
    assert cells[0][1:] == cells[1][1:]
    assert "git+https" not in cells[0][0] and str(ROOT) not in path.read_text(encoding="utf-8")
    uses_a_model = any("stage.model(" in source for source in cells[0])
    assert (tmp_path / "ferlib-weights").exists() == uses_a_model


def test_metadata(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("KAGGLE_USERNAME", raising=False)
    assert main(["kernel", "03", "--for", "kaggle", "--out", str(tmp_path)]) == 0
    assert kernels.NOBODY in capsys.readouterr().out
    meta = json.loads((tmp_path / "kernel-metadata.json").read_bytes())
    assert meta["id"] == f"{kernels.NOBODY}/ferlib-03-cnn-training"
    assert meta["enable_gpu"] and meta["is_private"] and not meta["enable_internet"]
    weights = [f"{kernels.NOBODY}/{kernels.WEIGHTS}"] * (tmp_path / kernels.WEIGHTS).exists()
    assert meta["dataset_sources"] == ["deadskull7/fer2013", *weights]
    arguments = ["kernel", "01", "--for", "kaggle", "--out", str(tmp_path), "--user", "someone"]
    assert main(arguments) == 0
    assert kernels.NOBODY not in capsys.readouterr().out
    meta = json.loads((tmp_path / "kernel-metadata.json").read_bytes())
    assert meta["id"] == "someone/ferlib-01-exploration" and not meta["enable_gpu"]
    for notebook, needed in (("04", True), ("05", False)):
        out = tmp_path / f"colab{notebook}"
        assert main(["kernel", notebook, "--for", "colab", "--out", str(out)]) == 0
        (path,) = out.iterdir()
        assert ("%pip install -q keras-tuner" in path.read_text(encoding="utf-8")) == needed
    with pytest.raises(ValueError, match="would be overwritten"):
        kernels.pack(path, to="colab", out=out)
    kernels.pack("05", out=tmp_path)
    meta = json.loads((tmp_path / "kernel-metadata.json").read_bytes())
    assert meta["enable_gpu"] and meta["enable_internet"]


@pytest.mark.parametrize(
    ("notebook", "options", "error", "said"),
    [
        ("0", {}, ValueError, "01_exploration"),
        ("nowhere.ipynb", {}, FileNotFoundError, "nowhere.ipynb"),
        ("01", {"to": "moon"}, ValueError, "kaggle or colab"),
    ],
)
def test_refuses(notebook, options, error, said, tmp_path):
    with pytest.raises(error, match=said):
        kernels.pack(notebook, out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def with_models(tmp_path, monkeypatch):
    """Makes a ferlib with one small model and one too large for Kaggle's limit."""
    package = shutil.copytree(
        ROOT / "ferlib",
        tmp_path / "ferlib",
        ignore=shutil.ignore_patterns("pretrained", "__pycache__"),
    )
    (package / "pretrained").mkdir()
    (package / "pretrained" / "compact.keras").write_bytes(os.urandom(2_000_000))
    (package / "pretrained" / "tiny.keras").write_bytes(os.urandom(1000))
    monkeypatch.setattr(kernels, "PACKAGE", package)


def test_a_model_that_is_too_large_lies_beside_the_notebook(with_models, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["kernel", "06", "--for", "kaggle", "--out", str(out), "--user", "someone"]
    assert main(arguments) == 0
    assert f"kaggle datasets create -p {out / 'ferlib-weights'}" in capsys.readouterr().out
    assert refused(out) is None
    meta = json.loads((out / "kernel-metadata.json").read_bytes())
    about = json.loads((out / "ferlib-weights" / "dataset-metadata.json").read_bytes())
    assert about["id"] in meta["dataset_sources"] and len(about["licenses"]) == 1
    assert 6 <= len(about["title"]) <= 50 and 6 <= len(about["id"].split("/")[1]) <= 50
    assert {path.name for path in (out / "ferlib-weights").glob("*.keras")} == {"compact.keras"}
    kernels.pack("06", to="colab", out=out)
    assert not (out / "ferlib-weights").exists()


def write_csv(path, n):
    """Writes drawn faces as a fer2013.csv."""
    data = drawn.draw(n, seed=0)
    usage = {"train": "Training", "val": "PublicTest", "test": "PrivateTest"}
    order = np.argsort([list(usage).index(split) for split in data.split], kind="stable")
    path.parent.mkdir(parents=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["emotion", "pixels", "Usage"])
        for i in order:
            pixels = " ".join(map(str, data.images[i].ravel()))
            rows.writerow([data.labels[i], pixels, usage[data.split[i]]])


class Host:
    """A machine with nothing of this project on it, and without a network.

    It shows the operating system and the Python packages, and its own /kaggle and /tmp.
    """

    BRING_UP = (
        "import fcntl, socket, struct, os, sys\n"
        "fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sh', b'lo', 1))\n"
        "os.chdir('/kaggle/working')\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'papermill', *sys.argv[1:]])"
    )

    def __init__(self, folder):
        self.folder = folder
        self.working = folder / "kaggle" / "working"
        self.input = folder / "kaggle" / "input"
        for path in (self.working, self.input, folder / "tmp", folder / "proc", folder / "dev"):
            path.mkdir(parents=True)

    def script(self):
        shown = {sys.prefix, sys.base_prefix, "/usr", "/etc", "/bin", "/sbin", "/lib", "/lib64"}
        lines = ["set -e", "mount --make-rprivate /"]
        for path in sorted(map(Path, shown)):
            inside = f"{self.folder}{path}"
            if path.is_symlink():
                lines.append(f"ln -sf '{os.readlink(path)}' '{inside}'")
            elif path.exists():
                lines += [f"mkdir -p '{inside}'", f"mount --rbind '{path}' '{inside}'"]
        lines.append(f"mount --rbind /dev '{self.folder}/dev'")
        lines.append(f"mount -t proc proc '{self.folder}/proc'")
        return "\n".join([*lines, f"exec chroot '{self.folder}' \"$@\""])

    def unshare(self, *command):
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8"}
        return subprocess.run(
            ["unshare", "-rmnp", "--fork", "sh", "-c", self.script(), "sh", *command],
            env=environment | {"PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            encoding="utf-8",
        )

    def papermill(self, notebook, executed, *arguments):
        """Executes a notebook of /kaggle/working there; gives what it made of it."""
        arguments = ("-c", self.BRING_UP, notebook, executed, "--no-progress-bar", *arguments)
        told = self.unshare(sys.executable, *arguments)
        assert told.returncode == 0, told.stderr[-3000:]
        return nbformat.read(self.working / executed, as_version=4)


@pytest.fixture
def host(tmp_path):
    """Makes such a machine; skips where the system does not let one make it."""
    if not shutil.which("unshare"):
        pytest.skip("needs unshare, of Linux")
    host = Host(tmp_path / "host")
    told = host.unshare(sys.executable, "-c", "import ferlib")
    if "ModuleNotFoundError" not in told.stderr:
        pytest.skip(f"namespaces are not allowed here: {told.stderr.strip()[-200:]}")
    return host


def lacking(path, to):
    """Puts a cell in front of a packed notebook that takes away what such a place lacks."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(BLOCK.format(lacks=LACKS[to])))
    nbformat.write(notebook, path)


def printed(notebook):
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", ())]
    return "".join(out.get("text", "") for out in outputs if out.output_type == "stream")


def test_runs_on_kaggle_with_the_internet_off(host):
    write_csv(host.input / "datasets" / "deadskull7" / "fer2013" / "fer2013.csv", 70)
    lacking(kernels.pack("01", out=host.working), "kaggle")
    before = {path for path in host.folder.rglob("*") if not path.is_relative_to(host.working)}
    made = host.papermill("01_exploration.ipynb", "out.ipynb")
    assert "Data: fer2013.csv, 70 pictures" in printed(made)
    assert (host.working / "runs" / "quick" / "01_exploration" / "metrics.json").exists()
    after = {path for path in host.folder.rglob("*") if not path.is_relative_to(host.working)}
    assert not [path for path in after - before if path.relative_to(host.folder).parts[0] != "tmp"]


def test_finds_the_models_that_lie_in_a_data_set(host, with_models, tmp_path):
    code = "import pathlib\nprint(sorted(p.name for p in pathlib.Path(ferlib.__file__).parent"
    code += ".glob('pretrained/*.keras')))  # as stage.model() does"
    cells = [nbformat.v4.new_code_cell(source) for source in ("import ferlib", code)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, tmp_path / "09_models.ipynb")
    kernels.pack(tmp_path / "09_models.ipynb", out=host.working)
    weights = host.working / "ferlib-weights"
    executed = host.papermill("09_models.ipynb", "without.ipynb", "--cwd", "/tmp")
    assert "['tiny.keras']" in printed(executed)
    (host.input / "datasets" / "someone").mkdir(parents=True)
    weights.rename(host.input / "datasets" / "someone" / "ferlib-weights")
    executed = host.papermill("09_models.ipynb", "with.ipynb")
    assert "['compact.keras', 'tiny.keras']" in printed(executed)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="looks for a POSIX environment's folders")
def test_the_first_cell_installs_ferlib_from_the_repository(tmp_path):
    repository = tmp_path / "repository"
    for name in ("ferlib", "pyproject.toml", "README.md", "LICENSE"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        repository.mkdir(exist_ok=True)
        copy(ROOT / name, repository / name)
    git = ["git", "-C", repository, "-c", "user.name=x", "-c", "user.email=x"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], check=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    address = project["urls"]["Repository"]

    # What a host ships: every package here but ferlib, and google.colab.
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "host"], check=True)
    (site,) = (tmp_path / "host").glob("lib/python*/site-packages")
    (site / "shipped.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    (site / "google" / "colab").mkdir(parents=True)
    (site / "google" / "colab" / "__init__.py").touch()
    before = set(os.listdir(site))
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "FERLIB_DATA")}
    environment |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_VALUE_0": address}
    environment |= {"GIT_CONFIG_KEY_0": f"url.file://{repository}.insteadOf"}
    python = tmp_path / "host" / "bin" / "python"
    notebook = ROOT / "notebooks" / "01_exploration.ipynb"
    given = ["-p", "profile", "smoke", "-p", "data", "drawn:70", "-p", "out", "out"]
    options = {"cwd": tmp_path, "env": environment, "capture_output": True, "encoding": "utf-8"}
    told = subprocess.run([python, "-c", "import papermill, ferlib"], **options)
    assert "No module named 'ferlib'" in told.stderr
    command = [python, "-m", "papermill", notebook, "out.ipynb", "--no-progress-bar", *given]
    told = subprocess.run(command, **options)
    assert told.returncode == 0, told.stderr[-3000:]
    assert {name.partition("-")[0] for name in set(os.listdir(site)) - before} == {"ferlib"}
    assert (tmp_path / "out" / "metrics.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("to", "first"), [("kaggle", 0), ("colab", 1)])
def test_all_packed(host, to, first):
    notebooks = NOTEBOOKS
    if PROFILE == "smoke":
        notebooks = notebooks[first::2]
        write_csv(host.input / "fer2013" / "fer2013.csv", 700)
    else:
        (host.input / "fer2013").mkdir()
        shutil.copy(os.environ["FERLIB_DATA"], host.input / "fer2013" / "fer2013.csv")
    for notebook in notebooks:
        began = time.monotonic()
        lacking(kernels.pack(notebook, to=to, out=host.working), to)
        changes = profile_of(notebook).items()
        given = [str(word) for name, value in changes for word in ("-p", name, value)]
        made = host.papermill(notebook.name, notebook.name, *given)
        pictures = "700 pictures" if PROFILE == "smoke" else ""
        assert f"Data: fer2013.csv, {pictures}" in printed(made)
        makes = made.metadata["ferlib"]["makes"]
        stage = host.working / "runs" / "quick" / notebook.stem
        assert all(any(stage.glob(name)) for name in makes)
        print(f"{notebook.stem}: {time.monotonic() - began:.0f} s")
