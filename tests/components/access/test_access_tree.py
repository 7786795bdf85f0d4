"""What a file system shows of the merged tree, without mounting it: names, versions, searches, what changed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apbatch.access.mount.follow import Follower
from apbatch.access.mount.nodes import Node, shown_name, texts_of
from apbatch.access.mount.scope import MountScope
from apbatch.access.mount.searches import SEARCHES
from apbatch.access.mount.tree import StaleNodeError, Tree, error_number
from apbatch.access.reader import Reader
from apbatch.access.view import View
from apbatch.errors import NotFoundError, ServerError, UsageError, VerificationError
from apbatch.index.files import State
from apbatch.ingest.patterns import encode_path
from tests.merged import Merged


@pytest.fixture
def merged(tmp_path: Path, home: Path) -> Merged:
    return Merged(tmp_path / "sites", home)


@pytest.fixture
def tree(merged: Merged) -> Iterator[Tree]:
    with Reader(merged.guard) as reader:
        yield Tree(merged.guard, reader)


def walk(tree: Tree, path: bytes) -> Node:
    node: Node | None = tree.root
    for name in path.split(b"/"):
        assert node is not None
        node = tree.child(node, name)
    assert node is not None
    return node


@given(st.binary(min_size=1, max_size=255).filter(lambda name: b"/" not in name and b"\0" not in name))
def test_every_name_of_a_site_is_shown_as_it_is_and_found_again(name: bytes) -> None:
    if name not in (b".", b".."):
        assert shown_name(encode_path(name)) == name
        assert encode_path(name) in texts_of(name)


@given(st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1))
def test_a_name_from_elsewhere_is_found_by_what_is_shown(text: str) -> None:
    name = shown_name(text)
    assert b"/" not in name and b"\0" not in name
    if text.isprintable():
        assert text in texts_of(name)


def test_a_file_that_changes_is_another_node(merged: Merged, tree: Tree) -> None:
    merged.add("f", b"first")
    old = walk(tree, b"taiga/one/f")
    merged.add("f", b"other")
    assert walk(tree, b"taiga/one/f").key != old.key
    with pytest.raises(StaleNodeError):
        tree.open(old)
    with tree.open(walk(tree, b"taiga/one/f")) as file:
        assert file.read(0, 10) == b"other"


def test_a_listed_file_that_is_read_is_another_node(merged: Merged, tree: Tree) -> None:
    merged.add("f", b"bytes", state=State.LISTED)
    listed = walk(tree, b"taiga/one/f")
    assert tree.attributes(listed)["user.apbatch.verified"] == b"no"
    merged.add("f", b"bytes")
    known = walk(tree, b"taiga/one/f")
    assert known.key != listed.key
    assert tree.attributes(known)["user.apbatch.verified"] == b"yes"


def test_a_search_is_read_again_when_the_catalogue_changed(
    merged: Merged, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apbatch.access.mount.searches._FRESH_S", 0.0)
    merged.add("f", b"x", run=1)
    search = walk(tree, b".find/run = 1")
    assert [node.name for page in tree.children(search) for node in page] == [b"f"]
    merged.add("g", b"y", run=1)
    assert sorted(node.name for page in tree.children(search) for node in page) == [b"f", b"g"]
    assert [node.name for page in tree.children(SEARCHES) for node in page] == [b"run = 1"]


def test_names_of_a_search_are_free_even_if_files_are_named_like_that(merged: Merged, tree: Tree) -> None:
    for source in ("a/f", "b/f", "c/f~2", "d/f"):
        merged.add(source, source.encode(), run=1)
    names = [node.name for page in tree.children(walk(tree, b".find/run = 1")) for node in page]
    assert len(set(names)) == 4
    assert {b"f", b"f~2"} <= set(names)


def test_a_search_shows_only_files_that_are_there(merged: Merged, tree: Tree) -> None:
    merged.add("gone", b"x", state=State.MISSING, run=1)
    merged.add("f", b"y", state=State.LISTED, run=1)
    search = walk(tree, b".find/run = 1 and state != 'quarantined'")
    assert [node.name for page in tree.children(search) for node in page] == [b"f"]


def test_a_follower_tells_names_once(merged: Merged) -> None:
    merged.add("before", b"x")
    follower = Follower(merged.guard)
    assert follower.changed() == []
    merged.add(b"new\nline", b"x")
    merged.add("sub/f", b"x")
    changed = follower.changed()
    assert ("/taiga/one", b"new\nline") in changed
    assert ("/taiga/one/sub", b"f") in changed
    assert ("/taiga", b"one") not in changed  # who is in a folder must not lose it
    assert follower.changed() == []


def test_a_follower_tells_of_folders_that_went_with_their_last_file(merged: Merged) -> None:
    merged.add("sub/deep/f", b"x")
    merged.add("sub/g", b"x")
    follower = Follower(merged.guard)
    merged.catalogue.remove(["/taiga/one/sub/deep/f"])
    changed = follower.changed()
    assert ("/taiga/one/sub/deep", b"f") in changed
    assert ("/taiga/one/sub", b"deep") in changed
    assert ("/taiga/one", b"sub") not in changed


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (StaleNodeError("x"), errno.ESTALE), (NotFoundError("x"), errno.ENOENT), (UsageError("x"), errno.EINVAL),
        (ServerError("x"), errno.EIO), (VerificationError("x"), errno.EIO), (OSError(errno.ENOSPC, "x"), errno.EIO),
    ],
    ids=["stale", "missing", "usage", "server", "wrong bytes", "system"],
)  # fmt: skip
def test_errors_have_their_numbers(error: Exception, number: int) -> None:
    assert error_number(error) == number


def test_the_largest_names_fit(merged: Merged, tree: Tree) -> None:
    name = b"\xff" * 255
    merged.add(name, b"x")
    assert walk(tree, b"taiga/one/" + name).name == name
    assert os.fsdecode(name)


def names(tree: Tree) -> set[bytes]:
    """All names of files, at any depth."""
    found, folders = set(), [tree.root]
    while folders:
        nodes = [node for page in tree.children(folders.pop()) for node in page]
        found |= {node.name for node in nodes if node.kind == "file"}
        folders += [node for node in nodes if node.kind == "folder"]
    return found


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (View(), {b"a", b"b", b"c"}),
        (View("run = 1"), {b"a"}),
        (View(below="/taiga/one/in"), {b"b", b"c"}),
        (View(below="/taiga/one/i"), None),
        (View("run = 2", "taiga/one/in/"), {b"b"}),
    ],
    ids=["whole", "query", "folder", "no folder", "both"],
)
def test_a_view_is_all_that_a_mount_shows(merged: Merged, view: View, expected: set[bytes] | None) -> None:
    for name, run in (("a", 1), ("in/b", 2), ("in/c", 3)):
        merged.add(name, name.encode(), run=run)
    guard, _ = MountScope(view).doors(merged.catalogue)
    with Reader(guard) as reader:
        if expected is None:
            with pytest.raises(NotFoundError):
                Tree(guard, reader, view.folder)
        else:
            assert names(Tree(guard, reader, view.folder)) == expected


def test_a_mount_with_a_policy_of_its_own_shows_what_that_allows(merged: Merged, tmp_path: Path) -> None:
    for name in ("a", "b"):
        merged.add(name, name.encode(), run=ord(name))
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "rules:\n"
        "- {name: names, who: anyone, may: metadata, query: run = 97}\n"
        "- {name: bytes, who: {users: [eve], groups: [shift]}, may: data}\n"
    )
    readable = {}
    for user, groups in (("", ()), ("eve", ()), ("adam", ()), ("adam", ("shift",))):
        shown = MountScope(policy=policy, user=user, groups=groups)
        guard, _ = shown.doors(merged.catalogue)
        with Reader(guard) as reader:
            tree = Tree(guard, reader)
            readable[user, groups] = names(tree), opens(tree, walk(tree, b"taiga/one/a"))
    assert readable == {
        ("", ()): ({b"a"}, False), ("adam", ()): ({b"a"}, False), ("eve", ()): ({b"a", b"b"}, True),
        ("adam", ("shift",)): ({b"a", b"b"}, True),
    }  # fmt: skip


def opens(tree: Tree, node: Node) -> bool:
    try:
        tree.open(node).close()
    except NotFoundError:
        return False
    return True
