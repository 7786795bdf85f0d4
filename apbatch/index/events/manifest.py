"""Which Parquet parts hold the events, with the ranges of their columns: a chain of versions, each written once.

A version is a folder ``versions/NUMBER`` with one file. A store renames a folder in one step and never onto another
one, so of several writers that make the next version one succeeds, and the others look at what it wrote and try again.
Readers keep to the version that they began with. Nothing depends on a lock or on clocks.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from typing import Any

from apbatch.errors import ApbatchError, FormatError, NotFoundError, UsageError
from apbatch.formats.reader import Attribute
from apbatch.index.events.columns import event_attributes
from apbatch.storage.store import Store

_SCHEMA = 1
_FOLDER, _FILE = "versions", "manifest.json"
#: Versions that are kept for readers that began with them.
_KEPT = 8
#: Texts longer than this give no range.
_LONGEST_BOUND = 64

#: Least and greatest value (plain JSON; None: all are null, or not known) and the number of nulls.
Range = tuple[Any, Any, int]


@dataclass(frozen=True, slots=True)
class Part:
    """One Parquet file of events of one experiment and night, sorted by key, each key in one part only.

    Attributes
    ----------
    file : str
        Path in the store.
    experiment : str
    night : str, optional
        ISO date.
    rows, size : int
        Events, bytes.
    blake3 : str
        Checksum of the file.
    first, last : tuple
        Smallest and largest (run, event, telescope, cleaning).
    ranges : dict
        Of each column the part has, its `Range`.
    """

    file: str
    experiment: str
    night: str | None
    rows: int
    size: int
    blake3: str
    first: tuple[int, int, int, str]
    last: tuple[int, int, int, str]
    ranges: dict[str, Range]

    def overlaps(self, other: Part) -> bool:
        """Tell whether the two can hold one key."""
        if self.experiment != other.experiment or self.last < other.first or other.last < self.first:
            return False
        for name in ("run", "event", "telescope", "cleaning"):
            (low, high, _), (other_low, other_high, _) = self.ranges[name], other.ranges[name]
            if low is not None and other_low is not None and (high < other_low or other_high < low):
                return False
        return True


@dataclass(frozen=True)
class Manifest:
    """One version of what there is.

    Attributes
    ----------
    version : int
        0 where there is none yet.
    declared : dict
        Columns of events beyond the common ones.
    parts : tuple of Part
    replaced : dict
        Files that are no part any more but may still be read, with the version that left them out.
    """

    version: int = 0
    declared: dict[str, Attribute] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()
    replaced: dict[str, int] = field(default_factory=dict)

    def attributes(self) -> dict[str, Attribute]:
        """Return every attribute that a query of events may name."""
        return event_attributes(self.declared.values())

    def changed(
        self, added: Iterable[Part] = (), removed: Iterable[Part] = (), declared: Iterable[Attribute] = ()
    ) -> Manifest:
        """Return the next version.

        Parameters
        ----------
        added, removed : iterable of Part
        declared : iterable of Attribute
            New attributes.
        """
        gone = {part.file for part in removed}
        kept = tuple(part for part in self.parts if part.file not in gone)
        return replace(
            self,
            version=self.version + 1,
            declared={**self.declared, **{attribute.name: attribute for attribute in declared}},
            parts=tuple(sorted((*kept, *added), key=_place)),
            replaced={**self.replaced, **dict.fromkeys(sorted(gone), self.version + 1)},
        )


def _place(part: Part) -> tuple[Any, ...]:
    return part.experiment, part.first, part.file


class Manifests:
    """The versions of a store's manifest."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept = Manifest()

    def newest(self) -> Manifest:
        """Return the newest version; version 0 where nothing was written yet.

        Raises
        ------
        FormatError
            If it is damaged.
        UsageError
            If a newer program wrote it.
        """
        for _ in range(100):
            numbers = self._numbers()
            if not numbers:
                self._kept = Manifest()
            elif numbers[-1] != self._kept.version:
                try:
                    self._kept = self._read(numbers[-1])
                except NotFoundError:  # removed meanwhile: there are newer ones
                    continue
            return self._kept
        raise FormatError("the list of versions changes faster than it can be read", where=self._store.url)

    def commit(self, manifest: Manifest) -> bool:
        """Make a version the newest; False if another writer has made one of this number meanwhile.

        Raises
        ------
        ServerError
            If the store fails.
        """
        writer = secrets.token_hex(8)
        waiting, name = f"{_FOLDER}/new-{writer}", f"{_FOLDER}/{manifest.version:012}"
        try:
            with self._store.publish(f"{waiting}/{_FILE}") as file:
                file.write(_dump(manifest, writer))
            if self._store.info(name) is None:
                try:
                    self._store.rename(waiting, name)
                except ApbatchError:  # it may have been done all the same
                    if self._store.info(name) is None:
                        raise
                    if self._writer(name) != writer:
                        return False
                self._kept = manifest
                return True
            return False
        finally:
            with suppress(ApbatchError):
                self._store.remove(waiting)

    def _writer(self, name: str) -> str | None:
        with self._store.open(f"{name}/{_FILE}") as stream:
            return str(json.loads(stream.read()).get("writer"))

    def forget_old(self) -> None:
        """Remove versions that no reader should need, and what killed writers left."""
        for number in self._numbers()[:-_KEPT]:
            with suppress(ApbatchError):
                self._store.remove(f"{_FOLDER}/{number:012}")

    def _numbers(self) -> list[int]:
        try:
            names = [entry.path.rpartition("/")[2] for entry in self._store.entries(_FOLDER)]
        except NotFoundError:
            return []
        return sorted(int(name) for name in names if name.isdigit())

    def _read(self, number: int) -> Manifest:
        path = f"{_FOLDER}/{number:012}/{_FILE}"
        with self._store.open(path) as stream:
            text = stream.read()
        where = self._store.url_of(path)
        try:
            content = json.loads(text)
            if content["schema"] > _SCHEMA:
                raise UsageError(
                    f"this store of events has schema {content['schema']}, this program knows {_SCHEMA}",
                    where=where,
                    remedy="use the apbatch that wrote it",
                )
            return Manifest(
                number,
                {one["name"]: Attribute(**one) for one in content["declared"]},
                tuple(_part(one) for one in content["parts"]),
                {str(name): int(version) for name, version in content["replaced"].items()},
            )
        except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            raise FormatError(
                f"the list of the parts with events is damaged: {' '.join(str(error).split())[:100]}",
                where=where,
                remedy="remove the folder of this version: the one before it is taken then",
            ) from None


def _dump(manifest: Manifest, writer: str) -> bytes:
    content = {
        "schema": _SCHEMA,
        "writer": writer,
        "declared": [asdict(attribute) for attribute in manifest.declared.values()],
        "parts": [{name: getattr(part, name) for name in Part.__slots__} for part in manifest.parts],
        "replaced": manifest.replaced,
    }
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()


def _part(content: dict[str, Any]) -> Part:
    run, event, telescope, cleaning = content["first"]
    first = (int(run), int(event), int(telescope), str(cleaning))
    run, event, telescope, cleaning = content["last"]
    last = (int(run), int(event), int(telescope), str(cleaning))
    if content["night"] is not None:
        date.fromisoformat(content["night"])
    ranges = {str(name): (low, high, int(nulls)) for name, (low, high, nulls) in content["ranges"].items()}
    return Part(
        str(content["file"]), str(content["experiment"]), content["night"], int(content["rows"]), int(content["size"]),
        str(content["blake3"]), first, last, ranges,
    )  # fmt: skip


def short_bound(value: Any) -> Any:
    """Return a bound of a range as it is kept, None where it is too long."""
    return None if isinstance(value, str) and len(value) > _LONGEST_BOUND else value
