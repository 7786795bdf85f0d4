"""Fixtures of components: a home for all tests of a module, and an empty merged tree in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from apbatch.formats.reader import Attribute
from tests.merged import Merged


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    """Changes of the environment that hold for all tests of a module."""
    with pytest.MonkeyPatch.context() as one:
        yield one


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch) -> Path:
    """A folder with the home and the cache of a module's programs."""
    folder = tmp_path_factory.mktemp("here")
    patch.setenv("APBATCH_HOME", str(folder / "home"))
    patch.setenv("APBATCH_CACHE", str(folder / "cache"))
    patch.delenv("APBATCH_CONFIG", raising=False)
    return folder


@pytest.fixture(scope="module")
def bare_merged(here: Path) -> Merged:
    """A tree without a file, in the home of the module's programs."""
    merged = Merged(here / "sites", here / "home")
    merged.catalogue.declare([Attribute("zenith", "number", "zenith angle", "deg")])
    return merged
