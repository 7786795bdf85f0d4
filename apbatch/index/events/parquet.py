"""Events in Parquet parts of a store, searched by DuckDB.

Each key is in one part. A writer writes its events into parts of their own, rewrites older parts that hold some of
their keys, and makes the next version of the manifest (`apbatch.index.events.manifest`), which is the moment at which
all becomes visible. What it replaced stays for readers that are under way.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from apbatch.errors import ApbatchError, FormatError, MissingSoftwareError, NotFoundError, ServerError
from apbatch.formats.reader import Attribute
from apbatch.index import query as q
from apbatch.index.attributes import known_attribute, merge_declarations
from apbatch.index.events import part_files
from apbatch.index.events.columns import EVENT_KEYS, canonical, chunks_of, schema_of, undeclared, wanted_columns
from apbatch.index.events.compaction import small_parts
from apbatch.index.events.conditions import condition, simplify
from apbatch.index.events.engine_error import EngineError
from apbatch.index.events.manifest import Manifest, Manifests, Part
from apbatch.index.events.ranges import parts_for
from apbatch.index.events.search import DIALECT, as_stored, files, source, statement, stretches
from apbatch.index.events.store import EventStore, Order, order_of
from apbatch.storage.backends import open_store

if TYPE_CHECKING:
    from apbatch.index.events.duck import Duck

#: What is gathered before it is written: events, bytes.
_CHUNK_ROWS, _CHUNK_BYTES = 1_000_000, 192 << 20
#: How often a writer starts again because another one was quicker, a reader because its parts were removed.
_TRIES, _READ_AGAIN = 200, 20
#: Files that are no part any more are removed after so many versions, those of killed writers after so many seconds.
_READABLE, _ORPHAN_S = 8, 24 * 3600.0


class _ReplacedError(Exception):
    """A part was removed under a reader's hands."""


class ParquetEvents(EventStore):
    """Events in a folder of a store; several processes, on several machines, may read and write at once."""

    def __init__(self, url: str, *, memory: str = "1GB") -> None:
        self._store = open_store(url)
        self._manifests = Manifests(self._store)
        self._memory = memory
        self._opened: Duck | None = None

    @property
    def _duck(self) -> Duck:
        if self._opened is None:
            try:
                from apbatch.index.events.duck import Duck
            except ImportError as error:
                raise MissingSoftwareError(
                    f"DuckDB is needed to search events: {error}", remedy="pip install 'apbatch[duckdb]'"
                ) from error
            self._opened = Duck(self._store, self._memory)
        return self._opened

    # columns

    def declare(self, attributes: Iterable[Attribute]) -> None:
        """Make columns of events known for typing and units."""
        declarations = list(attributes)
        if merge_declarations(self.attributes(), declarations):
            self._commit([], declarations)

    def attributes(self) -> dict[str, Attribute]:
        """Return every attribute a query of events may name."""
        return self._manifests.newest().attributes()

    # writing

    def upsert(self, events: pa.RecordBatch | Iterable[pa.RecordBatch]) -> int:
        """Insert or replace whole events by key; all events of a call become visible at once."""
        batches = [events] if isinstance(events, pa.RecordBatch) else events
        count = 0
        fresh: dict[str, Attribute] = {}
        written: list[Part] = []
        new_parts: list[Part] = []  # every file of this call, to be removed again if it fails
        try:
            attributes = dict(self.attributes())

            def checked() -> Iterator[pa.Table]:
                for batch in batches:
                    new = merge_declarations(attributes, undeclared(batch.schema, attributes))
                    stored = canonical(batch, {**attributes, **new})
                    fresh.update(new)
                    attributes.update(new)
                    yield stored

            for stored in chunks_of(checked(), _CHUNK_ROWS, _CHUNK_BYTES):
                count += stored.num_rows
                parts: list[Part] = []
                for part in part_files.write_parts(self._store, stored):
                    parts.append(part)
                    new_parts.append(part)
                rest = [piece for part in written for piece in self._rest_of(part, parts, attributes)]
                new_parts += rest
                written = [*rest, *parts]
            if written or fresh:
                self._commit(written, list(fresh.values()))
        finally:
            self._discard(new_parts)
        if written:
            self._tidy()
        return count

    def _commit(self, written: Sequence[Part], declared: Sequence[Attribute]) -> None:
        """Make a version with parts added, in place of what older parts hold of their keys."""
        rests: dict[str, list[Part]] = {}  # by older part: what is left of it
        try:
            for attempt in range(_TRIES):
                base = self._manifests.newest()
                new = merge_declarations(base.attributes(), declared).values()
                attributes = {**base.attributes(), **{attribute.name: attribute for attribute in new}}
                for part in base.parts:
                    if part.file not in rests:
                        rests[part.file] = self._rest_of(part, written, attributes)
                gone = [part for part in base.parts if rests[part.file] != [part]]
                added = [piece for part in gone for piece in rests[part.file]]
                if self._make(base, [*written, *added], gone, new):
                    return
                _wait(attempt)
        finally:
            self._discard(piece for pieces in rests.values() for piece in pieces)
        raise ServerError("other writers were quicker, again and again", where=self._store.url)

    def _make(
        self, base: Manifest, added: Iterable[Part], removed: Iterable[Part], declared: Iterable[Attribute] = ()
    ) -> bool:
        """Make the version after `base`; files that nobody reads any more are removed."""
        changed = base.changed(added, removed, declared)
        old = [file for file, version in changed.replaced.items() if version <= changed.version - _READABLE]
        for file in old:
            del changed.replaced[file]
        if not self._manifests.commit(changed):
            return False
        self._remove_files(old)
        self._manifests.forget_old()
        return True

    def _rest_of(self, part: Part, new: Sequence[Part], attributes: Mapping[str, Attribute]) -> list[Part]:
        """Return a part itself if it holds no key of new ones, else what is left of it, written anew."""
        over = [other for other in new if part.overlaps(other)]
        if not over:
            return [part]
        keys = ", ".join(DIALECT.name(name) for name in EVENT_KEYS)
        mine, newer = files(self._duck, [part]), f"SELECT {keys} FROM {files(self._duck, over)}"
        if not self._number(f"SELECT count(*) AS n FROM {mine} SEMI JOIN ({newer}) USING ({keys})", [part, *over]):
            return [part]
        return self._rewritten(
            part, f"SELECT * FROM {mine} ANTI JOIN ({newer}) USING ({keys})", [part, *over], attributes
        )

    def _rewritten(
        self,
        part: Part,
        sql: str,
        parts: Sequence[Part],
        attributes: Mapping[str, Attribute],
        values: Sequence[Any] = (),
    ) -> list[Part]:
        table = self._ask(sql, parts, values)
        if table is None or not table.num_rows:
            return []
        names = [name for name in part.ranges if name in table.schema.names]
        return list(part_files.write_parts(self._store, table.select(names).cast(schema_of(names, attributes))))

    def _number(self, sql: str, parts: Sequence[Part], values: Sequence[Any] = ()) -> int:
        table = self._ask(sql, parts, values)
        return 0 if table is None else int(table.column("n")[0].as_py())

    def _ask(self, sql: str, parts: Sequence[Part], values: Sequence[Any] = ()) -> pa.Table | None:
        """Run SQL over parts; a failure is explained."""
        try:
            return self._duck.table(sql, values)
        except EngineError as error:
            raise self._explained(error, parts) from None

    def _discard(self, parts: Iterable[Part]) -> None:
        """Remove files of parts that no version names."""
        with suppress(ApbatchError):  # what can't be removed now is removed by a later `compact`
            manifest = self._manifests.newest()
            named = {part.file for part in manifest.parts} | set(manifest.replaced)
            self._remove_files({part.file for part in parts} - named)

    def _remove_files(self, paths: Iterable[str]) -> None:
        for path in paths:
            with suppress(ApbatchError):
                self._store.remove(path)

    def remove(self, where: q.Query) -> int:
        """Forget the events that match; return how many there were."""
        for attempt in range(_TRIES):
            base = self._manifests.newest()
            attributes = base.attributes()
            simple = simplify(where, attributes)
            tests = condition(where, attributes, DIALECT)
            gone, added, number = [], [], 0
            for part in parts_for(simple, base.parts):
                needed = [*part.ranges, *(name for name in q.names(simple) if name not in part.ranges)]
                rows = source(self._duck, [part], needed, attributes)
                matching = self._number(f"SELECT count(*) AS n FROM ({rows}) WHERE {tests.text}", [part], tests.values)
                if not matching:
                    continue
                number += matching
                gone.append(part)
                rest = f"SELECT * FROM ({rows}) WHERE NOT coalesce({tests.text}, FALSE)"
                added += self._rewritten(part, rest, [part], attributes, tests.values)
            if not gone or self._make(base, added, gone):
                return number
            self._discard(added)
            _wait(attempt)
        raise ServerError("other writers were quicker, again and again", where=self._store.url)

    # reading

    def select(
        self,
        where: q.Query = q.Everything(),
        columns: Sequence[str] | None = None,
        *,
        order: Sequence[Order] = (),
        limit: int | None = None,
        after: Sequence[Any] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Yield events that match; only parts that can hold some are opened."""
        names, descending = order_of(order, self.attributes())
        last = None if after is None else list(after)[: len(order)] + list(after)[len(order) :]
        if last is not None:  # as the order names them
            values = dict(zip([*(one.name for one in order), *EVENT_KEYS], last, strict=True))
            last = [values[name] for name in names]
        schema: pa.Schema | None = None
        for _ in range(_READ_AGAIN):
            manifest = self._manifests.newest()
            attributes = manifest.attributes()
            simple = simplify(where, attributes)
            parts = parts_for(simple, manifest.parts)
            if schema is None:
                there = {name for part in parts for name in part.ranges}
                schema = schema_of(wanted_columns(columns, there, attributes), attributes)
            fields = list(dict.fromkeys([*schema.names, *names]))
            groups = [parts] if order else stretches(parts, len(fields))
            if last is not None and not order:  # groups that end before it are not opened
                key = (last[0], tuple(last[1:]))
                groups = [group for group in groups if max((part.experiment, part.last) for part in group) > key]
            try:
                for group in groups:
                    sql = statement(
                        self._duck,
                        group,
                        simple,
                        attributes,
                        fields,
                        order=(names, descending),
                        limit=limit,
                        after=last,
                    )
                    for batch in self._batches(sql.text, sql.values, group):
                        if not batch.num_rows:
                            continue
                        end = batch.slice(batch.num_rows - 1).select(names).to_pylist()[0]
                        last = [end[name] for name in names]
                        limit = None if limit is None else limit - batch.num_rows
                        yield as_stored(batch, schema)
                    if limit is not None and limit <= 0:
                        return
                return
            except _ReplacedError:
                continue  # from where it came to, with the parts that there are now
        raise ServerError("the parts are replaced faster than they can be read", where=self._store.url)

    def parts_for(self, where: q.Query) -> tuple[list[Part], dict[str, Attribute]]:
        """Return the parts that may hold events that match, for an engine that reads them itself, and the attributes.

        Raises
        ------
        UsageError
            If the query names what is not known.
        """
        manifest = self._manifests.newest()
        attributes = manifest.attributes()
        return parts_for(simplify(where, attributes), manifest.parts), attributes

    def url_of(self, part: Part) -> str:
        """Return the URL of a part's file."""
        return self._store.url_of(part.file)

    def _batches(self, sql: str, values: Sequence[Any], parts: Sequence[Part]) -> Iterator[pa.RecordBatch]:
        if not parts:
            return
        try:
            yield from self._duck.batches(sql, values)
        except EngineError as error:
            explained = self._explained(error, parts)
            if isinstance(explained, NotFoundError):
                listed = {part.file for part in self._manifests.newest().parts}
                if any(part.file not in listed for part in parts):
                    raise _ReplacedError from None
            raise explained from None

    def _explained(self, error: EngineError, parts: Sequence[Part]) -> ApbatchError:
        """Return what a failure of DuckDB means: a part that is gone or damaged, or a query too large."""
        for part in parts:
            info = self._store.info(part.file)
            if info is None:
                return part_files.gone(self._store, part)
            if info.size != part.size:
                return part_files.damaged(self._store, part, f"{info.size} bytes, {part.size} were written")
        for part in parts:
            if self._store.checksums(part.file).blake3 != part.blake3:
                return part_files.damaged(self._store, part, "its content is not what was written")
        if error.memory:
            return ServerError(f"not enough memory or disk for this query: {error}", remedy="ask for less at a time")
        return ServerError(f"DuckDB failed: {error}", where=self._store.url)

    def count(self, where: q.Query = q.Everything(), by: str | None = None) -> dict[Any, int]:
        """Count the events that match, by the values of attribute `by`."""
        manifest = self._manifests.newest()
        attributes = manifest.attributes()
        simple = simplify(where, attributes)
        if by is not None:
            known_attribute(by, attributes)
        elif isinstance(simple, q.Everything):
            return {None: sum(part.rows for part in manifest.parts)}
        parts = parts_for(simple, manifest.parts)
        tests = condition(where, attributes, DIALECT)
        needed = sorted(q.names(simple) | ({by} if by else {"run"}))
        rows = source(self._duck, parts, needed, attributes)
        if by is None:
            sql = f"SELECT count(*) AS n FROM ({rows}) WHERE {tests.text}"
            return {None: self._number(sql, parts, tests.values) if parts else 0}
        name = DIALECT.name(by)
        sql = (
            f"SELECT {name} AS value, count(*) AS n FROM ({rows}) WHERE {tests.text} "
            f"GROUP BY value ORDER BY value NULLS FIRST"
        )
        table = self._ask(sql, parts, tests.values) if parts else None
        return {} if table is None else {row["value"]: row["n"] for row in table.to_pylist()}

    def explain(self, where: q.Query) -> str:
        """Return which parts are opened, of how many, and DuckDB's own plan."""
        manifest = self._manifests.newest()
        attributes = manifest.attributes()
        simple = simplify(where, attributes)
        parts = parts_for(simple, manifest.parts)
        rows, size = sum(part.rows for part in parts), sum(part.size for part in parts)
        text = (
            f"{len(parts)} of {len(manifest.parts)} parts are opened: {rows} of "
            f"{sum(part.rows for part in manifest.parts)} events, {size} bytes at most; the others hold no match"
        )
        if not parts:
            return text
        order = (list(EVENT_KEYS), [False] * len(EVENT_KEYS))
        sql = statement(self._duck, parts, simple, attributes, list(EVENT_KEYS), order=order, limit=None, after=None)
        table = self._ask(f"EXPLAIN {sql.text}", parts, sql.values)
        plan = "" if table is None else "\n".join(table.column(1).to_pylist())
        return f"{text}\n\n{sql.text}\n\n{plan}"

    # upkeep

    def compact(self) -> int:
        """Join small parts of one experiment and night, remove files that belong to no version; return parts joined."""
        joined = self._tidy(fewest=2)
        listed = {part.file for part in self._manifests.newest().parts} | set(self._manifests.newest().replaced)
        with suppress(NotFoundError):
            for experiment in self._store.entries(part_files.FOLDER):
                for night in self._store.entries(experiment.path):
                    for file in self._store.entries(night.path):
                        age = time.time() - (file.mtime_ns or 0) / 1e9
                        if file.path not in listed and age > _ORPHAN_S:
                            self._remove_files([file.path])
        return joined

    def _tidy(self, fewest: int = 8) -> int:
        joined = 0
        for _ in range(_TRIES):
            base = self._manifests.newest()
            group = next(small_parts(base.parts, fewest), None)
            if group is None:
                return joined
            try:
                new_parts = list(part_files.write_parts(self._store, part_files.read_parts(self._store, group)))
            except NotFoundError:
                continue  # another process was quicker
            except FormatError:
                return joined  # a search says so; what is damaged stays as it is
            if self._make(base, new_parts, group):
                joined += len(group)
            else:
                self._discard(new_parts)
        return joined

    def check(self, *, forget: bool = False) -> list[ApbatchError]:
        """Read all parts through; return what is wrong with each that is gone or damaged.

        Parameters
        ----------
        forget : bool
            Whether such parts are left out from now on.
        """
        faults: list[ApbatchError] = []
        bad: list[Part] = []
        for part in self._manifests.newest().parts:
            try:
                intact = self._store.checksums(part.file).blake3 == part.blake3
            except NotFoundError:
                faults.append(part_files.gone(self._store, part))
            else:
                if intact:
                    continue
                faults.append(part_files.damaged(self._store, part, "its content is not what was written"))
            bad.append(part)
        while forget and bad:
            base = self._manifests.newest()
            if self._make(base, [], [part for part in bad if part in base.parts]):
                break
        return faults

    def close(self) -> None:
        """Close DuckDB."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None


def _wait(attempt: int) -> None:
    """Let another writer go first."""
    time.sleep(random.uniform(0, min(0.5, 0.01 * (attempt + 1))))
