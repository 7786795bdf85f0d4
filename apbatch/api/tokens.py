"""API tokens: made once and shown once, kept as hashes, revoked at once.

A token is ``apb_ID_SECRET``. The file holds the SHA-256 of the secret, which is 256 random bits, so that a slow hash
would add nothing: nobody can guess it, and what the file holds opens no door.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from apbatch.config import home
from apbatch.errors import AccessError, FormatError, NotFoundError, UsageError, nearest_word
from apbatch.localfiles import locked, write_whole

_TOKEN = re.compile(r"apb_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
#: What every refusal of a token says, whatever is wrong with it.
REFUSAL = "the token is not valid"


@dataclass(frozen=True, slots=True)
class Token:
    """What is kept of a token.

    Attributes
    ----------
    id : str
        Public part, by which it is listed and revoked.
    name : str
        Who uses it, as the policy names people.
    groups, roles : tuple of str
    hash : str
        SHA-256 of the secret, hexadecimal.
    created : str
        UTC, ISO 8601.
    expires : str, optional
    revoked : str, optional
        When it was.
    """

    id: str
    name: str
    groups: tuple[str, ...]
    roles: tuple[str, ...]
    hash: str
    created: str
    expires: str | None = None
    revoked: str | None = None

    def state(self, now: datetime) -> str:
        """Return ``valid``, ``revoked`` or ``expired``."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and datetime.fromisoformat(self.expires) <= now else "valid"


def _now() -> datetime:
    return datetime.now(UTC)


class TokenFile:
    """The tokens of a service, in one file of the home, which only its owner can read.

    Parameters
    ----------
    path : pathlib.Path, optional
        By default ``$APBATCH_HOME/api/tokens.json``.
    now : callable
        The clock.
    """

    def __init__(self, path: Path | None = None, now: Callable[[], datetime] = _now) -> None:
        self.path = path or home() / "api" / "tokens.json"
        self._now = now
        self._lock = threading.Lock()
        self._stamp: tuple[int, int, int] | None = None
        self._tokens: dict[str, Token] = {}
        self._blocked: frozenset[str] = frozenset()

    def create(
        self, name: str, groups: tuple[str, ...] = (), roles: tuple[str, ...] = (), days: float | None = None
    ) -> str:
        """Make a token and return it; it can't be shown again.

        Parameters
        ----------
        name : str
            Who will use it, as the policy names people.
        groups, roles : tuple of str
            That the policy knows.
        days : float, optional
            How long it is valid; for ever without.

        Raises
        ------
        UsageError
            If a name is not one, or the time is none.
        """
        for word in (name, *groups, *roles):
            if not _NAME.fullmatch(word):
                raise UsageError(
                    f"{ascii(word)[:80]} is not a name", remedy="use letters, digits and . _ @ -, at most 64"
                )
        if days is not None and not 0 < days <= 36_500:
            raise UsageError(f"a token can't be valid for {days:g} days", remedy="give more than 0 days")
        secret = secrets.token_urlsafe(32)
        expires = None if days is None else (self._now() + timedelta(days=days)).isoformat(timespec="seconds")
        token = Token(
            secrets.token_hex(6), name, groups, roles, _hash(secret), self._now().isoformat(timespec="seconds"), expires
        )
        with self._changed() as (tokens, _):
            tokens[token.id] = token
        return f"apb_{token.id}_{secret}"

    def list(self) -> list[dict[str, Any]]:
        """Return what may be shown of all tokens, the oldest first."""
        self._load()
        rows = []
        for token in sorted(self._tokens.values(), key=lambda one: (one.created, one.id)):
            state = "blocked" if token.name in self._blocked else token.state(self._now())
            row = asdict(token) | {"state": state, "groups": " ".join(token.groups), "roles": " ".join(token.roles)}
            del row["hash"], row["revoked"]
            rows.append(row)
        return rows

    def revoke(self, identifier: str) -> Token:
        """Revoke a token by its public part.

        Raises
        ------
        NotFoundError
            If there is none.
        """
        with self._changed() as (tokens, _):
            if identifier not in tokens:
                raise NotFoundError(
                    f"there is no token '{ascii(identifier)[1:-1][:80]}'",
                    nearest=nearest_word(identifier, tokens),
                    remedy="apbatch token list",
                )
            if tokens[identifier].revoked is None:
                moment = self._now().isoformat(timespec="seconds")
                tokens[identifier] = replace(tokens[identifier], revoked=moment)
            return tokens[identifier]

    def block(self, name: str, blocked: bool = True) -> None:
        """Refuse everything that a user brings, of whatever issuer, or allow it again."""
        with self._changed() as (_, names):
            (names.add if blocked else names.discard)(name)

    def is_blocked(self, name: str) -> bool:
        """Tell whether a user is refused."""
        self._load()
        return name in self._blocked

    def check(self, text: str) -> Token:
        """Return what is kept of a token that is valid now.

        Raises
        ------
        AccessError
            The same for every reason.
        """
        self._load()
        match = _TOKEN.fullmatch(text)
        token = self._tokens.get(match[1]) if match else None
        # Compared also where there is no such token, so that the time does not tell which identifiers exist.
        same = hmac.compare_digest(_hash(match[2]) if match else "", token.hash if token else "0" * 64)
        if not same or token is None or token.state(self._now()) != "valid" or token.name in self._blocked:
            raise AccessError(REFUSAL, remedy="ask who runs this service for a new one (apbatch token create)")
        return token

    def _load(self) -> None:
        """Read the file again if it is another one."""
        try:
            status = self.path.stat()
            stamp = status.st_mtime_ns, status.st_size, status.st_ino
        except FileNotFoundError:
            with self._lock:
                self._stamp, self._tokens, self._blocked = None, {}, frozenset()
            return
        if stamp == self._stamp:
            return
        tokens, blocked = _parse(self.path)
        with self._lock:
            self._stamp, self._tokens, self._blocked = stamp, tokens, frozenset(blocked)

    def _changed(self) -> _Change:
        return _Change(self.path)


class _Change:
    """Tokens under a lock, written whole at the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = locked(path.with_suffix(".lock"))

    def __enter__(self) -> tuple[dict[str, Token], set[str]]:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock.__enter__()
        try:
            self._content: tuple[dict[str, Token], set[str]] = ({}, set())
            with suppress(FileNotFoundError):
                self._content = _parse(self._path)
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise
        return self._content

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            if error is None:
                tokens, blocked = self._content
                listed = {"tokens": [asdict(token) for token in tokens.values()], "blocked": sorted(blocked)}
                write_whole(self._path, json.dumps(listed, indent=1) + "\n", mode=0o600)
        finally:
            self._lock.__exit__(kind, error, trace)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _parse(path: Path) -> tuple[dict[str, Token], set[str]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        tokens = [
            Token(**{**one, "groups": tuple(one["groups"]), "roles": tuple(one["roles"])}) for one in content["tokens"]
        ]
        return {token.id: token for token in tokens}, {str(name) for name in content["blocked"]}
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(
            f"not a file of tokens: {error}", where=str(path), remedy="restore it, or move it away and make new tokens"
        ) from error
