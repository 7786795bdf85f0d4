"""Records of an archive's catalogue: metadata alone, as libraries exchange them. There are no events."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

from apbatch.formats.oai.namespaces import DC, OAI_DC
from apbatch.formats.oai.reader import OaiRecordReader
from apbatch.sample.contents import Contents
from apbatch.sample.showers import generator

FOLDER = "records"
TITLES = ("Showers of an array, runs 6402-6403", "Images of a telescope, one night")
#: A DOI of no one: this prefix is the one for tests.
DOI = "10.5072/apbatch-sample"


def write(folder: Path, seed: int) -> list[Contents]:
    """Write the files into `folder` / ``records``; return what they hold."""
    random = generator(seed, FOLDER)
    (folder / FOLDER).mkdir()
    contents = []
    for number, title in enumerate(TITLES, 1):
        fields = [
            ("title", title),
            ("creator", "Nobody: drawn by apbatch sample"),
            ("publisher", "Sample archive"),
            ("date", f"2020-05-{random.integers(1, 29):02d}"),
            ("type", "Reconstructed events"),
            ("subject", "Cosmic rays"),
            ("identifier", f"https://doi.org/{DOI}.{number}"),
            ("identifier", f"https://archive.invalid/data/{number}.zip"),
            ("format", f"Size: {random.integers(10, 4000)} MB"),
            ("format", "Format: HDF5"),
            ("description", "Abstract: Nothing in it is a measurement."),
            ("rights", "CC0 1.0"),
            ("rights", "https://creativecommons.org/publicdomain/zero/1.0/"),
        ]
        lines = "".join(f"  <dc:{name}>{escape(text)}</dc:{name}>\n" for name, text in fields)
        path = f"{FOLDER}/record{number}.xml"
        (folder / path).write_text(
            f'<metadata>\n <oai_dc:dc xmlns:dc="{DC}" xmlns:oai_dc="{OAI_DC}">\n{lines} </oai_dc:dc>\n</metadata>\n',
            encoding="utf-8",
        )
        contents.append(Contents(path, OaiRecordReader.name, 0))
    return contents
