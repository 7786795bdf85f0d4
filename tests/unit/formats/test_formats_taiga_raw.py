"""TAIGA raw files: records built by hand from the format's description, and the real ones."""

from __future__ import annotations

import io
import struct
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apbatch.errors import FormatError
from apbatch.formats.reader import Span, even_spans, recognise
from apbatch.formats.taiga import raw as taiga_raw
from apbatch.formats.taiga.raw import DECODED, TaigaRawReader, decode_time, read_records
from apbatch.formats.taiga.raw_names import parse_name
from apbatch.formats.text.lines import Problems

READER = TaigaRawReader()


def record(event: int = 1, *, board: int = 6, hms: tuple[int, int, int] = (17, 0, 1), adc: int = 1400) -> bytes:
    """Pack one record as the format's description says."""
    hours, minutes, seconds = hms
    packed = 56 | (123 << 7) | (456 << 17) | (seconds << 27) | (minutes << 33) | (hours << 39)
    amplitudes = [adc] * 64
    return struct.pack("<HHIIQI64HI", 3032, 132, event, 0x2000040, packed, board, *amplitudes, 0xFFFFFFFF)


def read(content: bytes, batch: int = 4096) -> tuple[list[int], Problems]:
    problems = Problems()
    events = [int(e) for block in read_records(io.BytesIO(content), problems, batch) for e in block["event"]]
    return events, problems


def test_a_record_has_156_bytes_and_all_its_fields() -> None:
    assert len(record()) == 156
    (block,) = read_records(io.BytesIO(record(event=77)))
    assert block["event"].tolist() == [77]
    assert block["cluster"].tolist() == [7]
    assert block["time"].tolist() == [17 * 3600 * 10**9 + 1 * 10**9 + 456 * 10**6 + 123 * 10**3 + 560]
    assert block["adc"].shape == (1, 32, 2)


@given(
    st.integers(0, 23), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999), st.integers(0, 999),
    st.integers(0, 99),
)  # fmt: skip
def test_the_time_of_day_comes_back(hour: int, minute: int, second: int, ms: int, us: int, tens: int) -> None:
    packed = tens | us << 7 | ms << 17 | second << 27 | minute << 33 | hour << 39
    words = np.frombuffer(struct.pack("<Q", packed), "<u2").reshape(1, 4)
    wanted = ((hour * 60 + minute) * 60 + second) * 10**9 + ms * 10**6 + us * 1000 + tens * 10
    assert decode_time(words).tolist() == [wanted]


def test_a_time_out_of_range_is_marked() -> None:
    words = np.frombuffer(struct.pack("<Q", 25 << 39), "<u2").reshape(1, 4)
    assert decode_time(words).tolist() == [-1]


def test_low_gain_follows_high_gain(data: Path) -> None:
    content = (data / "taiga_raw" / "BSM05" / "28107005.001").read_bytes()
    (block,) = read_records(io.BytesIO(content[:156]))
    assert block["adc"].reshape(-1).tolist() == list(struct.unpack("<64H", content[24:152]))


@given(st.integers(0, 9), st.integers(1, 155), st.integers(1, 3))
def test_a_cut_or_damaged_record_costs_only_itself(at: int, inside: int, batch: int) -> None:
    whole = [record(event) for event in range(10)]
    whole[at] = whole[at][:inside]  # bytes of it are lost
    events, problems = read(b"".join(whole), batch)
    assert events == [event for event in range(10) if event != at]
    assert [problem.offset for problem in problems.kept] == [156 * at]


@given(st.binary(max_size=700), st.integers(1, 4))
def test_junk_between_records_is_passed_over_whatever_it_is(junk: bytes, batch: int) -> None:
    content = record(1) + junk + record(2) + record(3)
    events, problems = read(content, batch)
    assert events[0] == 1
    assert events[-2:] == [2, 3]
    if len(events) == 3:  # junk made of a record would be one
        assert problems.count == bool(junk)


@given(st.binary(max_size=2000))
def test_any_bytes_at_all_are_read_without_a_crash(content: bytes) -> None:
    events, problems = read(content)
    assert events or problems.count or not content


#: A record whose amplitudes look like the start of another one, so that searching from within finds a false one.
DECOY = bytearray(record(99))
DECOY[40:44] = b"\xd8\x0b\x84\x00"
PIECES = st.one_of(
    st.integers(0, 50).map(record),
    st.just(bytes(DECOY)),
    st.just(record(7)[:60] + record(8)[60:]),
    st.binary(min_size=1, max_size=200),
    st.just(record(5)[:100]),
    st.just(b"\xd8\x0b\x84\x00" * 30),
    st.just(b"\xd8\x0b\x84\x00" + b"\xff" * 152),
    st.just(b"\xd8\x0b\x84\x00\xff\xff\xff\xff" * 40),
)


@given(st.lists(PIECES, max_size=12).map(b"".join), st.integers(25, 500), st.integers(1, 3))
def test_spans_hold_every_record_once_whatever_the_damage(content: bytes, step: int, batch: int) -> None:
    problems = Problems()
    whole = [int(o) for block in read_records(io.BytesIO(content), problems, batch) for o in block["offset"]]
    found: list[int] = []
    lost = 0
    for span in even_spans(len(content), step):
        mine = Problems()
        places = [int(o) for b in read_records(io.BytesIO(content), mine, batch, span) for o in b["offset"]]
        assert all(span.start <= place < span.stop for place in places)
        found += places
        lost += mine.count
    assert found == whole
    assert (lost > 0) == (problems.count > 0)


def test_a_span_reads_hardly_more_than_itself() -> None:
    class Counted(io.BytesIO):
        count = 0

        def read(self, size: int | None = -1) -> bytes:
            block = super().read(size)
            self.count += len(block)
            return block

    stream = Counted(b"".join(record(event) for event in range(1000)))
    (block,) = read_records(stream, span=Span(500 * 156 + 80, 600 * 156 + 80))
    assert block["event"].tolist() == list(range(501, 601))
    assert stream.count < 110 * 156


@given(st.lists(PIECES, max_size=8).map(b"".join), st.integers(1, 4))
def test_the_compiled_decoder_and_the_one_without_numba_agree(content: bytes, batch: int) -> None:
    def decoded() -> tuple[np.ndarray, Problems]:
        problems = Problems()
        blocks = list(read_records(io.BytesIO(content), problems, batch))
        return np.concatenate([np.empty(0, DECODED), *blocks]), problems

    compiled, problems = decoded()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(taiga_raw, "_compiled", lambda: None)
        plain, same = decoded()
    assert taiga_raw._compiled() is not None
    assert compiled.tobytes() == plain.tobytes()
    assert problems.kept == same.kept


def test_the_problem_names_the_byte_and_how_much_was_lost() -> None:
    _, problems = read(record(1) + b"x" * 10 + record(2) + record(3)[:100])
    assert [(problem.offset, problem.reason) for problem in problems.result()] == [
        (156, "10 bytes that are no record"),
        (322, "the last record is cut: 100 of 156 bytes"),
    ]


def test_problems_of_a_wholly_broken_file_stay_few() -> None:
    _, problems = read((record() + b"x") * 500)
    assert problems.count == 499 + 1
    assert len(problems.result()) == 101
    assert "400 more" in problems.result()[-1].reason


def test_memory_stays_bounded_on_a_large_file_of_junk() -> None:
    class Zeros(io.RawIOBase):
        left = 64 << 20

        def read(self, size: int = -1) -> bytes:
            count = min(size, self.left)
            self.left -= count
            return bytes(count)

    import tracemalloc

    read(record())  # what is loaded and compiled at first use is not counted
    tracemalloc.start()
    with pytest.raises(FormatError):
        READER.metadata(Zeros(), "junk.001")  # type: ignore[arg-type]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20


@pytest.mark.parametrize(
    ("name", "night", "cluster", "part", "run"),
    [
        ("28107001.001", date(2017, 10, 28), 1, 1, 20171028),
        ("BSM21/28107021.010", date(2017, 10, 28), 21, 10, 20171028),
        ("281017/BSM07/28107007.100", date(2017, 10, 28), 7, 100, 20171028),
        ("281017.02/BSM07/28107007.002", date(2017, 10, 28), 7, 2, 2017102802),
        ("2027/28107007.002", date(2027, 10, 28), 7, 2, 20271028),
        ("15018003.001", date(2018, 1, 15), 3, 1, 20180115),
        ("01010003.001", date(2020, 1, 1), 3, 1, 20200101),
        ("31027001.001", None, 1, 1, None),  # no 31st of February
        ("BSM04/anything.dat", None, 4, None, None),
        ("PED/28107001.ped", date(2017, 10, 28), 1, None, 20171028),
    ],
)
def test_names_tell_night_cluster_part_and_run(
    name: str, night: date | None, cluster: int, part: int | None, run: int | None
) -> None:
    found = parse_name(name)
    assert (found.night, found.cluster, found.part, found.run) == (night, cluster, part, run)


@pytest.mark.parametrize(
    ("name", "telescope"),
    [("281017/BSM07/28107007.001", 1), ("iact02/281017/BSM07/28107007.001", 2), ("IACT03/BSM07/28107007.001", 3)],
)
def test_the_telescope_is_the_one_that_the_path_names(name: str, telescope: int) -> None:
    content = record(board=6)
    assert READER.metadata(io.BytesIO(content), name).telescope == telescope
    (events,) = READER.events(io.BytesIO(content), name)
    assert events["telescope"].to_pylist() == [telescope]


def test_the_time_after_midnight_is_of_the_next_day() -> None:
    content = record(1, hms=(23, 59, 59)) + record(2, hms=(0, 0, 1))
    found = READER.metadata(io.BytesIO(content), "28107007.001")
    assert found.time_start is not None and found.time_start.date() == date(2017, 10, 28)
    assert found.time_end is not None and found.time_end.date() == date(2017, 10, 29)
    assert found.attributes["duration"] == pytest.approx(2.0)


def test_pedestal_files_are_told_apart_by_name() -> None:
    assert READER.metadata(io.BytesIO(record()), "PED/28107007.ped").attributes["kind"] == "pedestal"
    assert READER.metadata(io.BytesIO(record()), "28107007.001").attributes["kind"] == "data"


def test_a_cluster_that_contradicts_the_path_is_reported_and_the_records_win() -> None:
    found = READER.metadata(io.BytesIO(record(board=6)), "28107009.001")
    assert found.cluster == 7
    assert "path says cluster 9" in found.problems[0].reason


@pytest.mark.parametrize("content", [b"", b"\0" * 5000, record()[:100], b"\xff\xfe\x00garbage" * 100])
def test_a_broken_file_with_a_raw_files_name_is_refused_with_the_reason(content: bytes) -> None:
    assert READER.sniff("BSM01/28107001.001", content[:4096])
    with pytest.raises(FormatError, match="no whole record"):
        READER.metadata(io.BytesIO(content), "BSM01/28107001.001")


@pytest.mark.parametrize(
    ("name", "head"),
    [("junk.001", b"\0" * 4096), ("28107001.001", b"just a text\n" * 50), ("x.dat", b"\xd8\x0b\x84\x00" * 1000)],
)
def test_junk_and_text_are_not_taken_for_raw_files(name: str, head: bytes) -> None:
    assert not READER.sniff(name, head)


def test_a_file_whose_first_record_is_damaged_is_still_recognised() -> None:
    assert READER.sniff("renamed", b"zz" + record()[2:] + record())


def test_the_real_files_have_as_many_events_as_records_fit_in_them(data: Path) -> None:
    files = sorted((data / "taiga_raw").glob("BSM*/*.001"))
    assert len(files) == 20
    total = 0
    for path in files:
        with path.open("rb") as stream:
            reader = recognise(path.name, path.read_bytes()[:4096])
            assert reader is not None and reader.name == "taiga-raw"
            found = reader.metadata(stream, f"{path.parent.name}/{path.name}")
        assert found.events == path.stat().st_size // 156
        assert found.cluster == int(path.parent.name[3:])
        assert found.problems == ()
        assert found.night == date(2017, 10, 28)
        assert found.time_start is not None and found.time_end is not None
        assert datetime(2017, 10, 28, 16, 59, tzinfo=UTC) < found.time_start < found.time_end
        assert found.time_end < datetime(2017, 10, 28, 17, 2, tzinfo=UTC)
        total += found.events
    assert total == 170928
