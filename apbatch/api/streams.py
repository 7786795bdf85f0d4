"""Results in the form that was asked for: JSON, NDJSON, CSV, Arrow stream, Parquet; written batch by batch."""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse

from apbatch.errors import UsageError, nearest_word

#: Rows of a Parquet row group.
_GROUP = 50_000
#: A cell that begins so is a formula to a spreadsheet; to some also by signs of full width.
_FORMULA = "^[=+\\-@＝＋－＠\t\r\n]"

#: What JSON writes as an escape.
_ESCAPED = r'["\\\x00-\x1f]'

Writer = Callable[[pa.Schema, Iterable[pa.RecordBatch]], Iterator[bytes]]


@dataclass(frozen=True, slots=True)
class Form:
    """One form of a result.

    Attributes
    ----------
    name : str
        As ``?format=`` takes it.
    media : str
        Media type.
    suffix : str
        Of a file that a browser saves.
    write : callable, optional
        Yields bytes from batches; None for pages of JSON.
    """

    name: str
    media: str
    suffix: str
    write: Writer | None


def plain(value: Any) -> Any:
    """Return a value as JSON holds it; what is no finite number is null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def _ndjson(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[bytes]:
    for batch in batches:
        if not batch.num_rows:
            continue
        lines: list[Any] = []
        for number, (name, column) in enumerate(zip(batch.schema.names, batch.columns, strict=True)):
            lines += [f"{', ' if number else '{'}{json.dumps(name, ensure_ascii=False)}: ", _json_values(column)]
        text = pc.binary_join_element_wise(*lines, "}\n", "")
        yield _text_bytes(text)


def _text_bytes(texts: pa.Array) -> bytes:
    """Return all texts of an array without nulls, one after the other."""
    _, offsets, content = texts.buffers()
    places = memoryview(offsets).cast("i")
    begin, end = places[texts.offset], places[texts.offset + len(texts)]
    return content.slice(begin, end - begin).to_pybytes()  # type: ignore[no-any-return]


def _json_values(column: pa.Array) -> pa.Array:
    """Return the values of a column as JSON, one text each.

    Arrow writes whole columns where it writes what `json` would; the others are written value by value.
    """
    kind = column.type
    texts: pa.Array | None = None
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        texts = column.cast(pa.string())
    elif pa.types.is_date(kind):
        texts = _quoted(column.cast(pa.string()))
    elif pa.types.is_timestamp(kind) and kind.tz == "UTC":
        seconds = column.cast(pa.timestamp("s", "UTC"), safe=False)
        if pc.all(pc.equal(seconds.cast(kind), column)).as_py() is not False:
            texts = _quoted(pc.strftime(seconds, "%Y-%m-%dT%H:%M:%S+00:00"))
    elif pa.types.is_string(kind) and not pc.any(pc.match_substring_regex(column, _ESCAPED)).as_py():
        texts = _quoted(column)
    if texts is None:
        encode = json.JSONEncoder(ensure_ascii=False).encode
        return pa.array([encode(plain(value)) for value in column.to_pylist()], pa.string())
    return pc.fill_null(texts, "null")


def _quoted(texts: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise('"', texts, '"', "")


def _csv(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[bytes]:
    yield (",".join(f'"{name}"' for name in schema.names) + "\n").encode()
    options = pacsv.WriteOptions(include_header=False)
    for batch in batches:
        sink = io.BytesIO()
        columns = [_harmless(batch.column(name)) for name in schema.names]
        pacsv.write_csv(pa.RecordBatch.from_arrays(columns, names=schema.names), sink, options)
        yield sink.getvalue()


def _harmless(column: pa.Array) -> pa.Array:
    """Return a column as CSV: texts that a spreadsheet would run begin with an apostrophe."""
    if pa.types.is_timestamp(column.type):
        return pc.strftime(column, "%Y-%m-%dT%H:%M:%SZ")
    if pa.types.is_string(column.type):
        runs = pc.match_substring_regex(column, _FORMULA)
        if pc.any(runs).as_py():
            return pc.if_else(runs, pc.binary_join_element_wise("'", column, ""), column)
    return column


class _Drain(io.RawIOBase):
    """Takes what a writer writes, for it to be sent at once."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._place = 0

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, piece: Any) -> int:
        """Take a piece."""
        self._pieces.append(bytes(piece))
        self._place += len(piece)
        return len(piece)

    def tell(self) -> int:
        """Return how much was written."""
        return self._place

    def take(self) -> bytes:
        """Return what was written since the last call."""
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


def _arrow(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[bytes]:
    drain = _Drain()
    with pa.ipc.new_stream(drain, schema) as writer:
        yield drain.take()
        for batch in batches:
            writer.write_batch(batch.replace_schema_metadata(schema.metadata).cast(schema))
            yield drain.take()
    yield drain.take()


def _parquet(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[bytes]:
    drain = _Drain()
    waiting: list[pa.RecordBatch] = []
    with pq.ParquetWriter(drain, schema, compression="zstd") as writer:
        for batch in batches:
            waiting.append(batch.cast(schema))
            if sum(one.num_rows for one in waiting) >= _GROUP:
                writer.write_table(pa.Table.from_batches(waiting, schema))
                waiting = []
                yield drain.take()
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting, schema))
    yield drain.take()


JSON = Form("json", "application/json", "json", None)
FORMS = (
    JSON,
    Form("ndjson", "application/x-ndjson", "ndjson", _ndjson),
    Form("csv", "text/csv; charset=utf-8; header=present", "csv", _csv),
    Form("arrow", "application/vnd.apache.arrow.stream", "arrows", _arrow),
    Form("parquet", "application/vnd.apache.parquet", "parquet", _parquet),
)
_BY_NAME = {form.name: form for form in FORMS}
_BY_MEDIA = {form.media.partition(";")[0]: form for form in FORMS}


def wanted_form(accept: str, name: str | None) -> Form:
    """Return the form that a client wants.

    Parameters
    ----------
    accept : str
        The header; empty for anything.
    name : str, optional
        What ``?format=`` says, which counts more.

    Raises
    ------
    UsageError
        If there is no form of that name.
    HTTPException
        406, if the header takes none of them.
    """
    if name:
        if name not in _BY_NAME:
            raise UsageError(
                f"there is no format '{name[:40]}'",
                where="format",
                nearest=nearest_word(name, _BY_NAME),
                remedy=f"one of {', '.join(_BY_NAME)}",
            )
        return _BY_NAME[name]
    choices: list[tuple[float, int, Form]] = []
    for number, part in enumerate(accept.split(",") if accept.strip() else ["*/*"]):
        media, *parameters = (piece.strip() for piece in part.split(";"))
        quality = next((piece[2:] for piece in parameters if piece.startswith("q=")), "1")
        try:
            weight = float(quality)
        except ValueError:
            weight = 0.0
        form = JSON if media in ("*/*", "application/*") else _BY_MEDIA.get(media.lower())
        form = _BY_NAME["csv"] if media == "text/*" else form
        if form is not None and weight > 0:
            choices.append((-weight, number, form))
    if not choices:
        raise HTTPException(406, f"there are {', '.join(_BY_MEDIA)}")
    return min(choices, key=lambda choice: choice[:2])[2]


def streamed(form: Form, schema: pa.Schema, batches: Iterable[pa.RecordBatch], name: str) -> Response:
    """Return a result as it is written, batch by batch: neither side holds it whole.

    A failure on the way breaks the connection off, so that no client takes a part for the whole. A client that goes
    away ends the search with its next page.

    Parameters
    ----------
    form : Form
        How rows are written.
    schema : pyarrow.Schema
    batches : iterable of pyarrow.RecordBatch
    name : str
        Of the file that a browser keeps, without suffix.
    """
    assert form.write is not None
    headers = {"Content-Disposition": f'attachment; filename="{name}.{form.suffix}"'}
    return StreamingResponse(form.write(schema, batches), 200, headers, form.media)


def json_response(request: Request, content: Any, headers: Mapping[str, str] | None = None) -> Response:
    """Return content as JSON with its hash as ETag, or 304 where the client has it already.

    The tag is made of what this client gets, so that it tells nothing of what the client may not see.

    Parameters
    ----------
    request : Request
        Its If-None-Match is compared.
    content : object
        Of what JSON can hold.
    headers : Mapping, optional
        Further ones.
    """
    body = json_bytes(content)
    tag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
    if has_tag(request.headers.get("if-none-match"), tag):
        return Response(status_code=304, headers={"ETag": tag})
    return Response(body, 200, {"ETag": tag, **(headers or {})}, JSON.media)


def json_bytes(content: Any) -> bytes:
    """Return content as JSON in UTF-8."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")


def has_tag(header: str | None, tag: str) -> bool:
    """Tell whether an If-None-Match names a tag."""
    return header is not None and (
        header.strip() == "*" or tag in [one.strip().removeprefix("W/") for one in header.split(",")]
    )
