"""Names are nouns that say what a thing holds and verbs that say what is done: `found` and `made` say neither."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.source import FOLDERS, PACKAGE, trees

#: Participles that name nothing, and the like.
BANNED = {
    *("apart", "asked", "begun", "chosen", "crew", "drawn", "found", "given", "hand", "handed", "held", "known"),
    *("look", "looked", "made", "said", "seen", "shown", "taken", "told", "wanted"),
}
#: Keys of JSON: of summaries that earlier productions wrote, and of the doctor's table.
EXCEPT = {("sim/production.py", "made"), ("cluster/doctor.py", "found")}


def names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield what a module names: variables, fields, parameters, functions, classes, and where."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name.lower(), node.lineno


@pytest.mark.parametrize("folder", FOLDERS)
def test_names_say_what_things_hold(folder: str) -> None:
    banned = [
        f"{path.relative_to(PACKAGE)}:{line} {name}"
        for path, tree in trees().items()
        if path.is_relative_to(PACKAGE / folder)
        for name, line in names(tree)
        if name.strip("_") in BANNED and (path.relative_to(PACKAGE).as_posix(), name) not in EXCEPT
    ]
    assert not banned, "\n".join(banned)
