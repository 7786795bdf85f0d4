"""Text and errors as people and programs get them: for a terminal, as a line of JSON, as a problem of HTTP.

This is the only place that renders an error. Names and content of foreign files may hold anything, so whatever is
printed goes through `visible`: nothing in it can move the cursor, turn the direction of reading or hide.
"""

from __future__ import annotations

import json
import os
import unicodedata
from functools import cache
from typing import Any

from apbatch.errors import (
    AccessError,
    ApbatchError,
    CancelledQueryError,
    MissingSoftwareError,
    NotFoundError,
    ServerError,
    TooManyRequestsError,
    UsageError,
)

#: ``json`` makes every message on standard error a line of JSON; programs that are started get it handed on.
ERRORS_VARIABLE = "APBATCH_ERRORS"
_HIDDEN = ("Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp")
_SHORT = {"\n": r"\n", "\t": r"\t", "\r": r"\r"}


@cache
def _escape(character: str) -> str:
    if unicodedata.category(character) not in _HIDDEN:
        return character
    if character in _SHORT:
        return _SHORT[character]
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def visible(text: str, keep: str = "") -> str:
    r"""Return text in which every character that is not seen as itself is written as an escape, such as ``\u202e``.

    Parameters
    ----------
    text : str
    keep : str
        Characters that stay, such as a newline in a message of several lines.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(character if character in keep else _escape(character) for character in text)


def excerpt(text: str) -> str:
    """Return what somebody wrote fit for a message: at most 60 characters, all visible."""
    return visible(text[:60]) + ("…" if len(text) > 60 else "")


def with_article(word: str) -> str:
    """Return a noun with *a* or *an* before it."""
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def error_text(error: ApbatchError) -> str:
    """Return an error as a sentence for people: where, what, the nearest right word, the remedy."""
    fields = {name: getattr(error, name) for name in ("where", "nearest", "remedy")}
    shown = {name: None if value is None else visible(value) for name, value in fields.items()}
    return str(ApbatchError(visible(error.what, keep="\n"), **shown))


def error_fields(error: ApbatchError) -> dict[str, Any]:
    """Return an error as a record for programs; what is not known is left out."""
    fields = {
        "error": type(error).__name__.removesuffix("Error"),
        "what": error.what,
        "where": error.where,
        "nearest": error.nearest,
        "remedy": error.remedy,
        "status": error.status,
    }
    return {name: value for name, value in fields.items() if value is not None}


def error_problem(error: ApbatchError, code: int | None = None) -> dict[str, Any]:
    """Return an error as a problem of HTTP (RFC 9457).

    Parameters
    ----------
    error : ApbatchError
    code : int, optional
        Status where HTTP itself says it (405, 406, …); by default what the kind of the error means.
    """
    codes: tuple[tuple[type[ApbatchError], int], ...] = (
        (AccessError, 401),
        (TooManyRequestsError, 429),
        (NotFoundError, 404),
        (UsageError, 400),
        (CancelledQueryError, 499),
        (ServerError, 503),
        (MissingSoftwareError, 501),
    )
    fields = error_fields(error)
    extensions: dict[str, Any] = {name: fields[name] for name in ("where", "nearest", "remedy") if name in fields}
    if code is None:
        code = next((code for kind, code in codes if isinstance(error, kind)), 500)
    return {"type": "about:blank", "title": fields["error"], "status": code, "detail": error.what, **extensions}


def errors_are_json() -> bool:
    """Tell whether messages on standard error are lines of JSON."""
    return os.environ.get(ERRORS_VARIABLE) == "json"


def message_line(text: str, program: str = "") -> str:
    """Return a message about what goes on as a line for standard error."""
    if errors_are_json():
        return json.dumps({"note": text})
    return f"{program}: {visible(text, keep=chr(10))}" if program else visible(text, keep="\n")


def error_line(error: ApbatchError, program: str) -> str:
    """Return an error as what is printed on standard error."""
    if errors_are_json():
        return json.dumps({"program": program, **error_fields(error)})
    return f"{program}: {error_text(error)}"
