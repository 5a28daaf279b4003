"""The form of the package: its size, the direction of its imports, its annotations, its types."""

import ast
import io
import subprocess
import sys
import tokenize
from graphlib import TopologicalSorter

import pytest
from conftest import ROOT

PACKAGE = ROOT / "ferlib"
# The design says 3,000; until the readers and the evaluation are thinned, it must not grow.
MOST_LINES = 7294
# Imports go up this list only.
ORDER = (
    "labels", "files", "backend", "faces", "pictures", "archives", "tables", "classes", "folders",
    "reading",
    "drawn", "sources", "cleaning", "batches", "models", "zoo", "runtimes", "recipes",
    "torch_layout", "training", "distributed", "tuning", "evaluation", "exports", "explain",
    "plots", "detection", "clips", "prediction", "camera", "suite", "kernels", "__main__",
)  # fmt: skip
TYPED = tuple(name for name in ORDER if name != "files")
SELF = ("self", "cls")
MODULES = sorted(PACKAGE.glob("*.py"))
NO_CODE = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
    tokenize.ENDMARKER, tokenize.ENCODING,
}  # fmt: skip


def lines_of_code(path):
    """Counts the lines of a file; docstrings, comments and blank lines apart."""
    text = path.read_text(encoding="utf-8")
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_text and isinstance(node.value.value, str):
            lines -= set(range(node.lineno, node.end_lineno + 1))
    return len(lines)


def imported(path):
    """Names the modules of ferlib that a module of it imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "ferlib":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module.removeprefix("ferlib.") if "ferlib." in node.module else "")
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("ferlib.") for alias in node.names}
    return found & {path.stem for path in MODULES}


def test_the_library_is_thin():
    counted = {path.stem: lines_of_code(path) for path in MODULES}
    assert sum(counted.values()) < MOST_LINES, counted


def test_every_module_has_its_place():
    assert {path.stem for path in MODULES} - {"__init__"} <= set(ORDER)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_imports_go_up_the_list(path):
    if path.stem == "__init__":
        assert not imported(path)
    else:
        above = ORDER[: ORDER.index(path.stem)]
        assert imported(path) <= set(above), f"{path.stem} imports what comes after it"


def test_no_circle_of_imports():
    TopologicalSorter({path.stem: imported(path) for path in MODULES}).prepare()


def public_functions(tree):
    """Yields the functions, and the methods of classes, that a user may call."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node)
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node


@pytest.mark.parametrize("name", TYPED)
def test_public_functions_are_annotated(name):
    tree = ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))
    lacking = []
    for function in public_functions(tree):
        told = function.args
        every = [*told.posonlyargs, *told.args, *told.kwonlyargs, told.vararg, told.kwarg]
        names = [arg.arg for arg in every if arg and not arg.annotation and arg.arg not in SELF]
        if names or not function.returns:
            lacking.append(f"{function.name}({', '.join(names)})")
    assert not lacking, f"{name} lacks annotations: {', '.join(lacking)}"


def test_types():
    pytest.importorskip("ty", reason="the extra dev is not installed")
    paths = [PACKAGE / f"{name}.py" for name in TYPED]
    check = [sys.executable, "-m", "ty", "check", "--output-format", "concise"]
    command = [*check, "--python", sys.prefix, *map(str, paths)]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert told.returncode == 0, told.stdout + told.stderr


def described(body):
    """Yields the docstrings of constants and properties."""
    for before, node in zip([None, *body], body, strict=False):
        if isinstance(node, ast.ClassDef):
            yield from described(node.body)
        elif isinstance(node, ast.FunctionDef) and "property" in ast.dump(
            ast.List(node.decorator_list)
        ):
            yield ast.get_docstring(node)
        elif isinstance(before, ast.Assign | ast.AnnAssign) and isinstance(node, ast.Expr):
            yield node.value.value


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_no_description_is_taken_for_a_type(path):
    # Of "Limits: bytes and seconds." Sphinx makes a description and, before the colon, a type.
    docstrings = described(ast.parse(path.read_text(encoding="utf-8")).body)
    assert [text for text in docstrings if ":" in (text or "").partition("\n")[0]] == []
