"""The merged tree of another host, behind its server: names, records, searches, changes, verified bytes."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import urllib3

from apbatch.access.exports.selection import select
from apbatch.access.exports.tarball import export_tar
from apbatch.access.mount import mounting
from apbatch.access.mount.follow import Follower
from apbatch.access.mount.nodes import Node
from apbatch.access.mount.scope import MountScope
from apbatch.access.mount.tree import Tree
from apbatch.access.opening import Opening
from apbatch.access.reader import Reader
from apbatch.access.view import View
from apbatch.cli.main import application, run_command
from apbatch.client.door import ServerDoor
from apbatch.client.remote import RemoteTransport
from apbatch.client.remote_ranges import RemoteRanges
from apbatch.errors import ApbatchError, FileUnavailableError, NotFoundError, UsageError, VerificationError
from apbatch.index.contents import BLOCK
from apbatch.index.files import State
from tests.merged import Merged
from tests.service import Running, serving
from tests.waits import until

DATA = random.Random(5).randbytes(2 * BLOCK + 5)
COMMAND = str(Path(sys.executable).with_name("apbatch"))


@pytest.fixture(scope="module")
def merged(bare_merged: Merged) -> Merged:
    bare_merged.add("night/data", DATA, run=7, attributes={"zenith": 23.5})
    bare_merged.add(b"night/\xff\nodd %", b"odd")
    bare_merged.add("unread", b"listed", state=State.LISTED)
    for site in ("one", "two"):
        bare_merged.add("clash", site.encode(), site, place="/taiga/clash")
    return bare_merged


@pytest.fixture(scope="module")
def running(merged: Merged) -> Iterator[Running]:
    files = Opening()
    with serving(merged.folder, merged.catalogue, files=files) as running:
        yield running
    files.close()


@pytest.fixture
def door(running: Running) -> ServerDoor:
    return ServerDoor(RemoteTransport(running.url))


@pytest.fixture
def tree(door: ServerDoor) -> Iterator[Tree]:
    with Reader(door, openers=(door.source,)) as reader:
        yield Tree(door, reader)


def walk(tree: Tree, path: bytes) -> Node:
    node: Node | None = tree.root
    for name in path.split(b"/"):
        assert node is not None
        node = tree.child(node, name)
    assert node is not None
    return node


def everything(tree: Tree) -> dict[bytes, tuple[Node, dict[str, bytes]]]:
    """All nodes by their path, with their attributes."""
    nodes, folders = {}, [(b"", tree.root)]
    while folders:
        above, folder = folders.pop()
        for node in (node for page in tree.children(folder) for node in page):
            nodes[path := above + b"/" + node.name] = node, tree.attributes(node)
            folders += [(path, node)] if node.kind == "folder" else []
    return nodes


def test_a_tree_behind_a_server_is_the_tree_itself(merged: Merged, tree: Tree) -> None:
    with Reader(merged.guard) as reader:
        expected = everything(Tree(merged.guard, reader))
    assert len(expected) == 8
    assert everything(tree) == expected


def test_bytes_are_those_of_the_sites_and_verified_here(
    tree: Tree, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path, data in {b"one/night/data": DATA, b"one/night/\xff\nodd %": b"odd", b"clash@two": b"two"}.items():
        with tree.open(walk(tree, b"taiga/" + path)) as file:
            assert file.verified
            assert file.read(0, len(DATA)) == data
    with tree.open(walk(tree, b"taiga/one/unread")) as file:
        assert (file.verified, file.read(0, 9)) == (False, b"listed")
    monkeypatch.setattr(RemoteRanges, "fetch", lambda self, begin, end: bytes(end - begin))
    door = ServerDoor(RemoteTransport(running.url))
    with Reader(door, openers=(door.source,)) as reader:
        file = reader.open("/taiga/one/night/data")
        with file, pytest.raises(VerificationError):
            file.read(BLOCK, 10)


@pytest.mark.parametrize("unnoticed", [False, True])
def test_a_file_that_the_server_can_not_give_leaves_its_others_readable(
    merged: Merged, door: ServerDoor, unnoticed: bool
) -> None:
    record = merged.add("bad", b"bad")
    file = merged.site() / "bad"
    file.write_bytes(b"not")
    os.utime(file, ns=(record.mtime_ns, record.mtime_ns) if unnoticed else (0, 0))
    try:
        with Reader(door, openers=(door.source,)) as reader:
            kind: type[ApbatchError] = VerificationError if unnoticed else FileUnavailableError
            with reader.open(record.path) as opened, pytest.raises(kind, match="could not answer"):
                opened.read(0, 3)
            with reader.open("/taiga/one/night/data") as opened:
                assert opened.read(0, 10) == DATA[:10]
    finally:
        merged.catalogue.remove([record.path])
        file.unlink()


def test_a_search_is_asked_of_the_server(tree: Tree) -> None:
    search = walk(tree, b".find/run = 7 and zenith < 30")
    assert [node.name for page in tree.children(search) for node in page] == [b"data"]
    with pytest.raises(UsageError):
        walk(tree, b".find/colour = 'red'")


def test_changes_are_told_by_name(merged: Merged, door: ServerDoor) -> None:
    follower = Follower(door)
    assert follower.changed() == []
    merged.add("later", b"1")
    assert ("/taiga/one", b"later") in follower.changed()
    merged.catalogue.remove(["/taiga/one/later"])
    assert ("/taiga/one", b"later") in follower.changed()


def test_what_the_policy_of_the_server_hides_is_not_there(merged: Merged) -> None:
    rules = "rules: [{name: names, who: anyone, may: metadata, below: /taiga/one/night}]"
    with serving(merged.folder, merged.catalogue, auth=True, rules=rules, files=Opening()) as guarded:
        door = ServerDoor(RemoteTransport(guarded.url))
        with Reader(door, openers=(door.source,)) as reader:
            tree = Tree(door, reader)
            assert {path for path in everything(tree) if path.count(b"/") == 2} == {b"/taiga/one"}
            with pytest.raises(NotFoundError):
                tree.open(walk(tree, b"taiga/one/night/data"))


def test_whom_a_server_shows_what_is_not_said_here() -> None:
    with pytest.raises(UsageError, match="decides itself"):
        MountScope(View("run = 7")).check_server()


@pytest.mark.skipif(
    (not Path("/dev/fuse").exists() or find_spec("pyfuse3") is None) and not os.environ.get("CI"),
    reason="nothing can be mounted here: pyfuse3 or /dev/fuse is missing",
)
@pytest.mark.skipif(os.geteuid() != 0 and shutil.which("fusermount3") is None, reason="fuse3 is not installed")
def test_another_hosts_catalogue_is_mounted(merged: Merged, running: Running, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    environment = {**os.environ, "APBATCH_HOME": str(tmp_path / "home"), "APBATCH_CACHE": str(tmp_path / "cache")}
    mount = [COMMAND, "mount", "--catalogue", running.url, "--below", "/taiga/one", str(folder)]
    subprocess.run(mount, check=True, env=environment)
    try:
        assert (folder / "night/data").read_bytes() == DATA
        assert os.getxattr(folder / "night/data", "user.apbatch.run") == b"7"
        merged.add("fresh", b"fresh")
        until((folder / "fresh").exists)
        assert (folder / "fresh").read_bytes() == b"fresh"
    finally:
        mounting.detach(folder)


@pytest.mark.parametrize("selection", ["/taiga", "size >= 0", "site = 'two'"])
def test_exports_of_what_a_server_shows_are_those_of_its_catalogue(
    selection: str, door: ServerDoor, merged: Merged, tmp_path: Path
) -> None:
    items = list(select(door, selection))
    expected = list(select(merged.guard, selection))
    assert [(one.name, one.path) for one in items] == [(one.name, one.path) for one in expected] != []
    with Reader(door, openers=(door.source,)) as here, Reader(merged.guard) as there:
        readable = [one for one in items if one.record.state is State.REGISTERED]
        export_tar(readable, tmp_path / "mine.tar", here)
        export_tar(
            [one for one in expected if one.record.state is State.REGISTERED], tmp_path / "theirs.tar", there
        )  # fmt: skip
    assert (tmp_path / "mine.tar").read_bytes() == (tmp_path / "theirs.tar").read_bytes()


def test_a_manifest_made_through_a_server_leads_to_the_bytes_there(
    running: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--catalogue", running.url, "export", "source = 'clash'", "--as", "manifest", "--to"]
    assert run_command(application(), arguments=[*command, str(tmp_path / "clash.jsonl")]) == 0
    lines = [json.loads(line) for line in (tmp_path / "clash.jsonl").read_text().splitlines()]
    assert [line["path"] for line in lines] == ["/taiga/clash@one", "/taiga/clash@two"]
    assert [urllib3.request("GET", line["urls"][0]).data for line in lines] == [b"one", b"two"]
    assert run_command(application(), arguments=[*command, str(tmp_path / "no"), "--user", "ada"]) == 2
    assert "a server decides itself what it shows" in capsys.readouterr().err and not (tmp_path / "no").exists()
