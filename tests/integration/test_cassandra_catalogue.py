"""What only the catalogue in Cassandra has to stand: kill -9 of writers, writers at the same time, other schemas."""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from apbatch.errors import UsageError
from apbatch.formats.reader import Attribute
from apbatch.index.backends import open_catalogue
from apbatch.index.cassandra import writing
from apbatch.index.cassandra.session import CassandraSession
from apbatch.index.catalogue import Catalogue
from apbatch.index.changes import ChangeKind, StaleReaderError
from apbatch.index.events.backends import open_events
from apbatch.index.events.upgrade import take_over
from apbatch.index.files import FileRecord, Replica, State
from apbatch.index.parser import parse
from apbatch.index.query import Query
from tests.waits import until

pytestmark = pytest.mark.cassandra

WRITER = """
import sys
from datetime import date
from apbatch.index.backends import open_catalogue
from apbatch.index.files import FileRecord
url, who = sys.argv[1:]
with open_catalogue(url) as catalogue:
    for block in range(int(10**6)):
        catalogue.upsert(FileRecord(
            path=f"/e/s/{who}/{block}-{n}", site="s", source=f"{block}-{n}", size=n, mtime_ns=n, checksum="",
            adler32="", format="f", experiment="e", run=block, night=date(2017, 1, 1 + n % 28), events=n,
        ) for n in range(40))
        print(block, flush=True)
"""


def writer(url: str, who: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", WRITER, url, who], stdout=subprocess.PIPE, text=True)


def record(name: str, **changes: object) -> FileRecord:
    values: dict[str, object] = {
        "path": f"/e/s/{name}", "site": "s", "source": name, "size": 1, "mtime_ns": 1, "checksum": "", "adler32": "",
        "format": "f", "experiment": "e",
    }  # fmt: skip
    return FileRecord(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture
def url(cassandra: str) -> str:
    return f"{cassandra}/own_{secrets.token_hex(4)}"


def test_killed_writers_leave_whole_records_and_the_feed_misses_none(url: str) -> None:
    with open_catalogue(url) as catalogue:
        writers = [writer(url, who) for who in "ab"]
        seen: list[str] = []
        last = 0
        for process in writers:
            assert process.stdout is not None
            assert process.stdout.readline()
        for _ in range(8):  # a reader that follows while two write
            for change in catalogue.changes(last, 1_000_000):
                assert change.revision > last
                last = change.revision
                seen.append(change.key)
            time.sleep(0.05)
        acknowledged = 0
        for process in writers:
            process.kill()
            assert process.stdout is not None
            acknowledged += 40 * (1 + len(process.stdout.read().split()))
            process.wait(timeout=30)
        held: dict[str, FileRecord] = {}
        known = catalogue.attributes()

        def settled() -> bool:  # what a writer had sent before it was killed is applied after that, and then whole
            held.clear()
            held.update({file.path: file for file in catalogue.of_site("s")})
            return {f.path: f for f in catalogue.select(parse("experiment = 'e'", known))} == held

        until(settled, "tables tell different things of what killed writers left")
        assert len(held) >= acknowledged
        assert len(seen) == len(set(seen)) > 0
        assert {path for path, file in held.items() if file.revision <= last} == set(seen)
        # every table tells the same
        assert {f.path for f in catalogue.select(parse("events >= 0", known))} == set(held)
        by_night = Counter(file.night for file in held.values())
        assert catalogue.count(parse("experiment = 'e'", known), by="night") == dict(sorted(by_night.items()))
        by_run = parse("experiment = 'e' and run = 0", known)
        assert len(list(catalogue.select(by_run))) == sum(file.run == 0 for file in held.values())
        assert len(list(catalogue.select(parse("path like '/e/s/a/%'", known)))) == sum("/a/" in p for p in held)


def test_a_moved_record_leaves_nothing_behind(url: str, cqlsh: Callable[[str], str]) -> None:
    with open_catalogue(url) as catalogue:
        catalogue.declare([Attribute("zenith", "number", "z", "deg"), Attribute("order", "string", "a CQL word")])
        before = record("a", night=date(2017, 1, 1), run=1, attributes={"zenith": 3.0, "order": "x"})
        catalogue.upsert([before, record("b")])
        catalogue.upsert([record("a", experiment="f", run=2, attributes={"order": "y"})])
        catalogue.upsert([record("a", experiment="f", run=2)])
        known = catalogue.attributes()
        assert list(catalogue.select(parse("zenith = 3 or order = 'x'", known))) == []
    keyspace = url.rpartition("/")[2]
    printed = cqlsh(
        f'USE {keyspace}; SELECT path, zenith, "order" FROM file_by_night; SELECT run, path FROM file_by_run; '
        "SELECT path FROM change"
    )
    assert printed.count("/e/s/a") == 3 and printed.count("/e/s/b") == 2
    assert "(1 rows)" in printed and printed.count("(2 rows)") == 2


def test_a_night_that_its_last_file_left_is_not_listed_any_more(url: str, cqlsh: Callable[[str], str]) -> None:
    names = f"SELECT night FROM {url.rpartition('/')[2]}.night_of_experiment"
    night = date(2017, 1, 1)
    with open_catalogue(url) as catalogue:
        catalogue.upsert([record(name, state=State.LISTED) for name in "ab"])  # one partition of unread files each
        assert cqlsh(names).count("none-") == 2
        catalogue.upsert([record("a", night=night)])
        assert cqlsh(names).count("none-") == 1
        catalogue.upsert([record("b", night=night)])
        assert cqlsh(names).count("none-") == 0
        catalogue.remove(["/e/s/a"])
        assert cqlsh(names).count("2017-01-01") == 1
        assert [file.source for file in catalogue.select(parse("experiment = 'e'", catalogue.attributes()))] == ["b"]
        catalogue.remove(["/e/s/b"])
        assert "2017-01-01" not in cqlsh(names)
        catalogue.upsert([record("b", night=night)])
        assert cqlsh(names).count("2017-01-01") == 1


def test_a_count_is_kept_until_its_night_is_written_to(url: str, cqlsh: Callable[[str], str]) -> None:
    first, second = date(2017, 1, 1), date(2017, 1, 2)
    table = f"{url.rpartition('/')[2]}.count_of_night"
    with open_catalogue(url) as catalogue:

        def counts() -> dict[date, int]:
            return catalogue.count(parse("experiment = 'e'", catalogue.attributes()), by="night")

        catalogue.upsert([record(name, night=first) for name in "ab"] + [record("c", night=second)])
        assert counts() == {first: 2, second: 1}
        for night in (first, second):  # what no writer would do shows that nothing is counted again
            cqlsh(f"UPDATE {table} SET files = {{'registered': 70}} WHERE experiment = 'e' AND night = '{night}'")
        assert counts() == {first: 70, second: 70}
        assert catalogue.count(parse("experiment = 'e' and night = 2017-01-02", catalogue.attributes())) == {None: 70}
        cqlsh(f"DELETE FROM {table} WHERE experiment = 'e'")


def test_counts_follow_every_kind_of_write(url: str) -> None:
    first, second = date(2017, 1, 1), date(2017, 1, 2)
    with open_catalogue(url) as catalogue:

        def counts(text: str = "experiment = 'e'") -> dict[date | None, int]:
            return catalogue.count(parse(text, catalogue.attributes()), by="night")

        catalogue.upsert([record(name, night=first) for name in "abc"])
        assert counts() == {first: 3}
        catalogue.upsert([record("a", night=second)])
        assert counts() == {first: 2, second: 1}
        catalogue.upsert([record("b", night=first, state=State.LISTED)])
        assert counts() == {first: 1, second: 1}
        assert counts("experiment = 'e' and state = 'listed'") == {first: 1}
        assert counts("experiment = 'e' and (state = 'listed' or night = 2017-01-02 and state = 'registered')") == {
            first: 1, second: 1,
        }  # fmt: skip
        catalogue.remove(["/e/s/c"])
        assert counts() == {second: 1}
        shared = {"checksum": "x", "place": "/e/shared", "night": first}
        catalogue.upsert([record("d", **shared), record("e", site="t", path="/e/t/e", **shared)])
        assert counts() == {first: 1, second: 1}, "a content that two sites hold counts once"
        catalogue.remove(["/e/s/d"])
        assert counts() == {first: 1, second: 1}


def test_a_count_that_began_while_a_writer_was_under_way_is_not_kept(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    night = date(2017, 1, 1)
    with open_catalogue(url) as reader, open_catalogue(url) as writer:
        query = parse("experiment = 'e'", reader.attributes())
        reader.upsert([record("a", night=night)])
        monkeypatch.setattr(writing, "write_whole", counting_first := _CountFirst(reader, query, writing.write_whole))
        writer.upsert([record("b", night=night)])
        monkeypatch.undo()
        assert counting_first.counts == {None: 1}
        assert reader.count(query) == {None: 2}


class _CountFirst:
    """Has a reader count between the note of a change and its rows."""

    def __init__(self, reader: Catalogue, query: Query, write: Callable[..., None]) -> None:
        self._reader, self._query, self._write = reader, query, write
        self.counts: dict[object, int] = {}

    def __call__(self, *arguments: object) -> None:
        self.counts = self._reader.count(self._query)
        self._write(*arguments)


def test_an_attribute_declared_elsewhere_is_known_at_once(url: str) -> None:
    with open_catalogue(url) as one, open_catalogue(url) as other:
        one.upsert([record("a")])
        assert len(list(one.select(parse("experiment = 'e'", one.attributes())))) == 1
        other.declare([Attribute("zenith", "number", "z", "deg")])
        other.upsert([record("b", attributes={"zenith": 7.0})])
        (found,) = one.select(parse("zenith > 5", one.attributes()))
        assert found.source == "b"
        assert len(list(one.select(parse("experiment = 'e'", one.attributes())))) == 2


def test_an_index_can_be_asked_from_the_moment_it_is_declared(url: str) -> None:
    with open_catalogue(url) as catalogue:
        for number in range(12):
            catalogue.declare([Attribute(f"angle_{number}", "number", "a", "deg")])
            catalogue.upsert([record(f"f{number}", attributes={f"angle_{number}": 7.0})])
            (found,) = catalogue.select(parse(f"angle_{number} > 5", catalogue.attributes()))
            assert found.source == f"f{number}"


def test_an_index_whose_building_failed_is_built_anew(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    statements: list[str] = []
    is_built, change_schema = CassandraSession._is_built, CassandraSession.change_schema

    def fail_once(session: CassandraSession, index: str) -> bool:
        return is_built(session, index) and len(statements) > 2

    def note(session: CassandraSession, cql: str) -> None:
        statements.append(cql.partition(" ON ")[0])
        change_schema(session, cql)

    monkeypatch.setattr(CassandraSession, "_is_built", fail_once)
    monkeypatch.setattr(CassandraSession, "change_schema", note)
    with open_catalogue(url) as catalogue:
        catalogue.declare([Attribute("angle", "number", "a", "deg")])
        made, dropped = "CREATE INDEX IF NOT EXISTS file_attribute_angle", "DROP INDEX IF EXISTS file_attribute_angle"
        assert statements[1:] == [made, dropped, made]
        catalogue.upsert([record("f", attributes={"angle": 7.0})])
        assert [file.source for file in catalogue.select(parse("angle > 5", catalogue.attributes()))] == ["f"]


def test_another_schema_and_another_programs_keyspace_are_refused(
    cassandra: str, url: str, cqlsh: Callable[[str], str]
) -> None:
    with open_catalogue(url):
        pass
    keyspace = url.rpartition("/")[2]
    cqlsh(f"UPDATE {keyspace}.schema_version SET version = 99 WHERE catalogue = 'all'")
    with pytest.raises(UsageError, match="schema 99"):
        open_catalogue(url)
    cqlsh(
        f"CREATE KEYSPACE {keyspace}_x WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': 1}}; "
        f"CREATE TABLE {keyspace}_x.recipes (name text PRIMARY KEY)"
    )
    with pytest.raises(UsageError, match="another program"):
        open_catalogue(f"{cassandra}/{keyspace}_x")


def test_files_and_replicas_of_schema_3_are_all_there_after_an_upgrade(
    cassandra: str, url: str, cqlsh: Callable[[str], str]
) -> None:
    keyspace = url.rpartition("/")[2]
    dump = Path(__file__).with_name("catalogue_schema_3.cql").read_text()
    cqlsh(
        f"CREATE KEYSPACE {keyspace} WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': 1}}; "
        f"USE {keyspace}; {dump.partition(chr(10))[2]}"
    )
    a = record(
        "a", size=10, mtime_ns=1500000000000000001, checksum="c1", adler32="00000001", run=7, night=date(2017, 10, 28),
        time_start=datetime(2017, 10, 28, 16, 1, 2, 345678, tzinfo=UTC), cluster=3, events=10_000,
        attributes={"zenith": 2.5, "label": "ü"},
    )  # fmt: skip
    b = replace(
        record("d/b", size=10, mtime_ns=a.mtime_ns, checksum="c2", adler32="00000002", cluster=3),
        state=State.QUARANTINED, reason="cut",
    )  # fmt: skip
    c = record("d/e/c", size=10, mtime_ns=a.mtime_ns, checksum="c3", adler32="00000003", cluster=3)
    for _ in range(2):  # an upgrade is done once, a catalogue opened many times
        with open_catalogue(url) as catalogue:
            assert [replace(file, revision=0) for file in catalogue.of_site("s")] == [a, b, c]
            (change, *_), replicas = list(catalogue.all_changes(3)), catalogue.replicas([a.path])[a.path]
            assert change.kind is ChangeKind.CHANGED and catalogue.revision() == 7
            assert replicas == [
                Replica(a.path, "hdfs://h/a", "hdfs", "c1", datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC))
            ]
            known = catalogue.attributes()
            assert [f.source for f in catalogue.select(parse("zenith = 2.5 and label = 'ü'", known))] == ["a"]
            assert [f.source for f in catalogue.select(parse("path like '/e/s/d/%'", known))] == ["d/e/c"]
            assert [entry.name for entry in catalogue.entries("/e/s").entries] == ["a", "d"]
            assert [entry.name for entry in catalogue.entries("/e/s/d").entries] == ["e"]


def test_a_keyspace_of_schema_4_gets_its_counts(url: str, cqlsh: Callable[[str], str]) -> None:
    keyspace = url.rpartition("/")[2]
    with open_catalogue(url) as catalogue:
        catalogue.upsert([record("a", night=date(2017, 1, 1)), record("b")])
        revision = catalogue.revision()
    cqlsh(
        f"DROP TABLE {keyspace}.count_of_night; "
        f"UPDATE {keyspace}.schema_version SET version = 4 WHERE catalogue = 'all'"
    )
    with open_catalogue(url) as catalogue:
        assert catalogue.revision() == revision, "no file is written again"
        counts = catalogue.count(parse("experiment = 'e'", catalogue.attributes()), by="night")
        assert counts == {None: 1, date(2017, 1, 1): 1}


def test_a_reader_from_before_the_oldest_removal_starts_again(url: str, cqlsh: Callable[[str], str]) -> None:
    keyspace = url.rpartition("/")[2]
    with open_catalogue(url) as catalogue:
        catalogue.upsert([record(name) for name in "abc"])
        seen = catalogue.revision()
        catalogue.remove(["/e/s/a"])
        assert [change.kind for change in catalogue.changes(seen)] == [ChangeKind.GONE]
        # the row of the day is as it will be after that time; the removal itself expires two days later
        cqlsh(
            f"INSERT INTO {keyspace}.removal (catalogue, day, revision) VALUES ('all', '2026-01-01', {seen + 1}); "
            f"DELETE FROM {keyspace}.change WHERE bucket = 0 AND revision = {seen + 1}"
        )
        with pytest.raises(StaleReaderError, match="from revision 0"):
            catalogue.changes(seen)
        catalogue.remove(["/e/s/b"])
        assert [change.key for change in catalogue.all_changes(0)] == ["/e/s/c", "/e/s/b"]
        assert [change.key for change in catalogue.changes(seen + 1)] == ["/e/s/b"]


#: The tables of events of schema 2, and some rows.
OLD_EVENTS = """
CREATE TABLE {0}.event_by_run (experiment text, run bigint, bucket bigint, event bigint, telescope int, cleaning text,
  dataset text, parameters frozen<map<text, double>>,
  PRIMARY KEY ((experiment, run, bucket), event, telescope, cleaning));
CREATE TABLE {0}.event_bucket (experiment text, run bigint, bucket bigint, PRIMARY KEY ((experiment), run, bucket));
CREATE TABLE {0}.event_parameter (experiment text, name text, PRIMARY KEY ((experiment), name));
INSERT INTO {0}.event_by_run (experiment, run, bucket, event, telescope, cleaning, dataset, parameters)
  VALUES ('e', 1, 0, 2, 1, 'none', 'd', {{'width': 1.5, 'size': 30}});
INSERT INTO {0}.event_by_run (experiment, run, bucket, event, telescope, cleaning) VALUES ('e', 1, 2, 8193, 1, 'x');
UPDATE {0}.schema_version SET version = 2 WHERE catalogue = 'all';
"""


def test_a_keyspace_of_yesterday_is_brought_up_to_date(url: str, cqlsh: Callable[[str], str], tmp_path: Path) -> None:
    with open_catalogue(url) as catalogue:
        catalogue.upsert([record("a")])
    cqlsh(OLD_EVENTS.format(url.rpartition("/")[2]))
    with open_catalogue(url) as catalogue:
        assert catalogue.get("/e/s/a") is not None
    with open_events(f"file://{tmp_path}/events") as events:
        assert take_over(url, events) == 2
        first, second = [row for batch in events.select() for row in batch.to_pylist()]
        assert take_over(url, events) == 0
    assert (first["event"], first["dataset"], first["width"], first["size"]) == (2, "d", 1.5, 30.0)
    assert (second["event"], second["cleaning"], second["width"]) == (8193, "x", None)


def test_a_server_that_is_not_there_is_one_message() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from apbatch.index.backends import open_catalogue\n"
         "try: open_catalogue('cassandra://127.0.0.1:9/x')\nexcept Exception as e: print(type(e).__name__, e)"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.startswith("ServerError cassandra://127.0.0.1:9/x: Cassandra does not answer: ")
    assert done.stderr == ""


def test_a_keyspace_may_have_a_name_that_is_a_word_of_cql(cassandra: str) -> None:
    for _ in range(2):  # made, and then found
        with open_catalogue(f"{cassandra}/full") as catalogue:
            catalogue.upsert([record("f")])
            assert catalogue.get("/e/s/f") is not None


def test_a_wrong_url_is_a_users_error(cassandra: str) -> None:
    with pytest.raises(UsageError, match="HOST:PORT/KEYSPACE"):
        open_catalogue(f"{cassandra}/Upper-Case")
