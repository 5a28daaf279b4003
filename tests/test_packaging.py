"""What is installed: dependencies, files of the package, the Makefile."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
import yaml
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import ferlib

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
PINS = [
    Requirement(line)
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
]


def test_every_dependency_has_a_pin_that_fits():
    pins = {canonicalize_name(pin.name): pin for pin in PINS}
    assert len(pins) == len(PINS)
    for line in [*PROJECT["dependencies"], *(line for extra in EXTRAS.values() for line in extra)]:
        wanted = Requirement(line)
        assert wanted.specifier, f"{line} has no lower bound"
        pin = pins[canonicalize_name(wanted.name)]
        (version,) = [part.version for part in pin.specifier if part.operator == "=="]
        assert wanted.specifier.contains(version), f"{line} is pinned to {version}"
    assert "ferlib" not in pins


def test_imports_of_the_package_are_dependencies():
    distributions = {"cv2": "opencv-python-headless", "PIL": "pillow", "sklearn": "scikit-learn"}
    distributions |= {"yaml": "pyyaml", "grpc": "grpcio"}
    known = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    known |= {canonicalize_name(Requirement(line).name) for x in EXTRAS.values() for line in x}
    known |= {"ipython", "jax", "torch", "ferlib"}  # ipykernel brings IPython; other backends
    for path in (ROOT / "ferlib").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module]
            for top in {name.split(".")[0] for name in names} - sys.stdlib_module_names:
                name = canonicalize_name(distributions.get(top, top).replace("_", "-"))
                assert name in known, f"{path.name} imports {top}, which pyproject.toml lacks"


def test_environment_yml_installs_the_package_and_names_nothing_else():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, inner = environment["dependencies"]
    assert sorted(re.split("[<>=]", line)[0] for line in conda) == ["pip", "python"]
    (python,) = [line for line in conda if line.startswith("python")]
    assert python.removeprefix("python") == PROJECT["requires-python"]
    constraints, package = inner["pip"]
    assert constraints == "-c constraints.txt"
    extras = re.fullmatch(r"-e \.\[([\w,]+)\]", package)[1].split(",")
    assert set(extras) <= set(EXTRAS) and {"lab", "dev"} <= set(extras)


@pytest.mark.parametrize(
    "name", ["Makefile", ".github/workflows/ci.yml", "docs/running.md", "environment.yml"]
)
def test_whoever_installs_for_tests_installs_what_they_import(name):
    text = (ROOT / name).read_text()
    installed = re.findall(r"-e '?\.\[([\w,]+)\]", text)
    for extras in installed:
        # ty reads all of ferlib; browsers are tested by make test-slow, after another command.
        assert {"lab", "faces", "video", "onnx", "heic", "dev"} <= set(extras.split(","))
    assert installed


def test_every_file_of_the_package_is_packed():
    packed = PYPROJECT["tool"]["setuptools"]["package-data"]["ferlib"]
    packed = {path for pattern in packed for path in (ROOT / "ferlib").glob(pattern)}
    tracked = subprocess.run(
        ["git", "ls-files", "ferlib"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    for name in tracked:
        assert name.endswith(".py") or ROOT / name in packed, f"{name} would not be installed"


PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "data/README.md"]
PAGES.append(ROOT / "experiments/LOG.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    links = re.findall(r'\]\(([^)\s#]+)|src="([^"]+)"', text)
    for link in {"".join(pair) for pair in links}:
        if link.startswith("http"):  # a host may open a file of the repository
            link = link.partition("/blob/main/")[2]
            assert not link or (ROOT / link).exists(), link
        else:
            assert (page.parent / link).exists(), link


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == ferlib.__version__
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## \[(.+?)\]", changes, re.MULTILINE)[1] == ferlib.__version__


def test_importing_ferlib_imports_nothing_heavy():
    heavy = {"numpy", "pandas", "keras", "tensorflow", "sklearn", "matplotlib", "papermill"}
    code = "import sys, ferlib, ferlib.__main__; ferlib.__main__.parser(); print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert not heavy & set(told.stdout.split())


LINTED = ("ferlib", "tests", "experiments", "notebooks", "docs")


def ruff(*arguments):
    """Runs ruff on all of the code."""
    pytest.importorskip("ruff", reason="the extra dev is not installed")
    command = [sys.executable, "-m", "ruff", *arguments, *LINTED]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_lint():
    told = ruff("check", "--no-cache", "--output-format", "concise")
    assert told.returncode == 0, told.stdout + told.stderr


def test_format():
    told = ruff("format", "--no-cache", "--check")
    assert told.returncode == 0, told.stdout + told.stderr


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
@pytest.mark.skipif(sys.platform == "win32", reason="the Makefile needs a POSIX shell")
class TestMake:
    @pytest.fixture
    def folder(self, tmp_path):
        tmp_path = tmp_path / "ein Ordner mit ä"
        tmp_path.mkdir()
        for name in ("Makefile", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, tmp_path)
        (tmp_path / "bin").mkdir()
        return tmp_path

    def make(self, folder, *arguments):
        tools = f"{folder / 'bin'}:/bin:/usr/bin"
        return subprocess.run(
            [shutil.which("make"), "--no-print-directory", "-C", folder, *arguments],
            env={"PATH": tools, "HOME": os.environ.get("HOME", "/")},
            capture_output=True,
            text=True,
        )

    def shim(self, folder, name, line):
        path = folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)

    def test_takes_a_python_that_runs(self, folder):
        self.shim(folder, "python3.13", "exit 127")
        self.shim(folder, "python3.12", "exit 127")
        self.shim(folder, "python3.11", f'exec "{sys.executable}" "$@"')
        told = self.make(folder, "-n", "run", "PROFILE=smoke", "DATA=my data.csv", "NAME=x")
        assert f'"{folder}/bin/python3.11" -m venv' in told.stdout
        words = told.stdout.replace("\\\n", " ").split("-m ferlib run ")[1].split()
        assert " ".join(words) == '--profile "smoke" --data "my data.csv" --name "x"'

    def test_alone_lists_the_targets(self, folder):
        told = self.make(folder)
        assert told.returncode == 0 and not (folder / ".venv").exists()
        makefile = (ROOT / "Makefile").read_text()
        targets = re.search(r"^\.PHONY: (.*)", makefile, re.MULTILINE)[1].split()
        listed = [line.split()[1] for line in told.stdout.splitlines() if line.startswith("make ")]
        assert sorted(listed) == sorted(targets)

    def test_backends_take_what_pyproject_lists(self, folder):
        (folder / ".venv" / "bin").mkdir(parents=True)
        (folder / ".venv" / ".installed").touch()
        self.shim(folder, "python3.11", 'mkdir -p "$3/bin"; cp "bin/pip" "$3/bin/python"')
        self.shim(folder, "pip", 'for last; do :; done; cp "$last" wanted.txt; exit 1')
        python = folder / ".venv" / "bin" / "python"
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        python.chmod(0o755)
        told = self.make(folder, "test-backends", f"PYTHON={folder}/bin/python3.11")
        assert told.returncode != 0  # the shim stops it before the tests
        wanted = (folder / "wanted.txt").read_text().splitlines()
        expected = [line for line in PROJECT["dependencies"] if not line.startswith("tensor")]
        assert wanted == [*expected, *EXTRAS["jax"]]

    def test_versions_are_the_oldest_where_they_can_be(self, folder):
        assert "--resolution lowest-direct" in self.make(folder, "-n", "versions").stdout
        newer = self.make(folder, "-n", "versions", "PY=3.13").stdout
        assert "--python 3.13" in newer and "-c constraints.txt" in newer
        assert "lowest-direct" not in newer

    def test_says_so_where_there_is_none(self, folder):
        told = self.make(folder, "test", "PYTHON=")
        assert told.returncode != 0 and "No Python 3.11, 3.12 or 3.13" in told.stderr
        assert not (folder / ".venv").exists()
