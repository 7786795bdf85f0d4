"""What only the catalogue in a file has to stand: other processes, kill -9, damage, other schemas."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from apbatch.errors import ApbatchError, ServerError, UsageError
from apbatch.formats.reader import Attribute
from apbatch.index.backends import open_catalogue
from apbatch.index.events.backends import open_events
from apbatch.index.events.upgrade import take_over
from apbatch.index.files import FileRecord
from apbatch.index.parser import parse, parse_search

WRITER = """
import sys
from apbatch.formats.reader import Attribute
from apbatch.index.backends import open_catalogue
from apbatch.index.files import FileRecord
url, who, many = sys.argv[1], sys.argv[2], int(sys.argv[3])
with open_catalogue(url) as catalogue:
    catalogue.declare([Attribute("zenith", "number", "z", "deg")])
    for n in range(many):
        name = f"{who}-{n}" if n % 2 else f"shared-{n}"
        catalogue.upsert([FileRecord(
            path=f"/e/s/{name}", site="s", source=name, size=n, mtime_ns=n, checksum="", adler32="", format="f",
            experiment="e", attributes={"zenith": n},
        )])
        print(name, flush=True)
"""


def writer(url: str, who: str, many: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, url, who, str(many)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def record(name: str, **changes: object) -> FileRecord:
    values: dict[str, object] = {
        "path": f"/e/s/{name}", "site": "s", "source": name, "size": 1, "mtime_ns": 1, "checksum": "", "adler32": "",
        "format": "f", "experiment": "e",
    }  # fmt: skip
    return FileRecord(**{**values, **changes})  # type: ignore[arg-type]


def test_threads_that_end_leave_no_file_open(tmp_path: Path) -> None:
    with open_catalogue(f"sqlite:///{tmp_path}/c.sqlite") as catalogue:

        def ask() -> int:
            thread = threading.Thread(target=catalogue.revision)
            thread.start()
            thread.join()
            return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

        first = ask()
        assert max(ask() for _ in range(20)) <= first + 4


def test_several_processes_create_and_fill_one_catalogue(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/new/folder/c.sqlite"
    writers = [writer(url, who, 20) for who in ("a", "b", "c")]
    for process in writers:
        _, told = process.communicate(timeout=120)
        assert process.returncode == 0, told
    with open_catalogue(url) as catalogue:
        assert sum(catalogue.count(parse("", catalogue.attributes())).values()) == 3 * 10 + 10
        revisions = [change.revision for change in catalogue.all_changes(0)]
    assert len(set(revisions)) == len(revisions) and max(revisions) == 60


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/c.sqlite"
    process = writer(url, "a", 1_000_000)
    assert process.stdout is not None
    acknowledged = [process.stdout.readline().strip() for _ in range(25)]
    process.send_signal(signal.SIGKILL)
    acknowledged += process.stdout.read().split()
    process.wait(timeout=30)
    with open_catalogue(url) as catalogue:
        held = {r.source: r for r in catalogue.of_site("s")}
    assert set(acknowledged) <= set(held)
    assert all(dict(r.attributes) == {"zenith": r.size} for r in held.values())  # each whole


def test_a_condition_on_an_attribute_is_searched_in_an_index(tmp_path: Path) -> None:
    with open_catalogue(f"sqlite:///{tmp_path}/c.sqlite") as catalogue:
        catalogue.declare([Attribute("zenith", "number", "z", "deg")])
        catalogue.upsert(record(f"{n}", attributes={"zenith": float(n)}) for n in range(600))
    with open_catalogue(f"sqlite:///{tmp_path}/c.sqlite") as catalogue:
        plan = catalogue.explain(parse("experiment = 'e' and zenith < 3", catalogue.attributes()))
    assert "SEARCH a USING COVERING INDEX attributes_1_zenith (zenith<?)" in plan
    assert "SEARCH f USING INTEGER PRIMARY KEY (rowid=?)" in plan
    assert "SCAN" not in plan


def test_a_plan_tells_how_many_rows_are_read(tmp_path: Path) -> None:
    with open_catalogue(f"sqlite:///{tmp_path}/c.sqlite") as catalogue:
        catalogue.declare([Attribute("zenith", "number", "z", "deg")])
        catalogue.upsert(record(f"{n}", size=n, attributes={"zenith": float(n)}) for n in range(3_000))
    with open_catalogue(f"sqlite:///{tmp_path}/c.sqlite") as catalogue:  # when it was closed, SQLite counted
        attributes = catalogue.attributes()
        asked = ("path = '/e/s/3'", "experiment = 'e' order by size", "zenith < 3", "")
        rows = [catalogue.rows_read(parse_search(query, attributes)) for query in asked]
    assert rows[:2] == [1, 3_000] and rows[3] == 1_000
    assert rows[2] is not None and 100 < rows[2] < 2_000


def test_a_damaged_file_is_told_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    path.write_bytes(b"not a database at all" * 1000)
    with pytest.raises(ServerError, match=r"c\.sqlite: the catalogue is damaged .*ingest the sites again"):
        open_catalogue(f"sqlite:///{path}")


def test_a_page_overwritten_is_told_as_damage_or_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    with open_catalogue(f"sqlite:///{path}") as catalogue:
        catalogue.upsert(record(f"{n}") for n in range(2000))
    content = bytearray(path.read_bytes())
    content[40_000:] = os.urandom(len(content) - 40_000)
    path.write_bytes(content)
    with pytest.raises(ApbatchError, match="damaged"), open_catalogue(f"sqlite:///{path}") as catalogue:
        list(catalogue.of_site("s"))


def test_another_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    with open_catalogue(f"sqlite:///{path}"):
        pass
    with sqlite3.connect(path) as connection:
        connection.execute("pragma user_version = 99")
    with pytest.raises(UsageError, match="schema 99"):
        open_catalogue(f"sqlite:///{path}")


@pytest.mark.parametrize("version", [1, 2])
def test_a_catalogue_of_yesterday_is_brought_up_to_date(tmp_path: Path, version: int) -> None:
    path = tmp_path / "c.sqlite"
    with sqlite3.connect(path) as connection:  # as apbatch wrote it in 2025
        connection.executescript(Path(__file__).with_name("catalogue_schema_2.sql").read_text())
        if version == 1:
            for name in ("image_file", "image_row_group", "image_row"):
                connection.execute(f"alter table image_event drop column {name}")
        connection.execute(f"pragma user_version = {version}")
    attributes = {
        "zenith": 30.5, "label": "ü '%\n", "simulated": True, "calibrated": date(2017, 9, 30), "seed": 2**62 + 1,
        "shifted": datetime(999, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
    }  # fmt: skip
    with open_catalogue(f"sqlite:///{path}") as catalogue:
        assert {file.path: (file.revision, file.state.value) for file in catalogue.of_site("s")} == {
            "/TAIGA/s/2017/a.001": (1, "registered"), "/TAIGA/s/2017/b.001": (6, "registered"),
            "/TAIGA/s/gone": (3, "missing"), "/TAIGA/s/bad": (4, "quarantined"), "/MAGIC/s/x": (5, "registered"),
        }  # fmt: skip
        file = catalogue.get("/TAIGA/s/2017/a.001")
        assert file is not None and file.attributes == attributes
        assert (file.run, file.night, file.events) == (7, date(2017, 10, 28), 10)
        assert file.time_start == datetime(2017, 10, 28, 16, 1, 2, 345678, tzinfo=UTC)
        assert [f.source for f in catalogue.select(parse("zenith > 12", catalogue.attributes()))] == [
            "2017/a.001", "2017/b.001"
        ]  # fmt: skip
        (replica,) = catalogue.replicas([file.path])[file.path]
        assert (replica.url, replica.verified) == ("hdfs://h/a", datetime(2026, 1, 1, tzinfo=UTC))
        assert [entry.name for entry in catalogue.entries("/TAIGA/s/2017").entries] == ["a.001", "b.001"]
        revisions = [change.revision for change in catalogue.all_changes(0)]
        assert revisions == [1, 3, 4, 5, 6, 7]
        catalogue.upsert([record("new")])
        assert catalogue.revision() == 8
    with open_events(f"file://{tmp_path}/events") as events:
        take_over(f"sqlite:///{path}", events)
        (batch,) = events.select(parse("event = 3", events.attributes()))
        assert batch.column("image_file").to_pylist() == (["p"] if version == 2 else [None])
        assert batch.column("width").to_pylist() == [0.25]


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("create table recipes (name text)")
    with pytest.raises(UsageError, match="another program"):
        open_catalogue(f"sqlite:///{path}")
    with sqlite3.connect(path) as connection:
        assert [row[0] for row in connection.execute("select name from sqlite_master")] == ["recipes"]


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ApbatchError, match="folder can't be made"):
        open_catalogue(f"sqlite:///{tmp_path}/file/c.sqlite")


def test_a_server_is_told_from_the_catalogue_behind_it() -> None:
    with pytest.raises(UsageError, match="not on a server in front of it"):
        open_catalogue("https://data.example.org")


def test_an_unknown_scheme_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'sqlite'"):
        open_catalogue("sqllite:///x")


FILLER = """
import resource, sys
from apbatch.errors import ServerError
from apbatch.index.backends import open_catalogue
from apbatch.index.files import FileRecord
with open_catalogue(sys.argv[1]) as catalogue:
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))  # what a full disk does to a file that grows
    import signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for n in range(10_000):
        name = f"{n}"
        try:
            catalogue.upsert([FileRecord(
                path=f"/e/s/{name}", site="s", source=name, size=n, mtime_ns=n, checksum="c" * 64, adler32="",
                format="f", experiment="e",
            )])
        except ServerError as error:
            print("refused", error, flush=True)
            break
        print(name, flush=True)
"""


def test_a_full_disk_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/c.sqlite"
    done = subprocess.run([sys.executable, "-c", FILLER, url], capture_output=True, text=True, timeout=300, check=True)
    *acknowledged, last = done.stdout.splitlines()
    assert last.startswith("refused") and acknowledged
    with open_catalogue(url) as catalogue:
        assert {file.source for file in catalogue.of_site("s")} == set(acknowledged)
        assert catalogue.damage() == []
        catalogue.upsert([record("after")])
