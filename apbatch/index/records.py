"""Records to and from rows: the one place that knows how values are written down."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from operator import attrgetter
from typing import Any, NoReturn

import numpy as np

from apbatch.errors import UsageError
from apbatch.formats.reader import Attribute, Scalar
from apbatch.index.attributes import COMMON
from apbatch.index.files import COMMON_FIELDS, FileRecord, Refusal, State
from apbatch.messages import with_article

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "date": (date,),
    "time": (datetime,),
}
_LONGEST_SHORT = 255
_LONGEST_PATH = 4096
_NO_PATH = re.compile(r"//|/\.\.?(?:/|\Z)|/\Z")
_fields = attrgetter(*COMMON_FIELDS)
_texts = attrgetter("path", "place", "site", "source", "checksum", "adler32", "format", "experiment", "state")
_numbers = attrgetter("size", "mtime_ns", "run", "telescope", "cluster", "events")


def is_text(text: str) -> bool:
    """Tell whether text can be stored: valid Unicode without NUL."""
    if text.isascii():
        return "\0" not in text
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def admit(
    records: Iterable[FileRecord], declared: Mapping[str, Attribute]
) -> tuple[list[tuple[FileRecord, dict[str, Scalar]]], list[Refusal]]:
    """Return records with attributes as they are stored, the last of each path, and those that can't be stored."""
    admitted: dict[str, tuple[FileRecord, dict[str, Scalar]]] = {}
    refusals: list[Refusal] = []
    for record in records:
        try:
            _check_common(record)
            attributes = checked_attributes(record, declared) if record.attributes else {}
        except UsageError as error:
            refusals.append(Refusal(record, error.what))
            continue
        admitted.pop(record.path, None)
        admitted[record.path] = (record, attributes)
    return list(admitted.values()), refusals


def checked_attributes(record: FileRecord, declared: Mapping[str, Attribute]) -> dict[str, Scalar]:
    """Return a record's attributes as they are stored; those that are None or NaN are left out.

    Raises
    ------
    UsageError
        If an attribute was not declared or a value is not of its type.
    """
    attributes: dict[str, Scalar] = {}
    for name, value in record.attributes.items():
        attribute = declared.get(name)
        if attribute is None or name in COMMON:
            raise UsageError(f"attribute '{name}' was not declared", where=ascii(record.path)[1:-1])
        if type(value) is float and attribute.type == "number" and math.isfinite(value):
            attributes[name] = value + 0.0
            continue
        kept = _checked_value(attribute, value)
        if kept is not None:
            attributes[name] = kept
    return attributes


def _check_common(record: FileRecord) -> None:
    """Refuse what can't be stored in the common fields."""
    try:
        texts = "".join(_texts(record)) + (record.reason or "")
        fits = texts.isascii() or is_text(texts)
        fits = fits and "\0" not in texts
        for number in _numbers(record):
            fits = fits and (number is None or (type(number) is int and -(2**63) <= number < 2**63))
        fits = fits and record.size >= 0 and type(record.state) is State and record.mtime_ns is not None
        fits = fits and (record.night is None or type(record.night) is date)
        fits = fits and (record.time_start is None or isinstance(record.time_start, datetime))
        fits = fits and (record.time_end is None or isinstance(record.time_end, datetime))
    except (TypeError, AttributeError):
        fits = False
    if not fits:
        _explain(record)
    for name, path in (("path", record.path), ("place", record.place)):
        if not path.startswith("/") or _NO_PATH.search(path) or len(path.encode()) > _LONGEST_PATH:
            raise UsageError(f"{name} {ascii(path)[:80]} is not an absolute path of at most {_LONGEST_PATH} bytes")
    for name in ("site", "experiment", "format", "checksum", "adler32"):
        if len(getattr(record, name)) > _LONGEST_SHORT:
            raise UsageError(f"{name} is longer than {_LONGEST_SHORT} characters")


def _explain(record: FileRecord) -> NoReturn:
    for name, value in zip(COMMON_FIELDS, _fields(record), strict=True):
        if value is None and name in ("path", "place", "site", "source", "size", "mtime_ns", "checksum", "adler32",
                                      "format", "experiment", "state"):  # fmt: skip
            raise UsageError(f"'{name}' is missing")
        if value is not None:
            _checked_value(COMMON[name], value)
    if record.size < 0:
        raise UsageError(f"a size of {record.size} bytes")
    raise UsageError(f"a field is not of its type: {ascii(record)[:500]}")


def _checked_value(attribute: Attribute, value: Any) -> Scalar | None:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or value != value:
        return None
    fits = isinstance(value, _TYPES[attribute.type])
    fits = fits and isinstance(value, bool) == (attribute.type == "boolean")
    fits = fits and isinstance(value, datetime) == (attribute.type == "time")
    if not fits or (isinstance(value, str) and not is_text(value)) or (isinstance(value, int) and abs(value) >= 2**63):
        raise UsageError(f"attribute '{attribute.name}' is {with_article(attribute.type)}, not {ascii(value)[:60]}")
    if attribute.type != "number":
        return value  # type: ignore[no-any-return]
    number = float(value) + 0.0  # -0.0 becomes 0.0: one value, one place
    if math.isinf(number):
        raise UsageError(f"attribute '{attribute.name}' is infinite")
    return number


def to_plain(value: Any) -> Any:
    """Write a value as text or number: dates as ISO text, times as UTC ISO text of fixed width, so that order holds."""
    if isinstance(value, datetime):
        value = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        return value.replace(tzinfo=None).isoformat(timespec="microseconds")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, State):
        return value.value
    return value


def from_plain(attribute: Attribute | None, value: Any) -> Any:
    """Read back what `to_plain` wrote."""
    if value is None or attribute is None:
        return value
    match attribute.type:
        case "date":
            return date.fromisoformat(value)
        case "time":
            return datetime.fromisoformat(value).replace(tzinfo=UTC)
        case "boolean":
            return bool(value)
        case "integer":
            return int(value)
        case "number":
            return float(value)
    return value
