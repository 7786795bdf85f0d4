"""A tar stream of the files themselves, each byte verified as it is read where its hashes are kept."""

from __future__ import annotations

import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, cast

from apbatch.access.exports.links import safe_name
from apbatch.access.exports.selection import Item
from apbatch.access.exports.writing import whole
from apbatch.access.reader import OpenFile, Reader

_PIECE = 2 << 20


def export_tar(items: Iterable[Item], destination: Path | None, reader: Reader) -> int:
    """Write a tar archive (POSIX pax), the same for the same files.

    Parameters
    ----------
    items : iterable of Item
    destination : pathlib.Path, optional
        The file to make; None: standard output, which breaks off where a file can't be read.
    reader : Reader

    Returns
    -------
    int
        How many files it holds.

    Raises
    ------
    UsageError
        If the destination exists or can't be written.
    VerificationError, ServerError
        If a file can't be read as it was registered; then no archive is left.
    """
    if destination is None:
        return _write(items, sys.stdout.buffer, reader)
    with whole(destination, folder=False) as part, part.open("xb") as sink:
        return _write(items, sink, reader)


def _write(items: Iterable[Item], sink: BinaryIO, reader: Reader) -> int:
    number = 0
    with tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_PIECE) as archive:
        for item in items:
            with OpenFile(reader, item.path, item.sources) as file:
                info = tarfile.TarInfo(safe_name(item.name))
                info.size, info.mtime, info.mode = file.size, max(0, item.record.mtime_ns // 10**9), 0o644
                archive.addfile(info, cast(BinaryIO, _Pieces(file)))
            number += 1
    return number


class _Pieces:
    """What `tarfile` reads a file from."""

    def __init__(self, file: OpenFile) -> None:
        self._file, self._position = file, 0

    def read(self, length: int) -> bytes:
        data = self._file.read(self._position, length)
        self._position += len(data)
        return data
