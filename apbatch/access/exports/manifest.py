"""A manifest: one line of JSON a file, with path, size, checksums, metadata and URLs. No data are read."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from apbatch.access.exports.selection import Item, Urls
from apbatch.access.exports.writing import whole
from apbatch.index.records import to_plain

_METADATA = ("experiment", "format", "run", "night", "time_start", "time_end", "telescope", "cluster", "events")


def export_manifest(items: Iterable[Item], destination: Path, urls: Urls) -> int:
    """Write a manifest.

    Parameters
    ----------
    items : iterable of Item
    destination : pathlib.Path
        The file to make, JSON lines.
    urls : callable
        Gives the URLs of an item.

    Returns
    -------
    int
        How many files it names.

    Raises
    ------
    UsageError
        If the destination exists or can't be written.
    """
    number = 0
    with whole(destination, folder=False) as part, part.open("x", encoding="utf-8") as file:
        for item in items:
            file.write(json.dumps(_line(item, urls(item)), ensure_ascii=False) + "\n")
            number += 1
    return number


def _line(item: Item, urls: list[str]) -> dict[str, Any]:
    record = item.record
    metadata = {name: to_plain(getattr(record, name)) for name in _METADATA}
    attributes = {name: to_plain(value) for name, value in record.attributes.items()}
    return {
        "name": item.name, "path": item.path, "size": record.size, "mtime_ns": record.mtime_ns,
        "state": record.state.value, "blake3": record.checksum or None, "adler32": record.adler32 or None, "urls": urls,
        **{name: value for name, value in metadata.items() if value is not None}, "attributes": attributes,
    }  # fmt: skip
