"""apbatch: data of several experiments in place, one searchable tree, images to gamma-ray candidates."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apbatch.client.client import Client

__version__ = "0.1.0"


def connect(url: str | None = None, token: str | None = None) -> Client:
    """Return a catalogue; see `apbatch.client.client.connect`."""
    from apbatch.client.client import connect

    return connect(url, token)
