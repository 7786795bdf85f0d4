"""What a request to TAP holds, and the result that it wants."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import cast
from urllib.parse import parse_qsl

import pyarrow as pa
from fastapi import Request

from apbatch.access.guard import Guard
from apbatch.access.principals import ANYONE
from apbatch.api.gate import state_of
from apbatch.api.service import service_of
from apbatch.api.streams import FORMS, Form
from apbatch.api.tap.adql import parse_adql
from apbatch.api.tap.answer import answer
from apbatch.api.tap.faults import explained
from apbatch.api.tap.jobs import Asker
from apbatch.api.tap.obscore import ObsCoreTable
from apbatch.api.tap.schema import with_schema
from apbatch.api.tap.tables import EventTable, FileTable, Table
from apbatch.api.tap.votable import MEDIA, votable
from apbatch.errors import UsageError, nearest_word

#: Rows that a client gets which asks for no other number, and at most.
ROWS, MOST_ROWS = 100_000, 10_000_000
#: Forms besides VOTable.
TABLE_FORMS = tuple(form for form in FORMS if form.write is not None)
_VOTABLES = ("votable", "votable/td", MEDIA, "text/xml", f"{MEDIA};serialization=tabledata")
_LANGUAGES = ("adql", "adql-2.0", "adql-2.1")
_MOST_FIELDS = 100


def base_of(request: Request) -> str:
    """Return the address of TAP, as clients reach it."""
    return f"{service_of(request).settings.url or str(request.base_url)}".rstrip("/") + "/tap"


async def parameters_of(request: Request) -> dict[str, str]:
    """Return the parameters of address and body: names in capitals, of each the last.

    Raises
    ------
    UsageError
        If the body is no form.
    """
    pairs = list(request.query_params.multi_items())
    if request.method == "POST":
        kind = (
            request.headers.get("content-type", "application/x-www-form-urlencoded").partition(";")[0].strip().lower()
        )
        body = await request.body()
        if body and kind != "application/x-www-form-urlencoded":
            raise UsageError(
                "the body is not a form",
                where="Content-Type",
                remedy="send application/x-www-form-urlencoded; uploads are not served",
            )
        try:
            pairs += parse_qsl(
                body.decode("utf-8"), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS
            )
        except ValueError as error:
            raise UsageError(f"the form can't be read: {error}", remedy="send UTF-8") from None
    return {name.upper(): value for name, value in pairs}


@dataclass(frozen=True, slots=True)
class Tap:
    """TAP as one principal may see it.

    Attributes
    ----------
    door : Guard
    has_events : bool
    base : str
        Address of TAP.
    """

    door: Guard
    has_events: bool
    base: str

    @classmethod
    def of(cls, request: Request) -> Tap:
        """Return what a request sees."""
        service = service_of(request)
        return cls(service.door(state_of(request.scope).principal), service.events is not None, base_of(request))

    def tables(self) -> dict[str, Table]:
        """Return all tables by full name."""
        files = FileTable(self.door)
        tables: dict[str, Table] = {files.name: files}
        if self.has_events:
            tables[EventTable.name] = EventTable(self.door)
        tables[ObsCoreTable.name] = ObsCoreTable(files, self.base)
        return with_schema(tables)

    def asker(self, request: Request) -> Asker:
        """Return who makes or asks for jobs, with the conditions of the policy as they are now."""
        who = self.door.who
        rules = (self.door.policy.metadata(who), self.door.policy.events(who))
        sight = hashlib.blake2b(repr(rules).encode(), digest_size=16).hexdigest()
        key = cast(str, state_of(request.scope).key)
        if who == ANYONE:
            return Asker(None, key, sight)
        return Asker(who.name, "owner" if who.is_owner else f"user {who.name}", sight)

    def result(self, parameters: dict[str, str]) -> tuple[str, Iterator[bytes]]:
        """Return the media type of a query's result, and the result piece by piece.

        Raises
        ------
        UsageError
            With the parameter, or the place in the statement.
        """
        language = parameters.get("LANG", "ADQL")
        if language.lower() not in _LANGUAGES:
            raise UsageError(f"the language {language[:40]!r} is not served", where="LANG", remedy="LANG=ADQL")
        if parameters.get("REQUEST", "doQuery") != "doQuery":
            raise UsageError("there is only REQUEST=doQuery", where="REQUEST")
        if "UPLOAD" in parameters:
            raise UsageError("uploads are not served", where="UPLOAD")
        if not parameters.get("QUERY", "").strip():
            raise UsageError("there is no query", where="QUERY", remedy="SELECT TOP 10 * FROM apbatch.files")
        most, form = _most(parameters.get("MAXREC")), _form(parameters)
        tables = self.tables()
        statement = parse_adql(parameters["QUERY"], {name: table.attributes for name, table in tables.items()})
        schema, batches = answer(tables[statement.table], statement, most + 1)
        if form is None:
            notes = (("QUERY", parameters["QUERY"]), ("REQUEST", "doQuery"))
            return f"{MEDIA};serialization=TABLEDATA", votable(schema, batches, most, explained, notes)
        assert form.write is not None
        plain = pa.schema([field.with_metadata(_of_rest(field.metadata)) for field in schema])
        return form.media, form.write(plain, (batch.cast(plain) for batch in _first(batches, most)))


def _most(text: str | None) -> int:
    if text is None:
        return ROWS
    if not (text.isascii() and text.isdecimal()) or len(text) > 20:
        raise UsageError("this is not a number of rows", where="MAXREC", remedy=f"0 to {MOST_ROWS}")
    return min(int(text), MOST_ROWS)


def _form(parameters: dict[str, str]) -> Form | None:
    """Return the form that a client asks for; None for VOTable."""
    form_name = parameters.get("RESPONSEFORMAT") or parameters.get("FORMAT") or "votable"
    name = form_name.lower().replace(" ", "")
    if name in _VOTABLES:
        return None
    for form in TABLE_FORMS:
        if name in (form.name, form.media.partition(";")[0], form.media.replace(" ", "")):
            return form
    names = ("votable", *(form.name for form in TABLE_FORMS))
    raise UsageError(
        f"there is no format {form_name[:60]!r}",
        where="RESPONSEFORMAT",
        nearest=nearest_word(name[:60], names),
        remedy=f"one of {', '.join(names)}",
    )


def _first(batches: Iterable[pa.RecordBatch], most: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        if most <= 0:
            return
        yield batch.slice(0, most)
        most -= batch.num_rows


def _of_rest(metadata: dict[bytes, bytes] | None) -> dict[bytes, bytes] | None:
    """Return unit and description alone, as REST gives them."""
    kept = {name: text for name, text in (metadata or {}).items() if name in (b"unit", b"description")}
    return kept or None
