"""One program at a time works on what is registered of a site."""

from __future__ import annotations

from contextlib import AbstractContextManager

from apbatch.errors import UsageError
from apbatch.ingest.sites import sites_folder
from apbatch.localfiles import locked


def site_lock(name: str) -> AbstractContextManager[None]:
    """Hold the lock of the site called `name`, which the system frees when the process ends, however it ends.

    Raises
    ------
    UsageError
        If another program holds it.
    """
    refusal = f"another ingest of site '{name}' is running"
    return locked(
        sites_folder() / f".{name}.lock",
        lambda process: UsageError(f"{refusal} (process {process})", remedy="wait for its end"),
    )
