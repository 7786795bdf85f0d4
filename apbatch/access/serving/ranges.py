"""One range of bytes, as a request asks for it (RFC 9110, section 14)."""

from __future__ import annotations

import re
from collections.abc import Mapping

_RANGE = re.compile(r"bytes=([0-9]*)-([0-9]*)", re.IGNORECASE)
#: Digits that count: no file has so many bytes, so that longer numbers are beyond the end of any.
_DIGITS = 19


def requested_range(headers: Mapping[str, str], tag: str, size: int) -> tuple[int, int, int]:
    """Return the status and the range of bytes that a request asks for.

    Parameters
    ----------
    headers : mapping of str to str
        Of the request; names in small letters.
    tag : str
        Entity tag of what is served, quoted; a weak one answers no ``If-Range``.
    size : int
        Bytes of the whole.

    Returns
    -------
    status : int
        206 for a part, 200 for the whole (what is no single range of bytes is passed over), 416 for a range beyond it.
    begin, end : int
    """
    match = _RANGE.fullmatch(headers.get("range", "").strip())
    condition = headers.get("if-range")
    if (
        not match
        or not (match[1] or match[2])
        or (condition is not None and (condition != tag or tag.startswith("W/")))
    ):
        return 200, 0, size
    first, last = _number(match[1]), _number(match[2])
    if first is None:  # the last so many bytes
        begin, end = max(0, size - (last or 0)), size
    else:
        begin, end = first, size if last is None else min(size, last + 1)
        if last is not None and last < first:
            return 200, 0, size
    return (206, begin, end) if begin < end else (416, 0, 0)


def _number(digits: str) -> int | None:
    return int(digits.lstrip("0")[:_DIGITS] or "0") if digits else None
