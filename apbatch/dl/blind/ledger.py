"""The ledger of a blind analysis: one line for each act, chained by SHA-256.

Each entry carries its own digest and that of the entry before it. The digest of the last entry is the *head*: whoever
keeps it elsewhere can tell whether the ledger was cut or rewritten, which the file alone can't show.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from apbatch.errors import FormatError, VerificationError
from apbatch.localfiles import locked

_START = "0" * 64
Entry = dict[str, Any]


@dataclass(frozen=True)
class Head:
    """The end of a ledger.

    Attributes
    ----------
    n : int
        Number of the last entry, from 1.
    digest : str
        Its SHA-256, hexadecimal.
    """

    n: int
    digest: str


class Ledger:
    """An append-only file of JSON lines.

    Parameters
    ----------
    path : pathlib.Path
        The file; it is made with its first entry. Beside it lies ``.ledger.lock``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self) -> list[Entry]:
        """Return all entries, oldest first; half a line of a writer that was killed does not count.

        Raises
        ------
        FormatError
            If a line is not JSON.
        VerificationError
            If a line was changed, removed, inserted or moved.
        """
        return _parsed(self._content(), self.path)

    def head(self) -> Head | None:
        """Return the end of the ledger, or None if it is empty."""
        return head_of(self.entries())

    def last(self, act: str) -> Entry | None:
        """Return the newest entry of one kind, or None."""
        return last_of(self.entries(), act)

    def append(self, act: str, **content: Any) -> Entry:
        """Add an entry with the present time under the ledger's lock."""
        with self.locked() as writer:
            return writer.append(act, **content)

    @contextmanager
    def locked(self) -> Iterator[Writer]:
        """Hold the ledger's lock: what is read within stays true until the entry is added."""
        with locked(self.path.parent / ".ledger.lock"):
            yield Writer(self)

    def _content(self) -> bytes:
        return self.path.read_bytes() if self.path.exists() else b""


class Writer:
    """The right to add entries, while the lock is held."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def append(self, act: str, **content: Any) -> Entry:
        """Add an entry with the present time; it is on disk when this returns.

        Raises
        ------
        FormatError, VerificationError
            If the ledger is damaged: nothing is added to a broken chain.
        """
        path, before = self._ledger.path, self._ledger._content()
        whole = before[: before.rfind(b"\n") + 1]
        head = head_of(_parsed(whole, path))
        entry: Entry = {
            **content,
            "n": head.n + 1 if head else 1,
            "act": act,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "before": head.digest if head else _START,
        }
        entry["digest"] = digest_of(entry)
        with path.open("r+b" if path.exists() else "wb") as file:
            file.truncate(len(whole))
            file.seek(len(whole))
            file.write(_line(entry) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        return entry


def digest_of(entry: Entry) -> str:
    """Return the SHA-256 of an entry: of its JSON with sorted keys and without spaces, its own digest left out."""
    return hashlib.sha256(_line({key: value for key, value in entry.items() if key != "digest"})).hexdigest()


def head_of(entries: list[Entry]) -> Head | None:
    """Return the end of a list of entries, or None if there is none."""
    return Head(entries[-1]["n"], entries[-1]["digest"]) if entries else None


def last_of(entries: list[Entry], act: str) -> Entry | None:
    """Return the newest entry of one kind, or None."""
    return next((entry for entry in reversed(entries) if entry["act"] == act), None)


def _line(entry: Entry) -> bytes:
    return json.dumps(entry, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _parsed(content: bytes, path: Path) -> list[Entry]:
    before, entries = _START, list[Entry]()
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        where = f"{path}:{number}"
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise FormatError("not a line of a ledger: it must be JSON", where=where) from error
        if not isinstance(entry, dict) or not {"n", "act", "time", "before", "digest"} <= set(entry):
            raise FormatError("not an entry of a ledger: it lacks n, act, time, before or digest", where=where)
        # A line must be the one form of its content: two keys of one name could say two things to two readers.
        if entry["digest"] != digest_of(entry) or _line(entry) != line:
            raise VerificationError("the entry differs from its digest: the line was changed", where=where)
        if entry["before"] != before or entry["n"] != number:
            raise VerificationError("the chain is broken: a line was removed, inserted or moved", where=where)
        before = entry["digest"]
        entries.append(entry)
    return entries
