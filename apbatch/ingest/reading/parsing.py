"""Files whose parser is a library in C are described in a process of its own: see `apbatch.formats.parser_process`."""

from __future__ import annotations

from typing import cast

from apbatch.errors import FormatError
from apbatch.formats.parser_process import parse_apart
from apbatch.ingest.reading.description import UNKNOWN, Description, content_of, describe
from apbatch.ingest.walk import Entry


def describe_apart(entry: Entry, root: bytes, known_format: str | None) -> Description:
    """Describe a file in a process of its own; one that ends the process is described by how it did.

    Parameters
    ----------
    entry : Entry
        What the walk knows of the file.
    root : bytes
        Folder of the site.
    known_format : str, optional
        Name of the format; else it is told from the content.

    Raises
    ------
    FileChangedError
    OSError
    """
    try:
        return cast(Description, parse_apart(describe, entry, root, known_format, size=entry.size))
    except FormatError as error:
        return Description(known_format or UNKNOWN, content_of(entry, root), None, error)
