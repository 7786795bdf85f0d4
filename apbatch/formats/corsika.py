"""Files of CORSIKA for the catalogue: headers of runs and showers, from particle files and from the IACT extension.

A particle (or Cherenkov) file is Fortran's: records of 21 blocks of 273 numbers (312 with thinning), float32, between
their lengths; some files have the blocks alone, end to end. Headers are blocks that begin with ``RUNH`` and ``EVTH``.
The IACT extension writes the same blocks into EventIO objects. They hold photons and particles, not images. Reference:
D. Heck, T. Pierog, "Extensive Air Shower Simulation with CORSIKA: A User's Guide", KIT.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, BinaryIO, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from apbatch.errors import FormatError
from apbatch.formats.angles import clamped, turned
from apbatch.formats.attributes import (
    ENERGY_MAX,
    ENERGY_MIN,
    EVENT_FIRST,
    EVENT_LAST,
    PRIMARY,
    ZENITH_MAX,
    ZENITH_MIN,
)
from apbatch.formats.compressed import kind_of, plain, plain_head, plain_name
from apbatch.formats.event_columns import (
    AZIMUTH,
    BATCH,
    ENERGY,
    FIRST_INTERACTION,
    ZENITH,
    event_batch,
    run_of_name,
)
from apbatch.formats.eventio_objects import first_kind, objects_of
from apbatch.formats.reader import Attribute, Metadata, Reader, Scalar
from apbatch.formats.signatures import is_of_another_kind
from apbatch.formats.text.lines import Problems, is_text

#: CORSIKA's numbers of particles; nuclei are 100 x mass number + charge.
PARTICLES = {
    1: "gamma", 2: "positron", 3: "electron", 5: "antimuon", 6: "muon", 13: "neutron", 14: "proton", 402: "helium",
    1206: "carbon", 1407: "nitrogen", 1608: "oxygen", 2412: "magnesium", 2814: "silicon", 5626: "iron",
}  # fmt: skip

#: Numbers of a block without and with thinning, and blocks of a record.
_BLOCKS, _BLOCKS_A_RECORD = (273, 312), 21
#: Bytes of a record for each number of a block.
_RECORD = 4 * _BLOCKS_A_RECORD
_RUN, _EVENT, _EVENT_END, _RUN_END = b"RUNH", b"EVTH", b"EVTE", b"RUNE"
#: Types of the objects of the IACT extension with the same headers.
_OBJECTS = {1200: _RUN, 1202: _EVENT, 1209: _EVENT_END, 1210: _RUN_END}
#: Types of objects with which only a file of the IACT extension begins.
_KINDS = frozenset({*_OBJECTS, 1201, 1203, 1204, 1205})
#: Names by CORSIKA, and what people call its files; suffixes that such files have, beside numbers and compression's.
_NAME = re.compile(r"^(?:dat|cer)\d{6}|(?<![a-z])corsika")
_SUFFIXES = ("", ".dat", ".bin", ".cer", ".corsika", ".iact", ".part")
#: More than any number of a run or a shower.
_MOST_NUMBER = 1e9
_GEV_PER_TEV = 1000.0

Block = tuple[int, bytes, npt.NDArray[np.float32]]


def _records(stream: BinaryIO, problems: Problems) -> Iterator[Block]:
    """Yield offset, name and numbers of the headers in a particle file.

    A record whose first length is damaged is taken for one as long as the others, if its second length says so.
    """
    offset, usual = 0, list(_BLOCKS)
    while head := stream.read(4):
        words = next((words for words in usual if head == _length(words)), None)
        if words is not None:
            content, tail = stream.read(_RECORD * words), stream.read(4)
        else:
            content = tail = b""
            for guess in usual:
                content = content + tail
                content += stream.read(_RECORD * guess - len(content))
                tail = stream.read(4)
                if tail == _length(guess):
                    words = guess
                    break
            length = int.from_bytes(head, "little")
            problems.add(offset, f"a record of {length} bytes{'' if words else '; what follows is lost'}")
            if words is None:
                return
        usual = [words]
        for start in range(0, len(content) - 4 * words + 1, 4 * words):
            name = content[start : start + 4]
            if name in (_RUN, _EVENT, _EVENT_END, _RUN_END):
                yield offset + 4 + start, name, np.frombuffer(content, "<f4", words, start)
        if len(tail) < 4:
            problems.add(offset, "the last record is cut")
            return
        if tail != _length(words):
            problems.add(offset, "a record whose two lengths differ")
        offset += len(content) + 8


def _blocks_alone(stream: BinaryIO, words: int, problems: Problems) -> Iterator[Block]:
    """Yield the same from a file without the lengths of records: blocks of so many numbers, end to end."""
    offset = 0
    while record := stream.read(_RECORD * words):
        for start in range(0, len(record) - 4 * words + 1, 4 * words):
            name = record[start : start + 4]
            if name in (_RUN, _EVENT, _EVENT_END, _RUN_END):
                yield offset + start, name, np.frombuffer(record, "<f4", words, start)
        if cut := len(record) % (4 * words):
            problems.add(offset + len(record) - cut, "the last block is cut")
        offset += len(record)


def _length(words: int) -> bytes:
    return (_RECORD * words).to_bytes(4, "little")


def _objects(stream: BinaryIO, problems: Problems) -> Iterator[Block]:
    """Yield the same from EventIO objects: a count and as many numbers each."""
    for item in objects_of(stream, _OBJECTS, problems):
        name = _OBJECTS[item.kind]
        numbers = np.frombuffer(item.content[4 : 4 + len(item.content[4:]) // 4 * 4], "<f4")
        if name in (_RUN, _EVENT) and (len(numbers) < _BLOCKS[0] or item.content[4:8] != name):
            problems.add(item.offset, f"no {name.decode()} block in its object")
            continue
        yield item.offset, name, numbers


class _Showers:
    """What is gathered from the headers."""

    def __init__(self) -> None:
        self.run: int | None = None
        self.events = self.unfinished = 0
        self.energy, self.zenith = [math.inf, 0.0], [math.inf, -1.0]
        self.first = [math.inf, -1.0]
        self.number = [1 << 62, -1]
        self.primaries: set[str] = set()
        self.ended = False

    def add(self, block: Block, problems: Problems) -> None:
        offset, name, values = block
        if name == _RUN and self.run is None:
            if 0 <= values[1] < _MOST_NUMBER:
                self.run = int(values[1])
            else:
                problems.add(offset, f"a run of number {values[1]:g}")
        elif name == _EVENT:
            fault = _fault(values)
            if fault:
                problems.add(offset, fault)
                return
            self.unfinished += 1
            particle, energy, zenith = (
                int(values[2]),
                float(values[3]) / _GEV_PER_TEV,
                float(clamped(math.degrees(values[10]), 0, 180)),
            )
            self.primaries.add(PARTICLES.get(particle, f"particle {particle}"))
            self.energy = [min(self.energy[0], energy), max(self.energy[1], energy)]
            self.zenith = [min(self.zenith[0], zenith), max(self.zenith[1], zenith)]
            height = abs(float(values[6])) / 100  # negative where the height is counted from the start of tracking
            self.first = [min(self.first[0], height), max(self.first[1], height)]
            self.number = [min(self.number[0], int(values[1])), max(self.number[1], int(values[1]))]
        elif name == _EVENT_END and self.unfinished:
            self.unfinished -= 1
            self.events += 1
        elif name == _RUN_END:
            self.ended = True


def _fault(values: npt.NDArray[np.float32]) -> str | None:
    """Return what makes a block no header of a shower, or None."""
    number, particle, energy, zenith = (float(values[place]) for place in (1, 2, 3, 10))
    if not (math.isfinite(number) and 0 <= number < _MOST_NUMBER and number == int(number)):
        return f"a shower of number {number:g}"
    if not (math.isfinite(particle) and 0 < particle < 1e5 and math.isfinite(float(values[6]))):
        return f"a shower of particle {particle:g}"
    if not 0 < energy < 1e13 or math.isnan(clamped(math.degrees(zenith), 0, 180)):
        return f"a shower of {energy:g} GeV and zenith angle {zenith:g} rad"
    return None


def _shower_batch(run: int, headers: list[npt.NDArray[np.float64]]) -> pa.RecordBatch:
    values = np.array(headers)
    columns: dict[str, Any] = {
        "primary": [PARTICLES.get(int(one), f"particle {int(one)}") for one in values[:, 2]],
        "energy": values[:, 3] / _GEV_PER_TEV,
        "zenith": clamped(np.degrees(values[:, 10]), 0, 180),
        "azimuth": turned(np.degrees(values[:, 11])),
        "first_interaction": np.abs(values[:, 6]) / 100,
    }
    return event_batch(run, values[:, 1], columns, cleaning="corsika")


class CorsikaReader(Reader):
    """Particle, Cherenkov and IACT files of CORSIKA."""

    name: ClassVar[str] = "corsika"
    attributes: ClassVar[tuple[Attribute, ...]] = (
        PRIMARY,
        ENERGY_MIN,
        ENERGY_MAX,
        ZENITH_MIN,
        ZENITH_MAX,
        EVENT_FIRST,
        EVENT_LAST,
        Attribute("first_interaction_min", "number", "Smallest height of a first interaction in the file.", "m"),
        Attribute("first_interaction_max", "number", "Largest height of a first interaction in the file.", "m"),
    )

    event_columns: ClassVar[tuple[Attribute, ...]] = (PRIMARY, ENERGY, ZENITH, AZIMUTH, FIRST_INTERACTION)

    def events(self, stream: BinaryIO, name: str, problems: Problems | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the headers of showers that have their end: primary, energy, direction, first interaction.

        The azimuth is that of CORSIKA: where the shower goes, from magnetic north to west.
        """
        problems = problems if problems is not None else Problems()
        content, decompression = plain(stream)
        run, open_showers, whole = run_of_name(name), [], []
        for offset, kind, values in _headers(content, problems):
            if kind == _RUN and 0 <= values[1] < _MOST_NUMBER:
                run = int(values[1])
            elif kind == _EVENT:
                fault = _fault(values)
                if fault:
                    problems.add(offset, fault)
                else:
                    open_showers.append(np.array(values[:12], np.float64))
            elif kind == _EVENT_END and open_showers:
                whole.append(open_showers.pop(0))
            if len(whole) >= BATCH:
                yield _shower_batch(run, whole)
                whole = []
        if decompression is not None:
            decompression.note_fault(problems)
        if whole:
            yield _shower_batch(run, whole)

    def sniff(self, name: str, head: bytes) -> bool:
        """Recognise the header of a run, or of its first shower, in either way of writing it; a broken one by name."""
        content = plain_head(head)
        if _is_corsika(content):
            return True
        if kind_of(head) == "zstandard":
            return True
        return self.claims(name) and not is_text(content or head) and not is_of_another_kind(content or head)

    def confirm(self, stream: BinaryIO, name: str) -> bool:
        """Look into compressed files, whose head may be less than a block; of a broken file the name decides."""
        content = plain(stream)[0].read(self.head_bytes)
        if _is_corsika(content):
            return True
        return self.claims(name) and not is_of_another_kind(content)

    def isolated(self, head: bytes) -> bool:
        """Return False: no library in C parses it."""
        return False

    def claims(self, name: str) -> bool:
        """Tell whether a file is named as CORSIKA's are."""
        plain_path = PurePosixPath(plain_name(name))
        suffix = plain_path.suffix
        named = _NAME.search(plain_path.name) is not None and (suffix in _SUFFIXES or suffix[1:].isdigit())
        return named or suffix == ".eventio"

    def metadata(self, stream: BinaryIO, name: str) -> Metadata:
        """Read the headers of all showers.

        Raises
        ------
        FormatError
            If there is no header of a run.
        """
        problems, showers = Problems(), _Showers()
        content, decompression = plain(stream)
        for block in _headers(content, problems):
            showers.add(block, problems)
        if decompression is not None:
            decompression.note_fault(problems)
        if showers.run is None:
            reason = f": {problems.kept[0].reason}" if problems.kept else ""
            raise FormatError(f"no header of a run{reason}", where=name, remedy="copy the file again")
        if showers.unfinished:
            problems.add(0, f"{showers.unfinished} showers without their end")
        elif not showers.ended:
            problems.add(0, "the run has no end")
        attributes: dict[str, Scalar] = {}
        if showers.primaries:
            attributes = {
                "primary": ",".join(sorted(showers.primaries)),
                "energy_min": showers.energy[0],
                "energy_max": showers.energy[1],
                "zenith_min": showers.zenith[0],
                "zenith_max": showers.zenith[1],
                "event_first": showers.number[0],
                "event_last": showers.number[1],
                "first_interaction_min": showers.first[0],
                "first_interaction_max": showers.first[1],
            }
        return Metadata(
            experiment="CORSIKA",
            run=showers.run,
            events=showers.events,
            attributes=attributes,
            problems=problems.result(),
        )


def _is_corsika(head: bytes) -> bool:
    return _has_lengths(head) or _block_alone(head) is not None or first_kind(head) in _KINDS


def _has_lengths(head: bytes) -> bool:
    """Tell whether a particle file begins with the length of a record: the header of a run, or a shower's behind it."""
    return head[4:8] == _RUN or any(head[4 + 4 * words : 8 + 4 * words] == _EVENT for words in _BLOCKS)


def _block_alone(head: bytes) -> int | None:
    """Return how many numbers a block has in a particle file without lengths of records; None for any other file."""
    for words in _BLOCKS:
        if head[4 * words : 4 * words + 4] in (_EVENT, _RUN_END):
            return words
    return _BLOCKS[0] if head.startswith(_RUN) and not is_text(head) else None


def _headers(content: BinaryIO, problems: Problems) -> Iterator[Block]:
    """Yield the headers in a file, however it is written."""
    head = content.read(CorsikaReader.head_bytes)
    again: Any = _Again(head, content)  # it reads, which is all
    if _has_lengths(head):
        return _records(again, problems)
    if (words := _block_alone(head)) is not None:
        return _blocks_alone(again, words, problems)
    return _objects(again, problems) if first_kind(head) is not None else _records(again, problems)


class _Again:
    """A stream of which the first bytes were read already."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head, self._rest = head, rest

    def read(self, size: int = -1) -> bytes:
        content = self._head if size < 0 else self._head[:size]
        self._head = self._head[len(content) :]
        missing = size - len(content) if size >= 0 else size
        return content + (self._rest.read(missing) if missing else b"")
