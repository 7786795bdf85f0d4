"""The readers that the package declares, as `setup.cfg` names them."""

from __future__ import annotations

import configparser
import importlib
import io

import pytest

from apbatch.errors import FormatError
from apbatch.formats.reader import ImageReader, Reader
from apbatch.index.attributes import COMMON
from tests.conftest import ROOT


def declared() -> dict[str, str]:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    lines = settings["options.entry_points"]["apbatch.readers"].strip().splitlines()
    return {name.strip(): place.strip() for name, place in (line.split("=") for line in lines)}


def load(place: str) -> Reader:
    module, name = place.split(":")
    reader = getattr(importlib.import_module(module), name)()
    assert isinstance(reader, Reader)
    return reader


@pytest.mark.parametrize(("name", "place"), declared().items())
def test_a_reader_is_there_under_its_name_and_describes_its_attributes(name: str, place: str) -> None:
    reader = load(place)
    assert reader.name == name
    assert all(attribute.name.isidentifier() and attribute.description for attribute in reader.attributes)


def test_one_name_has_one_type_and_one_unit_in_all_formats() -> None:
    seen: dict[str, tuple[str, str | None]] = {}
    for place in declared().values():
        for attribute in load(place).attributes:
            kind = (attribute.type, attribute.unit)
            assert seen.setdefault(attribute.name, kind) == kind, attribute.name


def test_no_attribute_has_the_name_of_something_that_every_file_has() -> None:
    # The catalogue would take it for that and refuse the file.
    for place in declared().values():
        for attribute in load(place).attributes:
            assert attribute.name not in COMMON, f"{place}: {attribute.name}"


@pytest.mark.parametrize("place", declared().values())
@pytest.mark.parametrize("content", [b"", b"\0" * 5000, bytes(range(256)) * 20, b"\xff" * 5000])
def test_junk_is_refused_with_the_file_named(place: str, content: bytes) -> None:
    reader = load(place)
    with pytest.raises(FormatError) as caught:
        reader.metadata(io.BytesIO(content), "some/file.dat")
    assert "some/file.dat" in str(caught.value)
    if isinstance(reader, ImageReader):
        try:
            assert [batch for batch in reader.images(io.BytesIO(content), "some/file.dat") if batch.num_rows] == []
        except FormatError as error:
            assert "some/file.dat" in str(error)
