"""What only the store of events in Parquet has to stand: other processes, kill -9, damage, a full disk."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apbatch.errors import ApbatchError, FormatError, NotFoundError, ServerError, UsageError
from apbatch.index.events import part_files, ranges
from apbatch.index.events.backends import open_events
from apbatch.index.events.columns import canonical, event_attributes
from apbatch.index.events.manifest import Manifests, Part
from apbatch.index.events.parquet import ParquetEvents
from apbatch.index.parser import parse
from apbatch.storage.backends import open_store

WRITER = """
import sys
import pyarrow as pa
from apbatch.index.events.backends import open_events
url, who, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with open_events(url) as store:
    for n in range(rounds):
        # own events, and some that all writers replace by turns; the two columns of one row always agree
        own = [1000 * who + event for event in range(20 * n, 20 * n + 20)]
        shared = list(range(100))
        events = own + shared
        value = [float(who * 1000 + n)] * len(events)
        store.upsert(pa.RecordBatch.from_pydict({
            "experiment": ["e"] * len(events), "run": [1] * len(own) + [2] * len(shared), "event": events,
            "telescope": [1] * len(events), "cleaning": ["none"] * len(events), "a": value, "b": value,
        }))
        print(n, flush=True)
"""


def writer(url: str, who: int, rounds: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, url, str(who), str(rounds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def events(run: int, numbers: range, **columns: Any) -> pa.RecordBatch:
    n = len(numbers)
    keys = {"experiment": ["e"] * n, "run": [run] * n, "event": list(numbers), "telescope": [1] * n,
            "cleaning": ["none"] * n, "size": [float(number) for number in numbers]}  # fmt: skip
    return pa.RecordBatch.from_pydict({**keys, **columns})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ParquetEvents]:
    with ParquetEvents(f"file://{tmp_path}/events") as store:
        yield store


def rows(store: ParquetEvents, text: str = "") -> list[dict[str, Any]]:
    where = parse(text, store.attributes())
    return [row for batch in store.select(where) for row in batch.to_pylist()]


def parts_of(store: ParquetEvents) -> tuple[Part, ...]:
    return store._manifests.newest().parts


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.glob("parts/**/*.parquet")}


def test_several_writers_lose_and_double_nothing(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/events"
    writers = [writer(url, who, 6) for who in (1, 2, 3)]
    for process in writers:
        _, told = process.communicate(timeout=300)
        assert process.returncode == 0, told
    with ParquetEvents(url) as store:
        found = rows(store)
        assert [row["event"] for row in found if row["run"] == 1] == [
            1000 * who + event for who in (1, 2, 3) for event in range(120)
        ]
        shared = [row for row in found if row["run"] == 2]
        assert [row["event"] for row in shared] == list(range(100))
        assert all(row["a"] == row["b"] for row in found) and len({row["a"] for row in shared}) == 1
        listed = {part.file for part in parts_of(store)} | set(store._manifests.newest().replaced)
    assert files_in(tmp_path / "events") == listed


def test_kill_9_at_any_moment_leaves_old_or_new(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/events"
    draw = random.Random(5)
    with ParquetEvents(url) as store:
        for _ in range(4):
            process = writer(url, 1, 10_000)
            assert process.stdout is not None
            acknowledged = int(process.stdout.readline())
            time.sleep(draw.uniform(0, 0.3))
            process.send_signal(signal.SIGKILL)
            acknowledged = max([acknowledged, *(int(line) for line in process.stdout.read().split())])
            process.wait(timeout=30)
            shared = rows(store, "run = 2")
            assert len(shared) == 100 and len({(row["a"], row["b"]) for row in shared}) == 1
            done = int(shared[0]["a"]) - 1000
            assert done >= acknowledged
            own = [row["event"] for row in rows(store, "run = 1")]
            assert set(own) >= set(range(1000, 1000 + 20 * (done + 1))) and len(own) == len(set(own))
        assert store.check() == []
        os.utime(tmp_path)  # what killed writers left is a day old
        for file in (tmp_path / "events" / "parts").glob("**/*"):
            if file.is_file():
                os.utime(file, (1, 1))
        store.compact()
        listed = {part.file for part in parts_of(store)} | set(store._manifests.newest().replaced)
        assert files_in(tmp_path / "events") == listed
        assert len(rows(store, "run = 2")) == 100


def test_a_write_that_fails_changes_nothing_and_leaves_no_file(
    store: ParquetEvents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.upsert(events(1, range(10)))
    before = files_in(tmp_path / "events")
    full = ServerError("No space left on device", where="file:///x", remedy="free some space")

    def commit(*_: object) -> bool:
        raise full

    monkeypatch.setattr(Manifests, "commit", commit)
    with pytest.raises(ServerError, match="No space left"):
        store.upsert(events(1, range(5, 15)))
    monkeypatch.undo()
    assert files_in(tmp_path / "events") == before
    assert [row["event"] for row in rows(store)] == list(range(10))

    def stops() -> Iterator[pa.RecordBatch]:
        yield events(1, range(20))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.upsert(stops())
    assert files_in(tmp_path / "events") == before


def test_a_full_disk_is_told_and_changes_nothing(tmp_path: Path) -> None:
    """On a real file system of 1 MiB, where the kernel lets one be mounted."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(small)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        with ParquetEvents(f"file://{small}/events") as store:
            store.upsert(events(1, range(100)))
            noise = [random.Random(1).random() for _ in range(200_000)]
            with pytest.raises(ServerError, match=r"[Nn]o space.*free some space"):
                store.upsert(events(1, range(200_000), noise=noise))
            assert store.count() == {None: 100} and len(rows(store)) == 100
            store.upsert(events(2, range(100)))
            assert store.count() == {None: 200}
    finally:
        subprocess.run(["umount", str(small)], check=False)


def test_searches_open_only_parts_that_can_match(store: ParquetEvents, tmp_path: Path) -> None:
    for run in range(1, 6):
        store.upsert(events(run, range(100 * run, 100 * run + 50)))
    for part in parts_of(store):
        if part.first[0] != 3:
            (tmp_path / "events" / part.file).write_bytes(b"not to be read")
    assert len(rows(store, "run = 3")) == 50
    assert len(rows(store, "experiment = 'e' and size between 310 and 319.5")) == 10
    assert rows(store, "size > 1e9") == [] and rows(store, "width > 0") == [] and rows(store, "night is not null") == []
    assert store.explain(parse("run = 3", store.attributes())).startswith("1 of 5 parts are opened: 50 of 250 events")


def test_many_small_parts_become_few(store: ParquetEvents) -> None:
    for run in range(40):
        store.upsert(events(run, range(5)))
    assert len(parts_of(store)) < 12
    before = rows(store)
    store.compact()
    assert len(parts_of(store)) == 1 and rows(store) == before and len(before) == 200


def test_compaction_keeps_columns_that_only_some_have(store: ParquetEvents) -> None:
    store.upsert(events(1, range(3), left=[1.0, 2.0, 3.0]))
    store.upsert(events(2, range(3), right=[4.0, 5.0, 6.0]))
    before = rows(store)
    assert store.compact() == 2 and rows(store) == before
    assert [(row["left"], row["right"]) for row in before][2:4] == [(3.0, None), (None, 4.0)]


def test_a_reader_goes_on_when_its_parts_are_replaced(store: ParquetEvents, tmp_path: Path) -> None:
    store.upsert(events(1, range(200_000)))
    store.upsert(events(2, range(200_000)))
    with ParquetEvents(f"file://{tmp_path}/events") as reader:
        old = parts_of(reader)
        batches = reader.select()
        seen = next(batches).num_rows
        store.compact()
        store.upsert(events(2, range(10)))
        for part in old:
            (tmp_path / "events" / part.file).unlink()
        numbers = [
            (row["run"], row["event"]) for batch in batches for row in batch.select(["run", "event"]).to_pylist()
        ]
    assert seen + len(numbers) == 400_000 and numbers == sorted(set(numbers))
    assert numbers[-1] == (2, 199_999)


@pytest.mark.parametrize("kind", ["cut", "flipped", "overwritten", "gone"])
def test_a_damaged_part_is_named_with_the_remedy(store: ParquetEvents, tmp_path: Path, kind: str) -> None:
    store.upsert(events(1, range(5000)))
    store.upsert(events(2, range(5000)))
    bad = parts_of(store)[1]
    file = tmp_path / "events" / bad.file
    content = bytearray(file.read_bytes())
    if kind == "gone":
        file.unlink()
    elif kind == "cut":
        file.write_bytes(content[:-10])
    elif kind == "overwritten":
        file.write_bytes(b"x" * len(content))
    else:
        content[len(content) // 3] ^= 0xFF
        file.write_bytes(content)
    (fault,) = store.check()
    assert isinstance(fault, NotFoundError if kind == "gone" else FormatError)
    message = rf"{bad.file}: a part with 5000 events of e is (gone|damaged).*check-events --forget"
    with pytest.raises(ApbatchError, match=message):
        raise fault
    if kind != "flipped":  # a search need not read the flipped byte
        with pytest.raises(ApbatchError, match=message):
            rows(store)
    assert len(rows(store, "run = 1")) == 5000  # the rest is searched as ever
    store.check(forget=True)
    store.upsert(events(2, range(5000)))
    assert len(rows(store)) == 10_000 and store.check() == []


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"schema": 1}', b'{"schema":1,"declared":[],"parts":[7]}', b"\xff"]
)
def test_a_damaged_list_of_parts_is_told(store: ParquetEvents, tmp_path: Path, content: bytes) -> None:
    store.upsert(events(1, range(10)))
    store.upsert(events(2, range(10)))
    newest = max((tmp_path / "events" / "versions").iterdir())
    (newest / "manifest.json").write_bytes(content)
    with open_events(f"file://{tmp_path}/events") as other:
        with pytest.raises(FormatError, match=rf"{newest.name}/manifest\.json: the list of the parts.*the one before"):
            other.count()
        shutil.rmtree(newest)
        assert other.count() == {None: 10}


def test_a_store_of_a_newer_program_is_refused(store: ParquetEvents, tmp_path: Path) -> None:
    store.upsert(events(1, range(10)))
    newest = max((tmp_path / "events" / "versions").iterdir()) / "manifest.json"
    newest.write_text(newest.read_text().replace('"schema":1', '"schema":2'))
    with open_events(f"file://{tmp_path}/events") as other, pytest.raises(UsageError, match="schema 2, this program"):
        other.attributes()


def test_parts_are_plain_parquet_by_experiment_and_night(store: ParquetEvents, tmp_path: Path) -> None:
    noon = 1_509_192_000_000_000_000  # 2017-10-28T12:00 UTC, where a night begins
    times = pa.array([noon - 1, noon], pa.int64()).cast(pa.timestamp("ns", "UTC"))
    store.upsert(events(1, range(2), time=times))
    assert {part.night for part in parts_of(store)} == {"2017-10-27", "2017-10-28"}
    assert all(part.file.startswith(f"parts/e/{part.night}/") for part in parts_of(store))
    table = pq.read_table(tmp_path / "events" / "parts" / "e" / "2017-10-28")
    assert table["event"].to_pylist() == [1] and table["nanoseconds"].to_pylist() == [0]


def test_memory_is_bounded(tmp_path: Path) -> None:
    """300,000 events of 60 columns (150 MB) are written and read in order with less than that."""
    code = """
import resource, sys
import numpy as np, pyarrow as pa
from apbatch.index.events.parquet import ParquetEvents
def batches():
    draw = np.random.default_rng(1)
    for first in range(0, 300_000, 20_000):
        columns = {f"p{n}": draw.random(20_000) for n in range(60)}
        keys = {"experiment": ["e"] * 20_000, "run": [first // 100_000] * 20_000, "telescope": [1] * 20_000,
            "event": np.arange(first, first + 20_000), "cleaning": ["x"] * 20_000}
        yield pa.RecordBatch.from_pydict({**keys, **columns})
with ParquetEvents(sys.argv[1], memory="300MB") as store:
    for _ in store.select(): pass
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    store.upsert(batches())
    last = (-1, -1)
    total = 0
    for batch in store.select():
        total += batch.num_rows
        key = (batch["run"][0].as_py(), batch["event"][0].as_py())
        assert key > last
        last = (batch["run"][-1].as_py(), batch["event"][-1].as_py())
    assert total == 300_000
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, f"file://{tmp_path}/events"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 900


def test_a_part_holds_each_key_once_and_in_order(tmp_path: Path) -> None:
    known = event_attributes()
    table = canonical(events(1, range(5, 0, -1)), known)
    (part,) = part_files.write_parts(open_store(f"file://{tmp_path}/s"), pa.concat_tables([table, table]))
    assert (part.rows, part.first[1], part.last[1]) == (5, 1, 5)
    assert pq.read_table(tmp_path / "s" / part.file)["event"].to_pylist() == [1, 2, 3, 4, 5]
    assert ranges.ranges_of(table)["size"] == (1.0, 5.0, 0)
