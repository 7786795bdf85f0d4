"""REST of files: searching, counting, the merged tree, one file with all that is known of it, its bytes."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from starlette.responses import Response, StreamingResponse

from apbatch.access.described import columns_of, file_batches, limited
from apbatch.access.guard import Guard
from apbatch.access.serving.ranges import requested_range
from apbatch.api.counting import counts_by
from apbatch.api.histogram import histogram_of
from apbatch.api.openapi import ANSWERS, TABLES
from apbatch.api.service import (
    FEW,
    MANY,
    OPERATOR,
    Attribute,
    Bins,
    By,
    Columns,
    Condition,
    Cursor,
    Door,
    FormName,
    PageSize,
    PathOf,
    Who,
    service_of,
)
from apbatch.api.streams import has_tag, json_response, plain, streamed, wanted_form
from apbatch.errors import NotFoundError, UsageError
from apbatch.index.attributes import known_attribute
from apbatch.index.files import FileRecord
from apbatch.index.parser import parse_search
from apbatch.index.query import Everything, Search

router = APIRouter(prefix="/api/v1", tags=["files"], responses=ANSWERS)
#: Bytes that are read of a file at a time.
_PIECE = 2**20
Limit = Annotated[int | None, Query(ge=1, le=2**31, description="Rows of a page (JSON), or of the whole.")]
_DIGESTS = ("blocks", "small_pieces", "large_pieces")


@router.get("/files", summary="Files that match a query", responses=TABLES)
def files(
    request: Request,
    door: Door,
    q: Condition = "",
    columns: Columns = "",
    cursor: Cursor = None,
    limit: Limit = None,
    form: FormName = None,
) -> Response:
    """Return a page of whole records (JSON without `columns`) or of attributes, or all that follows as a stream.

    JSON comes in pages, each with the cursor of the next. The other forms stream everything from `cursor` on.
    """
    attributes = door.attributes()
    search = parse_search(q, attributes)
    representation = wanted_form(request.headers.get("accept", ""), form)
    if representation.write is None:
        size = min(limit or FEW, MANY)
        if not columns.strip():
            page = door.select_records(search, cursor, size)
            return json_response(
                request, {"items": [plain(record.flat()) for record in page.records], "cursor": page.cursor}
            )
        batch_page = door.select_batch(search, columns_of(columns.split(","), attributes, ()), cursor, size)
        return json_response(request, {"items": plain(batch_page.batch.to_pylist()), "cursor": batch_page.cursor})
    search = replace(search, limit=limited((search.limit, limit)))
    schema, batches = file_batches(door, search, columns.split(","), cursor)
    return streamed(representation, schema, batches, "files")


@router.get("/files/count", summary="Number of files that match")
def count(
    request: Request,
    door: Door,
    q: Condition = "",
    by: By = "",
) -> Response:
    """Return one number, or one for each value of an attribute."""
    attributes = door.attributes()
    where = parse_search(q, attributes).where
    counts = counts_by(known_attribute(by, attributes), where, door.count, door.batches) if by else door.count(where)
    return json_response(request, counted(counts, by))


def counted(counts: dict[Any, int], by: str) -> dict[str, Any]:
    """Return counts as JSON shows them."""
    if not by:
        return {"count": counts.get(None, 0)}
    ordered = sorted(counts.items(), key=lambda item: (item[0] is not None, str(item[0])))
    return {"by": by, "counts": [{"value": plain(value), "count": number} for value, number in ordered]}


@router.get("/files/histogram", summary="Distribution of an attribute over the files that match")
def histogram(request: Request, door: Door, attribute: Attribute, q: Condition = "", bins: Bins = 40) -> Response:
    """Return bins of a number or a time, or the counts of a text's most frequent values."""
    attributes = door.attributes()
    where, one = parse_search(q, attributes).where, known_attribute(attribute, attributes)
    values = (batch.column(0) for batch in door.batches(Search(where), [one.name]))
    return json_response(
        request, histogram_of(one, bins, values, lambda: counts_by(one, where, door.count, door.batches))
    )


@router.get("/files/explain", summary="How a query would be answered, and what that costs")
def explain(request: Request, door: Door, who: Who, q: Condition = "", limit: Limit = None) -> Response:
    """Return the plan as text, and about how many rows are read until the first files come, null if unknown.

    This tells of all files how many there are, so it is for the owner and for operators.
    """
    if not (who.is_owner or OPERATOR in who.roles):
        raise NotFoundError("there is no such thing, or it may not be seen")
    search = parse_search(q, door.attributes())
    search = replace(search, limit=limited((search.limit, limit)))
    return json_response(request, {"plan": door.explain(search), "rows_read": door.rows_read(search)})


@router.get("/entries", summary="Entries of a folder of the merged tree")
def entries(
    request: Request,
    door: Door,
    folder: Annotated[str, Query(max_length=8192, description="Empty for the root.", examples=["/taiga"])] = "",
    cursor: Cursor = None,
    limit: PageSize = 1000,
) -> Response:
    """Return a page of names with sizes, times and states, ordered by the bytes of the names."""
    page = door.entries(_folder(folder), cursor, limit)
    return json_response(request, {"items": [plain(asdict(entry)) for entry in page.entries], "cursor": page.cursor})


def _folder(text: str) -> str:
    return text.rstrip("/")


@router.get("/entry", summary="One name of the merged tree")
def entry(request: Request, door: Door, path: PathOf) -> Response:
    """Return whether there is a file or a folder, and what is known of it."""
    one = door.entry(_folder(path))
    if one is None:
        raise _nothing(path)
    return json_response(request, plain(asdict(one)))


@router.get("/file", summary="All that is known of one file")
def file(request: Request, door: Door, path: PathOf) -> Response:
    """Return its sources, replicas, checksums, attributes with units, where it came from, and where its bytes are."""
    sources = sources_of(door, path)
    replicas = door.replicas([record.path for record in sources])
    first = sources[0]
    content = door.content(first.checksum) if first.checksum else None
    attributes = door.attributes()
    readable = door.may_read(first)
    described_attributes = [
        {
            "name": name,
            "value": plain(value),
            "unit": attributes[name].unit,
            "description": attributes[name].description,
        }
        for name, value in first.flat().items()
        if value is not None and name in attributes
    ]
    return json_response(
        request,
        {
            "path": path,
            "record": plain(first.flat()),
            "attributes": described_attributes,
            "sources": [plain(record.flat()) for record in sources],
            "replicas": [
                {"kind": one.kind, "checksum": one.checksum, "verified": plain(one.verified), "of": one.path,
                 **({"url": one.url} if one.url else {})}
                for listed in replicas.values()
                for one in listed
            ],
            "content": None
            if content is None
            else {"blake3": content.checksum, "adler32": content.adler32, "size": content.size,
                  "blocks": len(content.blocks) // 32},
            "readable": readable,
            "download": f"/api/v1/content?path={quote(path)}" if readable else None,
        },
    )  # fmt: skip


def sources_of(door: Guard, path: str) -> list[FileRecord]:
    """Return the files behind a path of the merged tree, or the one with that key.

    Raises
    ------
    NotFoundError
        If there is none that may be seen: the same whether there is none at all.
    """
    if sources := door.sources(path):
        return sources
    if (record := door.get(path)) is not None:
        return [record]
    raise _nothing(path)


def _nothing(path: str) -> NotFoundError:
    return NotFoundError("there is no such path", where=path[:300])


@router.get("/hashes", summary="Hashes of a content")
def hashes(
    request: Request,
    door: Door,
    checksum: Annotated[str, Query(min_length=64, max_length=64, description="BLAKE3 of the whole, hexadecimal.")],
) -> Response:
    """Return the hashes of its blocks and pieces in base64: with them whoever reads it verifies what comes."""
    content = door.content(checksum)
    if content is None:
        raise NotFoundError("there are no hashes of such a content")
    encoded = {name: base64.b64encode(getattr(content, name)).decode() for name in _DIGESTS}
    return json_response(request, {"size": content.size, "adler32": content.adler32, **encoded})


@router.get("/replicas", summary="Verified copies of a file")
def replicas(request: Request, door: Door, path: PathOf) -> Response:
    """Return the copies of each of its sources; URLs are empty where the source may be seen, but not read."""
    replicas = door.replicas([record.path for record in sources_of(door, path)])
    return json_response(request, {"items": [plain(asdict(one)) for listed in replicas.values() for one in listed]})


@router.get("/conflicts", summary="Places at which sites hold different content")
def conflicts(request: Request, door: Door, cursor: Cursor = None, limit: PageSize = FEW) -> Response:
    """Return a page of places, each with the names that its files have in the merged tree."""
    page, following = door.conflicts(cursor, limit)
    items = [{"place": one.place, "entries": dict(one.entries)} for one in page]
    return json_response(request, {"items": items, "cursor": following})


@router.get("/sites", summary="Sites whose files may be seen")
def sites(request: Request, door: Door) -> Response:
    """Return the number of files of each site."""
    counts = door.count(Everything(), "site")
    items = [{"site": site, "files": number} for site, number in sorted(counts.items(), key=lambda one: str(one[0]))]
    return json_response(request, {"items": items})


@router.get("/attributes", summary="Attributes that a query may name")
def attributes(
    request: Request,
    door: Door,
    of: Annotated[Literal["files", "events"], Query(description="Whose attributes.")] = "files",
) -> Response:
    """Return name, type, unit and description of each."""
    attributes = door.attributes() if of == "files" else door.event_attributes()
    return json_response(request, {"items": [asdict(attribute) for attribute in attributes.values()]})


@router.get("/complete", summary="Values of an attribute that begin with a text")
def complete(
    request: Request,
    door: Door,
    attribute: Attribute,
    q: Condition = "",
    begin: Annotated[str, Query(max_length=200, description="With what values begin.")] = "",
    limit: Annotated[int, Query(ge=1, le=100, description="Values at most.")] = 20,
) -> Response:
    """Return the most frequent values among the files that match; only those of files that may be seen."""
    attributes = door.attributes()
    one = known_attribute(attribute, attributes)
    if one.name in ("path", "place", "source", "checksum", "adler32", "reason"):
        raise UsageError(f"values of '{one.name}' are not listed", remedy="search with like")
    counts = counts_by(one, parse_search(q, attributes).where, door.count, door.batches)
    values = [(value, number) for value, number in counts.items() if value is not None and str(value).startswith(begin)]
    values.sort(key=lambda item: (-item[1], str(item[0])))
    return json_response(
        request, {"items": [{"value": plain(value), "count": number} for value, number in values[:limit]]}
    )


@router.api_route("/content", methods=["HEAD"], include_in_schema=False)
@router.get(
    "/content",
    summary="Bytes of a file",
    response_class=Response,
    responses={
        200: {"content": {"application/octet-stream": {}}},
        206: {"description": "A range."},
        416: {"description": "Not such a range."},
    },
)
def content(request: Request, door: Door, path: PathOf) -> Response:
    """Return the bytes, verified block by block where hashes of blocks are there; ranges are served."""
    service = service_of(request)
    if service.files is None:
        raise NotFoundError("this service gives no bytes")
    record = door.readable(path)[0]
    opened = service.files(door, path)
    size = opened.size
    tag = f'"{record.checksum or record.revision}"'
    headers = {
        "Accept-Ranges": "bytes",
        "ETag": tag,
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(path.rpartition('/')[2], safe='')}",
        "Apbatch-Verified": "true" if opened.verified else "false",
    }
    if has_tag(request.headers.get("if-none-match"), tag):
        opened.close()
        return Response(status_code=304, headers=headers)
    status, begin, end = requested_range(request.headers, tag, size)
    if status == 416:
        opened.close()
        return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{size}"})
    if status == 206:
        headers["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"
    headers["Content-Length"] = str(end - begin)
    if request.method == "HEAD":
        opened.close()
        return Response(status_code=status, headers=headers, media_type="application/octet-stream")

    try:  # what can't be read at all is a problem, not a stream that breaks off
        first = opened.read(begin, min(_PIECE, end - begin)) if end > begin else b""
    except BaseException:
        opened.close()
        raise

    def pieces() -> Iterator[bytes]:
        with opened:
            yield first
            for place in range(begin + _PIECE, end, _PIECE):
                yield opened.read(place, min(_PIECE, end - place))

    return StreamingResponse(pieces(), status, headers, "application/octet-stream")
