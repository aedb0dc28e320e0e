"""The house's own rules: nothing imports backwards, and no format that can run code is used."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "probes": {"probes"},
    "calibration": {"probes", "calibration"},
    "advisor": {"probes", "calibration", "advisor"},
}
FILES = [path for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py")]


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_imports_backwards_and_nothing_is_pickled(path):
    package = path.relative_to(ROOT).parts[0]
    roots = {name.split(".")[0] for name in imported(path)}
    assert roots & set(MAY_IMPORT) <= MAY_IMPORT[package]
    assert not roots & {"pickle", "joblib", "dill", "shelve", "marshal"}


def test_every_module_says_what_it_is_for():
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
    assert [path.name for path, tree in trees.items() if not ast.get_docstring(tree)] == []
