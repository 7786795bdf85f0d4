"""Identifiers and sets: what the key of a file, ``/experiment/site/source``, is called in the protocol."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

from apbatch.api.oai.requests import ProtocolError

#: Reserved and other characters that identifiers may hold as they are (OAI identifier format, 2.0).
_PLAIN = "/:@=+$,;!*'()~-._"
_SET = re.compile(r"[A-Za-z0-9\-_.!~*'()]+(:[A-Za-z0-9\-_.!~*'()]+)*")
_ESCAPED = re.compile(rb"[^A-Za-z0-9\-_.~*'()]")


def identifier_of(namespace: str, path: str) -> str:
    """Return the identifier of the file with a key."""
    return f"oai:{namespace}:{quote(path.lstrip('/'), safe=_PLAIN)}"


def path_of(namespace: str, identifier: str) -> str:
    """Return the key of the file that an identifier names.

    Raises
    ------
    ProtocolError
        ``idDoesNotExist`` if it is no identifier of this repository.
    """
    prefix = f"oai:{namespace}:"
    if identifier.startswith(prefix) and len(identifier) < 20_000:
        try:
            path = "/" + unquote(identifier[len(prefix) :], errors="strict")
        except UnicodeDecodeError:
            path = ""
        if path and identifier_of(namespace, path) == identifier:
            return path
    raise ProtocolError("idDoesNotExist", "there is no such record, or it may not be seen")


def set_name(folder: str) -> str:
    """Return a folder's name as a part of a set: bytes that a set can't have are written ``!XX``."""
    return _ESCAPED.sub(lambda match: b"!%02X" % match[0][0], folder.encode()).decode()


def sets_of(path: str) -> list[str]:
    """Return the set to which a file belongs, ``experiment:site``; it belongs to ``experiment`` as well by that."""
    parts = path.split("/", 3)
    return [f"{set_name(parts[1])}:{set_name(parts[2])}"] if len(parts) == 4 else []


def is_in(path: str, set_name: str) -> bool:
    """Tell whether a file is in a set; every file is in the set without a name."""
    return not set_name or any(one == set_name or one.startswith(f"{set_name}:") for one in sets_of(path))


def check_set(text: str) -> str:
    """Return a set that a harvester names.

    Raises
    ------
    ProtocolError
        ``badArgument`` if it can't be one.
    """
    if len(text) > 2000 or not _SET.fullmatch(text):
        raise ProtocolError("badArgument", "'set' is not written as ListSets gives sets")
    return text
