"""Waiting for events. Limits end a hang; they say nothing of speed, and a machine under any load keeps them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import psutil

#: What idle machines do in seconds may take minutes on a loaded one.
PATIENCE_S = 900.0


def until(condition: Callable[[], object], what: str = "", pause_s: float = 0.02) -> None:
    """Wait until `condition` holds."""
    limit = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < limit, what or "it did not happen"
        time.sleep(pause_s)


def until_ended(processes: Iterable[psutil.Process]) -> None:
    """Wait until processes are gone."""
    _, alive = psutil.wait_procs(list(processes), timeout=PATIENCE_S)
    assert not alive
