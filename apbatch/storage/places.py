"""Places that a user names: a path, or the URL of a store."""

from __future__ import annotations

from pathlib import Path

from apbatch.config import file_url
from apbatch.storage.backends import split_url


def url_of_place(place: str, folder: Path | None = None) -> str:
    """Return the URL of a place, given as a path or as a URL.

    A relative path is resolved at once, against `folder` or the current one: as part of a URL it would mean a host,
    or fail after the work is done.

    Raises
    ------
    UsageError
        If it is a URL, but of no store.
    """
    if "://" in place:
        split_url(place)
        return place
    return file_url(place, folder or Path.cwd())
