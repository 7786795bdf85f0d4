"""Public functions say what each of their parameters is, in the form of numpydoc."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.source import FOLDERS, PACKAGE, trees

#: Functions with so many parameters must describe all of them.
FEWEST = 3
_PARAMETERS = re.compile(r"^Parameters\n-+\n(.*?)(?=^\S[^\n]*\n-+$|\Z)", re.DOTALL | re.MULTILINE)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def parameters_of(function: Function) -> list[str]:
    rest = [argument for argument in (function.args.vararg, function.args.kwarg) if argument is not None]
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs, *rest]
    return [argument.arg for argument in arguments if argument.arg not in ("self", "cls")]


def described_in(function: Function) -> set[str]:
    section = _PARAMETERS.search(ast.get_docstring(function) or "")
    lines = re.findall(r"^(\S.*?)(?: :.*)?$", section[1], re.MULTILINE) if section else []
    return {name.strip().lstrip("*") for line in lines for name in line.split(",")}


@cache
def annotations_by_name() -> dict[str, ast.expr]:
    """Return what modules name to annotate with: ``OutputOption = Annotated[…]``."""
    nodes = [node for tree in trees().values() for node in tree.body if isinstance(node, ast.Assign)]
    return {
        ast.unparse(target): node.value
        for node in nodes
        for target in node.targets
        if isinstance(node.value, ast.Subscript) and ast.unparse(node.value.value) == "Annotated"
    }


def declared_by_framework(function: Function) -> set[str]:
    """Return the parameters of a command or a route that `typer` or FastAPI shows with their description to users."""
    names: set[str] = set()
    for argument in [*function.args.args, *function.args.kwonlyargs]:
        annotation = argument.annotation
        if annotation is not None and ast.unparse(annotation).startswith(("Request", "strawberry.Info")):
            names.add(argument.arg)
        if isinstance(annotation, ast.Name):
            annotation = annotations_by_name().get(annotation.id)
        for call in ast.walk(annotation) if annotation is not None else ():
            words = {word.arg for word in call.keywords} if isinstance(call, ast.Call) else set()
            if isinstance(call, ast.Call) and (
                {"help", "description"} & words or ast.unparse(call.func).startswith(("Depends", "_"))
            ):  # what begins with an underscore is a helper of the module that writes the help
                names.add(argument.arg)
    return names


def referred(function: Function) -> set[str]:
    """Return the parameters that another method describes, which the docstring names: see `Catalogue.entries`."""
    names: set[str] = set()
    for owner, method in re.findall(r"see `(\w+)\.(\w+)`", ast.get_docstring(function) or ""):
        for node in classes()[owner].body:
            if isinstance(node, Function) and node.name == method:
                names |= described_in(node)
    return names


def is_intrinsic(function: Function) -> bool:
    """Tell whether a function writes LLVM code: its arguments are numba's types, described once in its module."""
    return any(isinstance(decorator, ast.Name) and decorator.id == "code" for decorator in function.decorator_list)


@cache
def classes() -> dict[str, ast.ClassDef]:
    return {node.name: node for tree in trees().values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


def inherited(method: str, owner: ast.ClassDef) -> set[str]:
    """Return the parameters that the same method of the bases describes: a shared parameter is described once."""
    names: set[str] = set()
    for base in owner.bases:
        parent = classes().get(ast.unparse(base).split("[")[0].rsplit(".", 1)[-1])
        if parent is not None and parent is not owner:
            for node in parent.body:
                if isinstance(node, Function) and node.name == method:
                    names |= described_in(node)
            names |= inherited(method, parent)
    return names


def public_functions(
    body: list[ast.stmt], owner: ast.ClassDef | None = None
) -> Iterator[tuple[Function, ast.ClassDef | None]]:
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node.body, node)
        elif isinstance(node, Function) and not node.name.startswith("_") and not is_intrinsic(node):
            yield node, owner


def of_library(owner: ast.ClassDef) -> bool:
    """Tell whether a class fills in one of a library, written with its module: the library describes its methods."""
    return any(isinstance(base, ast.Attribute) for base in owner.bases)


def undescribed(path: Path) -> Iterator[str]:
    for function, owner in public_functions(trees()[path].body):
        if owner is not None and of_library(owner):
            continue
        names = parameters_of(function)
        missing = set(names) - described_in(function) - (inherited(function.name, owner) if owner else set())
        missing -= declared_by_framework(function) | referred(function)
        if len(names) >= FEWEST and missing:
            yield f"{path.relative_to(PACKAGE.parent)}:{function.lineno} {function.name}: {', '.join(sorted(missing))}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_parameter_is_described(folder: str) -> None:
    missing = [line for path in trees() if path.is_relative_to(PACKAGE / folder) for line in undescribed(path)]
    assert not missing, "\n".join(missing)


def test_every_parameter_of_the_modules_beside_the_folders_is_described() -> None:
    missing = [line for path in trees() if path.parent == PACKAGE for line in undescribed(path)]
    assert not missing, "\n".join(missing)
