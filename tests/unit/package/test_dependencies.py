"""What is imported is declared, what is declared is imported, and every declaration has a lower bound."""

from __future__ import annotations

import ast
import configparser
import sys
from functools import cache
from importlib.metadata import distributions, packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.source import trees

ROOT = Path(__file__).resolve().parents[3]
#: Built from source beside the environment; a part of psycopg[pool]; a peer that is measured where it is installed.
_ELSEWHERE = {"horovod", "psycopg_pool", "dl1_data_handler"}


@cache
def imported() -> dict[str, set[str]]:
    """Return the packages that hold what is imported, by module."""
    modules: set[str] = set()
    for tree in trees().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                modules |= {name.name.split(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                modules.add(node.module.split(".")[0])
    modules -= set(sys.stdlib_module_names) | {"apbatch"} | _ELSEWHERE
    packages = packages_distributions()
    return {module: {canonicalize_name(name) for name in packages.get(module, [module])} for module in modules}


def declared() -> tuple[list[Requirement], list[Requirement]]:
    """What every installation needs, and what extras need."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = settings["options.extras_require"]
    return (
        [Requirement(line) for line in settings["options"]["install_requires"].split()],
        [Requirement(line) for name in extras for line in extras[name].split() if not line.startswith("apbatch[")],
    )


def test_every_package_that_is_imported_is_declared() -> None:
    needed, optional = declared()
    names = {canonicalize_name(requirement.name) for requirement in (*needed, *optional)}
    assert {module for module, packages in imported().items() if not packages & names} == set()


def test_what_every_installation_needs_is_imported() -> None:
    used = set().union(*imported().values())
    assert {canonicalize_name(requirement.name) for requirement in declared()[0]} <= used


def test_every_declaration_has_a_lower_bound() -> None:
    needed, optional = declared()
    unbound = {requirement.name for requirement in (*needed, *optional) if ">=" not in str(requirement.specifier)}
    assert unbound == set()


def test_every_package_takes_the_python_of_debian_12() -> None:
    """A developer's newer 3.11 hides that a pinned version asks for more than 3.11.2."""
    refused = {
        f"{one.name} {one.version}: {wanted}"
        for one in distributions()
        if (wanted := one.metadata.get("Requires-Python")) and not SpecifierSet(wanted).contains("3.11.2")
    }
    assert refused == set()
