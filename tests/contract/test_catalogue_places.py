"""One merged tree of many sites: each content once, conflicts shown, whatever the order in which files come."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apbatch.index.catalogue import Catalogue
from apbatch.index.descriptions import Description, DescriptionKind
from apbatch.index.files import VISIBLE, FileRecord, State
from apbatch.index.parser import parse
from apbatch.index.places import Holding, settle
from apbatch.index.query import Search
from tests.contract.conftest import record


def held(experiment: str, site: str, name: str, checksum: str = "c", **changes: object) -> FileRecord:
    """A file of a site that wants a place which no site's name is in."""
    path = f"/{experiment}/{site}/{name}"
    changes = {"place": f"/{experiment}/tree/{name}", "checksum": checksum, **changes}
    return record(experiment, name, path=path, site=f"{experiment}-{site}", **changes)


def tree(catalogue: Catalogue, experiment: str, folder: str = "") -> dict[str, str]:
    """Names and checksums of the files in a folder of the tree; folders have the checksum '/'."""
    entries = catalogue.entries(f"/{experiment}/tree{folder}").entries
    return {entry.name: entry.checksum if entry.kind == "file" else "/" for entry in entries}


def select(catalogue: Catalogue, text: str) -> list[str]:
    return [file.path for file in catalogue.select(parse(text, catalogue.attributes()))]


def test_one_content_at_two_sites_is_one_entry_with_two_sources(whole: Catalogue, experiment: str) -> None:
    whole.upsert([held(experiment, "a", "f", night=None), held(experiment, "b", "f")])
    assert tree(whole, experiment) == {"f": "c"}
    sources = whole.sources(f"/{experiment}/tree/f")
    assert [file.site for file in sources] == [f"{experiment}-a", f"{experiment}-b"]
    query = parse(f"experiment = '{experiment}'", whole.attributes())
    assert select(whole, f"experiment = '{experiment}'") == [f"/{experiment}/a/f"]
    assert whole.count(query) == {None: 1}
    assert whole.count(query, "site") == {f"{experiment}-a": 1}
    assert sum(batch.num_rows for batch in whole.batches(query, ["path"])) == 1
    assert whole.conflicts()[0] == [] or f"/{experiment}/tree/f" not in {c.place for c in whole.conflicts()[0]}


def test_a_query_for_a_site_finds_what_that_site_holds(whole: Catalogue, experiment: str) -> None:
    whole.upsert([held(experiment, "a", "f"), held(experiment, "b", "f", attributes={"zenith": 5.0})])
    assert select(whole, f"site = '{experiment}-b'") == [f"/{experiment}/b/f"]
    assert select(whole, f"experiment = '{experiment}' and zenith = 5") == [f"/{experiment}/b/f"]
    assert select(whole, f"experiment = '{experiment}' and zenith is null") == [f"/{experiment}/a/f"]


def test_other_content_at_one_place_is_a_conflict(whole: Catalogue, experiment: str) -> None:
    whole.upsert([held(experiment, "a", "f", "x"), held(experiment, "b", "f", "y"), held(experiment, "c", "f", "y")])
    a, b = f"f@{experiment}-a", f"f@{experiment}-b"
    assert tree(whole, experiment) == {a: "x", b: "y"}
    assert [file.site for file in whole.sources(f"/{experiment}/tree/{b}")] == [f"{experiment}-b", f"{experiment}-c"]
    assert len(select(whole, f"experiment = '{experiment}'")) == 2
    entry = whole.entry(f"/{experiment}/tree/{a}")
    assert entry is not None and entry.conflict and whole.entry(f"/{experiment}/tree/f") is None
    found = {conflict.place: conflict.entries for conflict in all_conflicts(whole)}
    assert found[f"/{experiment}/tree/f"] == {
        f"/{experiment}/a/f": f"/{experiment}/tree/{a}",
        f"/{experiment}/b/f": f"/{experiment}/tree/{b}",
        f"/{experiment}/c/f": f"/{experiment}/tree/{b}",
    }
    whole.remove([f"/{experiment}/a/f"])
    assert tree(whole, experiment) == {"f": "y"}


def all_conflicts(catalogue: Catalogue) -> list:  # type: ignore[type-arg]
    conflicts, cursor = catalogue.conflicts(limit=1)
    while cursor is not None:
        more, cursor = catalogue.conflicts(cursor, limit=1)
        conflicts += more
    return conflicts


def test_the_preferred_site_gets_the_plain_name(whole: Catalogue, experiment: str) -> None:
    whole.upsert([held(experiment, "a", "f", "x"), held(experiment, "b", "f", "y")])
    site = Description(DescriptionKind.SITE, f"{experiment}-b", "name: b", preferred=True)
    whole.put_description(site)
    assert tree(whole, experiment) == {f"f@{experiment}-a": "x", "f": "y"}
    whole.upsert([held(experiment, "a", "g", "x"), held(experiment, "b", "g", "y")])
    assert tree(whole, experiment)["g"] == "y"
    whole.remove_description(DescriptionKind.SITE, site.name)
    assert tree(whole, experiment)[f"f@{experiment}-b"] == "y"


def test_a_listed_file_becomes_what_its_content_says(whole: Catalogue, experiment: str) -> None:
    listed = held(experiment, "b", "f", "", state=State.LISTED, format="", adler32="")
    whole.upsert([held(experiment, "a", "f", "x"), listed])
    assert tree(whole, experiment) == {"f": "x"} and len(whole.sources(f"/{experiment}/tree/f")) == 2
    assert select(whole, f"experiment = '{experiment}' and state = 'listed'") == [listed.path]
    whole.upsert([held(experiment, "b", "f", "y")])
    assert tree(whole, experiment) == {f"f@{experiment}-a": "x", f"f@{experiment}-b": "y"}
    whole.upsert([held(experiment, "b", "f", "", state=State.MISSING)])
    assert tree(whole, experiment) == {"f": "x"}


def test_a_listed_file_alone_is_in_the_tree_with_its_size(whole: Catalogue, experiment: str) -> None:
    whole.upsert([held(experiment, "a", "d/f", "", state=State.LISTED, size=77, mtime_ns=5)])
    (entry,) = whole.entries(f"/{experiment}/tree/d").entries
    assert (entry.name, entry.size, entry.mtime_ns, entry.state) == ("f", 77, 5, State.LISTED)
    assert whole.entry(f"/{experiment}/tree/d/f") == entry
    folder = whole.entry(f"/{experiment}/tree/d")
    assert folder is not None and folder.kind == "folder"
    assert select(whole, f"experiment = '{experiment}'") == []


def test_a_folder_takes_the_plain_name_from_a_file(whole: Catalogue, experiment: str) -> None:
    whole.upsert([held(experiment, "a", "n", "x")])
    assert tree(whole, experiment) == {"n": "x"}
    whole.upsert([held(experiment, "b", "n/f", "y")])
    assert tree(whole, experiment) == {f"n@{experiment}-a": "x", "n": "/"}
    whole.remove([f"/{experiment}/b/n/f"])
    assert tree(whole, experiment) == {"n": "x"}


def test_a_file_that_moves_leaves_its_place_to_others(whole: Catalogue, experiment: str) -> None:
    whole.upsert([held(experiment, "a", "f", "x"), held(experiment, "b", "f", "y")])
    moved = held(experiment, "a", "f", "x", place=f"/{experiment}/elsewhere/f")
    whole.upsert([moved])
    assert tree(whole, experiment) == {"f": "y"}
    assert [e.name for e in whole.entries(f"/{experiment}/elsewhere").entries] == ["f"]


def test_one_content_under_two_experiments_is_a_conflict(whole: Catalogue, experiment: str) -> None:
    other = replace(held(experiment, "b", "f"), experiment=f"{experiment}-other")
    whole.upsert([held(experiment, "a", "f"), other])
    assert set(tree(whole, experiment)) == {f"f@{experiment}-a", f"f@{experiment}-b"}


def test_a_change_of_name_is_told_to_followers(whole: Catalogue, experiment: str) -> None:
    whole.upsert([held(experiment, "a", "f", "x")])
    last = whole.revision()
    whole.upsert([held(experiment, "b", "f", "y")])
    keys = [change.key for change in whole.all_changes(last) if change.key.startswith(f"/{experiment}/")]
    assert sorted(keys) == [f"/{experiment}/a/f", f"/{experiment}/b/f"]


def test_writing_again_changes_no_name(whole: Catalogue, experiment: str) -> None:
    files = [held(experiment, site, name, site) for site in "ab" for name in ("f", "g")]
    whole.upsert(files)
    before = tree(whole, experiment)
    for file in reversed(files):
        whole.upsert([file])
        assert tree(whole, experiment) == before


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))), ids=str)
def test_the_order_in_which_files_come_changes_nothing(
    new_url: Callable[[str], str], experiment: str, order: tuple[int, ...]
) -> None:
    from apbatch.index.backends import open_catalogue

    files = [
        held(experiment, "a", "f", "x"), held(experiment, "b", "f", "y"), held(experiment, "c", "f", "x"),
        held(experiment, "d", "f/g", "z"),
    ]  # fmt: skip
    with open_catalogue(new_url("sqlite")) as catalogue:
        for index in order:
            catalogue.upsert([files[index]])
        names = tree(catalogue, experiment)
    assert names == {"f": "/", f"f@{experiment}-a": "x", f"f@{experiment}-b": "y"}


holdings = st.lists(
    st.builds(
        Holding, path=st.sampled_from([f"/e/{n}" for n in range(5)]), site=st.sampled_from("abc"),
        experiment=st.sampled_from("ef"), size=st.sampled_from([1, 2]), checksum=st.sampled_from(["x", "y"]),
        state=st.sampled_from(list(State)),
    ),
    unique_by=lambda one: one.path,
)  # fmt: skip


@given(holdings, st.sets(st.sampled_from("abc")), st.booleans(), st.randoms(use_true_random=False))
@settings(max_examples=300)
def test_settling_depends_on_the_holdings_alone(many, preferred, folder, random) -> None:  # type: ignore[no-untyped-def]
    names = settle("/p", many, preferred, folder)
    shuffled = random.sample(many, len(many))
    assert settle("/p", shuffled, preferred, folder) == names
    assert set(names) == {one.path for one in many}
    visible = {path: name for path, (name, _) in names.items() if name is not None}
    assert set(visible) == {one.path for one in many if one.state in VISIBLE}
    if folder:
        assert "/p" not in visible.values()
    by_name: dict[str, list[int]] = {}
    for path in visible:
        by_name.setdefault(visible[path], []).append(names[path][1])
    assert all(sorted(numbers) == list(range(len(numbers))) for numbers in by_name.values())  # one stands for each name
    read = {one.path: (one.experiment, one.checksum) for one in many if one.state is State.REGISTERED}
    for one, other in itertools.combinations(read, 2):
        assert (read[one] == read[other]) == (visible[one] == visible[other])


def test_a_search_by_pages_sees_each_content_once(whole: Catalogue, experiment: str) -> None:
    whole.upsert(held(experiment, site, f"{n:03}", f"{n}") for n in range(50) for site in "ba")
    search = Search(parse(f"experiment = '{experiment}'", whole.attributes()))
    seen, cursor = [], None
    while True:
        page = whole.select_batch(search, ["path", "place"], cursor, size=7)
        seen += page.batch.column("path").to_pylist()
        if (cursor := page.cursor) is None:
            break
    assert seen == [f"/{experiment}/a/{n:03}" for n in range(50)]
