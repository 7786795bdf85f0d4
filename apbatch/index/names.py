r"""Names of files as texts of the catalogue, and back: nothing is lost, whatever bytes a name has.

A name comes from the system as Python gives it (``os.fsdecode``: bytes that are no UTF-8 become lone surrogates, which
no database, JSON or Arrow can hold). In the catalogue such a byte is written ``\xNN``, in two hexadecimal digits. Where
a name itself holds a backslash that could be read that way, this backslash is written ``\x5c``. All other names are
written as they are.
"""

from __future__ import annotations

import re

_ESCAPE = re.compile(r"\\x(5c|[89a-f][0-9a-f])")
_LONE = re.compile("[\udc80-\udcff]")


def to_text(name: str) -> str:
    """Return the text under which the catalogue holds a name or path from the system."""
    if "\\" in name:
        name = _ESCAPE.sub(lambda escape: r"\x5c" + escape[0][1:], name)
    if name.isascii():
        return name
    return _LONE.sub(lambda lone: rf"\x{ord(lone[0]) - 0xDC00:02x}", name)


def to_name(text: str) -> str:
    """Return the name or path for the system that the catalogue holds as `text`."""
    if "\\x" not in text:
        return text
    pieces = _ESCAPE.split(text)
    escaped = [piece.encode() if index % 2 == 0 else bytes.fromhex(piece) for index, piece in enumerate(pieces)]
    return b"".join(escaped).decode("utf-8", "surrogateescape")
