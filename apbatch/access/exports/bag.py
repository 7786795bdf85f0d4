"""BagIt (RFC 8493): a bag whose payload stays where it is, named in ``fetch.txt``, with SHA-1 of every file.

The SHA-1 of a file up to 24 MiB is in the catalogue, as that of its only piece. A larger file is read once, verified.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from apbatch.access.exports.links import safe_name
from apbatch.access.exports.selection import Item, Urls
from apbatch.access.exports.writing import whole
from apbatch.access.reader import OpenFile, Readable, Reader
from apbatch.errors import UsageError
from apbatch.index.contents import BLOCK, LARGE_PIECE

_ESCAPES = {"%": "%25", "\n": "%0A", "\r": "%0D"}


def export_bag(items: Iterable[Item], destination: Path, urls: Urls, door: Readable, reader: Reader) -> tuple[int, int]:
    """Write a bag.

    Parameters
    ----------
    items : iterable of Item
    destination : pathlib.Path
        The folder to make.
    urls : callable
        Gives the URLs of an item; the first is where a receiver fetches it.
    door : Readable
        Gives hashes.
    reader : Reader
        Reads what has no SHA-1 in the catalogue.

    Returns
    -------
    files : int
        How many files the bag names.
    read : int
        How many bytes were read for their SHA-1.

    Raises
    ------
    UsageError
        If the destination exists or can't be written, or a file has no URL.
    """
    files = size = read = 0
    with whole(destination, folder=True) as part:
        (part / "data").mkdir()
        with (
            (part / "manifest-sha1.txt").open("x", encoding="utf-8", newline="\n") as manifest,
            (part / "fetch.txt").open("x", encoding="utf-8", newline="\n") as fetch,
        ):
            for item in items:
                places = urls(item)
                if not places:
                    raise UsageError(
                        "nobody could fetch it",
                        where=item.path,
                        remedy="give --url, the address of an agent or a gateway",
                    )
                digest, more = _sha1(item, door, reader)
                name = f"data/{_escaped(item.name)}"
                manifest.write(f"{digest}  {name}\n")
                fetch.write(f"{places[0]} {item.record.size} {name}\n")
                files, size, read = files + 1, size + item.record.size, read + more
        (part / "bagit.txt").write_text("BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n", encoding="utf-8")
        today = datetime.now(UTC).date().isoformat()
        info = f"Bag-Software-Agent: apbatch\nBagging-Date: {today}\nPayload-Oxum: {size}.{files}\n"
        (part / "bag-info.txt").write_text(info, encoding="utf-8")
        tags = ("bagit.txt", "bag-info.txt", "fetch.txt", "manifest-sha1.txt")
        digests = (f"{hashlib.sha1((part / name).read_bytes()).hexdigest()}  {name}\n" for name in tags)
        (part / "tagmanifest-sha1.txt").write_text("".join(digests), encoding="utf-8")
    return files, read


def _sha1(item: Item, door: Readable, reader: Reader) -> tuple[str, int]:
    """Return the SHA-1 of a file, and how many bytes were read for it."""
    record = item.record
    if record.size == 0:
        return hashlib.sha1(b"").hexdigest(), 0
    if record.checksum and record.size <= LARGE_PIECE:
        content = door.content(record.checksum)
        if content is not None and content.size == record.size and len(content.large_pieces) == 20:
            return content.large_pieces.hex(), 0
    digest = hashlib.sha1()
    with OpenFile(reader, item.path, item.sources) as file:
        for offset in range(0, file.size, BLOCK):
            digest.update(file.read(offset, BLOCK))
    return digest.hexdigest(), record.size


def _escaped(name: str) -> str:
    """Return a name as RFC 8493 writes it; a manifest is UTF-8, so other bytes stay as the catalogue writes them."""
    decoded = safe_name(name)
    if not any("\udc80" <= char <= "\udcff" for char in decoded):
        name = decoded
    return "".join(_ESCAPES.get(char, char) for char in name)
