"""Files of the program's own on the local disk: there whole or not at all, and locks that end with their process.

Data go through a store's verified publication (`apbatch.storage`); this is for settings, records and notes beside them.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path

from apbatch.errors import ApbatchError


@contextmanager
def written_whole(path: Path, mode: int = 0o644) -> Iterator[Path]:
    """Give a hidden file beside a path to write to; flush it and rename it when the block ends without an error.

    Parameters
    ----------
    path : pathlib.Path
        The file to replace; its folder is made.
    mode : int
        Permissions of the new file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.chmod(mode)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def partials_of(path: Path) -> list[Path]:
    """Return what killed writers of a file left beside it: see `written_whole`."""
    return sorted(path.parent.glob(f".{escape(path.name)}.*.part"))


def write_whole(path: Path, content: bytes | str, mode: int = 0o644) -> None:
    """Write a file so that it is there whole or not at all, also after a power cut.

    Parameters
    ----------
    path : pathlib.Path
        The file to replace; its folder is made.
    content : bytes or str
        Text is written as UTF-8, whatever the locale.
    mode : int
        Permissions of the new file.
    """
    with written_whole(path, mode) as partial:
        partial.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


@contextmanager
def locked(path: Path, refusal: Callable[[str], ApbatchError] | None = None) -> Iterator[None]:
    """Hold a lock file, which the system frees when the process ends, however it ends.

    Parameters
    ----------
    path : pathlib.Path
        The lock file; it and its folder are made, and stay.
    refusal : callable, optional
        Makes the error to raise if another process holds the lock, from the number of that process; without it, wait.

    Raises
    ------
    ApbatchError
        What `refusal` makes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (fcntl.LOCK_NB if refusal else 0))
        except BlockingIOError:
            lock.seek(0)
            raise refusal(lock.read().strip() or "unknown") from None  # type: ignore[misc]  # else it had waited
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
