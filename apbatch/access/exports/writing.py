"""An export is there whole or not at all: written beside its place, flushed, then renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from apbatch.errors import ApbatchError, UsageError
from apbatch.localfiles import locked


@contextmanager
def whole(destination: Path, *, folder: bool) -> Iterator[Path]:
    """Give a path beside the destination to write to, and rename it when the block ends without an error.

    What a killed export left there is removed first. An export that is there already is never overwritten.

    Parameters
    ----------
    destination : pathlib.Path
    folder : bool
        Whether a folder is wanted, which is made; else a file.

    Raises
    ------
    UsageError
        If the destination exists, or another export to it is under way.
    """
    destination = destination.absolute()
    if destination.exists() or destination.is_symlink():
        raise UsageError("it is there already", where=str(destination), remedy="choose another place, or remove it")
    destination.parent.mkdir(parents=True, exist_ok=True)
    part = destination.with_name(f".{destination.name[:200]}.part")

    def busy(process: str) -> ApbatchError:
        return UsageError(f"another export (process {process}) writes there", where=str(destination))

    with locked(part.with_name(f"{part.name}.lock"), busy):
        try:
            _remove(part)
            if folder:
                part.mkdir()
            yield part
            _flush(part)
            os.rename(part, destination)  # noqa: PTH104  a file that came meanwhile is refused for folders only
            _flush_folder(destination.parent)
        except OSError as error:
            raise UsageError(f"can't be written: {error.strerror or error}", where=str(destination)) from error
        finally:
            _remove(part)
            part.with_name(f"{part.name}.lock").unlink(missing_ok=True)


def _remove(part: Path) -> None:
    if part.is_dir() and not part.is_symlink():
        shutil.rmtree(part)
    else:
        part.unlink(missing_ok=True)


def _flush(part: Path) -> None:
    """Have the disk hold what was written; links are of the folders that hold them."""
    files = [part] if part.is_file() else [path for path in part.rglob("*") if path.is_file() and not path.is_symlink()]
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
