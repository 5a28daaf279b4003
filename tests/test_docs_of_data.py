"""The examples in the docstrings of what reads data run, and imports point one way."""

import ast
import doctest
import importlib
from pathlib import Path

import pytest

ORDER = ["labels", "files", "faces", "pictures", "archives", "tables", "folders", "classes",
         "reading", "drawn", "sources", "cleaning"]  # fmt: skip
PACKAGE = Path(__file__).resolve().parents[1] / "ferlib"


@pytest.mark.parametrize("name", ORDER)
def test_examples(name):
    module = importlib.import_module(f"ferlib.{name}")
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("name", ["load", "clean", "prepare", "draw", "FERData"])
def test_what_users_call_has_an_example(name):
    homes = {"load": "sources", "draw": "drawn", "FERData": "faces"}
    module = importlib.import_module(f"ferlib.{homes.get(name, 'cleaning')}")
    assert ">>>" in getattr(module, name).__doc__


@pytest.mark.parametrize("name", ORDER)
def test_imports_point_up(name):
    tree = ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ferlib"):
            module = node.module.partition(".")[2]
            imported |= {module} if module else {alias.name for alias in node.names}
    assert imported <= set(ORDER[: ORDER.index(name)])
