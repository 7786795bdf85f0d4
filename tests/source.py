"""The source of the package, parsed once for all tests that read it."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "apbatch"
#: Its folders, the layers.
FOLDERS = sorted({path.name for path in PACKAGE.iterdir() if path.is_dir()} - {"__pycache__"})


@cache
def trees() -> dict[Path, ast.Module]:
    """Return the syntax tree of each file, by path."""
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
