"""What the pages name exists: modules, names in them, folders and files of the package, other pages."""

from __future__ import annotations

import ast
import re
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "docs/interfaces.rst")
)
#: `sample/` is also the folder that `apbatch sample sample` writes.
FOLDERS = {path.name for path in (ROOT / "apbatch").iterdir() if path.is_dir()} - {"sample"}
#: Entry points, keys of Parquet metadata and tables of TAP are named as modules are.
OTHERS = {"apbatch.readers", "apbatch.geometry", "apbatch.events", "apbatch.files"}


@cache
def names_of(path: Path) -> set[str]:
    """Return what a module defines or imports on its first level, and the methods and fields of its classes."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value)  # what `__getattr__` of the package gives
    return names


def exists(name: str) -> bool:
    """Tell whether a dotted name is a module, or something in one."""
    first, *parts = name.split(".")
    place = ROOT / first
    while parts and (place / parts[0]).is_dir():
        place /= parts.pop(0)
    if parts and (place / f"{parts[0]}.py").is_file():
        place = place / f"{parts.pop(0)}.py"
    module = place if place.suffix else place / "__init__.py"
    return all(part in names_of(module) for part in parts)


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_names_exists(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    dotted = set(re.findall(r"(?<![\w/@.:-])apbatch(?:\.[A-Za-z_]\w*)+(?![\w./:-]*@)", text))
    missing = {name for name in dotted - OTHERS if not exists(name)}
    for module, names in re.findall(r"^from (apbatch[\w.]*) import ([\w, ]+)", text, re.MULTILINE):
        missing |= {f"{module}.{name}" for name in names.replace(",", " ").split() if not exists(f"{module}.{name}")}
    for path in re.findall(r"`((?:\w+/)+[\w-]*(?:\.\w+)?)`", text):
        bases = {"docs": ROOT, "jobs": ROOT, "conf": ROOT, "tests": ROOT, "constraints": ROOT}
        base = ROOT / "apbatch" if path.split("/")[0] in FOLDERS else bases.get(path.split("/")[0])
        if base and not path.endswith("/NAME") and not any((base / f"{path}{end}").exists() for end in ("", ".py")):
            missing.add(path)
    links = re.findall(r"\]\(([\w./-]+\.md)\)", text)
    missing |= {link for link in links if not (ROOT / page).parent.joinpath(link).exists()}
    assert not missing, "\n".join(sorted(missing))


@pytest.mark.parametrize("page", [page for page in PAGES if page.endswith(".md")])
def test_headings_go_down_one_level_at_a_time(page: str) -> None:
    text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    levels = [len(marks) for marks in re.findall(r"^(#+) ", text, re.MULTILINE)]
    assert levels[:1] in ([], [1]) and all(later <= earlier + 1 for earlier, later in pairwise(levels))
