"""XML written as text: every value escaped, and no character that XML 1.0 does not have."""

from __future__ import annotations

import re
from xml.sax.saxutils import escape, quoteattr

#: What XML 1.0 can't hold, not even escaped.
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def legal(text: str) -> str:
    """Return text in which characters that XML does not have are replaced by U+FFFD."""
    return text if text.isascii() and text.isprintable() else _ILLEGAL.sub("\ufffd", text)


def attributes_text(values: dict[str, str | None]) -> str:
    """Return attributes of an element, each with a blank before it; those that are None are left out."""
    return "".join(f" {name}={quoteattr(legal(value))}" for name, value in values.items() if value is not None)


def element(name: str, text: str, **values: str | None) -> str:
    """Return an element that holds text.

    Parameters
    ----------
    name : str
    text : str
        Is escaped.
    **values : str, optional
        Attributes; those that are None are left out.
    """
    return f"<{name}{attributes_text(values)}>{escape(legal(text))}</{name}>"


def wrapped(name: str, content: str, **values: str | None) -> str:
    """Return an element that holds elements; nothing if there are none.

    Parameters
    ----------
    name : str
    content : str
        Elements, written already.
    **values : str, optional
        Attributes; those that are None are left out.
    """
    return f"<{name}{attributes_text(values)}>{content}</{name}>" if content else ""
