"""Raw files of the TAIGA-IACT data acquisition: what one cluster's MAROC board saw, trigger by trigger.

A file is a sequence of records of 156 bytes, little-endian::

    u16 3032            type of data            u32 event number
    u16 132             size of what follows    u32 bits of the clusters that triggered
                        after 24 bytes          4 x u16 time of day (see `decode_time`)
    u32 board           cluster - 1 in bits 4:0
    32 x (u16, u16)     high- and low-gain amplitude of 32 MAROC channels, in quarters of an ADC code
    u32 0xFFFFFFFF      end

Pedestal files (``*.ped``) have the same records. The time of day is UTC: with it, data taking in the Tunka valley
(UTC+8) falls into the dark hours, with local time it would not. What the names of files tell: see
`apbatch.formats.taiga.raw_names`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import PurePosixPath
from typing import Any, BinaryIO, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from apbatch.errors import FormatError
from apbatch.formats.attributes import EVENT_FIRST, EVENT_LAST
from apbatch.formats.compressed import Decompressed, content_fits, kind_of, may_fit, plain
from apbatch.formats.event_columns import EVENT_CLUSTER, event_batch, run_of_name
from apbatch.formats.reader import Attribute, Metadata, Reader, Scalar, Span, even_spans
from apbatch.formats.signatures import is_of_another_kind
from apbatch.formats.taiga.raw_names import NOON_UTC_NS, is_raw_name, parse_name, utc
from apbatch.formats.text.lines import Problem, Problems, is_text

RECORD = np.dtype(
    [
        ("type", "<u2"),
        ("size", "<u2"),
        ("event", "<u4"),
        ("trigger", "<u4"),
        ("time", "<u2", 4),
        ("board", "<u4"),
        ("adc", "<u2", (32, 2)),
        ("end", "<u4"),
    ]
)

#: One decoded record: `time` in ns since 0 h UTC (-1 if it is no time of day), `adc` as high and low gain of channel k
#: (the "even" and "odd" channels 2k and 2k+1 of the tables), in quarters of an ADC code.
#: Without gaps, and of a whole number of int64: the compiled decoder writes it as such.
DECODED = np.dtype(
    [
        ("offset", "i8"),
        ("event", "i8"),
        ("time", "i8"),
        ("trigger", "u4"),
        ("cluster", "i4"),
        ("adc", "<u2", (32, 2)),
    ]
)

DATA_TYPE = 3032
_DATA_SIZE = 132
_END = 0xFFFFFFFF
_SIZE = RECORD.itemsize
_START = DATA_TYPE.to_bytes(2, "little") + _DATA_SIZE.to_bytes(2, "little")
_STOP = _END.to_bytes(4, "little")
#: Beyond the end of any file.
_FAR = 1 << 62
#: Records decoded at a time: 4096 are 0.6 MB.
BATCH = 4096

DAY_NS = 86_400_000_000_000


def decode_time(words: npt.NDArray[np.uint16]) -> npt.NDArray[np.int64]:
    """Unpack the time of day.

    Parameters
    ----------
    words : ndarray of shape (n, 4)
        The four words of the record, from the least significant: tens of nanoseconds (7 bits), microseconds (10),
        milliseconds (10), seconds (6), minutes (6), hours (5), 20 bits unused.

    Returns
    -------
    ndarray of shape (n,)
        Nanoseconds since 0 h; -1 where a part is out of its range.
    """
    packed = words.astype(np.uint64) << np.array([0, 16, 32, 48], np.uint64)
    packed = packed.sum(axis=1, dtype=np.uint64)
    total = np.zeros(len(words), np.int64)
    valid = np.ones(len(words), bool)
    shift = 0
    for bits, limit, unit in (
        (7, 100, 10),
        (10, 1000, 1_000),
        (10, 1000, 1_000_000),
        (6, 60, 1_000_000_000),
        (6, 60, 60_000_000_000),
        (5, 24, 3_600_000_000_000),
    ):
        part = ((packed >> np.uint64(shift)) & np.uint64((1 << bits) - 1)).astype(np.int64)
        valid &= part < limit
        total += part * unit
        shift += bits
    return np.where(valid, total, -1)


def read_records(
    stream: BinaryIO, problems: Problems | None = None, batch: int = BATCH, span: Span | None = None
) -> Iterator[npt.NDArray[np.void]]:
    """Yield the whole records of a file, as arrays of dtype `DECODED`, reading it once from start to end.

    Bytes that are no record are passed over up to the next place where one starts and ends properly; each gap is
    noted in `problems` with its offset.

    Parameters
    ----------
    stream : BinaryIO
        Compressed or not; needs only `read`, for a span also `seek`.
    problems : Problems, optional
        Takes what was passed over.
    batch : int
        Most records in an array.
    span : Span, optional
        Of bytes of the content: only the records that begin in it. Spans that lie end to end hold each record that a
        reading of the whole file finds exactly once, whatever the damage; a gap over the border of two is noted in
        both. Of a compressed file all that comes before is decompressed again.
    """
    problems = problems if problems is not None else Problems()
    if span is not None:
        stream.seek(0)
    content, decompression = plain(stream)
    if decompression is None:
        yield from _read_plain(content, problems, batch, span)
    elif span is None:
        yield from _read_plain(content, problems, batch, None)
        decompression.note_fault(problems)
    else:
        yield from _read_within(content, decompression, problems, batch, span)


def _read_within(
    content: BinaryIO, decompression: Decompressed, problems: Problems, batch: int, span: Span
) -> Iterator[npt.NDArray[np.void]]:
    """Read a compressed file from its start, and yield the records that begin in a span of its content."""
    everywhere = Problems()
    for records in _read_plain(content, everywhere, batch, None):
        inside = (records["offset"] >= span.start) & (records["offset"] < span.stop)
        if inside.any():
            yield records[inside]
        if records["offset"][-1] >= span.stop:
            break
    else:
        decompression.note_fault(problems)
    for problem in everywhere.kept:
        if span.start <= problem.offset < span.stop:
            problems.add(problem.offset, problem.reason)


def _read_plain(stream: BinaryIO, problems: Problems, batch: int, span: Span | None) -> Iterator[npt.NDArray[np.void]]:
    buffer, base, lost_at, stop = b"", 0, -1, _FAR
    if span is not None:
        base, stop = _expected_at(stream, span.start), span.stop
        stream.seek(base)
    ended = False
    while base < stop:
        # A record that begins before the stop may end 155 bytes behind it.
        block = b"" if ended else stream.read(min(batch * _SIZE, stop + _SIZE - 1 - base - len(buffer)))
        ended = not block
        buffer += block
        at = 0
        while len(buffer) - at >= _SIZE and base + at < stop:
            count = min((len(buffer) - at) // _SIZE, -(-(stop - base - at) // _SIZE))
            records = _decode(buffer, at, count, base + at)
            if len(records):
                if lost_at >= 0:
                    problems.add(lost_at, f"{base + at - lost_at} bytes that are no record")
                    lost_at = -1
                yield records
                at += len(records) * _SIZE
            if len(records) < count:
                lost_at = base + at if lost_at < 0 else lost_at
                at = _next_start(buffer, at + 1)
        buffer, base = buffer[at:], base + at
        if ended:
            break
    end = min(base + len(buffer), stop)
    if lost_at >= 0:
        what = "up to the end that are no record" if end < stop else "that are no record"
        problems.add(lost_at, f"{end - lost_at} bytes {what}")
    elif base < end:
        problems.add(base, f"the last record is cut: {len(buffer)} of {_SIZE} bytes")


def _has_record(head: bytes) -> bool:
    """Tell whether a record lies among the first bytes of a file."""
    return next(_records_in(head), None) is not None


def _next_start(buffer: bytes, at: int) -> int:
    """Return where the next record may start: a start mark whose end mark fits or is not in the buffer yet."""
    while True:
        at = buffer.find(_START, at)
        if at < 0:
            return len(buffer) - min(len(_START) - 1, len(buffer))  # a mark may be cut by the end of the buffer
        end = buffer[at + _SIZE - 4 : at + _SIZE]
        if len(end) < 4 or end == _STOP:
            return at
        at += 1


def _expected_at(stream: BinaryIO, start: int) -> int:
    """Return where a reading of the whole file would go on at or after `start`: behind a record that covers it.

    A place that looks like a record is one unless it lies within an earlier record. So it is looked back to a place
    that has no other within the size of a record before it: that one is a record whatever came before, and from
    there on every record follows.
    """
    back = 4 * _SIZE
    while True:
        first = max(start - back, 0)
        stream.seek(first)
        window = stream.read(start - first + _SIZE - 1)
        places = [place for place in _records_in(window) if place < start - first]
        expected = 0 if first == 0 else None
        previous = -_SIZE
        for place in places:
            if expected is None and place >= _SIZE and place - previous >= _SIZE:
                expected = place
            previous = place
            if expected is not None and place >= expected:
                expected = place + _SIZE
        if expected is not None:
            return max(first + expected, start)
        if not places or places[-1] <= start - first - _SIZE:
            return start  # nothing reaches over it
        back *= 4


def _records_in(buffer: bytes) -> Iterator[int]:
    """Yield every place that looks like a whole record, also those within another."""
    at = buffer.find(_START)
    while at >= 0:
        if buffer[at + _SIZE - 4 : at + _SIZE] == _STOP:
            yield at
        at = buffer.find(_START, at + 1)


def _decode(buffer: bytes, at: int, count: int, offset: int) -> npt.NDArray[np.void]:
    """Decode up to `count` records from byte `at` of the buffer, up to the first one that is none."""
    compiled = _compiled()
    if compiled is None:
        records = np.frombuffer(buffer, RECORD, count=count, offset=at)
        good = (records["type"] == DATA_TYPE) & (records["size"] == _DATA_SIZE) & (records["end"] == _END)
        return decoded_by_numpy(records[: count if good.all() else int(np.argmin(good))], offset)
    source = np.frombuffer(buffer, np.uint8, count=count * _SIZE, offset=at)
    if source.ctypes.data % 2:
        source = source.copy()  # behind damage of an odd number of bytes
    out = np.empty(count, DECODED)
    raw = out.view(np.uint8).reshape(count, DECODED.itemsize)
    good_count = compiled(
        source.view("<u2").reshape(count, _SIZE // 2), offset, raw.view(np.uint16), raw.view(np.int64)
    )
    return out[:good_count]


@cache
def _compiled() -> Callable[..., int] | None:
    """Return the compiled decoder; None without numba, or where numbers are not little-endian."""
    if sys.byteorder != "little":
        return None
    try:
        from apbatch.formats.taiga.kernel import decode_words
    except ImportError:
        return None
    return decode_words


def decoded_by_numpy(records: npt.NDArray[np.void], offset: int) -> npt.NDArray[np.void]:
    """Decode records of dtype `RECORD`, field by field: where there is no numba, and as a peer of what there is."""
    out = np.empty(len(records), DECODED)
    out["offset"] = offset + np.arange(len(records)) * RECORD.itemsize
    out["event"] = records["event"]
    out["trigger"] = records["trigger"]
    out["time"] = decode_time(records["time"])
    out["cluster"] = (records["board"] & 0x1F) + 1
    out["adc"] = records["adc"]
    return out


class TaigaRawReader(Reader):
    """Raw cluster files of TAIGA-IACT, data and pedestals."""

    name: ClassVar[str] = "taiga-raw"
    attributes: ClassVar[tuple[Attribute, ...]] = (
        Attribute("kind", "string", "data or pedestal."),
        Attribute("part", "integer", "Number of the part, the extension of the file's name."),
        EVENT_FIRST,
        EVENT_LAST,
        Attribute("duration", "number", "Time from the first to the last record.", "s"),
        Attribute("trigger_rate", "number", "Records in the file by its duration.", "Hz"),
        Attribute("adc_mean", "number", "Mean high-gain amplitude of the 28 connected channels, in ADC codes."),
        Attribute("adc_max", "number", "Largest high-gain amplitude of the 28 connected channels, in ADC codes."),
    )

    def sniff(self, name: str, head: bytes) -> bool:
        """Recognise a record at the start or soon after it; a file named like one, but empty or broken, as well."""
        # Its metadata will say what is wrong with a broken one: it must not pass for no file.
        return may_fit(head, lambda content: _has_record(content) or self._is_broken(name, content or head))

    def confirm(self, stream: BinaryIO, name: str) -> bool:
        """Look into a compressed file, of which the first bytes may tell nothing."""
        return content_fits(stream, lambda content: _has_record(content) or self._is_broken(name, content))

    def _is_broken(self, name: str, content: bytes) -> bool:
        return self.claims(name) and not is_text(content) and not is_of_another_kind(content)

    def isolated(self, head: bytes) -> bool:
        """Return False: no library in C parses it."""
        return False

    def claims(self, name: str) -> bool:
        """Tell whether a file is named as the data acquisition does."""
        return is_raw_name(name)

    def spans(self, stream: BinaryIO, name: str, target_bytes: int) -> list[Span]:
        """Return ranges of bytes for `read_records`; a compressed file is read whole."""
        if kind_of(stream.read(4)) is not None:
            return []
        return even_spans(stream.seek(0, 2), max(target_bytes // _SIZE, 1) * _SIZE)

    event_columns: ClassVar[tuple[Attribute, ...]] = (
        EVENT_CLUSTER,
        Attribute("triggered", "integer", "Number of channels of the cluster that triggered."),
        Attribute("adc_sum", "number", "Sum of the high-gain amplitudes of the 28 connected channels, in ADC codes."),
        Attribute("adc_max", "number", "Largest of these amplitudes, in ADC codes."),
    )

    def events(self, stream: BinaryIO, name: str, problems: Problems | None = None) -> Iterator[pa.RecordBatch]:
        """Yield what each cluster recorded of an event; `cleaning` names the cluster. Pedestals are no events."""
        named = parse_name(name)
        if named.pedestal:
            return
        midnight = None if named.night is None else int(utc(named.night, NOON_UTC_NS).timestamp())
        for records in read_records(stream, problems if problems is not None else Problems()):
            time = np.where(records["time"] < NOON_UTC_NS, records["time"] + DAY_NS, records["time"])
            start = 0 if midnight is None else midnight * 1_000_000_000 - NOON_UTC_NS
            time = np.where((records["time"] < 0) | (midnight is None), -1, time + start).astype(np.int64)
            high = records["adc"][:, 2:30, 0].astype(np.float64) / 4  # see `_Totals.add`
            bits = np.unpackbits(records["trigger"].astype("<u4").view(np.uint8).reshape(-1, 4), axis=1)
            for cluster in np.unique(records["cluster"]).tolist():
                mine = records["cluster"] == cluster
                columns = {
                    "cluster": records["cluster"][mine].astype(np.int64),
                    "triggered": bits[mine].sum(axis=1).astype(np.int64),
                    "adc_sum": high[mine].sum(axis=1),
                    "adc_max": high[mine].max(axis=1),
                }
                event = records["event"][mine].astype(np.int64)
                run = named.run if named.run is not None else run_of_name(name)
                yield event_batch(
                    run, event, columns, telescope=named.telescope, cleaning=f"cluster-{cluster:02}", time_ns=time[mine]
                )

    def metadata(self, stream: BinaryIO, name: str) -> Metadata:
        """Read all records: their number, clusters, events, times and amplitudes.

        Raises
        ------
        FormatError
            If there is no whole record.
        """
        named = parse_name(name)
        problems = Problems()
        totals = _Totals()
        for records in read_records(stream, problems):
            totals.add(records)
        if not totals.count:
            first = problems.kept[0] if problems.kept else Problem(0, "the file is empty")
            raise FormatError(
                f"no whole record of {RECORD.itemsize} bytes: {first.reason}",
                where=f"{name} at byte {first.offset}",
                remedy="copy the file again from the data acquisition",
            )
        if named.night is None and self.claims(name):
            problems.add(0, f"day and month in the name {PurePosixPath(name).name} are not a date")
        cluster = int(np.argmax(totals.clusters))
        others = int(totals.clusters.sum() - totals.clusters[cluster])
        if others:
            problems.add(0, f"{others} records are of another cluster than {cluster}")
        if named.cluster is not None and named.cluster != cluster:
            problems.add(0, f"the path says cluster {named.cluster}, the records say {cluster}")
        if totals.bad_times:
            problems.add(0, f"{totals.bad_times} records without a time of day")
        attributes: dict[str, Scalar] = {
            "kind": "pedestal" if named.pedestal else "data",
            "event_first": totals.event_first,
            "event_last": totals.event_last,
            "adc_mean": totals.adc_sum / (totals.count * 28) / 4,
            "adc_max": totals.adc_max / 4,
        }
        if named.part is not None:
            attributes["part"] = named.part
        duration = (totals.time_last - totals.time_first) / 1e9
        if totals.time_first >= 0:
            attributes["duration"] = duration
            if duration > 0:
                attributes["trigger_rate"] = (totals.count - 1) / duration
        timed = named.night is not None and totals.time_first >= 0
        return Metadata(
            experiment="TAIGA",
            run=named.run,
            night=named.night,
            time_start=utc(named.night, totals.time_first % DAY_NS) if named.night and timed else None,
            time_end=utc(named.night, totals.time_last % DAY_NS) if named.night and timed else None,
            telescope=named.telescope,
            cluster=cluster,
            events=totals.count,
            attributes=attributes,
            problems=problems.result(),
        )


class _Totals:
    """What is summed over the records of a file."""

    def __init__(self) -> None:
        self.count = self.bad_times = self.adc_sum = self.adc_max = 0
        self.event_first, self.event_last = 1 << 40, -1
        #: Nanoseconds since 0 h; after midnight they go on from 24 h.
        self.time_first = self.time_last = -1
        self.clusters = np.zeros(33, np.int64)

    def add(self, records: npt.NDArray[Any]) -> None:
        self.count += len(records)
        self.clusters += np.bincount(records["cluster"], minlength=33)
        self.event_first = min(self.event_first, int(records["event"].min()))
        self.event_last = max(self.event_last, int(records["event"].max()))
        high = records["adc"][:, 2:30, 0]  # channels 0, 1, 30 and 31 of a MAROC are not connected
        self.adc_sum += int(high.sum(dtype=np.int64))
        self.adc_max = max(self.adc_max, int(high.max()))
        times = records["time"][records["time"] >= 0]
        self.bad_times += len(records) - len(times)
        if len(times):
            times = np.where(times < NOON_UTC_NS, times + DAY_NS, times)
            first, last = int(times.min()), int(times.max())
            self.time_first = first if self.time_first < 0 else min(self.time_first, first)
            self.time_last = max(self.time_last, last)
