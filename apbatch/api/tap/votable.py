"""VOTable 1.4 as a stream: rows become text inside Arrow, batch by batch; nothing is held whole."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from xml.sax.saxutils import escape, quoteattr

import pyarrow as pa
import pyarrow.compute as pc

from apbatch.errors import UsageError
from apbatch.units import unit

MEDIA = "application/x-votable+xml"
_HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">\n<RESOURCE type="results">\n'
)
_TAIL = "</RESOURCE>\n</VOTABLE>\n"
#: What XML 1.0 can't hold.
_FORBIDDEN = "[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]"
#: Rows that become text at once.
_ROWS = 10_000
_TEXT = pa.large_string()


def clean(text: str) -> str:
    """Return text that XML can hold, escaped."""
    return escape(_legal(text))


def attribute(text: str) -> str:
    """Return text as the quoted value of an XML attribute."""
    return quoteattr(_legal(text))


def _legal(text: str) -> str:
    return re.sub(_FORBIDDEN, "\ufffd", text.encode("utf-8", "replace").decode())


def error_document(message: str) -> bytes:
    """Return the VOTable that tells of an error (DALI 1.1, 4.4)."""
    return f"{_HEAD}{_status('ERROR', message)}{_TAIL}".encode()


def _status(value: str, text: str = "") -> str:
    return f'<INFO name="QUERY_STATUS" value="{value}">{clean(text)}</INFO>\n'


def votable(
    schema: pa.Schema,
    batches: Iterable[pa.RecordBatch],
    most: int | None = None,
    explain: Callable[[Exception], str] = str,
    infos: Iterable[tuple[str, str]] = (),
) -> Iterator[bytes]:
    """Yield a table as a VOTable (TABLEDATA).

    What fails on the way is told at the end of a whole document, so that no client takes a part for everything.

    Parameters
    ----------
    schema : Schema
        Fields may carry `unit`, `description`, `ucd`, `utype` and `ascii`.
    batches : iterable of RecordBatch
    most : int, optional
        Rows that are given; if there are more, the document says that it overflowed.
    explain : callable
        Returns what a client may know of an error.
    infos : iterable of (str, str)
        Names and values of further notes.
    """
    notes = "".join(f"<INFO name={attribute(name)} value={attribute(value)}/>\n" for name, value in infos)
    fields = "".join(map(_field, schema))
    yield f"{_HEAD}{_status('OK')}{notes}<TABLE>\n{fields}<DATA>\n<TABLEDATA>\n".encode()
    number, status = 0, ""
    try:
        for batch in batches:
            if most is not None and number + batch.num_rows > most:
                batch, status = batch.slice(0, most - number), _status("OVERFLOW")
            number += batch.num_rows
            for start in range(0, batch.num_rows, _ROWS):
                yield _rows(batch.slice(start, _ROWS))
            if status:
                break
    except Exception as error:  # the document is under way: only its end can say so
        status = _status("ERROR", explain(error))
    yield f"</TABLEDATA>\n</DATA>\n</TABLE>\n{status}{_TAIL}".encode()


def _rows(batch: pa.RecordBatch) -> bytes:
    cells = [_texts(column) for column in batch.columns]
    begin, between, end, nothing = (pa.scalar(text, _TEXT) for text in ("<TR><TD>", "</TD><TD>", "</TD></TR>\n", ""))
    joined = cells[0] if len(cells) == 1 else pc.binary_join_element_wise(*cells, between)
    lines = pc.binary_join_element_wise(begin, joined, end, nothing)
    text: bytes = lines.buffers()[2].to_pybytes()
    return text


def _texts(column: pa.Array) -> pa.Array:
    """Return a column as escaped texts; what is missing is empty."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        column = pc.strftime(column, "%Y-%m-%dT%H:%M:%S")
    elif pa.types.is_boolean(kind):
        column = pc.if_else(column, "T", "F")
    elif pa.types.is_floating(kind):
        column = _numbers(column)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        column = _escaped(column)
    return pc.fill_null(column.cast(_TEXT), pa.scalar("", _TEXT))


def _numbers(column: pa.Array) -> pa.Array:
    texts = column.cast(pa.string())
    odd = pc.invert(pc.is_finite(column))
    if pc.any(odd).as_py():
        for written, meant in (("nan", "NaN"), ("-nan", "NaN"), ("inf", "+Inf"), ("-inf", "-Inf")):
            texts = pc.if_else(pc.equal(texts, written), meant, texts)
    return texts


def _escaped(column: pa.Array) -> pa.Array:
    if pc.any(pc.match_substring_regex(column, f"[&<>\r]|{_FORBIDDEN}")).as_py():
        for written, meant in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("\r", "&#13;")):
            column = pc.replace_substring(column, written, meant)
        column = pc.replace_substring_regex(column, _FORBIDDEN, "\ufffd")
    return column


def datatype_of(kind: pa.DataType, *, is_ascii: bool = False) -> dict[str, str | None]:
    """Return `datatype`, `arraysize` and `xtype` of a column."""
    if pa.types.is_boolean(kind):
        return {"datatype": "boolean", "arraysize": None, "xtype": None}
    if pa.types.is_integer(kind):
        return {"datatype": "int" if kind.bit_width <= 32 else "long", "arraysize": None, "xtype": None}
    if pa.types.is_floating(kind):
        return {"datatype": "double" if kind.bit_width == 64 else "float", "arraysize": None, "xtype": None}
    if pa.types.is_temporal(kind):
        return {"datatype": "char", "arraysize": "*", "xtype": "timestamp"}
    return {"datatype": "char" if is_ascii else "unicodeChar", "arraysize": "*", "xtype": None}


@lru_cache(maxsize=256)
def unit_of(text: str | None) -> str | None:
    """Return a unit in the spelling of VOUnits; None for none, and for one that has no such spelling."""
    if not text:
        return None
    if text == "pe":
        return "electron"
    try:
        return str(unit(text).to_string("vounit"))
    except (UsageError, ValueError):
        return None


def _field(field: pa.Field) -> str:
    about = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    parts = {
        "name": field.name,
        **datatype_of(field.type, is_ascii="ascii" in about),
        "unit": unit_of(about.get("unit")),
    }
    parts |= {name: about[name] for name in ("ucd", "utype") if about.get(name)}
    written = " ".join(f"{name}={attribute(value)}" for name, value in parts.items() if value is not None)
    text = about.get("description", "")
    return f"<FIELD {written}>" + (f"<DESCRIPTION>{clean(text)}</DESCRIPTION>" if text else "") + "</FIELD>\n"
