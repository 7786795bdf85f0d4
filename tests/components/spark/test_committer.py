"""Exactly-once output: attempts that meet, jobs that are killed at any moment, two programs at one dataset."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apbatch.datasets import dataset
from apbatch.datasets.commit import DatasetCommit, Loss, SplitRecord
from apbatch.datasets.part_files import PartWriter
from apbatch.errors import ServerError, UsageError
from apbatch.storage import names
from apbatch.storage.backends import open_store
from apbatch.storage.lock import Lock
from tests.waits import until

SCHEMA = pa.schema([("n", pa.int64()), ("image", pa.binary())])
CONTENT = {"one": {"kind": "images"}, "two": {"kind": "grids"}}


@pytest.fixture
def outputs(tmp_path: Path) -> dict[str, str]:
    return {role: f"file://{tmp_path}/{role}" for role in ("one", "two")}


def attempt(job: DatasetCommit, split: int, rows: int = 3, value: int = 0) -> SplitRecord:
    """Do what a task does."""
    name, parts = job.staging.attempt(split), {}
    for role, url in job.staging.outputs.items():
        writer = PartWriter(open_store(url), f"{name}.parquet", SCHEMA)
        with writer.writing():
            columns = {"n": [1000 * split + value + row for row in range(rows)], "image": [b"x"] * rows}
            writer.write(pa.RecordBatch.from_pydict(columns, schema=SCHEMA))
        parts[role] = writer.part()
    record = SplitRecord(split, rows, parts, 10, [Loss("file:///f", "odd", 1, "an odd thing")], 0.1)
    with job.staging.records_store().publish(f"{name}.json") as file:
        file.write(record.to_json().encode())
    return record


def numbers(url: str) -> list[int]:
    return sorted(dataset.read_table(url)["n"].to_pylist())


def there(url: str) -> set[str]:
    return {path.name for path in Path(url.removeprefix("file://")).iterdir()}


def test_records_come_back_from_json_as_they_were(outputs):
    with DatasetCommit(outputs, "key") as job:
        record = attempt(job, 4)
        assert SplitRecord.from_json(record.to_json()) == record
        job.discard()


def test_of_two_attempts_at_a_split_one_is_taken(outputs):
    with DatasetCommit(outputs, "key") as job:
        taken = [attempt(job, 0), attempt(job, 1)]
        attempt(job, 0, value=500)
        job.commit(taken, CONTENT)
    for url in outputs.values():
        assert numbers(url) == [0, 1, 2, 1000, 1001, 1002]
        assert there(url) == {"_SUCCESS", "_apbatch.json", *dataset.part_files(url)}
    assert dataset.info(outputs["two"])["kind"] == "grids"


def test_a_killed_job_goes_on_with_what_is_missing(outputs):
    with pytest.raises(KeyboardInterrupt), DatasetCommit(outputs, "key", {"target": 7}) as job:
        attempt(job, 0)
        attempt(job, 2)
        cut = attempt(job, 1)
        Path(outputs["two"].removeprefix("file://"), cut.parts["two"].name).write_bytes(b"cut")
        open_store(outputs["one"]).remove(attempt(job, 3).parts["one"].name)
        raise KeyboardInterrupt
    assert not any(dataset.is_complete(url) for url in outputs.values())
    with DatasetCommit(outputs, "key", {"target": 99}) as job:
        assert job.plan == {"target": 7}
        done = job.finished(range(5))
        assert sorted(done) == [0, 2]
        job.commit([*done.values(), *(attempt(job, split) for split in (1, 3, 4))], CONTENT)
    for url in outputs.values():
        assert numbers(url) == [1000 * split + row for split in range(5) for row in range(3)]
        assert there(url) == {"_SUCCESS", "_apbatch.json", *dataset.part_files(url)}


def test_other_work_starts_afresh(outputs):
    with pytest.raises(KeyboardInterrupt), DatasetCommit(outputs, "key") as job:
        attempt(job, 0, value=7)
        raise KeyboardInterrupt
    with DatasetCommit(outputs, "another key") as job:
        assert job.finished([0]) == {}
        job.commit([attempt(job, 0)], CONTENT)
    assert numbers(outputs["one"]) == [0, 1, 2]


@pytest.mark.parametrize("moment", range(12))
def test_killed_at_any_moment_of_the_commit_a_dataset_is_old_or_new_and_the_end_is_new(outputs, monkeypatch, moment):
    with DatasetCommit(outputs, "old") as job:
        job.commit([attempt(job, split, value=100) for split in range(2)], CONTENT)
    old = {url: numbers(url) for url in outputs.values()}
    store = type(open_store(outputs["one"]))
    calls = 0

    def dying(call):
        def counted(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls > moment:
                raise KeyboardInterrupt
            return call(*arguments, **options)

        return counted

    with pytest.raises(KeyboardInterrupt), DatasetCommit(outputs, "new") as job:
        records = [attempt(job, split) for split in range(3)]
        for name in ("_rename", "remove", "_delete"):
            monkeypatch.setattr(store, name, dying(getattr(store, name)))
        job.commit(records, CONTENT)
        pytest.skip("the commit has fewer moments")
    monkeypatch.undo()
    for url in outputs.values():
        assert numbers(url) in (old[url], [0, 1, 2, 1000, 1001, 1002, 2000, 2001, 2002])
    with DatasetCommit(outputs, "new") as job:
        done = job.finished(range(3))
        missing = [split for split in range(3) if split not in done]
        job.commit([*done.values(), *(attempt(job, split) for split in missing)], CONTENT)
    for url in outputs.values():
        assert numbers(url) == [0, 1, 2, 1000, 1001, 1002, 2000, 2001, 2002]
        assert there(url) == {"_SUCCESS", "_apbatch.json", *dataset.part_files(url)}


def test_readers_see_a_whole_dataset_while_it_is_replaced_again_and_again(outputs):
    wanted = [[value + row for row in range(3)] for value in range(0, 60, 10)]
    with DatasetCommit(outputs, "0") as job:
        job.commit([attempt(job, 0)], CONTENT)
    stop, seen = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            seen.append(numbers(outputs["one"]))

    reader = threading.Thread(target=read)
    reader.start()
    for value in range(10, 60, 10):
        with DatasetCommit(outputs, str(value)) as job:
            job.commit([attempt(job, 0, value=value)], CONTENT)
    stop.set()
    reader.join()
    assert seen and all(found in wanted for found in seen)


def test_a_dataset_without_a_list_of_files_is_replaced_as_well(outputs, tmp_path):
    folder = tmp_path / "one"
    folder.mkdir()
    pq.write_table(pa.table({"n": [9]}), folder / "part-00000-of-spark.parquet")
    (folder / "_SUCCESS").touch()
    (folder / "_apbatch.json").write_text(json.dumps({"kind": "images"}))
    with DatasetCommit(outputs, "key") as job:
        record = attempt(job, 0)
        assert numbers(outputs["one"]) == [9]
        job.commit([record], CONTENT)
    assert numbers(outputs["one"]) == [0, 1, 2]
    assert not (folder / "part-00000-of-spark.parquet").exists()


def test_what_is_thrown_away_leaves_no_folder(outputs, tmp_path):
    with DatasetCommit(outputs, "key") as job:
        attempt(job, 0)
        job.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_things_is_left_alone(outputs, tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "thesis.tex").write_text("…")
    with pytest.raises(UsageError, match="not a dataset"):
        DatasetCommit(outputs, "key").__enter__()
    assert there(outputs["one"]) == {"thesis.tex"}
    with pytest.raises(UsageError, match="same URL"):
        DatasetCommit({"a": outputs["two"], "b": outputs["two"] + "/"}, "key")


def test_a_second_program_is_told_who_writes_and_harms_nothing(outputs):
    with DatasetCommit(outputs, "key") as job:
        record = attempt(job, 0)
        with pytest.raises(UsageError, match=f"being written by another program .process {os.getpid()}"):
            DatasetCommit({"one": outputs["one"]}, "other").__enter__()
        job.commit([record], CONTENT)
    assert numbers(outputs["one"]) == [0, 1, 2]


def _hold(url: str, ready: multiprocessing.connection.Connection) -> None:
    Lock(open_store(url), ".lock", "this").__enter__()
    ready.send(os.getpid())
    threading.Event().wait()


def test_a_lock_dies_with_its_process(tmp_path):
    url = f"file://{tmp_path}/one"
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_hold, args=(url, theirs), daemon=True)
    process.start()
    assert ours.recv() == process.pid
    with pytest.raises(UsageError, match="by another program"):
        Lock(open_store(url), ".lock", "this").__enter__()
    process.kill()
    process.join()
    with Lock(open_store(url), ".lock", "this") as lock:
        assert lock.is_ours()
    assert not (tmp_path / "one" / ".lock").exists()


def test_a_lock_of_another_machine_lives_while_it_is_renewed(tmp_path, monkeypatch):
    store = open_store(f"file://{tmp_path}/one")
    lock = Lock(store, ".lock", "this", renew_s=0.05)
    with lock:
        monkeypatch.setattr(names, "_machine", lambda: "0" * 8)  # we are somewhere else now
        owner = tmp_path / "one" / ".lock" / "owner.json"
        os.utime(owner, (1e9, 1e9))  # silent for years, until it is renewed
        until(lambda: owner.stat().st_mtime > 1e9)
        with pytest.raises(UsageError, match="by another program"):
            Lock(store, ".lock", "this", life_s=3600).__enter__()
        lock._stop.set()
        lock._renewing.join()
        os.utime(owner, (1e9, 1e9))
        with Lock(store, ".lock", "this", life_s=3600):
            with pytest.raises(ServerError, match="taken over"):
                lock.check()
            with pytest.raises(UsageError, match="by another program"):
                Lock(store, ".lock", "this").__enter__()
    assert not (tmp_path / "one" / ".lock").exists()


def test_row_groups_have_a_size_that_suits(tmp_path, monkeypatch):
    monkeypatch.setattr("apbatch.datasets.part_files.ROW_GROUP_BYTES", 100_000)
    writer = PartWriter(open_store(f"file://{tmp_path}"), "part.parquet", SCHEMA)
    with writer.writing():
        for start in range(0, 4000, 100):
            columns = {"n": list(range(start, start + 100)), "image": [os.urandom(100)] * 100}
            writer.write(pa.RecordBatch.from_pydict(columns, schema=SCHEMA))
    footer = pq.read_metadata(tmp_path / "part.parquet")
    assert footer.num_rows == writer.part().rows == 4000
    assert {footer.row_group(group).num_rows for group in range(footer.num_row_groups - 1)} == {900}
    assert footer.row_group(0).column(0).is_stats_set and not footer.row_group(0).column(1).is_stats_set
    assert writer.part().bytes == (tmp_path / "part.parquet").stat().st_size


def test_a_part_is_there_whole_or_not_at_all(tmp_path):
    writer = PartWriter(open_store(f"file://{tmp_path}"), "part.parquet", SCHEMA)
    with pytest.raises(RuntimeError, match="died"), writer.writing():
        writer.write(pa.RecordBatch.from_pydict({"n": [1], "image": [b""]}, schema=SCHEMA))
        raise RuntimeError("died")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seen", [{"token": "of a dead owner"}, None])
def test_a_lock_that_another_took_meanwhile_is_given_back(tmp_path, seen):
    store = open_store(f"file://{tmp_path}/one")
    with Lock(store, ".lock", "this") as lock:
        late = Lock(store, ".lock", "this")
        late._break(seen)  # what it saw before `lock` was quicker
        assert lock.is_ours()
        lock.check()
        with pytest.raises(UsageError, match="another program"):
            late.__enter__()
    assert there(store.url) == set()


@pytest.mark.parametrize("role", ["one", "two"])
def test_nothing_is_committed_when_another_program_holds_a_lock(outputs, role):
    with DatasetCommit(outputs, "old") as job:
        job.commit([attempt(job, 0, value=100)], CONTENT)
    with DatasetCommit(outputs, "new") as job:
        records = [attempt(job, 0)]
        owner = Path(outputs[role].removeprefix("file://"), f"{dataset.HIDDEN}lock", "owner.json")
        owner.write_text(json.dumps({**json.loads(owner.read_text()), "token": "another"}))
        before = {url: there(url) for url in outputs.values()}
        with pytest.raises(ServerError, match="another program has taken over"):
            job.commit(records, CONTENT)
        assert {url: there(url) for url in outputs.values()} == before
    assert [numbers(url) for url in outputs.values()] == [[100, 101, 102]] * 2
    assert owner.is_file(), "the other program's lock was removed"
