"""Names and versions of files as a file system shows them.

The names of the merged tree are texts of the catalogue, in which bytes that are no UTF-8, control characters and ``%``
are written ``%XX``; a file system shows the bytes themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from apbatch.index.files import FileRecord
from apbatch.ingest.patterns import decode_path, encode_path


class Node(NamedTuple):
    """What one name of the file system stands for; a file that changes becomes another node.

    Attributes
    ----------
    path : str
        In the merged tree; the root is the empty text.
    kind : str
        ``file``, ``folder``, or ``searches`` and ``search`` for the folders of searches.
    name : bytes
        As the file system shows it.
    version : str
        Content of a file, or size and time of one that is only listed; the query of a search.
    site : str
        Of the holding that a search found; the entry may be named after it.
    """

    path: str
    kind: Literal["file", "folder", "searches", "search"]
    name: bytes = b""
    size: int = 0
    mtime_ns: int = 0
    version: str = ""
    site: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """What it is, whatever name it has: the same for an entry of the tree and of a search."""
        return self.path, self.kind, self.version


def shown_name(text: str) -> bytes:
    """Return the name that a file system shows for a name of the merged tree."""
    if text.isascii() and text.isprintable() and "%" not in text and "/" not in text and text not in ("", ".", ".."):
        return text.encode()  # as nearly all are: nothing is quoted
    name = decode_path(text)
    if encode_path(name) != text or b"/" in name or b"\0" in name or name in (b"", b".", b".."):
        return text.encode("utf-8", "surrogateescape")  # it came from elsewhere than a site's folder
    return name


def texts_of(name: bytes) -> Iterator[str]:
    """Yield the names of the merged tree that may be shown as `name`."""
    yield encode_path(name)
    text = name.decode("utf-8", "surrogateescape")
    if text.isprintable() and encode_path(name) != text:
        yield text


def version_of(record: FileRecord) -> str:
    """Return which version of a file a record describes: its content, or size and time if nobody read it."""
    return record.checksum or listed_version(record.size, record.mtime_ns)


def listed_version(size: int, mtime_ns: int) -> str:
    """Return the version of a file that nobody read yet."""
    return f"{size} bytes at {mtime_ns}"
