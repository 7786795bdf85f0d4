"""What a harvester may ask: six verbs, their arguments, and the errors of the protocol."""

from __future__ import annotations

import re
from calendar import timegm
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from time import gmtime, strftime
from typing import Literal

Code = Literal[
    "badArgument",
    "badResumptionToken",
    "badVerb",
    "cannotDisseminateFormat",
    "idDoesNotExist",
    "noRecordsMatch",
    "noMetadataFormats",
    "noSetHierarchy",
]

#: Arguments of each verb that must be there, and those that may. `resumptionToken` stands alone.
_ARGUMENTS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "Identify": (frozenset(), frozenset()),
    "ListMetadataFormats": (frozenset(), frozenset({"identifier"})),
    "ListSets": (frozenset(), frozenset({"resumptionToken"})),
    "GetRecord": (frozenset({"identifier", "metadataPrefix"}), frozenset()),
    "ListIdentifiers": (frozenset({"metadataPrefix"}), frozenset({"from", "until", "set", "resumptionToken"})),
    "ListRecords": (frozenset({"metadataPrefix"}), frozenset({"from", "until", "set", "resumptionToken"})),
}
_DAY, _SECOND = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII), re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_DAY_S = 86_400


class ProtocolError(Exception):
    """An answer of the protocol that is an error.

    Parameters
    ----------
    code : str
    message : str
        A sentence for people.
    """

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code: Code = code


@dataclass(frozen=True, slots=True)
class Request:
    """A request that fits the protocol.

    Attributes
    ----------
    verb : str
    arguments : dict
        The others, by name.
    """

    verb: str
    arguments: dict[str, str]


def read_request(pairs: Sequence[tuple[str, str]]) -> Request:
    """Return what the arguments of a request mean.

    Raises
    ------
    ProtocolError
        ``badVerb`` or ``badArgument``.
    """
    verbs = [value for name, value in pairs if name == "verb"]
    if len(verbs) != 1 or verbs[0] not in _ARGUMENTS:
        raise ProtocolError("badVerb", f"the argument 'verb' is one of {', '.join(_ARGUMENTS)}, once")
    verb = verbs[0]
    required, optional = _ARGUMENTS[verb]
    arguments: dict[str, str] = {}
    for name, value in pairs:
        if name == "verb":
            continue
        if name in arguments:
            raise ProtocolError("badArgument", f"the argument '{name}' is there twice")
        if name not in required | optional:
            raise ProtocolError("badArgument", f"{verb} has no argument '{name[:100]}'")
        arguments[name] = value
    if "resumptionToken" in arguments:
        if len(arguments) > 1:
            raise ProtocolError("badArgument", "resumptionToken goes with no other argument")
    elif missing := sorted(required - set(arguments)):
        raise ProtocolError("badArgument", f"{verb} needs the argument '{missing[0]}'")
    return Request(verb, arguments)


def read_span(first: str | None, last: str | None) -> tuple[int | None, int | None]:
    """Return both ends of a span of datestamps, included, s since 1970; None for an end that is not given.

    Raises
    ------
    ProtocolError
        ``badArgument`` if one is no date, they differ in granularity, or the first is later than the last.
    """
    kinds = {len(text) for text in (first, last) if text is not None}
    begin = None if first is None else _moment("from", first)
    end = None if last is None else _moment("until", last)
    if len(kinds) > 1:
        raise ProtocolError("badArgument", "'from' and 'until' are of different granularity")
    if last is not None and end is not None and _DAY.fullmatch(last):
        end += _DAY_S - 1
    if begin is not None and end is not None and begin > end:
        raise ProtocolError("badArgument", "'from' is later than 'until'")
    return begin, end


def _moment(name: str, text: str) -> int:
    for form, pattern in (("%Y-%m-%d", _DAY), ("%Y-%m-%dT%H:%M:%SZ", _SECOND)):
        if pattern.fullmatch(text):
            try:
                return timegm(datetime.strptime(text, form).replace(tzinfo=UTC).utctimetuple())
            except ValueError:
                break
    raise ProtocolError("badArgument", f"'{name}' is a UTC date such as 2017-10-28 or 2017-10-28T18:00:00Z")


def written_moment(seconds: int) -> str:
    """Return a time (s since 1970) as the protocol writes it."""
    return strftime("%Y-%m-%dT%H:%M:%SZ", gmtime(seconds))
