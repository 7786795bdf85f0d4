"""Resumption tokens: where a list goes on, held by the harvester alone, so that the service keeps nothing."""

from __future__ import annotations

import base64
import json
from dataclasses import astuple, dataclass

from apbatch.api.oai.requests import ProtocolError

_LONGEST = 2000
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Position:
    """Where a list goes on.

    Attributes
    ----------
    verb : str
        ``ListRecords`` or ``ListIdentifiers``.
    prefix : str
        Of the metadata.
    chosen_set : str
        Empty for all records.
    since, upto : int
        Revisions: those after the first, up to the second.
    bounded : bool
        Whether the harvester gave `until`.
    offset : int
        Records before.
    """

    verb: str
    prefix: str
    chosen_set: str
    since: int
    upto: int
    bounded: bool
    offset: int = 0


def write_token(position: Position) -> str:
    """Return a position as a token."""
    content = json.dumps([_VERSION, *astuple(position)], separators=(",", ":"))
    return base64.urlsafe_b64encode(content.encode()).decode().rstrip("=")


def read_token(token: str, verb: str, revision: int) -> Position:
    """Read a token back; what it asks for is checked like any other question, so it need not be signed.

    Parameters
    ----------
    token : str
    verb : str
        Of the request.
    revision : int
        The catalogue's: no token of it lies beyond.

    Raises
    ------
    ProtocolError
        ``badResumptionToken``.
    """
    try:
        if len(token) > _LONGEST:
            raise ValueError
        raw = base64.b64decode(token + "=" * (-len(token) % 4), "-_", validate=True)
        version, *parts = json.loads(raw.decode())
        position = Position(*parts)
        texts = (position.verb, position.prefix, position.chosen_set)
        numbers = (position.since, position.upto, position.offset)
        fits = all(type(text) is str for text in texts) and all(type(one) is int and one >= 0 for one in numbers)
        fits = fits and type(position.bounded) is bool and (version, position.verb) == (_VERSION, verb)
        if fits and position.since <= position.upto <= revision:
            return position
    except (ValueError, TypeError, RecursionError):
        pass
    raise ProtocolError("badResumptionToken", "this is not a resumption token of this list")
