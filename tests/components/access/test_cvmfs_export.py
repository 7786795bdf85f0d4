"""The CernVM-FS export, read back by a reader of its own and `openssl`: same tree, sizes, times, hashes of pieces."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import stat
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import blake3
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apbatch.access.exports.cvmfs.publish import Publication, publish
from apbatch.access.exports.cvmfs.repository import Repository, renew
from apbatch.access.exports.cvmfs.signing import Keyring
from apbatch.access.guard import Guard
from apbatch.access.policy import Policy
from apbatch.access.principals import ANYONE, OWNER, Principal
from apbatch.cli.main import application, run_command
from apbatch.errors import ApbatchError, NotFoundError, UsageError
from apbatch.index.catalogue import Catalogue
from apbatch.index.contents import LARGE_PIECE, SMALL_PIECE, Content
from apbatch.index.files import FileRecord, State
from apbatch.index.sql.sqlite import SqliteCatalogue
from apbatch.ingest.patterns import encode_path
from tests.cvmfs_reader import from_folder, read_repository

NAME = "taiga.example.org"
MIB = 2**20


def content(size: int, seed: int = 0) -> Content:
    """Return the hashes of made-up contents: digests are drawn, since an export believes the catalogue."""
    draw = random.Random(size * 1000 + seed)
    counts = [-(-size // length) for length in (SMALL_PIECE, SMALL_PIECE, LARGE_PIECE)]
    blocks, small, large = (draw.randbytes(length * many) for length, many in zip((32, 20, 20), counts, strict=True))
    return Content(f"{draw.getrandbits(256):064x}", size, "0", blocks, small, large)


def record(
    source: bytes, held: Content, *, site: str = "site", mtime_ns: int = 1_500_000_000_123_456_789
) -> FileRecord:
    name = encode_path(source)
    return FileRecord(
        path=f"/taiga/{site}/{name}", site=site, source=name, size=held.size, mtime_ns=mtime_ns, checksum=held.checksum,
        adler32="0", format="x", experiment="TAIGA",
    )  # fmt: skip


@pytest.fixture(scope="module")
def shared_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys that are made once: it takes long."""
    folder = tmp_path_factory.mktemp("keys")
    Keyring(folder, NAME).make()
    return folder


@pytest.fixture(autouse=True)
def _keys(tmp_path: Path, shared_keys: Path) -> None:
    shutil.copytree(shared_keys, tmp_path / "keys", ignore=shutil.ignore_patterns("*.revision"))


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    with SqliteCatalogue(f"sqlite:///{tmp_path}/c.sqlite") as catalogue:
        yield catalogue


def fill(catalogue: Catalogue, sizes: dict[bytes, int]) -> dict[bytes, Content]:
    """Register files; return their contents by source."""
    contents = {source: content(size, number) for number, (source, size) in enumerate(sizes.items())}
    catalogue.put_contents(contents.values())
    report = catalogue.upsert([record(source, one) for source, one in contents.items()])
    assert not report.refusals
    return contents


def guard(catalogue: Catalogue, who: Principal = OWNER, text: str | None = None) -> Guard:
    return Guard(catalogue, None, Policy(lambda: (text, Path("policy.yaml")), catalogue), who)


def export(catalogue: Catalogue, folder: Path, selection: str = "/taiga/site", **settings: object) -> Publication:
    repository = Repository(folder, NAME, folder.parent / "keys")
    return publish(guard(catalogue), selection, repository, **settings)  # type: ignore[arg-type]


def read(folder: Path, now: datetime | None = None):  # type: ignore[no-untyped-def]
    return read_repository(from_folder(folder), NAME, folder.parent / "keys" / f"{NAME}.pub", now)


def files(repository) -> dict[bytes, tuple[int, int, list[tuple[int, int, str]]]]:  # type: ignore[no-untyped-def]
    return {
        path: (node.size, node.mtime_ns, node.pieces) for path, node in repository.nodes.items() if not node.is_folder
    }


def expected(contents: dict[bytes, Content], piece: int) -> dict[bytes, tuple[int, int, list[tuple[int, int, str]]]]:
    answer = {}
    for source, one in contents.items():
        digests = one.small_pieces if piece == SMALL_PIECE else one.large_pieces
        hashes = [digests[at : at + 20].hex() for at in range(0, len(digests), 20)] or [hashlib.sha1(b"").hexdigest()]
        suffix = "P" if len(hashes) > 1 else ""
        pieces = [(number * piece, min(piece, one.size - number * piece), f"data/{hash[:2]}/{hash[2:]}{suffix}")
                  for number, hash in enumerate(hashes)]  # fmt: skip
        answer[b"/" + source] = (one.size, 1_500_000_000_123_456_789, pieces)
    return answer


TREE = {
    b"a.001": 156, b"empty": 0, b"night/b.001": 2 * MIB, b"night/c.001": 2 * MIB + 1, b"night/deep/er/d": 100 * MIB + 7,
    b"odd/new\nline": 5, b"odd/\xff\xfe bytes": 6, b"odd/100% #1?&=.txt": 7, b"odd/" + b"n" * 255: 8,
    "odd/Überschuß".encode(): 9, b"odd/%0A": 10, b"odd\x01/e": 11,
}  # fmt: skip


@pytest.mark.parametrize("piece", [SMALL_PIECE, LARGE_PIECE])
def test_a_tree_comes_back_with_sizes_times_and_hashes(catalogue: Catalogue, tmp_path: Path, piece: int) -> None:
    contents = fill(catalogue, TREE)
    report = export(catalogue, tmp_path / "repo", piece=piece)
    repository = read(tmp_path / "repo")
    assert files(repository) == expected(contents, piece)
    folders = {path for path, node in repository.nodes.items() if node.is_folder}
    assert folders == {b"", b"/night", b"/night/deep", b"/night/deep/er", b"/odd", b"/odd\x01"}
    assert (report.revision, report.is_new, report.files, report.folders, report.catalogs) == (1, True, 12, 5, 1)
    assert report.bytes == sum(TREE.values()) and report.left_out == []
    assert {stat.S_IMODE(node.mode) for node in repository.nodes.values()} == {0o444, 0o555}
    assert repository.nodes[b"/odd"].mtime_ns == 1_500_000_000_123_456_789


def test_folders_get_catalogs_of_their_own_and_the_counters_hold(catalogue: Catalogue, tmp_path: Path) -> None:
    sizes = {b"night%d/%d/f%d" % (n % 7, n % 5, n): 3 * MIB * (n % 3) for n in range(700)}
    contents = fill(catalogue, sizes)
    export(catalogue, tmp_path / "repo", full=30, crumb=5)
    repository = read(tmp_path / "repo")
    assert files(repository) == expected(contents, SMALL_PIECE)
    assert set(repository.catalogs) == {b"", *(b"/night%d" % n for n in range(7))} | {
        b"/night%d/%d" % (n, m) for n in range(7) for m in range(5)
    }


def test_publishing_again_makes_no_revision_and_one_change_rewrites_its_path(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    folder = tmp_path / "repo"
    fill(catalogue, {b"run%d/night%d/f%03d" % (n % 3, n % 4, n): n for n in range(300)})
    export(catalogue, folder, full=10, crumb=4)
    first = read(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and ".apbatch" not in path.parts}
    again = export(catalogue, folder, full=10, crumb=4)
    assert (again.revision, again.is_new, again.catalogs_written) == (1, False, 0)
    assert {path: path.read_bytes() for path in before} == before

    changed = content(77, 99)
    catalogue.put_contents([changed])
    catalogue.upsert([record(b"run1/night1/f001", changed, mtime_ns=1_600_000_000_000_000_000)])
    report = export(catalogue, folder, full=10, crumb=4)
    second = read(folder)
    rewritten = {path for path, hash in second.catalogs.items() if first.catalogs[path] != hash}
    assert rewritten == {b"", b"/run1", b"/run1/night1"} and set(first.catalogs) == set(second.catalogs)
    assert (report.revision, report.catalogs_written) == (2, 3)
    assert int(second.fields["T"]) >= int(first.fields["T"])
    assert second.nodes[b"/run1/night1/f001"].size == 77
    # who is on the old revision still finds all of it
    for path, content_before in before.items():
        assert path.name in (".cvmfspublished", ".cvmfswhitelist") or path.read_bytes() == content_before


def test_a_removed_file_is_gone_in_the_next_revision(catalogue: Catalogue, tmp_path: Path) -> None:
    contents = fill(catalogue, {b"a": 1, b"d/b": 2})
    export(catalogue, tmp_path / "repo")
    catalogue.remove(["/taiga/site/d/b"])
    export(catalogue, tmp_path / "repo")
    del contents[b"d/b"]
    repository = read(tmp_path / "repo")
    assert files(repository) == expected(contents, SMALL_PIECE) and set(repository.nodes) == {b"", b"/a"}


def test_a_query_is_exported_under_the_paths_of_the_merged_tree(catalogue: Catalogue, tmp_path: Path) -> None:
    fill(catalogue, {b"small/a": 1, b"small/b": 300, b"large/c": 400, b"large\x02/d": 2})
    export(catalogue, tmp_path / "repo", "size >= 2 and size < 400")
    assert set(files(read(tmp_path / "repo"))) == {b"/taiga/site/small/b", b"/taiga/site/large\x02/d"}


def test_conflicts_have_the_names_of_the_merged_tree(catalogue: Catalogue, tmp_path: Path) -> None:
    one, two = content(1), content(2)
    catalogue.put_contents([one, two])
    here, there = record(b"f", one), replace(record(b"f", two, site="other"), place="/taiga/site/f")
    catalogue.upsert([here, there])
    names = {b"/f@site", b"/f@other"}
    export(catalogue, tmp_path / "repo")
    assert set(files(read(tmp_path / "repo"))) == names
    export(catalogue, tmp_path / "query", "size > 0")
    assert set(files(read(tmp_path / "query"))) == {b"/taiga/site" + name for name in names}


def test_what_can_not_be_exported_is_listed_with_the_remedy(catalogue: Catalogue, tmp_path: Path) -> None:
    contents = fill(catalogue, {b"good": 1, b"d/.cvmfscatalog": 2, b"d/" + b"n" * 254 + b"\xc3": 4})
    without = content(5, 5)
    listed = replace(record(b"listed", without), state=State.LISTED, checksum="")
    long = replace(record(b"long", contents[b"good"]), place="/taiga/site/" + "l" * 256)
    odd = replace(record(b"odd", contents[b"good"]), place="/taiga/site/%41")
    lying = replace(record(b"lying", contents[b"good"]), size=3 * MIB)
    catalogue.upsert([record(b"unhashed", without), listed, long, odd, lying])
    for selection in ("/taiga/site", "size >= 0"):
        report = export(catalogue, tmp_path / f"repo{len(selection)}", selection, full=1, crumb=1)
        left_out = {path: one.remedy for one in report.left_out for path in one.examples}
        assert {path.rpartition("/")[2] for path in left_out} == {
            ".cvmfscatalog", "unhashed", "listed", "l" * 256, "%41", "lying"
        }  # fmt: skip
        assert all(left_out.values()) and sum(one.files for one in report.left_out) == 6
        names = {path.rpartition(b"/")[2] for path in files(read(tmp_path / f"repo{len(selection)}"))}
        assert names == {b"good", b"n" * 254 + b"\xc3"}


def test_files_that_get_their_hashes_later_come_with_the_next_publication(catalogue: Catalogue, tmp_path: Path) -> None:
    fill(catalogue, {b"d/a": 1})
    late = content(5, 5)
    catalogue.upsert([record(b"d/late", late)])
    assert export(catalogue, tmp_path / "repo", full=1, crumb=1).left_out[0].files == 1
    assert not export(catalogue, tmp_path / "repo", full=1, crumb=1).is_new
    catalogue.put_contents([late])
    assert export(catalogue, tmp_path / "repo", full=1, crumb=1).is_new
    assert set(files(read(tmp_path / "repo"))) == {b"/d/a", b"/d/late"}


def test_only_what_may_be_read_is_exported(catalogue: Catalogue, tmp_path: Path) -> None:
    fill(catalogue, {b"open/a": 5, b"open/large": 500, b"shut/b": 6})
    rules = "rules: [{name: o, who: anyone, may: data, query: \"size < 100\", below: /taiga/site/open}, " \
            "{name: m, who: anyone, may: metadata}]"  # fmt: skip
    repository = Repository(tmp_path / "repo", NAME, tmp_path / "keys")
    publish(guard(catalogue, ANYONE, rules), "/taiga/site", repository)
    assert set(files(read(tmp_path / "repo"))) == {b"/open/a"}
    publish(guard(catalogue, ANYONE, rules), "size > 0", Repository(tmp_path / "repo", NAME, tmp_path / "keys"))
    assert set(files(read(tmp_path / "repo"))) == {b"/taiga/site/open/a"}


@pytest.mark.parametrize(
    ("selection", "kind"),
    [("/nowhere", NotFoundError), ("/taiga/site/a", UsageError), ("nonsense = 1", UsageError)],
)
def test_a_wrong_selection_is_an_error_and_leaves_the_revision(
    catalogue: Catalogue, tmp_path: Path, selection: str, kind: type[ApbatchError]
) -> None:
    fill(catalogue, {b"a": 1})
    export(catalogue, tmp_path / "repo")
    with pytest.raises(kind):
        export(catalogue, tmp_path / "repo", selection)
    assert read(tmp_path / "repo").fields["S"] == "1"


def test_keys_are_private_and_outside_of_the_repository(
    catalogue: Catalogue, tmp_path: Path, shared_keys: Path
) -> None:
    fill(catalogue, {b"a": 1})
    export(catalogue, tmp_path / "repo")
    private = [path for path in shared_keys.iterdir() if b"PRIVATE" in path.read_bytes()]
    assert len(private) == 2 and {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}
    assert not any(b"PRIVATE" in path.read_bytes() for path in (tmp_path / "repo").rglob("*") if path.is_file())
    with pytest.raises(UsageError, match="keys would lie in the repository"):
        Repository(tmp_path, NAME, tmp_path / "keys")


def test_the_whitelist_is_renewed_before_it_expires_and_when_asked(catalogue: Catalogue, tmp_path: Path) -> None:
    fill(catalogue, {b"a": 1})
    folder = tmp_path / "repo"
    expires = export(catalogue, folder).whitelist_expires
    with pytest.raises(AssertionError, match="expired"):
        read(folder, datetime.now(UTC) + timedelta(days=31))
    repository = Repository(folder, NAME, tmp_path / "keys")
    later = datetime.now(UTC) + timedelta(days=20)
    with repository.alone() as keyring:
        assert repository.sign_whitelist(keyring, now=datetime.now(UTC) + timedelta(days=10)) == expires
        assert repository.sign_whitelist(keyring, now=later) > expires
    read(folder, datetime.now(UTC) + timedelta(days=45))
    assert renew(folder, keys=tmp_path / "keys") > datetime.now(UTC) + timedelta(days=29)
    read(folder)


def test_without_the_master_key_publishing_goes_on_until_the_whitelist_expires(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    fill(catalogue, {b"a": 1})
    folder, master = tmp_path / "repo", tmp_path / "keys" / f"{NAME}.masterkey"
    export(catalogue, folder)
    kept = master.read_bytes()
    master.unlink()
    fill(catalogue, {b"b": 2})
    assert export(catalogue, folder).revision == 2
    read(folder)
    with pytest.raises(NotFoundError, match="key"):
        renew(folder, keys=tmp_path / "keys")
    with pytest.raises(NotFoundError, match="key"):
        export(catalogue, folder, new_key=True)
    assert not export(catalogue, folder).is_new  # the old key still holds
    master.write_bytes(kept)
    assert export(catalogue, folder, new_key=True).revision == 3
    read(folder)


def test_a_new_repository_key_needs_nothing_of_the_clients(catalogue: Catalogue, tmp_path: Path) -> None:
    fill(catalogue, {b"a": 1})
    export(catalogue, tmp_path / "repo")
    first = read(tmp_path / "repo")
    report = export(catalogue, tmp_path / "repo", new_key=True)
    second = read(tmp_path / "repo")
    assert report.revision == 2 and first.fields["X"] != second.fields["X"]
    old = (tmp_path / "repo" / ".cvmfswhitelist").read_bytes().count(b":")
    renew(tmp_path / "repo", keys=tmp_path / "keys")
    assert (tmp_path / "repo" / ".cvmfswhitelist").read_bytes().split(b"--\n")[0].count(b":") < old
    read(tmp_path / "repo")


def test_revisions_go_on_where_a_repository_is_made_anew_with_its_keys(catalogue: Catalogue, tmp_path: Path) -> None:
    fill(catalogue, {b"a": 1})
    export(catalogue, tmp_path / "repo")
    fill(catalogue, {b"b": 2})
    export(catalogue, tmp_path / "repo")
    (tmp_path / "repo" / ".cvmfspublished").write_bytes(b"Cdeadbeef\n--\n")  # what no client takes is replaced
    assert export(catalogue, tmp_path / "repo").revision == 3
    assert export(catalogue, tmp_path / "other").revision == 4
    read(tmp_path / "other")


def test_a_folder_of_something_else_is_left_alone(catalogue: Catalogue, tmp_path: Path) -> None:
    fill(catalogue, {b"a": 1})
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "thesis.tex").write_text("")
    with pytest.raises(UsageError, match="holds something else"):
        export(catalogue, tmp_path / "repo")
    export(catalogue, tmp_path / "mine")
    with pytest.raises(UsageError, match=NAME):
        Repository(tmp_path / "mine", "other.example.org", tmp_path / "keys")
    with pytest.raises(UsageError, match="not a name"):
        Repository(tmp_path / "x", "../evil\n", tmp_path / "keys")


def test_of_two_publishers_the_second_is_told_who_is_first(catalogue: Catalogue, tmp_path: Path) -> None:
    fill(catalogue, {b"a": 1})
    export(catalogue, tmp_path / "repo")
    repository = Repository(tmp_path / "repo", NAME, tmp_path / "keys")
    with repository.alone(), pytest.raises(UsageError, match=f"process {os.getpid()} is publishing"):
        export(catalogue, tmp_path / "repo")


def test_a_clock_that_goes_back_does_not_stop_clients(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(catalogue, {b"a": 1})
    export(catalogue, tmp_path / "repo")
    first = read(tmp_path / "repo")
    monkeypatch.setattr("apbatch.access.exports.cvmfs.publish.time.time", lambda: int(first.fields["T"]) - 3600.0)
    fill(catalogue, {b"b": 2})
    export(catalogue, tmp_path / "repo")
    assert int(read(tmp_path / "repo").fields["T"]) >= int(first.fields["T"])


def test_the_command_exports_renews_and_says_what_is_left_out(
    home: Path, tmp_path: Path, shared_keys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = application()

    def run(*arguments: str) -> tuple[int, str, str]:
        status = run_command(command, arguments=list(arguments))
        return status, *capsys.readouterr()

    with SqliteCatalogue(f"sqlite:///{home}/catalogue.sqlite") as catalogue:
        fill(catalogue, {b"a": 1, b"d/b": 3 * MIB})
        catalogue.upsert([record(b"unhashed", content(5, 5))])
    keys = ("--keys", str(shared_keys))
    to = ("--to", str(tmp_path / "repo"), *keys)
    status, out, err = run("cvmfs", "publish", "/taiga/site", *to, "--name", NAME, "--format", "json")
    assert (status, json.loads(out)[0]["files"], json.loads(out)[0]["left_out"]) == (0, 2, 1)
    assert "/taiga/site/unhashed" in err and "apbatch ingest" in err
    assert run("cvmfs", "renew", str(tmp_path / "repo"), *keys)[0] == 0
    repository = read_repository(from_folder(tmp_path / "repo"), NAME, shared_keys / f"{NAME}.pub")
    assert set(files(repository)) == {b"/a", b"/d/b"}
    status, _, err = run("cvmfs", "publish", "/nowhere", *to)
    assert status == 2 and "no such folder" in err
    status, out, _ = run("export", "/taiga/site", "--as", "cvmfs", "--to", str(tmp_path / "other"), "--name", NAME)
    assert status == 0 and (tmp_path / "other" / ".cvmfspublished").is_file()
    status, _, err = run("cvmfs", "serve", str(tmp_path / "empty"))
    assert status == 2 and "no repository" in err


def publish_until(step: int, catalogue: Path, folder: Path) -> None:
    """Publish in a process of its own, which is killed just before it renames its file number `step`."""
    renames = 0
    replace_file = Path.replace

    def counted(self: Path, target: Path) -> Path:
        nonlocal renames
        renames += 1
        if renames == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return replace_file(self, target)

    Path.replace = counted  # type: ignore[method-assign, assignment]
    with SqliteCatalogue(f"sqlite:///{catalogue}") as opened:
        export(opened, folder, full=20, crumb=5)


def test_a_publisher_that_is_killed_leaves_the_old_revision_whole(catalogue: Catalogue, tmp_path: Path) -> None:
    fill(catalogue, {b"first": 1})
    folder = tmp_path / "repo"
    export(catalogue, folder)
    contents = {
        b"first": content(1),
        **fill(catalogue, {b"night%d/f%04d" % (n % 4, n): 5 * MIB + n for n in range(40)}),
    }
    for step in range(1, 30):
        trial = tmp_path / str(step)
        for part in ("repo", "keys"):
            shutil.copytree(tmp_path / part, trial / part)
        process = multiprocessing.get_context("fork").Process(
            target=publish_until, args=(step, tmp_path / "c.sqlite", trial / "repo")
        )
        process.start()
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        assert read(trial / "repo").fields["S"] == "1" and set(files(read(trial / "repo"))) == {b"/first"}
        if step % 2:  # whoever publishes next finishes it
            export(catalogue, trial / "repo", full=20, crumb=5)
            assert files(read(trial / "repo")) == expected(contents, SMALL_PIECE)
            assert not [path for path in (trial / "repo").rglob("*") if path.name.endswith(".part")]
            assert list((trial / "repo" / ".apbatch" / "new").iterdir()) == []
    assert step > 6  # four folders, the root, the number of the revision, the manifest
    assert files(read(trial / "repo")) == expected(contents, SMALL_PIECE)


_COMPONENT = st.binary(min_size=1, max_size=12).filter(
    lambda name: name not in (b".", b"..", b".cvmfscatalog") and not set(name) & {0, ord("/")}
)
_TREES = st.dictionaries(
    st.lists(_COMPONENT, min_size=1, max_size=4).map(b"/".join), st.sampled_from([0, 1, 2 * MIB, 5 * MIB + 3]),
    min_size=1, max_size=25,
)  # fmt: skip


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=_TREES, full=st.integers(1, 30), crumb=st.integers(1, 10))
def test_any_tree_comes_back(
    tmp_path_factory: pytest.TempPathFactory, shared_keys: Path, tree: dict[bytes, int], full: int, crumb: int
) -> None:
    folders = {b"/".join(path.split(b"/")[:n]) for path in tree for n in range(1, path.count(b"/") + 1)}
    tree = {path: size for path, size in tree.items() if path not in folders}
    scratch = tmp_path_factory.mktemp("any")
    with SqliteCatalogue(f"sqlite:///{scratch}/c.sqlite") as catalogue:
        contents = fill(catalogue, tree)
        publish(
            guard(catalogue), "/taiga/site", Repository(scratch / "repo", NAME, shared_keys), full=full, crumb=crumb
        )
    repository = read_repository(from_folder(scratch / "repo"), NAME, shared_keys / f"{NAME}.pub")
    assert files(repository) == expected(contents, SMALL_PIECE)
    assert {path for path, node in repository.nodes.items() if node.is_folder} == {
        b"",
        *(b"/" + one for one in folders),
    }


def test_hashes_of_real_bytes_are_those_that_a_client_compares(catalogue: Catalogue, tmp_path: Path) -> None:
    bytes_of = random.Random(3).randbytes(2 * MIB + 100)
    cut = [bytes_of[at : at + SMALL_PIECE] for at in range(0, len(bytes_of), SMALL_PIECE)]
    digests = b"".join(hashlib.sha1(piece).digest() for piece in cut)
    blocks = b"".join(blake3.blake3(piece).digest() for piece in cut)
    whole = Content(
        blake3.blake3(bytes_of).hexdigest(), len(bytes_of), "0", blocks, digests, hashlib.sha1(bytes_of).digest()
    )
    catalogue.put_contents([whole])
    catalogue.upsert([record(b"f", whole)])
    export(catalogue, tmp_path / "repo")
    pieces = read(tmp_path / "repo").nodes[b"/f"].pieces
    assert [hashlib.sha1(bytes_of[at : at + length]).hexdigest() for at, length, _ in pieces] == [
        url.replace("data", "").replace("/", "").removesuffix("P") for _, _, url in pieces
    ]
