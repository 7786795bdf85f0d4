"""Capabilities: what stands in the URL of a block instead of a token, so that any cache may keep and hand it out.

``/b/CHECKSUM.EXPIRES.KEY.SIGNATURE/N``: the content, the time in hexadecimal seconds since 1970, which secret signed,
and an HMAC-SHA-256 over all of it. A checksum is metadata, which many see; only the signature opens the data. Who has a
secret of the site makes capabilities; a secret that is taken out of the file revokes all that it signed.

A capability ends at the end of the period after the one in which it was made, whatever moment that was: all who ask in
a period get the same one, so that they share the blocks in a cache, and each is good for one period at least.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets as random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from apbatch.errors import ApbatchError, NotFoundError, UsageError
from apbatch.localfiles import locked, write_whole
from apbatch.progress import say

#: Seconds in which all who ask for a content get the same capability.
PERIOD_S = 86_400
#: The environment's names for a secret and for a file of secrets.
SECRET_VARIABLE, FILE_VARIABLE = "APBATCH_SITE_SECRET", "APBATCH_SITE_SECRET_FILE"
_CAPABILITY = re.compile(r"([0-9a-f]{64})\.([0-9a-f]{1,12})\.([0-9a-f]{8})\.([A-Za-z0-9_-]{43})")
_SHORTEST = 32
_LOOK_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class Capability:
    """The right to read one content until a time.

    Attributes
    ----------
    checksum : str
        BLAKE3 of the content, hexadecimal.
    expires : int
        Seconds since 1970.
    text : str
        As it stands in a URL.
    """

    checksum: str
    expires: int
    text: str


class Secrets:
    """The secrets of a site: the first signs, all are taken. A file of them is looked at again every few seconds.

    Parameters
    ----------
    path : pathlib.Path, optional
        A file with one secret a line, readable by its owner alone; else the one that ``$APBATCH_SITE_SECRET_FILE``
        names, or the secrets in ``$APBATCH_SITE_SECRET``, separated by blanks.
    period_s : int
        See above.
    now : callable
        The clock, seconds since 1970.

    Raises
    ------
    NotFoundError, UsageError
        If there is no secret, or it is too short, or others can read the file.
    """

    def __init__(
        self, path: Path | None = None, period_s: int = PERIOD_S, now: Callable[[], float] = time.time
    ) -> None:
        named = os.environ.get(FILE_VARIABLE)
        self._path = path or (Path(named) if named else None)
        self.period_s, self._now = period_s, now
        self._lock = threading.Lock()
        self._next = 0.0
        self._keys: dict[str, bytes] = {}
        self._take()

    def capability(self, checksum: str) -> Capability:
        """Return the capability for a content."""
        expires = (int(self._now()) // self.period_s + 2) * self.period_s
        name, key = next(iter(self._fresh().items()), ("", b""))
        if not key:
            raise NotFoundError("there is no secret any more", where=str(self._path), remedy="apbatch secret new FILE")
        body = f"{checksum}.{expires:x}.{name}"
        return Capability(checksum, expires, f"{body}.{_signature(key, body)}")

    def read(self, text: str) -> Capability | None:
        """Return a capability that is valid now; None for every other text."""
        match = _CAPABILITY.fullmatch(text)
        key = self._fresh().get(match[3], b"") if match else b""
        # Computed also where it can't be right, so that the time does not tell which secrets exist.
        expected = _signature(key, text.rpartition(".")[0])
        if not match or not key or not hmac.compare_digest(expected, match[4]) or int(match[2], 16) <= self._now():
            return None
        return Capability(match[1], int(match[2], 16), text)

    def seconds_left(self, capability: Capability) -> int:
        """Return for how long a capability is good."""
        return max(0, int(capability.expires - self._now()))

    def _fresh(self) -> dict[str, bytes]:
        if time.monotonic() >= self._next:
            with self._lock:
                if time.monotonic() >= self._next:
                    try:
                        self._take()
                    except ApbatchError as error:  # what can't be read signs and opens nothing
                        self._keys, self._next = {}, time.monotonic() + _LOOK_EVERY_S
                        say(str(error))
        return self._keys

    def _take(self) -> None:
        if self._path is None:
            lines = os.environ.get(SECRET_VARIABLE, "").split()
            where = f"${SECRET_VARIABLE}"
        else:
            lines, where = _lines(self._path), str(self._path)
        if not lines:
            raise NotFoundError("there is no secret", where=where, remedy="apbatch secret new FILE makes one")
        if any(len(line) < _SHORTEST for line in lines):
            raise UsageError(f"a secret has fewer than {_SHORTEST} characters", where=where)
        keys = [hashlib.sha256(line.encode()).digest() for line in lines]
        self._keys = {hashlib.sha256(b"name of " + key).hexdigest()[:8]: key for key in keys}
        self._next = time.monotonic() + _LOOK_EVERY_S


def rotate_secret(path: Path, keep: int = 1) -> int:
    """Put a new secret in front of a file's secrets, and keep some old ones; make the file if there is none.

    Parameters
    ----------
    path : pathlib.Path
    keep : int
        Old secrets that stay valid: 1 lets running readers go on until they ask anew, 0 revokes everything.

    Returns
    -------
    int
        How many secrets are in the file now.
    """
    with locked(path.with_name(f".{path.name}.lock")):
        lines = [random.token_urlsafe(32), *(_lines(path) if path.exists() else [])[:keep]]
        write_whole(path, "\n".join(lines) + "\n", mode=0o600)
    return len(lines)


def _lines(path: Path) -> list[str]:
    try:
        if path.stat().st_mode & 0o077:
            raise UsageError("others can read the secrets", where=str(path), remedy=f"chmod 600 {path}")
        return [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except FileNotFoundError:
        raise NotFoundError("no such file of secrets", where=str(path), remedy=f"apbatch secret new {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"can't be read: {error}", where=str(path)) from None


def _signature(key: bytes, body: str) -> str:
    digest = hmac.digest(key, body.encode("utf-8", "surrogatepass"), "sha256")
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
