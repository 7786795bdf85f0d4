"""RO-Crate 1.1: a description of a dataset in JSON-LD whose files stay where they are, at their URLs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from apbatch.access.exports.selection import Item, Urls
from apbatch.access.exports.writing import whole
from apbatch.errors import UsageError

_CONTEXT = "https://w3id.org/ro/crate/1.1/context"
_PROFILE = "https://w3id.org/ro/crate/1.1"


def export_crate(
    items: Iterable[Item], destination: Path, urls: Urls, *, name: str, description: str, license: str
) -> int:
    """Write a crate: a folder with ``ro-crate-metadata.json``.

    Parameters
    ----------
    items : iterable of Item
    destination : pathlib.Path
        The folder to make.
    urls : callable
        Gives the URLs of an item; the first identifies it.
    name, description : str
        Of the dataset.
    license : str
        URL of the licence under which it may be used.

    Returns
    -------
    int
        How many files it describes.

    Raises
    ------
    UsageError
        If the destination exists or can't be written, or a file has no URL.
    """
    files: list[dict[str, Any]] = []
    for item in items:
        places = urls(item)
        if not places:
            remedy = "give --url, the address of an agent or a gateway"
            raise UsageError("nobody could fetch it", where=item.path, remedy=remedy)
        record = item.record
        entity: dict[str, Any] = {
            "@id": places[0],
            "@type": "File",
            "name": item.name,
            "contentSize": str(record.size),
            "encodingFormat": "application/octet-stream",
            "alternateName": item.path,
        }
        if record.checksum:
            entity["identifier"] = f"blake3:{record.checksum}"
        if record.night is not None:
            entity["temporalCoverage"] = record.night.isoformat()
        files.append(entity)
    root = {
        "@id": "./", "@type": "Dataset", "name": name, "description": description, "license": {"@id": license},
        "datePublished": datetime.now(UTC).date().isoformat(), "hasPart": [{"@id": file["@id"]} for file in files],
    }  # fmt: skip
    descriptor = {
        "@id": "ro-crate-metadata.json",
        "@type": "CreativeWork",
        "conformsTo": {"@id": _PROFILE},
        "about": {"@id": "./"},
    }
    terms = {"@id": license, "@type": "CreativeWork", "name": "licence of the dataset"}
    content = {"@context": _CONTEXT, "@graph": [descriptor, root, terms, *files]}
    with whole(destination, folder=True) as part:
        text = json.dumps(content, ensure_ascii=False, indent=1)
        (part / "ro-crate-metadata.json").write_text(text + "\n", encoding="utf-8")
    return len(files)
