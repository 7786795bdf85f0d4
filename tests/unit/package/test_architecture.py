"""The shape of the package: no two files import each other, not even by way of others; nothing grows too large."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

from tests.source import PACKAGE, trees

#: Files of a folder, lines of a file and of a function with its docstring: 20, 400 and 80 are aimed at.
MOST_FILES, LONGEST_FILE, LONGEST_FUNCTION = 22, 600, 130


def imports_of(path: Path, modules: dict[str, Path]) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(trees()[path]):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name for name in names if name in modules and modules[name].name != "__init__.py"}


def test_no_file_imports_itself_by_way_of_others() -> None:
    modules = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for path in trees()
    }
    graph = {name: imports_of(path, modules) - {name} for name, path in modules.items()}
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError with the circle


def test_no_folder_file_or_function_is_too_large() -> None:
    large: list[str] = []
    for folder in {path.parent for path in trees()}:
        files = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        large += [f"{folder}: {len(files)} files"] * (len(files) > MOST_FILES)
    for path, tree in trees().items():
        lines = path.read_text(encoding="utf-8").count("\n")
        large += [f"{path}: {lines} lines"] * (lines > LONGEST_FILE)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                large += [f"{path}: {node.name} has {lines} lines"] * (lines > LONGEST_FUNCTION)
    assert not large, "\n".join(large)
