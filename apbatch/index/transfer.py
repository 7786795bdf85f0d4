"""A catalogue as a folder of Parquet files, and back into any back-end: nothing is lost, which is compared.

The folder holds ``attributes.parquet``, ``files.parquet`` (every file in any state, a column for each attribute),
``replicas.parquet``, ``contents.parquet`` (hashes of contents that files have), ``descriptions.parquet`` and, written
last, ``catalogue.json`` with the number of rows of each. Revisions are the catalogue's own: in another one the files
get new ones, in the same order, and readers of the feed start again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from apbatch.errors import FormatError, UsageError, VerificationError
from apbatch.formats.reader import Attribute
from apbatch.index.attributes import COMMON
from apbatch.index.catalogue import Catalogue
from apbatch.index.contents import Content
from apbatch.index.descriptions import Description, DescriptionKind
from apbatch.index.files import COMMON_FIELDS, FileRecord, Replica, State
from apbatch.index.pages import schema_of

_FORMAT = 1
_MANIFEST = "catalogue.json"
_BLOCK = 1000
_TEXT = pa.string()
_ATTRIBUTES = pa.schema([(name, _TEXT) for name in ("name", "type", "description", "unit")])
_REPLICAS = pa.schema(
    [("path", _TEXT), ("url", _TEXT), ("kind", _TEXT), ("checksum", _TEXT), ("verified", pa.timestamp("us", "UTC"))]
)
_CONTENTS = pa.schema(
    [
        ("checksum", _TEXT),
        ("size", pa.int64()),
        ("adler32", _TEXT),
        *((name, pa.large_binary()) for name in ("blocks", "small_pieces", "large_pieces")),
    ]
)
_DESCRIPTIONS = pa.schema([("kind", _TEXT), ("name", _TEXT), ("text", _TEXT), ("preferred", pa.bool_())])


def export_catalogue(catalogue: Catalogue, folder: Path) -> dict[str, int]:
    """Write a catalogue to a folder, which appears whole or not at all; return the number of rows of each kind.

    Raises
    ------
    UsageError
        If the folder is there already.
    """
    if folder.exists():
        raise UsageError("the folder is there already", where=str(folder), remedy="name another one")
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    declared = {name: one for name, one in catalogue.attributes().items() if name not in COMMON}
    rows = {"attributes": _write(part / "attributes.parquet", _ATTRIBUTES, map(asdict, declared.values()))}
    schema = schema_of([*COMMON_FIELDS, *declared], {**COMMON, **declared})
    everything = (change.record for change in catalogue.all_changes(0))
    files = (_file_row(record) for record in everything if record is not None)
    rows["files"] = _write(part / "files.parquet", schema, files)
    rows["replicas"] = _write(part / "replicas.parquet", _REPLICAS, _replica_rows(catalogue, part))
    rows["contents"] = _write(part / "contents.parquet", _CONTENTS, _content_rows(catalogue, part))
    descriptions = (one for kind in DescriptionKind for one in catalogue.descriptions(kind))
    described = ({**asdict(one), "kind": one.kind.value} for one in descriptions)
    rows["descriptions"] = _write(part / "descriptions.parquet", _DESCRIPTIONS, described)
    (part / _MANIFEST).write_text(json.dumps({"format": _FORMAT, "rows": rows}, indent=1) + "\n")
    part.rename(folder)
    return rows


def import_catalogue(catalogue: Catalogue, folder: Path) -> dict[str, int]:
    """Read a folder that `export_catalogue` wrote into a catalogue, and compare; can be killed and begun again.

    Raises
    ------
    FormatError
        If the folder is not such a one, or is not whole.
    VerificationError
        If the catalogue does not return what was written.
    """
    rows = _manifest(folder)
    for name, number in rows.items():
        there = _opened(folder / f"{name}.parquet").metadata.num_rows
        if there != number:
            raise FormatError(f"{there} rows instead of {number}", where=str(folder / f"{name}.parquet"))
    catalogue.declare(Attribute(**row) for row in _rows(folder, "attributes"))
    for row in _rows(folder, "descriptions"):
        catalogue.put_description(Description(**{**row, "kind": DescriptionKind(row["kind"])}))
    catalogue.put_contents(Content(**row) for row in _rows(folder, "contents"))
    for block in _blocks(_rows(folder, "files")):
        report = catalogue.upsert(map(_record, block))
        if report.refusals:
            refusal = report.refusals[0]
            raise VerificationError(f"a file was refused: {refusal.reason}", where=refusal.record.path)
    catalogue.add_replicas(Replica(**row) for row in _rows(folder, "replicas"))
    _compare(catalogue, folder)
    return rows


def _compare(catalogue: Catalogue, folder: Path) -> None:
    def different(what: str, key: str) -> VerificationError:
        return VerificationError(f"{what} came back otherwise than it was written", where=key)

    changed: set[str] = set()  # a file that changed during the export is there twice: the last one counts
    for block in _blocks(_rows(folder, "files")):
        present = catalogue.get_many(row["path"] for row in block)
        for record in map(_record, block):
            same = record.path in present and replace(present[record.path], revision=0) == record
            (changed.discard if same else changed.add)(record.path)
    if changed:
        raise different("a file", min(changed))
    for block in _blocks(_rows(folder, "replicas")):
        copies = catalogue.replicas(dict.fromkeys(row["path"] for row in block))
        for row in block:
            if Replica(**row) not in copies[row["path"]]:
                raise different("a replica", row["url"])
    for block in _blocks(_rows(folder, "contents"), 100):
        contents = catalogue.contents(row["checksum"] for row in block)
        for row in block:
            if contents.get(row["checksum"]) != Content(**row):
                raise different("a content", row["checksum"])
    for kind in DescriptionKind:
        described = {one.name: replace(one, revision=0) for one in catalogue.descriptions(kind)}
        for row in _rows(folder, "descriptions"):
            description = Description(**{**row, "kind": DescriptionKind(row["kind"])})
            if description.kind is kind and described.get(description.name) != description:
                raise different("a description", description.name)


def _file_row(record: FileRecord) -> dict[str, Any]:
    return {**record.flat(), "state": record.state.value}


def _record(row: dict[str, Any]) -> FileRecord:
    common = {name: row[name] for name in COMMON_FIELDS}
    common.update(state=State(row["state"]), revision=0)
    attributes = {name: value for name, value in row.items() if name not in COMMON and value is not None}
    return FileRecord(**common, attributes=attributes)


def _replica_rows(catalogue: Catalogue, part: Path) -> Iterator[dict[str, Any]]:
    for block in _blocks(_rows(part, "files", ["path"])):
        for many in catalogue.replicas(row["path"] for row in block).values():
            yield from map(asdict, many)


def _content_rows(catalogue: Catalogue, part: Path) -> Iterator[dict[str, Any]]:
    hashes: set[bytes] = set()  # 32 bytes a content
    for block in _blocks(_rows(part, "files", ["checksum"]), 100):
        names = {row["checksum"] for row in block if row["checksum"]}
        for name, content in catalogue.contents(names).items():
            if (key := bytes.fromhex(name)) not in hashes:
                hashes.add(key)
                yield {field.name: getattr(content, field.name) for field in fields(content)}


def _write(path: Path, schema: pa.Schema, rows: Iterable[dict[str, Any]]) -> int:
    number = 0
    with pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True) as writer:
        for block in _blocks(rows):
            writer.write_table(pa.Table.from_pylist(block, schema))
            number += len(block)
    return number


def _rows(folder: Path, name: str, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    path = folder / f"{name}.parquet"
    try:
        for batch in _opened(path).iter_batches(_BLOCK, columns=columns):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise FormatError(f"not readable: {error}", where=str(path), remedy="export the catalogue again") from error


def _opened(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise FormatError(f"not readable: {error}", where=str(path), remedy="export the catalogue again") from error


def _manifest(folder: Path) -> dict[str, int]:
    if not folder.is_dir():
        raise UsageError("there is no such folder", where=str(folder))
    content: Any = None
    with suppress(OSError, ValueError):
        content = json.loads((folder / _MANIFEST).read_text())
    rows = content.get("rows") if isinstance(content, dict) else None
    names = {"attributes", "files", "replicas", "contents", "descriptions"}
    if not isinstance(rows, dict) or set(rows) != names or not all(type(n) is int for n in rows.values()):
        raise FormatError(f"no whole export of a catalogue: {_MANIFEST} is missing or damaged", where=str(folder))
    if content.get("format") != _FORMAT:
        raise UsageError(
            f"an export of format {content.get('format')}, this program knows {_FORMAT}",
            where=str(folder),
            remedy="use the apbatch that wrote it, or a newer one",
        )
    return rows


def _blocks(rows: Iterable[dict[str, Any]], size: int = _BLOCK) -> Iterator[list[dict[str, Any]]]:
    iterator = iter(rows)
    cut: Callable[[], list[dict[str, Any]]] = lambda: list(islice(iterator, size))  # noqa: E731
    yield from iter(cut, [])
