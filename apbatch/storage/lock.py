"""A lock on a folder of any store, which dies with its owner.

The lock is a folder with one file that says whose it is. A store renames a folder in one step and never onto another
one, so of several that try, one succeeds. The owner is known to be gone when its process is (on this machine) or
when it has not renewed the file for some time (on others). The lock keeps honest programs from waste and confusion;
what they write must be safe without it, since a machine that slept may wake up and go on.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Any

from apbatch.errors import ApbatchError, ServerError, UsageError
from apbatch.storage import names
from apbatch.storage.store import Store

#: An owner on another machine that has not renewed its lock for so long is gone.
LIFE_S = 90.0
_RENEW_S = 20.0
_OWNER = "owner.json"


class Lock:
    """The right to write into a folder; use it as a context.

    Parameters
    ----------
    store : Store
        Its root is the folder.
    name : str
        Name of the lock in the folder.
    what : str
        What is locked, for the message: ``this dataset``.
    """

    def __init__(
        self, store: Store, name: str, what: str, *, life_s: float = LIFE_S, renew_s: float = _RENEW_S
    ) -> None:
        self._store, self._name, self._what = store, name, what
        self._life_s, self._renew_s = life_s, renew_s
        self._token = secrets.token_hex(8)
        self._stop = threading.Event()
        self._renewing: threading.Thread | None = None

    def __enter__(self) -> Lock:
        """Take the lock.

        Raises
        ------
        UsageError
            If another living program has it.
        ServerError
        """
        self._mark = names.new_part("lock")  # carries machine, process and its birth
        waiting = f"{self._name}-{self._token}"
        try:
            self._write(waiting)
            for _ in range(3):
                if self._try(waiting):
                    break
                owner = self._owner()
                if owner is not None and self._lives(owner, waiting):
                    who = f"process {owner.get('pid')} on {owner.get('host')}"
                    raise UsageError(
                        f"{self._what} is being written by another program ({who})",
                        where=self._store.url,
                        remedy="wait for it or end it",
                    )
                self._break(owner)
            else:
                raise ServerError(f"the lock of {self._what} can't be had", where=self._store.url)
        except BaseException:
            names.end_part(self._mark)
            with suppress(ApbatchError):
                self._store.remove(waiting)
            raise
        self._renewing = threading.Thread(target=self._renew, daemon=True)
        self._renewing.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back."""
        self._stop.set()
        if self._renewing is not None:
            self._renewing.join()
        names.end_part(self._mark)
        with suppress(ApbatchError):
            if self.is_ours():
                self._store.remove(self._name)

    def is_ours(self) -> bool:
        """Tell whether the lock is still this owner's."""
        owner = self._owner()
        return owner is not None and owner.get("token") == self._token

    def check(self) -> None:
        """Raise if another program has taken the lock meanwhile.

        Raises
        ------
        ServerError
        """
        if not self.is_ours():
            raise ServerError(
                f"another program has taken over {self._what}, for this one seemed dead", where=self._store.url
            )

    def _write(self, folder: str) -> None:
        owner = {"token": self._token, "mark": self._mark, "host": socket.gethostname(), "pid": os.getpid()}
        with self._store.publish(f"{folder}/{_OWNER}") as file:
            file.write(json.dumps(owner).encode())

    def _try(self, waiting: str) -> bool:
        if self._store.info(self._name) is not None:
            return False
        try:
            self._store.rename(waiting, self._name)
        except ApbatchError:
            if self._store.info(self._name) is None:
                raise  # nobody was quicker: it is the store that does not work
            return False
        return True

    def _owner(self) -> dict[str, Any] | None:
        return self._read(f"{self._name}/{_OWNER}")

    def _lives(self, owner: dict[str, Any], waiting: str) -> bool:
        theirs = self._store.info(f"{self._name}/{_OWNER}")
        mine = self._store.info(f"{waiting}/{_OWNER}")
        if theirs is None or mine is None:
            return theirs is not None
        # Both times are the store's, written just now and at the owner's last renewal: clocks need not agree.
        age_s = ((mine.mtime_ns or 0) - (theirs.mtime_ns or 0)) / 1e9
        silent = age_s > self._life_s
        return not names.is_left_behind(str(owner.get("mark", "")), float("inf") if silent else 0.0)

    def _break(self, owner: dict[str, Any] | None) -> None:
        """Put a dead owner's lock aside and away; if another one was caught by it, give it back."""
        aside = f"{self._name}-{self._token}-dead"
        with suppress(ApbatchError):
            self._store.rename(self._name, aside)
        caught = self._read(f"{aside}/{_OWNER}")
        if caught is not None and (owner is None or caught.get("token") != owner.get("token")):
            with suppress(ApbatchError):
                self._store.rename(aside, self._name)
        with suppress(ApbatchError):
            self._store.remove(aside)

    def _read(self, path: str) -> dict[str, Any] | None:
        try:
            with self._store.open(path) as stream:
                content = json.loads(stream.read())
        except (ApbatchError, ValueError):
            return None
        return content if isinstance(content, dict) else None

    def _renew(self) -> None:
        while not self._stop.wait(self._renew_s):
            with suppress(ApbatchError):
                if self.is_ours():
                    self._write(self._name)
