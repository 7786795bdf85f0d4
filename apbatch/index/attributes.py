"""Attributes that every file has, with types and units."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from apbatch.errors import UsageError, nearest_word
from apbatch.formats.reader import Attribute

_COMMON = (
    Attribute("path", "string", "experiment, site and path below the site's root: the key"),
    Attribute("place", "string", "path in the merged tree"),
    Attribute("site", "string", "site that holds the file"),
    Attribute("source", "string", "path below the site's root"),
    Attribute("size", "integer", "length of the file", "byte"),
    Attribute("mtime_ns", "integer", "time of last change, since 1970", "ns"),
    Attribute("checksum", "string", "BLAKE3 of the content"),
    Attribute("adler32", "string", "Adler-32 of the content"),
    Attribute("format", "string", "format as recognised"),
    Attribute("experiment", "string", "experiment that took or simulated the data"),
    Attribute("state", "string", "listed, registered, archived, missing or quarantined"),
    Attribute("reason", "string", "why the file is in quarantine"),
    Attribute("run", "integer", "number of the run"),
    Attribute("night", "date", "date of the evening on which the night began"),
    Attribute("time_start", "time", "time of the first event, UTC"),
    Attribute("time_end", "time", "time of the last event, UTC"),
    Attribute("telescope", "integer", "number of the telescope"),
    Attribute("cluster", "integer", "number of the read-out cluster"),
    Attribute("events", "integer", "number of readable events"),
    Attribute("revision", "integer", "revision of the last change in the catalogue"),
)
#: Words of the query language.
KEYWORDS = ("and", "or", "not", "between", "in", "like", "is", "null", "true", "false")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")
COMMON: dict[str, Attribute] = {attribute.name: attribute for attribute in _COMMON}


def known_attribute(name: str, attributes: Mapping[str, Attribute]) -> Attribute:
    """Return the declaration of an attribute.

    Raises
    ------
    UsageError
        If there is none; it names the nearest.
    """
    if name not in attributes:
        raise UsageError(
            f"unknown attribute '{name}'",
            nearest=nearest_word(name, attributes),
            remedy="apbatch attributes lists them",
        )
    return attributes[name]


def merge_declarations(attributes: Mapping[str, Attribute], new: Iterable[Attribute]) -> dict[str, Attribute]:
    """Return the declarations in `new` that are not yet in `attributes`.

    Raises
    ------
    UsageError
        If a name is known with another type or unit, or is no plain lower-case name.
    """
    fresh: dict[str, Attribute] = {}
    for attribute in new:
        old = attributes.get(attribute.name) or fresh.get(attribute.name)
        if not _NAME.fullmatch(attribute.name) or attribute.name in KEYWORDS:
            raise UsageError(
                f"{ascii(attribute.name)[:80]} is not a name for an attribute",
                remedy="use a-z, 0-9 and _, at most 48, and no word of the query language",
            )
        if old is None:
            fresh[attribute.name] = attribute
        elif (old.type, old.unit) != (attribute.type, attribute.unit):
            raise UsageError(
                f"attribute '{attribute.name}' is declared as {old.type} in {old.unit or 'no unit'} already, "
                f"not {attribute.type} in {attribute.unit or 'no unit'}",
                remedy="choose another name, or the same type and unit",
            )
    return fresh
