"""Ingest: what is registered, what is read again, what is set aside, and that a site is only read."""

from __future__ import annotations

import gzip
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from datetime import date
from hashlib import sha1
from pathlib import Path
from typing import Any

import pytest

from apbatch.errors import NotFoundError, UsageError
from apbatch.index.backends import open_catalogue
from apbatch.index.catalogue import Catalogue
from apbatch.index.descriptions import DescriptionKind
from apbatch.index.files import FileRecord, State
from apbatch.index.leases import LeaseHeldError, leased
from apbatch.ingest import completion, listing, writer
from apbatch.ingest.opening import open_source, source_url
from apbatch.ingest.reading import description
from apbatch.ingest.reading import examine as examine_module
from apbatch.ingest.scan import ingest, lease_name
from apbatch.ingest.site import Site
from apbatch.ingest.sites import add_site
from apbatch.ingest.summary import IngestSummary
from apbatch.storage.hashing import hash_stream
from tests.unit.formats.test_formats_taiga_raw import record


@pytest.fixture
def catalogue(home: Path) -> Iterator[Catalogue]:
    with open_catalogue(f"sqlite:///{home}/catalogue.sqlite") as opened:
        yield opened


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A site of two clusters with three and five events."""
    folder = tmp_path / "data"
    put(folder, "BSM01/28107001.001", 3, board=0)
    put(folder, "BSM02/28107002.001", 5, board=1)
    return folder


def put(root: Path, source: str, events: int, board: int = 0) -> Path:
    path = root / source
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(record(event, board=board) for event in range(events)))
    return path


def site(root: Path, **more: Any) -> Site:
    return Site.model_validate({"name": "s", "experiment": "TAIGA", "root": str(root), **more})


def found(catalogue: Catalogue) -> dict[str, FileRecord]:
    return {record.source: record for record in catalogue.of_site("s")}


def counts(summary: IngestSummary) -> tuple[int, int, int, int, int]:
    return (
        summary.registered,
        summary.changed,
        summary.unchanged,
        summary.missing,
        summary.quarantined.count,
    )


def test_files_are_registered_with_checksums_and_metadata(root: Path, catalogue: Catalogue) -> None:
    assert counts(ingest(site(root), catalogue)) == (2, 0, 0, 0, 0)
    one = found(catalogue)["BSM02/28107002.001"]
    with (root / one.source).open("rb") as stream:
        checksums = hash_stream(stream)
    assert (one.checksum, one.adler32, one.size) == (checksums.blake3, checksums.adler32, 5 * 156)
    assert one.path == "/taiga/s/BSM02/28107002.001"
    assert (one.format, one.events, one.cluster, one.telescope, one.run) == ("taiga-raw", 5, 2, 1, 20171028)
    assert one.mtime_ns == (root / one.source).stat().st_mtime_ns
    assert one.attributes["part"] == 1


def test_a_second_ingest_reads_nothing(root: Path, catalogue: Catalogue) -> None:
    ingest(site(root), catalogue)
    before = found(catalogue)
    summary = ingest(site(root), catalogue)
    assert counts(summary) == (0, 0, 2, 0, 0)
    assert summary.bytes_read == 0
    assert found(catalogue) == before


def test_only_what_changed_is_read_again(root: Path, catalogue: Catalogue) -> None:
    ingest(site(root), catalogue)
    put(root, "BSM01/28107001.001", 4)
    put(root, "BSM01/28107001.002", 1)
    summary = ingest(site(root), catalogue)
    assert counts(summary) == (1, 1, 1, 0, 0)
    assert summary.bytes_read == 5 * 156
    assert found(catalogue)["BSM01/28107001.001"].events == 4


def test_a_vanished_file_is_missing_and_one_that_is_back_is_registered(root: Path, catalogue: Catalogue) -> None:
    ingest(site(root), catalogue)
    hidden = root.parent / "hidden"
    (root / "BSM02").rename(hidden)
    assert counts(ingest(site(root), catalogue)) == (0, 0, 1, 1, 0)
    assert found(catalogue)["BSM02/28107002.001"].state is State.MISSING
    assert counts(ingest(site(root), catalogue)) == (0, 0, 1, 0, 0)
    hidden.rename(root / "BSM02")
    assert counts(ingest(site(root), catalogue)) == (1, 0, 1, 0, 0)
    assert found(catalogue)["BSM02/28107002.001"].state is State.REGISTERED


def test_a_broken_file_is_set_aside_with_its_reason_and_the_rest_goes_on(root: Path, catalogue: Catalogue) -> None:
    (root / "BSM01" / "28107001.002").write_bytes(b"\0" * 1000)
    (root / "BSM01" / "28107001.003").write_bytes(b"")
    assert counts(ingest(site(root), catalogue)) == (2, 0, 0, 0, 2)
    broken = found(catalogue)["BSM01/28107001.002"]
    assert broken.state is State.QUARANTINED
    assert "no whole record" in (broken.reason or "")
    summary = ingest(site(root), catalogue)  # not read again, but still told
    assert counts(summary) == (0, 0, 2, 0, 2)
    assert summary.bytes_read == 0
    put(root, "BSM01/28107001.002", 2)
    assert counts(ingest(site(root), catalogue)) == (0, 1, 2, 0, 1)


def test_a_damaged_record_is_noted_and_the_file_is_registered(root: Path, catalogue: Catalogue) -> None:
    path = put(root, "BSM01/28107001.004", 3)
    path.write_bytes(path.read_bytes()[:-56])
    summary = ingest(site(root), catalogue)
    assert list(summary.partial.first) == ["BSM01/28107001.004"] and summary.partial.count == 1
    one = found(catalogue)["BSM01/28107001.004"]
    assert (one.state, one.events, one.attributes["problems"]) == (State.REGISTERED, 2, 1)
    assert one.attributes["problem"] == "byte 312: the last record is cut: 100 of 156 bytes"


def test_files_of_no_known_format_are_told_and_registered_as_other(root: Path, catalogue: Catalogue) -> None:
    (root / "README.txt").write_text("Dear colleagues\n")
    assert list(ingest(site(root), catalogue).unrecognised.first) == ["README.txt"]
    one = found(catalogue)["README.txt"]
    assert (one.format, one.state, one.size) == ("other", State.REGISTERED, 16)
    assert catalogue.contents([one.checksum])[one.checksum].small_pieces == sha1(b"Dear colleagues\n").digest()
    assert counts(ingest(site(root), catalogue)) == (0, 0, 3, 0, 0)
    put(root, "README.txt", 2)  # what other files turn into is looked at anew
    ingest(site(root), catalogue)
    assert found(catalogue)["README.txt"].format in ("other", "taiga-raw")


def test_a_site_may_leave_out_files_of_no_known_format(root: Path, catalogue: Catalogue) -> None:
    (root / "README.txt").write_text("Dear colleagues\n")
    for _ in range(2):
        assert list(ingest(site(root, other=False), catalogue).unrecognised.first) == ["README.txt"]
        assert len(found(catalogue)) == 2


def test_a_registered_file_that_turned_into_something_else_is_set_aside(root: Path, catalogue: Catalogue) -> None:
    ingest(site(root), catalogue)
    (root / "BSM01" / "28107001.001").write_text("overwritten by a letter\n")
    assert counts(ingest(site(root), catalogue)) == (0, 0, 1, 0, 1)
    assert "no longer recognised as taiga-raw" in (found(catalogue)["BSM01/28107001.001"].reason or "")


def test_patterns_choose_files_and_give_attributes(root: Path, catalogue: Catalogue) -> None:
    rules = [{"pattern": "BSM{board:int}/*"}, {"name": "zenith", "value": 30, "unit": "deg", "type": "number"}]
    ingest(site(root, include=["BSM*/*"], exclude=["BSM02"], attributes=rules), catalogue)
    (one,) = found(catalogue).values()
    assert (one.source, one.attributes["board"], one.attributes["zenith"]) == ("BSM01/28107001.001", 1, 30.0)
    assert catalogue.attributes()["zenith"].unit == "deg"


def test_a_changed_description_of_the_site_reaches_unchanged_files(root: Path, catalogue: Catalogue) -> None:
    ingest(site(root), catalogue)
    named = site(root, attributes={"pointing": "Crab"})
    assert counts(ingest(named, catalogue)) == (0, 2, 0, 0, 0)
    assert counts(ingest(named, catalogue)) == (0, 0, 2, 0, 0)
    assert found(catalogue)["BSM01/28107001.001"].attributes["pointing"] == "Crab"


def test_the_night_of_the_site_moves_the_times(root: Path, catalogue: Catalogue) -> None:
    rules = [{"name": "night", "value": date(2027, 10, 28)}]
    ingest(site(root, attributes=rules), catalogue)
    one = found(catalogue)["BSM01/28107001.001"]
    assert one.time_start is not None and one.time_start.date() == date(2027, 10, 28)


def test_odd_names_are_registered_and_can_be_opened(root: Path, catalogue: Catalogue, home: Path) -> None:
    names = [b"a b/28107001.001", "ночь/28107001.001".encode(), b"new\nline/28107001.001", b"\xff\xfe/28107001.001"]
    names += [b"100%41/28107001.001", b'it\'s "quoted" \\x/28107001.001', b"n" * 255 + b"/28107001.001"]
    names.append(b"\xfe" * 255 + b"/28107001.001")
    for name in names:
        path = root / os.fsdecode(name)
        path.parent.mkdir()
        path.write_bytes(record())
    yaml = home.parent / "s.yaml"
    yaml.write_text(f"name: s\nexperiment: TAIGA\nroot: {root}\n")
    one_site, _ = add_site(yaml)
    assert ingest(one_site, catalogue).registered == 2 + len(names)
    for source in ("new%0Aline/28107001.001", "%FF%FE/28107001.001", "100%2541/28107001.001"):
        with open_source(found(catalogue)[source]) as stream:
            assert stream.read() == record()
    assert source_url(found(catalogue)["a b/28107001.001"]) == f"file://{root}/a b/28107001.001"


def test_links_are_not_followed(root: Path, catalogue: Catalogue, tmp_path: Path) -> None:
    outside = put(tmp_path / "outside", "28107003.001", 1)
    (root / "28107003.001").symlink_to(outside)
    (root / "folder").symlink_to(outside.parent)
    (root / "loop").symlink_to(root)
    summary = ingest(site(root), catalogue)
    assert (summary.registered, summary.skipped) == (2, 3)


def test_a_link_that_took_the_place_of_a_file_is_not_opened(root: Path, catalogue: Catalogue, home: Path) -> None:
    yaml = home.parent / "s.yaml"
    yaml.write_text(f"name: s\nexperiment: TAIGA\nroot: {root}\n")
    ingest(add_site(yaml)[0], catalogue)
    (root / "BSM01").rename(root.parent / "elsewhere")
    (root / "BSM01").symlink_to(root.parent / "elsewhere")
    with pytest.raises(UsageError):
        open_source(found(catalogue)["BSM01/28107001.001"])


def test_pipes_and_sockets_are_not_opened(root: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(root / "28107003.001")
    monkeypatch.chdir(root)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("28107004.001")
        summary = ingest(site(root), catalogue)
    assert (summary.registered, summary.skipped) == (2, 2)


def test_a_missing_root_makes_nothing_missing(root: Path, catalogue: Catalogue) -> None:
    ingest(site(root), catalogue)
    root.rename(root.parent / "away")
    with pytest.raises(NotFoundError, match="is not a folder"):
        ingest(site(root), catalogue)
    root.mkdir()
    with pytest.raises(UsageError, match="is it mounted"):
        ingest(site(root), catalogue)
    assert all(one.state is State.REGISTERED for one in found(catalogue).values())
    assert ingest(site(root), catalogue, accept_empty=True).missing == 2


def test_files_of_a_folder_that_can_not_be_listed_stay_as_they_were(
    root: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(site(root), catalogue)
    scandir = os.scandir

    def denied(path: Any) -> Any:
        if isinstance(path, int) and Path(f"/proc/self/fd/{path}").readlink().name == "BSM02":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    summary = ingest(site(root), catalogue)
    assert counts(summary) == (0, 0, 1, 0, 0)
    assert summary.unreadable.first == {"BSM02": "Permission denied"}


def test_a_file_that_can_not_be_read_is_tried_again_next_time(
    root: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:

        def denied(path: bytes, root: bytes) -> int:
            raise PermissionError(13, "Permission denied")

        patch.setattr(description, "open_plain", denied)
        assert counts(ingest(site(root), catalogue)) == (0, 0, 0, 0, 2)
    assert counts(ingest(site(root), catalogue)) == (0, 2, 0, 0, 0)
    assert all(one.state is State.REGISTERED for one in found(catalogue).values())


def test_a_file_that_grows_all_the_time_is_left_for_later(
    root: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(root, "BSM03/28107003.001", 400)
    real_fstat = os.fstat

    def growing(descriptor: int) -> os.stat_result:
        if Path(f"/proc/self/fd/{descriptor}").readlink() == path:
            with path.open("ab") as file:
                file.write(record())
        return real_fstat(descriptor)

    monkeypatch.setattr(examine_module, "_PAUSE_S", 0.01)
    monkeypatch.setattr(os, "fstat", growing)
    summary = ingest(site(root), catalogue)
    assert (summary.registered, list(summary.busy.first)) == (2, ["BSM03/28107003.001"])
    monkeypatch.undo()
    assert ingest(site(root), catalogue).registered == 1


def test_a_reader_that_fails_stops_no_other_file(
    root: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    from apbatch.formats.taiga.raw import TaigaRawReader

    whole = TaigaRawReader.metadata

    def failing(self: TaigaRawReader, stream: Any, name: str) -> Any:
        if name.startswith("BSM01"):
            raise IndexError("list index out of range")
        return whole(self, stream, name)

    monkeypatch.setattr(TaigaRawReader, "metadata", failing)
    summary = ingest(site(root), catalogue)
    assert counts(summary) == (1, 0, 0, 0, 1)
    assert "IndexError" in summary.quarantined.first["BSM01/28107001.001"]


def test_one_ingest_of_a_site_at_a_time(root: Path, catalogue: Catalogue) -> None:
    with leased(catalogue, lease_name("s")), pytest.raises(LeaseHeldError, match=f"process {os.getpid()}"):
        ingest(site(root), catalogue)


def fingerprint(root: Path) -> list[tuple[str, int, int, int, int, bytes]]:
    """Everything of a tree but access times, which reading may change where the reader is not the owner."""
    rows = []
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        rows.append((str(path), status.st_mode, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, content))
    return rows


def test_a_site_is_not_changed(root: Path, catalogue: Catalogue) -> None:
    (root / "junk.bin").write_bytes(b"\1\2\3")
    (root / "BSM01" / "28107001.009").write_bytes(b"\0" * 100)
    before = fingerprint(root)
    first = ingest(site(root), catalogue)
    assert ingest(site(root), catalogue, again=True).bytes_read >= first.bytes_read - 100 > 0
    assert fingerprint(root) == before


def test_what_a_site_says_is_applied_to_all_its_files_once(root: Path, catalogue: Catalogue) -> None:
    texts = []
    for more in ({}, {}, {"attributes": {"hut": "hill"}}):
        ingest(site(root, **more), catalogue)
        texts.append([one.text for one in catalogue.descriptions(DescriptionKind.APPLIED) if one.name == "s"])
    assert len(texts[0]) == 1 and texts[0] == texts[1] != texts[2]


def test_the_owners_files_keep_their_access_times(root: Path, catalogue: Catalogue) -> None:
    path = root / "BSM01" / "28107001.001"
    os.utime(path, ns=(10**18, path.stat().st_mtime_ns))  # so old that a plain reading would renew it
    ingest(site(root), catalogue)
    assert path.stat().st_atime_ns == 10**18


def test_a_site_mounted_read_only_is_ingested(root: Path, catalogue: Catalogue, tmp_path: Path) -> None:
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("mounting needs root")
    target = tmp_path / "mounted"
    target.mkdir()
    made = subprocess.run([mount, "--bind", str(root), str(target)], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no bind mount here: {made.stderr.strip()}")
    try:
        subprocess.run([mount, "-o", "remount,ro,bind", str(target)], check=True)
        with pytest.raises(OSError, match="Read-only"):
            (target / "x").touch()
        assert ingest(site(target), catalogue).registered == 2
    finally:
        subprocess.run(["umount", str(target)], check=True)


def _ingest_slowly(root: str, url: str, where: str) -> None:
    """Ingest with a pause at each file and batches of one: a child process that will be killed."""
    writer._BATCH = 1
    module, name = {"listing": (listing, "listed"), "reading": (completion, "examine")}[where]
    slow = getattr(module, name)

    def paused(*arguments: Any) -> Any:
        time.sleep(0.05)
        return slow(*arguments)

    listing._LOOK = 1
    setattr(module, name, paused)
    with open_catalogue(url) as catalogue:
        ingest(site(Path(root)), catalogue)


@pytest.mark.parametrize("where", ["listing", "reading"])
def test_killed_in_either_pass_it_goes_on_and_reads_nothing_twice(root: Path, home: Path, where: str) -> None:
    for part in range(1, 41):
        put(root, f"BSM05/28107005.{part:03d}", 2, board=4)
    url = f"sqlite:///{home}/catalogue.sqlite"
    with open_catalogue(url):
        pass
    child = multiprocessing.get_context("fork").Process(target=_ingest_slowly, args=(str(root), url, where))
    child.start()
    wanted = State.LISTED if where == "listing" else State.REGISTERED
    done = 0
    while done < 5:
        time.sleep(0.02)
        with open_catalogue(url) as catalogue:
            done = sum(one.state is wanted for one in found(catalogue).values())
        assert child.is_alive()
    os.kill(child.pid or 0, signal.SIGKILL)
    child.join()
    with open_catalogue(url) as catalogue:
        states = Counter(one.state for one in found(catalogue).values())
        done = states[State.REGISTERED]
        assert states.total() < 42 if where == "listing" else 5 <= done < 42
        summary = ingest(site(root), catalogue)  # the dead holder's lease is taken over at once
        assert (summary.unchanged, summary.registered) == (done, 42 - done)
        assert len(found(catalogue)) == 42
        assert all(one.events and one.checksum for one in found(catalogue).values())
        assert len(catalogue.has_contents(one.checksum for one in found(catalogue).values())) == len(
            {one.checksum for one in found(catalogue).values()}
        )


def test_another_experiment_moves_the_files_in_the_tree(root: Path, catalogue: Catalogue) -> None:
    ingest(site(root), catalogue)
    ingest(site(root).model_copy(update={"experiment": "TUNKA"}), catalogue)
    assert sorted(one.path for one in catalogue.of_site("s")) == [
        "/tunka/s/BSM01/28107001.001",
        "/tunka/s/BSM02/28107002.001",
    ]


def test_a_value_that_no_catalogue_holds_sets_its_file_aside_and_no_other(root: Path, catalogue: Catalogue) -> None:
    put(root, "run12345678901234567890/28107001.001", 1)
    put(root, "run8/28107001.002", 2)
    put(root, "z1e999/28107001.003", 1)
    late = put(root, "run9/28107001.004", 1)
    os.utime(late, (16_725_225_600, 16_725_225_600))  # in the year 2500
    rules = [{"pattern": "run{run:int}/*"}, {"pattern": "z{height:float}/*"}]
    summary = ingest(site(root, attributes=rules), catalogue)
    assert sorted(summary.quarantined.first) == [
        "run12345678901234567890/28107001.001",
        "run9/28107001.004",
        "z1e999/28107001.003",
    ]
    assert "12345678901234567890" in summary.quarantined.first["run12345678901234567890/28107001.001"]
    assert "time of change" in summary.quarantined.first["run9/28107001.004"]
    assert "no finite number" in summary.quarantined.first["z1e999/28107001.003"]
    records = found(catalogue)
    assert {
        source: one.state for source, one in records.items() if source in summary.quarantined.first
    } == dict.fromkeys(summary.quarantined.first, State.QUARANTINED)
    assert records["run8/28107001.002"].run == 8 and len(records) == 6


def test_a_day_that_no_calendar_has_is_a_problem(root: Path, catalogue: Catalogue) -> None:
    put(root, "20130230/28107001.001", 1)
    put(root, "BSM03/30027003.001", 1, board=2)
    ingest(site(root, attributes=[{"pattern": "{night:%Y%m%d}/*"}]), catalogue)
    records = found(catalogue)
    assert records["20130230/28107001.001"].attributes["problem"] == "the path: '20130230' is not a date for night"
    assert "not a date" in str(records["BSM03/30027003.001"].attributes["problem"])


def test_what_macos_leaves_beside_files_is_passed_over(root: Path, catalogue: Catalogue) -> None:
    put(root, "BSM01/._28107001.001", 1)
    (root / "._.DS_Store").write_bytes(b"Mac OS X")
    assert counts(ingest(site(root), catalogue)) == (2, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("events.h5", b"\x89HDF\r\n\x1a\n" + bytes(500), "a damaged HDF5 file"),
        ("events.root", b"root" + bytes(500), "not a readable ROOT file"),
        ("data.gz", b"\x1f\x8b\x08\x00" + bytes([255]) * 500, "a damaged gzip file"),
        ("data.parquet", b"PAR1" + bytes(500), "not a readable Parquet file"),
        ("x.phs.jsonl.gz", b"\x1f\x8b\x08\x00" + bytes([255]) * 500, "the gzip data are corrupt"),
        ("x.simtel.zst", b"\x28\xb5\x2f\xfd" + bytes([255]) * 500, "telescope"),
        ("corsika000001.bz2", b"BZh9" + bytes(500), "no header of a run"),
    ],
)
def test_a_damaged_file_is_no_file_of_no_known_format(
    root: Path, catalogue: Catalogue, name: str, content: bytes, reason: str
) -> None:
    (root / name).write_bytes(content)
    summary = ingest(site(root), catalogue)
    assert summary.unrecognised.count == 0
    assert reason in summary.quarantined.first[name] and name not in summary.quarantined.first[name]


@pytest.mark.parametrize(
    ("name", "content", "formats"),
    [("events.h5.gz", b"\x89HDF\r\n\x1a\n" + bytes(500), "fact-hillas or hisparc or kascade"),
     ("events.root.gz", b"root" + bytes(500), "magic"),
     ("notes.txt.gz", b"Dear colleagues\n", None)],
)  # fmt: skip
def test_a_compressed_file_that_is_read_only_unpacked_says_so(
    root: Path, catalogue: Catalogue, name: str, content: bytes, formats: str | None
) -> None:
    (root / name).write_bytes(gzip.compress(content))
    summary = ingest(site(root), catalogue)
    assert list(summary.unrecognised.first) == [name] and summary.quarantined.count == 0
    one = found(catalogue)[name]
    assert (one.format, one.state) == ("other", State.REGISTERED)
    note = f"compressed by gzip: a file of {formats} is read only unpacked (gunzip)"
    assert one.attributes.get("problem") == (note if formats else None)


def test_tables_of_another_experiment_in_a_file_are_told_to_be_left_out(root: Path, catalogue: Catalogue) -> None:
    h5py = pytest.importorskip("h5py")
    import numpy as np

    names = ("run_id", "event_id", "timestamp", "nanoseconds", "energy", "zenith")
    with h5py.File(root / "table.h5", "w") as file:
        file["kascade"] = np.array([(6402, 4, 1_207_904_712, 0, 1e15, 0.3)], [(name, "f8") for name in names])
    ingest(site(root), catalogue)
    assert "problem" not in found(catalogue)["table.h5"].attributes
    kinds = [("event_id", "u4"), ("ext_timestamp", "u8"), ("pulseheights", "i2", (4,))]
    with h5py.File(root / "table.h5", "a") as file:
        file["s501/events"] = np.array([(1, 1_283_299_200 * 10**9, (1, 2, 3, 4))], kinds)
    ingest(site(root), catalogue)
    both = found(catalogue)["table.h5"]
    assert (both.format, both.events, both.attributes["problems"]) == ("hisparc", 1, 1)
    assert both.attributes["problem"] == "it also holds what kascade would read, which is left out"


def test_a_registered_file_that_is_damaged_says_what_happened(root: Path, catalogue: Catalogue) -> None:
    h5py = pytest.importorskip("h5py")
    import numpy as np

    names = ("run_id", "event_id", "timestamp", "nanoseconds", "energy", "zenith")
    rows = np.array([(6402, 4, 1_207_904_712, 0, 1e15, 0.3)], [(name, "f8") for name in names])
    with h5py.File(root / "table.h5", "w") as file:
        file["events"] = rows
    ingest(site(root), catalogue)
    assert found(catalogue)["table.h5"].format == "kascade"
    (root / "table.h5").write_bytes((root / "table.h5").read_bytes()[:-100])
    ingest(site(root), catalogue)
    broken = found(catalogue)["table.h5"]
    assert (broken.format, broken.state) == ("kascade", State.QUARANTINED)
    assert "no longer recognised as kascade" in (broken.reason or "") and "truncated" in (broken.reason or "")


def test_all_files_behind_the_counts_can_be_had(root: Path, catalogue: Catalogue) -> None:
    for number in range(30):
        (root / f"letter{number:02}.txt").write_text("Dear colleagues\n")
    (root / "BSM01" / "28107001.002").write_bytes(b"\0" * 1000)
    lists = ingest(site(root), catalogue).lists()
    assert lists["unrecognised_files"] == [f"letter{number:02}.txt" for number in range(30)]
    assert [one["source"] for one in lists["quarantined_files"]] == ["BSM01/28107001.002"]  # type: ignore[attr-defined]
