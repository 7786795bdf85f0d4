"""Exports: through the guard, whole or not at all, with names of any kind, valid to the tools of others."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

import bagit
import pytest
from rocrate.rocrate import ROCrate

from apbatch.access.exports.bag import export_bag
from apbatch.access.exports.crate import export_crate
from apbatch.access.exports.links import below_mount, export_links
from apbatch.access.exports.manifest import export_manifest
from apbatch.access.exports.selection import Item, select, served_at
from apbatch.access.exports.tarball import export_tar
from apbatch.access.guard import Guard
from apbatch.access.policy import Policy
from apbatch.access.principals import ANYONE, OWNER, Principal
from apbatch.access.reader import Reader
from apbatch.access.sources import Source, at_site
from apbatch.cli.main import application, run_command
from apbatch.errors import ApbatchError, NotFoundError, UsageError
from apbatch.index.contents import BLOCK, LARGE_PIECE
from apbatch.index.files import FileRecord, Replica
from apbatch.ingest.patterns import decode_path
from apbatch.storage.store import Ranges
from tests.agents import Site, site
from tests.merged import Merged

FILES = {
    "d/a b.001": b"spaces", "d/100%25.dat": b"percent", "d/новая": b"unicode", "d/line%0Abreak": b"newline",
    "d/%FF.dat": b"not utf-8", "d/empty": b"", "top": b"top",
}  # fmt: skip
BASE = "https://data.example.org"


@pytest.fixture
def taiga(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("APBATCH_HOME", str(tmp_path / "home"))
    with site(tmp_path) as one:
        for number, (name, data) in enumerate(FILES.items()):
            one.add(f"file{number}", data, place=f"/t/{name}")
        one.add("hidden", b"hidden", place="/t/d/hidden")
        one.policy.write_text("rules: [{name: a, who: anyone, may: data, query: \"source != 'hidden'\"}]")
        yield one


@pytest.fixture
def guard(taiga: Site) -> Guard:
    return Guard(taiga.catalogue, None, Policy.load(taiga.policy, taiga.catalogue), ANYONE)


def test_a_selection_holds_what_may_be_read(taiga: Site, guard: Guard) -> None:
    assert {item.name for item in select(guard, "/t")} == set(FILES)
    assert {item.name for item in select(guard, "/t/d/")} == {name[2:] for name in FILES if name != "top"}
    assert [item.name for item in select(guard, "/t/top")] == ["top"]
    assert {item.name for item in select(guard, "size >= 0")} == {f"t/{name}" for name in FILES}
    owner = Guard(taiga.catalogue, None, guard.policy, OWNER)
    assert len(list(select(owner, "/"))) == len(FILES) + 1
    for path in ("/t/d/hidden", "/none"):
        with pytest.raises(NotFoundError):
            list(select(guard, path))


def test_a_file_of_a_conflict_has_its_name_of_the_tree_whichever_of_them_is_selected(tmp_path: Path) -> None:
    merged = Merged(tmp_path / "sites", tmp_path / "home")
    for name, data in (("one", b"1"), ("two", b"2"), ("three", b"2")):
        merged.add("f", data, name, place="/t/f")
    for query, names in (
        ("size > 0", {"t/f@one", "t/f@three"}),
        ("site = 'two'", {"t/f@three"}),
        ("site = 'one'", {"t/f@one"}),
    ):
        assert {item.name for item in select(merged.guard, query)} == names
    hidden = tmp_path / "policy.yaml"
    hidden.write_text("rules: [{name: a, who: anyone, may: data, query: \"site != 'three'\"}]")
    seen = Guard(merged.catalogue, None, Policy.load(hidden, merged.catalogue), ANYONE)
    assert {item.name: item.record.site for item in select(seen, "size > 0")} == {"t/f@one": "one", "t/f@three": "two"}


def test_links_lead_into_a_mount(guard: Guard, tmp_path: Path) -> None:
    links, left_out = export_links(select(guard, "/t"), tmp_path / "out", below_mount(Path("/mnt/tree")))
    assert (links, left_out) == (len(FILES), [])
    assert (tmp_path / "out" / "d" / "a b.001").readlink() == Path("/mnt/tree/t/d/a b.001")
    odd = os.fsdecode(b"\xff.dat")
    assert (tmp_path / "out" / "d" / odd).readlink() == Path("/mnt/tree/t/d") / odd
    with pytest.raises(UsageError, match="there already"):
        export_links(select(guard, "/t"), tmp_path / "out", below_mount(Path("/mnt/tree")))


def test_a_tar_holds_the_bytes_under_their_names(taiga: Site, guard: Guard, tmp_path: Path) -> None:
    with Reader(guard) as reader:
        assert export_tar(select(guard, "/t"), tmp_path / "out.tar", reader) == len(FILES)
        export_tar(select(guard, "/t"), tmp_path / "again.tar", reader)
    assert (tmp_path / "out.tar").read_bytes() == (tmp_path / "again.tar").read_bytes()
    with tarfile.open(tmp_path / "out.tar") as archive:
        contents = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    assert contents == {os.fsdecode(decode_path(name)): data for name, data in FILES.items()}


def test_a_file_that_changed_leaves_no_archive(taiga: Site, guard: Guard, tmp_path: Path) -> None:
    (taiga.root / "file6").write_bytes(b"xxx")
    with Reader(guard, report=lambda fault: None) as reader, pytest.raises(ApbatchError):
        export_tar(select(guard, "/t"), tmp_path / "out.tar", reader)
    assert sorted(path.name for path in tmp_path.iterdir() if "out" in path.name) == []


class _Changing(Ranges):
    """A file that changes at its site as soon as its first block was read."""

    def __init__(self, ranges: Ranges, file: Path) -> None:
        self._ranges, self._file, self.size = ranges, file, ranges.size

    def read(self, offset: int, length: int) -> bytes:
        data = self._ranges.read(offset, length)
        with self._file.open("ab") as stream:
            stream.write(b"more")
        return data

    def close(self) -> None:
        self._ranges.close()


def test_a_file_that_changes_while_it_is_exported_leaves_no_archive(taiga: Site, guard: Guard, tmp_path: Path) -> None:
    taiga.add("large", random.Random(1).randbytes(2 * BLOCK + 5), place="/t/large")
    read: list[int] = []

    def opener(record: FileRecord) -> Source | None:
        source = at_site(record)
        assert source is not None
        read.append(record.size)
        return Source(source.service, source.where, lambda: _Changing(source.open(), taiga.root / record.source))

    with (
        Reader(guard, openers=(opener,), report=lambda fault: None) as reader,
        pytest.raises(ApbatchError, match=r"block [12] can't be had.*changed"),
    ):
        export_tar(select(guard, "/t/large"), tmp_path / "out.tar", reader)
    assert set(read) == {2 * BLOCK + 5}  # twice where the next block was asked for ahead, after the first had failed
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []


def test_what_a_killed_export_left_is_replaced(guard: Guard, tmp_path: Path) -> None:
    (tmp_path / ".out.part" / "old").mkdir(parents=True)
    export_links(select(guard, "/t/top"), tmp_path / "out", below_mount(Path("/m")))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["top"] and not (tmp_path / ".out.part").exists()


def test_a_manifest_names_checksums_and_urls(taiga: Site, guard: Guard, tmp_path: Path) -> None:
    assert export_manifest(select(guard, "/t"), tmp_path / "out.jsonl", served_at(BASE)) == len(FILES)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert {line["name"] for line in lines} == set(FILES)
    for line in lines:
        assert line["size"] == len(FILES[line["name"]])
        assert unquote(urlsplit(line["urls"][0]).path) == f"/f/t/{line['name']}"


def test_a_bag_is_valid_once_its_files_are_fetched(taiga: Site, guard: Guard, tmp_path: Path) -> None:
    large = random.Random(3).randbytes(LARGE_PIECE + 1)
    taiga.add("large", large, place="/t/large")

    def local(item: Item) -> list[str]:
        return [f"file://localhost{taiga.root}/{item.record.source}"]

    with Reader(guard) as reader:
        files, read = export_bag(select(guard, "/t"), tmp_path / "bag", local, guard, reader)
    assert (files, read) == (len(FILES) + 1, len(large))  # the others' SHA-1 is in the catalogue
    for line in (tmp_path / "bag" / "fetch.txt").read_text().splitlines():
        url, size, name = line.split(" ", 2)
        data = Path(url.removeprefix("file://localhost")).read_bytes()
        assert len(data) == int(size)
        target = tmp_path / "bag" / os.fsdecode(decode_path(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    digests = dict(line.split("  ", 1)[::-1] for line in (tmp_path / "bag/manifest-sha1.txt").read_text().splitlines())
    assert digests["data/large"] == hashlib.sha1(large).hexdigest()
    assert digests["data/d/line%0Abreak"] == hashlib.sha1(b"newline").hexdigest()
    bag = bagit.Bag(str(tmp_path / "bag"))
    # bagit-python does not decode %25, as RFC 8493 has it: those names are compared here.
    for name in ("100%.dat", "%FF.dat"):
        (tmp_path / "bag" / "data/d" / name).rename(tmp_path / "bag" / "data/d" / name.replace("%", "%25"))
    bag.validate()
    (tmp_path / "bag" / "data" / "top").write_bytes(b"TOP")
    assert not bagit.Bag(str(tmp_path / "bag")).is_valid()


def test_a_bag_without_urls_is_refused_and_not_left(guard: Guard, tmp_path: Path) -> None:
    with Reader(guard) as reader, pytest.raises(UsageError, match="fetch"):
        export_bag(select(guard, "/t"), tmp_path / "bag", lambda item: [], guard, reader)
    assert not (tmp_path / "bag").exists() and not (tmp_path / ".bag.part").exists()


def test_a_crate_is_read_by_the_library_of_others(guard: Guard, tmp_path: Path) -> None:
    terms = "https://creativecommons.org/licenses/by/4.0/"
    number = export_crate(
        select(guard, "/t"), tmp_path / "crate", served_at(BASE), name="TAIGA", description="raw", license=terms
    )
    crate = ROCrate(str(tmp_path / "crate"))
    assert number == len(FILES) and crate.name == "TAIGA" and crate.root_dataset["license"].id == terms
    assert {entity["name"] for entity in crate.data_entities} == set(FILES)
    sizes = {entity["name"]: int(entity["contentSize"]) for entity in crate.data_entities}
    assert sizes == {name: len(data) for name, data in FILES.items()}


def test_a_stream_goes_to_standard_output(taiga: Site, guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    class Out:
        buffer = io.BytesIO()

    monkeypatch.setattr("sys.stdout", Out())
    with Reader(guard) as reader:
        export_tar(select(guard, "/t/top"), None, reader)
    with tarfile.open(fileobj=io.BytesIO(Out.buffer.getvalue())) as archive:
        assert archive.getnames() == ["top"]
    assert Principal("x") != ANYONE


AGENT, COPY = "http://127.0.0.1:9", "https://copies.example.org/far"


@pytest.fixture
def far(taiga: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileRecord:
    """A file of a site that an agent serves, beside those of the site of this machine, and a replica of it."""
    monkeypatch.setenv("APBATCH_CATALOGUE", f"sqlite:///{tmp_path}/catalogue.sqlite")
    (tmp_path / "home" / "sites" / "far.yaml").write_text(f"name: far\nexperiment: TAIGA\nroot: {AGENT}\n")
    near = taiga.add("near", b"near", place="/t/far/near")
    record = replace(near, path="/taiga/far/f", site="far", source="f", place="/t/far/f 1", checksum="f" * 64)
    taiga.catalogue.upsert([record])
    taiga.catalogue.add_replicas([Replica(record.path, COPY, "http", record.checksum, datetime.now(UTC))])
    return record


def exported(form: str, to: Path, *more: str) -> int:
    return run_command(application(), arguments=["export", "/t/far", "--as", form, "--to", str(to), *more])


def test_links_leave_out_what_an_agent_serves_and_say_so(
    far: FileRecord, taiga: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exported("links", tmp_path / "links") == 0
    assert "/t/far/f 1 has no place on this machine" in capsys.readouterr().err
    (link,) = (tmp_path / "links").iterdir()
    assert (link.name, link.readlink()) == ("near", taiga.root / "near")


def test_a_manifest_names_the_agent_and_the_replicas_of_a_file(far: FileRecord, taiga: Site, tmp_path: Path) -> None:
    assert exported("manifest", tmp_path / "out.jsonl") == 0
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert {line["name"]: line["urls"] for line in lines} == {
        "f 1": [f"{AGENT}/f/t/far/f%201", COPY], "near": [f"file://{taiga.root}/near"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("form", "more"),
    [
        ("manifest", ["--group", "experts"]),  # the owner's export would hold everything
        ("tar", ["--url", BASE]),
        ("tar", ["--mount", "/mnt"]),
        ("links", ["--name", "x"]),
        ("bagit", ["--license", "https://example.org"]),
        ("cvmfs", ["--url", BASE]),
    ],
)
def test_an_option_that_would_mean_nothing_is_refused(
    far: FileRecord, tmp_path: Path, form: str, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert exported(form, tmp_path / "out", *more) == 2 and f"'{more[0]}'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
