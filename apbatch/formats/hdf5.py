"""HDF5 files as the readers see them: opened, and searched for tables by the columns they have."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, BinaryIO, TypeVar

from apbatch.errors import ApbatchError, FormatError, MissingSoftwareError

MAGIC = b"\x89HDF\r\n\x1a\n"
Made = TypeVar("Made")


def with_file(stream: BinaryIO, name: str, work: Callable[[Any], Made]) -> Made:
    """Open an HDF5 file, and return what `work` makes of it.

    Raises
    ------
    FormatError
        If it is no HDF5 file, or damaged: h5py raises almost anything then.
    MissingSoftwareError
        Without h5py.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingSoftwareError(
            "h5py is needed to read this HDF5 file", where=name, remedy="pip install h5py"
        ) from error
    try:
        with h5py.File(stream, "r") as file:
            return work(file)
    except ApbatchError:
        raise
    except Exception as error:
        raise FormatError(f"not a readable HDF5 file: {error}", where=name) from error


def tables_with(file: Any, columns: Collection[str]) -> list[tuple[str, Any]]:
    """Return paths and low-level data sets of the tables that have these columns.

    By names and low-level types: PyTables writes members of HDF5's time type, which numpy has not.
    """
    import h5py

    found: list[tuple[str, Any]] = []

    def visit(name: bytes | str) -> None:
        path = name if isinstance(name, bytes) else name.encode()
        item = h5py.h5o.open(file.id, path)
        if isinstance(item, h5py.h5d.DatasetID):
            kind = item.get_type()
            if isinstance(kind, h5py.h5t.TypeCompoundID):
                members = {kind.get_member_name(index).decode() for index in range(kind.get_nmembers())}
                if members >= set(columns):
                    found.append((path.decode("utf-8", "replace"), item))

    h5py.h5o.visit(file.id, visit)
    return found
