"""Every error a user can meet: what went wrong, where, the nearest right word, and the remedy.

Errors carry fields; `apbatch.messages` renders them for the terminal, JSON and HTTP.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ApbatchError(Exception):
    """Base of all errors with a message for the user.

    Parameters
    ----------
    what : str
        What went wrong, one sentence without a full stop.
    where : str, optional
        The file and place (``file:line``, ``file at byte N``, a URL).
    nearest : str, optional
        The nearest right word, when the user mistyped one.
    remedy : str, optional
        What to do, often a command.
    """

    #: Exit status of the command line.
    status = 1

    def __init__(
        self, what: str, *, where: str | None = None, nearest: str | None = None, remedy: str | None = None
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.nearest = nearest
        self.remedy = remedy

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        if self.nearest:
            text += f"; did you mean '{self.nearest}'?"
        if self.remedy:
            text += f" ({self.remedy})"
        return text

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process borders (Spark workers, pools); keyword-only fields need telling.
        return (_rebuild, (type(self), self.what, self.where, self.nearest, self.remedy))


def _rebuild(
    kind: type[ApbatchError], what: str, where: str | None, nearest: str | None, remedy: str | None
) -> ApbatchError:
    return kind(what, where=where, nearest=nearest, remedy=remedy)


class UsageError(ApbatchError):
    """The user asked for something that can't be: an unknown name, a wrong unit, a bad file of settings."""

    status = 2


class FormatError(ApbatchError):
    """A data file is truncated, corrupt or not of its format."""


class NotFoundError(ApbatchError):
    """A path, site, dataset or server that was named does not exist."""

    status = 2


class AccessError(UsageError):
    """Nobody knows who asks: a token is missing, wrong, expired or revoked."""


class TooManyRequestsError(UsageError):
    """One client asks more often than it may."""


class CancelledQueryError(ApbatchError):
    """Whoever asked went away, and the query was ended."""


class VerificationError(ApbatchError):
    """Bytes read back differ from the bytes that were meant."""


class ServerError(ApbatchError):
    """A server can't be reached, refused, or did not answer in time."""


class FileUnavailableError(ServerError):
    """The server answered that it can't give this file now; its other files may well be readable."""


class MissingSoftwareError(ApbatchError):
    """A program or package that is needed is not installed; the remedy names the command."""


def nearest_word(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that `word` most likely meant, or None.

    Examples
    --------
    >>> nearest_word("standart", ["soft", "standard"])
    'standard'
    """
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return matches[0] if matches else None
