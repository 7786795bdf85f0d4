"""One program at a time works on what is registered of a site."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from apbatch.errors import UsageError
from apbatch.ingest.sites import sites_folder


@contextmanager
def site_lock(name: str) -> Iterator[None]:
    """Hold the lock of the site called `name`, which the system frees when the process ends, however it ends.

    Raises
    ------
    UsageError
        If another program holds it.
    """
    path = sites_folder() / f".{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UsageError(
                f"another ingest of site '{name}' is running (process {file.read().strip() or 'unknown'})",
                remedy="wait for its end",
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
