"""Events of homes of older versions: small dumps as these versions wrote them, moved with nothing lost."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from apbatch.config import load_settings
from apbatch.errors import ServerError
from apbatch.index.events.backends import open_events
from apbatch.index.events.upgrade import events_of, take_over

#: The tables of events of a catalogue in SQLite, schema 2, as `.dump` wrote them.
DUMP = """
CREATE TABLE image_event (experiment TEXT NOT NULL, run BIGINT NOT NULL, event BIGINT NOT NULL,
  telescope INTEGER NOT NULL, cleaning TEXT NOT NULL, dataset TEXT, image_file TEXT, image_row_group BIGINT,
  image_row BIGINT, parameters TEXT NOT NULL, PRIMARY KEY (experiment, run, event, telescope, cleaning));
CREATE TABLE event_parameter (experiment TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (experiment, name));
INSERT INTO image_event VALUES('TAIGA',20171028,7,1,'none','file:///d','part-0.parquet',0,3,
  '{"size": 103.25, "width": 0.1, "length": 0.30000000000000004}');
INSERT INTO image_event VALUES('TAIGA',20171028,7,1,'tailcuts-14-7',NULL,NULL,NULL,NULL,'{"size": 90.5}');
INSERT INTO image_event VALUES('it''s',-1,9007199254740993,0,'score-hex-cnn-soft',NULL,NULL,NULL,NULL,'{"score": 0.5}');
INSERT INTO image_event VALUES('TAIGA',20171028,8,1,'none',NULL,NULL,NULL,NULL,'{}');
INSERT INTO event_parameter VALUES('TAIGA','size');
CREATE TABLE file (path TEXT PRIMARY KEY);
PRAGMA user_version = 2;
"""
FIXED = ("dataset", "image_file", "image_row_group", "image_row")


def old_home(path: Path, script: str = DUMP) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(path) as connection:
        connection.executescript(script)
    return f"sqlite:///{path}"


def old_rows(path: Path) -> list[dict[str, object]]:
    with sqlite3.connect(path) as connection:
        connection.row_factory = sqlite3.Row
        rows = connection.execute("SELECT * FROM image_event ORDER BY experiment, run, event, telescope, cleaning")
        return [{**row, **json.loads(row["parameters"])} for row in map(dict, rows)]


def test_events_of_an_old_home_are_moved_with_nothing_lost(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old_home(home / "catalogue.sqlite")
    before = old_rows(home / "catalogue.sqlite")
    with events_of(load_settings()) as store:
        rows = [row for batch in store.select() for row in batch.to_pylist()]
    for row in before:
        del row["parameters"]
    assert [
        {name: value for name, value in row.items() if name in old} for row, old in zip(rows, before, strict=True)
    ] == before
    assert all(row[name] is None for row, old in zip(rows, before, strict=True) for name in set(row) - set(old))
    assert "4 events were moved" in capsys.readouterr().err
    with sqlite3.connect(home / "catalogue.sqlite") as connection:
        assert [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")] == ["file"]
    with events_of(load_settings()) as store:  # nothing is left to be moved
        assert store.count() == {None: 4}
    assert capsys.readouterr().err == ""


def test_schema_1_had_no_place_in_a_file(home: Path) -> None:
    script = DUMP.replace(", image_file TEXT, image_row_group BIGINT,\n  image_row BIGINT", "")
    script = script.replace(",'part-0.parquet',0,3", "").replace(",NULL,NULL,NULL,NULL,", ",NULL,")
    url = old_home(home / "catalogue.sqlite", script)
    with open_events(f"file://{home}/events") as store:
        assert take_over(url, store) == 4
        (row,) = [row for batch in store.select() for row in batch.to_pylist() if row["dataset"]]
    assert (row["dataset"], row["image_file"], row["size"]) == ("file:///d", None, 103.25)


def test_a_kill_before_the_old_rows_are_dropped_loses_nothing(home: Path) -> None:
    old_home(home / "catalogue.sqlite")
    killed = (
        "import os, signal, sys\n"
        "from apbatch.config import load_settings\n"
        "from apbatch.index.events import upgrade\n"
        "from apbatch.index.events.parquet import ParquetEvents\n"
        "upsert = ParquetEvents.upsert\n"
        "def then_die(self, events):\n"
        "    upsert(self, events)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "ParquetEvents.upsert = then_die\n"
        "upgrade.events_of(load_settings())\n"
    )
    done = subprocess.run([sys.executable, "-c", killed], env=os.environ, check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert len(old_rows(home / "catalogue.sqlite")) == 4
    with events_of(load_settings()) as store:
        assert store.count() == {None: 4}


def test_a_store_that_fails_leaves_the_old_rows(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = old_home(home / "catalogue.sqlite")
    with open_events(f"file://{home}/events") as store:

        def fails(*_: object) -> int:
            raise ServerError("the disk is full")

        monkeypatch.setattr(store, "upsert", fails)
        with pytest.raises(ServerError, match="full"):
            take_over(url, store)
    assert len(old_rows(home / "catalogue.sqlite")) == 4
