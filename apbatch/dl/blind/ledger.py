"""The ledger of a blind analysis: one line for each act, chained by hashes so that none can be changed unseen."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from apbatch.errors import FormatError, VerificationError

_START = "0" * 64


class Ledger:
    """An append-only file of JSON lines, each holding the SHA-256 of the line before it.

    Parameters
    ----------
    path : pathlib.Path
        The file; made at the first entry.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self) -> list[dict[str, Any]]:
        """Return all entries, oldest first.

        Raises
        ------
        VerificationError
            If a line was changed, removed or inserted.
        """
        if not self.path.exists():
            return []
        before, entries = _START, []
        lines = self.path.read_bytes().split(b"\n")
        # A writer killed in the middle of a line leaves one without its end: it never counted.
        for number, line in enumerate(lines[:-1], start=1):
            try:
                entry = json.loads(line)
            except ValueError as error:
                raise FormatError("not a ledger", where=f"{self.path}:{number}") from error
            if not isinstance(entry, dict) or entry.get("before") != before:
                raise VerificationError(
                    "the chain of hashes is broken: a line was changed or taken out", where=f"{self.path}:{number}"
                )
            before = hashlib.sha256(line).hexdigest()
            entries.append(entry)
        return entries

    def last(self, act: str) -> dict[str, Any] | None:
        """Return the newest entry of one kind, or None."""
        return next((entry for entry in reversed(self.entries()) if entry["act"] == act), None)

    def append(self, act: str, **content: Any) -> dict[str, Any]:
        """Add an entry with the present time, on disk when this returns."""
        self.entries()  # never add to a broken chain
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content_before = self.path.read_bytes() if self.path.exists() else b""
        whole = content_before[: content_before.rfind(b"\n") + 1]
        lines = whole.split(b"\n")[:-1]
        before = hashlib.sha256(lines[-1]).hexdigest() if lines else _START
        entry = {"act": act, "time": datetime.now(UTC).isoformat(timespec="seconds"), **content, "before": before}
        with self.path.open("r+b" if self.path.exists() else "wb") as file:
            file.truncate(len(whole))
            file.seek(len(whole))
            file.write(json.dumps(entry, sort_keys=True).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        return entry
