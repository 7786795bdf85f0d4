"""The merged tree, really mounted: names, bytes, attributes, searches, changes, and the ways in which a mount ends."""

from __future__ import annotations

import errno
import os
import random
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import psutil
import pytest

from apbatch.access.mount import mounting
from apbatch.errors import UsageError
from apbatch.index.contents import BLOCK
from apbatch.index.files import State
from tests.merged import Merged
from tests.waits import until
from tests.webserver import served

pytestmark = [
    pytest.mark.skipif(
        not Path("/dev/fuse").exists() and not os.environ.get("CI"), reason="this system has no /dev/fuse"
    ),
    pytest.mark.skipif(
        find_spec("pyfuse3") is None and not os.environ.get("CI"), reason="pyfuse3 is not installed: apbatch[mount]"
    ),
    pytest.mark.skipif(os.geteuid() != 0 and shutil.which("fusermount3") is None, reason="fuse3 is not installed"),
]

DATA = random.Random(4).randbytes(2 * BLOCK + 99)
Begin = Callable[..., psutil.Process]
COMMAND = str(Path(sys.executable).with_name("apbatch"))
ODD = [
    b"a b",
    b"new\nline",
    b"\xff\xfe not UTF-8",
    "ünï日本".encode(),
    b"100% %41 %2F",
    b"back\\slash",
    b"x" * 255,
    "日".encode() * 85,
    b"\xfe" * 255,
    b"-d",
]


@pytest.fixture(scope="module")
def merged(bare_merged: Merged) -> Merged:
    bare_merged.add("night/data", DATA, run=7, attributes={"zenith": 23.5})
    bare_merged.add("night/small", b"muon")
    bare_merged.add("empty", b"")
    bare_merged.add("unread", DATA, state=State.LISTED)
    for name in ODD:
        bare_merged.add(b"odd/" + name, name)
    return bare_merged


@pytest.fixture(scope="module")
def mounted(merged: Merged, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A mount that stays for all tests which don't end it."""
    folder = tmp_path_factory.mktemp("mount")
    assert "mounted at" in run("mount", str(folder))
    yield folder
    # A file that a test closed may still be released: the kernel calls the mount busy until then.
    until(lambda: subprocess.run([COMMAND, "umount", str(folder)], capture_output=True, check=False).returncode == 0)


def run(*arguments: str, status: int = 0) -> str:
    done = subprocess.run([COMMAND, *arguments], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


#: Starts mounts without importing everything anew for each; a line of standard input is a folder and two times.
MOUNTER = """
import os, signal, sys
from pathlib import Path
from apbatch.access.mount import fuse3, mounting, searches
from apbatch.cli.mount import block_cache, serve_tree
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:
    folder, every_s, within_s, adapter = line.split()
    os.environ["APBATCH_FUSE"] = adapter
    watcher = os.fork()
    if watcher == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        serve = lambda: serve_tree(Path(folder), block_cache(None, "1GB"), False)
        os._exit(mounting.supervise(serve, Path(folder), every_s=float(every_s), within_s=float(within_s)))
    print(watcher, flush=True)
"""


@pytest.fixture(scope="module")
def begin(merged: Merged) -> Iterator[Callable[..., psutil.Process]]:
    """Mounts at a folder and returns the process that watches."""
    with subprocess.Popen(
        [sys.executable, "-c", MOUNTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as mounter:
        assert mounter.stdin is not None and mounter.stdout is not None

        def start(folder: Path, every_s: float = 5, within_s: float = 60, adapter: str = "pyfuse3") -> psutil.Process:
            mounter.stdin.write(f"{folder} {every_s} {within_s} {adapter}\n")
            mounter.stdin.flush()
            watcher = psutil.Process(int(mounter.stdout.readline()))
            until(lambda: mounting.is_mounted(folder))
            return watcher

        yield start


def names_in(folder: Path) -> list[str]:
    return os.listdir(folder)  # noqa: PTH208  iterdir hides when the folder is read


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder to mount at; nothing stays mounted there."""
    place = tmp_path / "m"
    place.mkdir()
    yield place
    if mounting.is_mounted(place):
        mounting.detach(place)


def test_files_are_read_as_they_are(mounted: Path) -> None:
    assert (mounted / "taiga/one/night/data").read_bytes() == DATA
    assert (mounted / "taiga/one/unread").read_bytes() == DATA
    assert (mounted / "taiga/one/empty").read_bytes() == b""
    with (mounted / "taiga/one/night/data").open("rb") as file:
        file.seek(BLOCK - 3)
        assert file.read(6) == DATA[BLOCK - 3 : BLOCK + 3]


def test_folders_list_what_is_in_them(mounted: Path) -> None:
    assert names_in(mounted) == ["taiga"]
    assert sorted(names_in(mounted / "taiga/one/night")) == ["data", "small"]
    status = (mounted / "taiga/one/night").stat()
    assert stat.S_ISDIR(status.st_mode)


def test_size_and_time_are_those_of_the_site(mounted: Path, merged: Merged) -> None:
    here, there = (mounted / "taiga/one/night/data").stat(), (merged.site() / "night/data").stat()
    assert (here.st_size, here.st_mtime_ns) == (there.st_size, there.st_mtime_ns)
    assert stat.S_IMODE(here.st_mode) == 0o444


@pytest.mark.parametrize("number", range(len(ODD)))
def test_any_name_is_listed_and_found(mounted: Path, number: int) -> None:
    name = os.fsdecode(ODD[number])
    assert name in names_in(mounted / "taiga/one/odd")
    assert (mounted / "taiga/one/odd" / name).read_bytes() == ODD[number]


def test_what_is_not_there_is_not_found(mounted: Path) -> None:
    for name in ("none", "taiga/none", "taiga/one/night/data/none"):
        with pytest.raises(OSError, match=r"No such file|Not a directory"):
            (mounted / name).stat()


def test_nothing_can_be_written(mounted: Path) -> None:
    for attempt in (
        lambda: (mounted / "new").write_bytes(b""),
        lambda: (mounted / "taiga/one/empty").write_bytes(b"x"),
        lambda: (mounted / "taiga/one/empty").unlink(),
        lambda: (mounted / "folder").mkdir(),
        lambda: (mounted / "taiga/one/empty").rename(mounted / "taiga/one/other"),
        lambda: os.setxattr(mounted / "taiga/one/empty", "user.x", b"y"),
    ):
        with pytest.raises(OSError) as refusal:
            attempt()
        assert refusal.value.errno in (errno.EROFS, errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EOPNOTSUPP)


def attribute(path: Path, name: str) -> str:
    return os.getxattr(path, f"user.apbatch.{name}").decode()


def test_attributes_are_extended_attributes(mounted: Path, merged: Merged) -> None:
    file = mounted / "taiga/one/night/data"
    record = merged.catalogue.get("/taiga/one/night/data")
    assert record is not None
    assert attribute(file, "checksum") == record.checksum
    assert {name: attribute(file, name) for name in ("state", "verified", "run", "zenith", "sites", "experiment")} == {
        "state": "registered", "verified": "yes", "run": "7", "zenith": "23.5", "sites": "one", "experiment": "TAIGA",
    }  # fmt: skip
    assert {"user.apbatch.adler32", "user.apbatch.format"} <= set(os.listxattr(file))
    with pytest.raises(OSError, match="No data"):
        attribute(file, "none")
    assert os.listxattr(mounted / "taiga") == []


def test_a_listed_file_is_marked_unverified(mounted: Path) -> None:
    file = mounted / "taiga/one/unread"
    assert (attribute(file, "state"), attribute(file, "verified")) == ("listed", "no")


def test_a_search_is_a_folder(mounted: Path) -> None:
    found = mounted / ".find" / "run = 7 and zenith < 30"
    assert names_in(found) == ["data"]
    assert (found / "data").read_bytes() == DATA
    assert (found / "data").stat().st_ino == (mounted / "taiga/one/night/data").stat().st_ino
    assert attribute(found / "data", "run") == "7"
    with pytest.raises(FileNotFoundError):
        (found / "other").stat()


def test_a_slash_in_a_query_is_quoted(mounted: Path) -> None:
    assert names_in(mounted / ".find" / "path like '%2Ftaiga%2Fone%2Fnight%2Fs%'") == ["small"]


def test_the_name_of_no_query_is_refused(mounted: Path) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        names_in(mounted / ".find" / "colour = 'red'")


def test_files_of_one_name_in_a_search_are_told_apart(mounted: Path, merged: Merged) -> None:
    for number in range(3):
        merged.add(f"d{number}/same", b"%d" % number, run=99)
    found = mounted / ".find" / "run = 99"
    until(lambda: sorted(names_in(found)) == ["same", "same~2", "same~3"])
    assert sorted((found / name).read_bytes() for name in names_in(found)) == [b"0", b"1", b"2"]


def test_a_search_gives_each_of_two_files_in_conflict(mounted: Path, merged: Merged) -> None:
    for site in ("one", "two"):
        merged.add("clash", site.encode(), site, run=55, place="/taiga/clash")
    found = mounted / ".find" / "run = 55"
    until(lambda: len(names_in(found)) == 2)
    assert {(found / name).read_bytes() for name in names_in(found)} == {b"one", b"two"}
    assert {name for name in names_in(mounted / "taiga") if "clash" in name} == {"clash@one", "clash@two"}


def test_changes_show_by_themselves(mounted: Path, merged: Merged) -> None:
    file = mounted / "taiga/one/live"
    assert not file.exists()
    merged.add("live", b"first")
    start = time.monotonic()
    until(file.exists)
    assert file.read_bytes() == b"first"
    merged.add("live", b"second, longer")
    until(lambda: file.read_bytes() == b"second, longer" and file.stat().st_size == 14)
    merged.catalogue.remove(["/taiga/one/live"])
    until(lambda: not file.exists())
    assert time.monotonic() - start < 3 * 25  # without the feed each step would take 30 s


def test_an_open_file_keeps_its_version(mounted: Path, merged: Merged) -> None:
    first, second = bytes(3 * BLOCK), b"\1" * (3 * BLOCK)
    merged.add("kept", first)
    file = mounted / "taiga/one/kept"
    with file.open("rb", buffering=0) as old:
        assert old.read(100) == first[:100]
        merged.add("kept", second)
        until(lambda: file.read_bytes() == second)
        old.seek(2 * BLOCK)
        try:
            assert set(old.read(100)) == {0}
        except OSError as error:  # the old bytes are nowhere any more; never are they the new ones
            assert error.errno == errno.EIO
    assert file.read_bytes() == second


@pytest.mark.parametrize("state", [State.REGISTERED, State.LISTED])
def test_a_file_that_changes_while_it_is_read_gives_no_byte_of_the_new_one(
    mounted: Path, merged: Merged, state: State
) -> None:
    name, old, new = f"changes {state}", bytes(4 * BLOCK), b"\1" * (4 * BLOCK)
    record = merged.add(name, old, state=state)
    file, there = mounted / "taiga/one" / name, merged.site() / name
    with file.open("rb", buffering=0) as reader, there.open("r+b") as writer:
        assert reader.read(100) == old[:100]
        writer.write(new)  # in place, as a program at the site may do
        writer.flush()
        if state is State.REGISTERED:  # even if neither size nor time tell
            os.utime(there, ns=(record.mtime_ns, record.mtime_ns))
        parts = []
        for block in range(4):
            reader.seek(block * BLOCK)
            try:
                parts.append(reader.read(100))
            except OSError as error:
                assert error.errno == errno.EIO
    assert set(b"".join(parts)) <= {0}
    assert len(parts) < 4
    merged.add(name, new)
    until(lambda: _is(file, new))


def _is(file: Path, data: bytes) -> bool:
    try:
        return file.read_bytes() == data
    except OSError:
        return False


def test_a_wrong_byte_is_an_error_and_reported(mounted: Path, merged: Merged) -> None:
    record = merged.add("wrong", DATA[:1000])
    file = merged.site() / "wrong"
    file.write_bytes(DATA[1:1001])
    os.utime(file, ns=(record.mtime_ns, record.mtime_ns))
    with pytest.raises(OSError, match="Input/output error"):
        (mounted / "taiga/one/wrong").read_bytes()
    assert "/taiga/one/wrong: block 0 from one:wrong" in mounting.log_file(mounted).read_text()


def test_a_replica_takes_the_place_of_a_site_that_is_gone(mounted: Path, merged: Merged) -> None:
    record = merged.add("moved", DATA[:1000])
    with served(merged.folder) as web:
        merged.replica(record, f"{web.url}/copies/moved", DATA[:1000], "copies/moved")
        (merged.site() / "moved").unlink()
        assert (mounted / "taiga/one/moved").read_bytes() == DATA[:1000]


def test_one_megabyte_from_the_middle_moves_little(mounted: Path, merged: Merged) -> None:
    size = 64 * BLOCK
    record = merged.add("large", bytes(size))
    with served(merged.folder) as web:
        merged.replica(record, f"{web.url}/one/large", b"", "unused")
        kept = merged.folder / "large"
        (merged.site() / "large").rename(kept)
        (merged.site() / "large").symlink_to(kept)  # no plain file at the site, but one on the server
        with (mounted / "taiga/one/large").open("rb", buffering=0) as file:
            file.seek(size // 2 - 300_000)
            assert sum(len(file.read(100_000)) for _ in range(10)) == 1_000_000
        assert web.sent <= 4 << 20


def test_two_mounts_with_one_cache_transfer_each_block_once(
    mounted: Path, merged: Merged, folder: Path, begin: Begin
) -> None:
    data = random.Random(9).randbytes(2 * BLOCK)
    record = merged.add("shared", data)
    with served(merged.folder) as web:
        merged.replica(record, f"{web.url}/copies/shared", data, "copies/shared")
        (merged.site() / "shared").unlink()
        begin(folder)
        for place in (mounted, folder):
            assert (place / "taiga/one/shared").read_bytes() == data
        assert web.sent == len(data)


def test_a_folder_of_a_hundred_thousand_files_is_listed_whole(mounted: Path, merged: Merged) -> None:
    base = merged.catalogue.get("/taiga/one/empty")
    assert base is not None
    names = [f"{number:06}" for number in range(100_000)]
    merged.catalogue.upsert(
        replace(base, path=f"/taiga/one/many/{name}", place="", source=f"many/{name}") for name in names
    )
    assert names_in(mounted / "taiga/one/many") == names
    with os.scandir(mounted / "taiga/one/many") as entries:
        assert sum(entry.stat().st_nlink for entry in islice(entries, 12_000)) == 12_000
    merged.catalogue.remove([f"/taiga/one/many/{names[-1]}"])
    until(lambda: names_in(mounted / "taiga/one/many") == names[:-1])  # a listing that was kept is dropped


def test_many_programs_read_at_the_same_time(mounted: Path) -> None:
    wrong: list[int] = []

    def read(seed: int) -> None:
        draw = random.Random(seed)
        with (mounted / "taiga/one/night/data").open("rb") as file:
            for _ in range(50):
                offset = draw.randrange(len(DATA))
                file.seek(offset)
                if file.read(5000) != DATA[offset : offset + 5000]:
                    wrong.append(offset)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_mount_is_not_made_twice(mounted: Path) -> None:
    assert "mounted there already" in run("mount", str(mounted), status=2)


def test_a_mount_ends_when_it_is_unmounted(folder: Path, begin: Begin) -> None:
    watcher = begin(folder)
    mounting.unmount(folder)
    assert names_in(folder) == []
    until(lambda: not watcher.is_running())
    with pytest.raises(UsageError, match="nothing is mounted"):
        mounting.unmount(folder)


def test_a_part_of_the_tree_has_a_mount_of_its_own(folder: Path, merged: Merged) -> None:
    run("mount", "--below", "/taiga/one/night", "--select", "size > 4", str(folder))
    assert names_in(folder) == ["data"]  # "small" has four bytes
    assert (folder / "data").read_bytes() == DATA
    assert names_in(folder / ".find" / "size > 0") == ["data"]
    merged.add("night/more", b"one more")
    until((folder / "more").exists)
    merged.catalogue.remove(["/taiga/one/night/more"])
    until(lambda: not (folder / "more").exists())
    mounting.unmount(folder)


def test_a_mount_in_use_is_only_ended_lazily(folder: Path, begin: Begin) -> None:
    begin(folder)
    with (folder / "taiga/one/night/data").open("rb"):
        with pytest.raises(UsageError, match="can't be unmounted"):
            mounting.unmount(folder)
        mounting.unmount(folder, lazy=True)
        assert not mounting.is_mounted(folder)


def server_of(watcher: psutil.Process) -> psutil.Process:
    (server,) = watcher.children()
    return server


def test_a_killed_mount_is_taken_away(folder: Path, begin: Begin) -> None:
    watcher = begin(folder)
    server_of(watcher).kill()
    until(lambda: not mounting.is_mounted(folder))
    assert names_in(folder) == []
    until(lambda: not watcher.is_running())


def test_a_mount_killed_while_it_is_read_ends_every_read_and_loses_nothing(
    folder: Path, begin: Begin, merged: Merged
) -> None:
    """At random moments: each read gives the right bytes or an error, at once, and what is in the cache stays right."""
    draw = random.Random(8)
    data = [draw.randbytes(4 * BLOCK + 9) for _ in range(3)]
    for number, content in enumerate(data):
        merged.add(f"killed{number}", content)
    files = [folder / f"taiga/one/killed{number}" for number in range(3)]
    wrong: list[Path] = []

    def read(number: int, reading: threading.Event) -> None:
        try:
            while True:
                with files[number].open("rb") as stream:
                    while part := stream.read(100_000):
                        end = stream.tell()
                        if part != data[number][end - len(part) : end]:
                            wrong.append(files[number])
                        reading.set()
        except OSError:
            reading.set()

    for _ in range(3):
        server = server_of(begin(folder))
        events = [threading.Event() for _ in files]
        readers = [threading.Thread(target=read, args=one) for one in enumerate(events)]
        for reader in readers:
            reader.start()
        for event in events:
            event.wait()
        time.sleep(draw.random() / 10)
        server.kill()
        for reader in readers:
            reader.join(60)
            assert not reader.is_alive(), "a read waits for a mount that is dead"
        until(lambda: not mounting.is_mounted(folder))
    begin(folder)
    assert [file.read_bytes() for file in files] == data
    assert wrong == []


def test_a_dead_mount_is_no_obstacle(folder: Path, begin: Begin) -> None:
    watcher = begin(folder)
    server = server_of(watcher)
    watcher.suspend()  # either would clean up after the other's end
    server.kill()
    until(lambda: server.status() == psutil.STATUS_ZOMBIE)
    watcher.kill()
    with pytest.raises(OSError, match=r"Transport endpoint|Software caused"):
        names_in(folder)
    mounting.check(folder)
    begin(folder)
    assert names_in(folder) == ["taiga"]


def test_a_mount_that_stopped_answering_ends_every_call(folder: Path, begin: Begin) -> None:
    watcher = begin(folder, every_s=0.2, within_s=2)
    server_of(watcher).suspend()
    with pytest.raises(OSError, match=r"Transport endpoint|connection|No such file|Software caused"):
        names_in(folder / "taiga/one/night")  # it would hang for ever
    until(lambda: not watcher.is_running())
    assert not mounting.is_mounted(folder)


def test_a_terminated_mount_unmounts(folder: Path, begin: Begin) -> None:
    begin(folder).terminate()
    until(lambda: not mounting.is_mounted(folder))


def test_what_is_no_folder_is_no_place(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a folder"):
        mounting.check(tmp_path / "none")


def test_where_pyfuse3_can_not_be_built_another_library_mounts(folder: Path, begin: Begin, merged: Merged) -> None:
    watcher = begin(folder, adapter="mfusepy")
    one = folder / "taiga/one"
    assert (one / "night/data").read_bytes() == DATA
    assert sorted(names_in(one / "odd")) == sorted(map(os.fsdecode, ODD))
    assert attribute(one / "night/data", "run") == "7"
    assert (folder / ".find" / "run = 7" / "data").read_bytes() == DATA
    with pytest.raises(OSError, match="Read-only"):
        (one / "empty").write_bytes(b"x")
    merged.add("late", b"late")
    until((one / "late").exists)
    merged.add("late", b"later")
    until(lambda: (one / "late").read_bytes() == b"later")
    mounting.unmount(folder)
    until(lambda: not watcher.is_running())
