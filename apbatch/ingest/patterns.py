"""Attributes hidden in paths: patterns such as ``BSM{cluster:int}/{*}.{part:int}``, and names of files as text.

A pattern is compared with the end of a file's path below its site's root, whole components at a time. ``*`` is any
text within a component, ``**`` any number of components, ``{name}`` a text within a component that becomes an
attribute, ``{name:int}``, ``{name:float}`` a number, ``{night:%d%m%y}`` a date. ``{*}`` is the same as ``*``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime

from apbatch.formats.reader import AttributeType, Scalar
from apbatch.messages import with_article

_DATE_PARTS = {"%d": r"\d{2}", "%m": r"\d{2}", "%y": r"\d{2}", "%Y": r"\d{4}", "%j": r"\d{3}"}
_TOKEN = re.compile(r"\{\*\*?\}|\*\*/|\*\*|\*|\?|\{(?P<name>\w+)(?::(?P<type>[^{}]+))?\}|\{|\}")
_CONVERTED: dict[str, tuple[str, AttributeType]] = {
    "int": (r"[-+]?\d+", "integer"),
    "float": (r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", "number"),
    "str": (r"[^/]+?", "string"),
}


@dataclass(frozen=True, slots=True)
class PathPattern:
    """A compiled pattern.

    Attributes
    ----------
    expression : re.Pattern
        Its groups are the attributes.
    types : dict
        Type of each attribute.
    dates : dict
        Format of each attribute that is a date.
    """

    expression: re.Pattern[str]
    types: dict[str, AttributeType]
    dates: dict[str, str]

    def values(self, path: str) -> dict[str, Scalar]:
        """Return the attributes of a path; empty if it does not match, or a part of it is no such date."""
        match = self.expression.search(path)
        if match is None:
            return {}
        values: dict[str, Scalar] = {}
        for name, text in match.groupdict().items():
            if text is None:
                continue
            value = self._value(name, text)
            if value is not None:
                values[name] = value
        return values

    def faults(self, path: str) -> list[str]:
        """Return which parts of a path match and have no value: a day that no calendar has."""
        match = self.expression.search(path)
        return [
            f"'{text}' is not {with_article(self.types[name])} for {name}"
            for name, text in (match.groupdict() if match is not None else {}).items()
            if text is not None and self._value(name, text) is None
        ]

    def _value(self, name: str, text: str) -> Scalar | None:
        kind = self.types[name]
        try:
            if kind == "integer":
                return int(text)
            if kind == "number":
                return float(text)
            if kind == "boolean":
                return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(text.lower())
            if kind == "date":
                form = self.dates.get(name)
                return datetime.strptime(text, form).date() if form else date.fromisoformat(text)
        except ValueError:
            return None
        return text


def compile_pattern(text: str) -> PathPattern:
    """Compile a path pattern.

    Raises
    ------
    ValueError
        For an unknown type, a name that is given twice, or a stray brace.
    """
    parts: list[str] = []
    types: dict[str, AttributeType] = {}
    dates: dict[str, str] = {}
    at = 0
    for token in _TOKEN.finditer(text):
        parts.append(re.escape(text[at : token.start()]))
        at = token.end()
        name, kind = token["name"], token["type"] or "str"
        if token[0] in ("{", "}"):
            raise ValueError(f"a stray '{token[0]}' in the pattern '{text}'")
        if name is None:
            parts.append({"**/": "(?:.*/)?", "**": ".*", "{**}": ".*", "?": "[^/]"}.get(token[0], "[^/]*"))
            continue
        if name in types:
            raise ValueError(f"'{name}' is twice in the pattern '{text}'")
        if kind.startswith("%"):
            expression = re.sub(r"%.", lambda part: _DATE_PARTS.get(part[0], "\0"), re.escape(kind))
            if "\0" in expression:
                raise ValueError(f"a date is made of {', '.join(_DATE_PARTS)}, not '{kind}'")
            types[name], dates[name] = "date", kind
        elif kind in _CONVERTED:
            expression, types[name] = _CONVERTED[kind]
        else:
            raise ValueError(f"unknown type '{kind}' in the pattern '{text}'; use int, float, str or a date as %d%m%y")
        parts.append(f"(?P<{name}>{expression})")
    parts.append(re.escape(text[at:]))
    return PathPattern(re.compile(rf"(?:^|/){''.join(parts)}\Z", re.DOTALL), types, dates)


def compile_regex(text: str, types: dict[str, AttributeType]) -> PathPattern:
    """Compile a regular expression whose named groups are attributes, searched for anywhere in the path.

    Raises
    ------
    ValueError
        If it is none, or has no named group.
    """
    try:
        expression = re.compile(text)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    if not expression.groupindex:
        raise ValueError("a regular expression needs a named group, such as (?P<part>[0-9]+)")
    return PathPattern(expression, {name: types.get(name, "string") for name in expression.groupindex}, {})


def compile_glob(text: str) -> re.Pattern[str]:
    """Compile an include or exclude pattern: ``*``, ``?``, ``**``; without ``/`` it is compared with the name alone."""
    parts: list[str] = []
    for token in re.split(r"(\*\*/|\*\*|\*|\?)", text.strip("/")):
        parts.append({"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(token, re.escape(token)))
    anchor = "" if "/" in text.strip("/") or text.startswith("/") else "(?:.*/)?"
    folder = "(?:/.*)?"  # a pattern that matches a folder matches all that is in it
    return re.compile(rf"\A{anchor}{''.join(parts)}{folder}\Z", re.DOTALL)


#: What `encode_path` writes otherwise.
UNSAFE = re.compile("[%\x00-\x1f\x7f-\x9f\u2028\u2029\udc80-\udcff]")


def encode_path(path: bytes) -> str:
    """Return the text for the path of a file: bytes that are no UTF-8, control characters and ``%`` become ``%XX``."""

    def escape(match: re.Match[str]) -> str:
        return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogateescape"))

    return UNSAFE.sub(escape, path.decode("utf-8", "surrogateescape"))


def decode_path(text: str) -> bytes:
    """Return the path of a file for the text that `encode_path` made of it."""
    return re.sub(rb"%([0-9A-F]{2})", lambda match: bytes([int(match[1], 16)]), text.encode("utf-8"))
