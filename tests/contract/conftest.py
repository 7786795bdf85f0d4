"""The catalogues that the contract is tried on."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from apbatch.formats.reader import Attribute
from apbatch.index.backends import open_catalogue
from apbatch.index.catalogue import Catalogue
from apbatch.index.files import FileRecord

DECLARED = (
    Attribute("zenith", "number", "zenith angle", "deg"),
    Attribute("azimuth", "number", "azimuth", "deg"),
    Attribute("label", "string", "a text"),
    Attribute("simulated", "boolean", "a flag"),
    Attribute("calibrated", "date", "a date"),
    Attribute("seed", "integer", "a large number"),
    Attribute("shifted", "time", "a time"),
)


POSTGRES = pytest.param("postgres", marks=pytest.mark.postgres)
CASSANDRA = pytest.param("cassandra", marks=pytest.mark.cassandra)


@pytest.fixture(scope="module")
def new_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Gives the URL of a new catalogue of a back-end."""

    def make(backend: str) -> str:
        if backend == "sqlite":
            return f"sqlite:///{tmp_path_factory.mktemp('catalogue') / 'c.sqlite'}"
        return f"{request.getfixturevalue(backend)}/contract_{secrets.token_hex(4)}"

    return make


def _opened(url: str) -> Iterator[Catalogue]:
    with open_catalogue(url) as catalogue:
        catalogue.declare(DECLARED)
        yield catalogue


@pytest.fixture(scope="module", params=["sqlite", POSTGRES, CASSANDRA])
def catalogue(request: pytest.FixtureRequest, new_url: Callable[[str], str]) -> Iterator[Catalogue]:
    """Every back-end, with what all of them can."""
    yield from _opened(new_url(request.param))


@pytest.fixture(scope="module", params=["sqlite", POSTGRES, CASSANDRA])
def whole(request: pytest.FixtureRequest, new_url: Callable[[str], str]) -> Iterator[Catalogue]:
    """The back-ends that have the whole interface."""
    yield from _opened(new_url(request.param))


@pytest.fixture
def experiment() -> str:
    """A name of its own for each test, so that tests share a catalogue without meeting."""
    return f"E{secrets.token_hex(4)}"


def record(experiment: str, name: str = "a.001", **changes: object) -> FileRecord:
    base = FileRecord(
        path=f"/{experiment}/site/{name}", site=f"{experiment}-site", source=name, size=156, mtime_ns=1, checksum="c",
        adler32="0", format="taiga-raw", experiment=experiment,
    )  # fmt: skip
    return replace(base, **changes)  # type: ignore[arg-type]
