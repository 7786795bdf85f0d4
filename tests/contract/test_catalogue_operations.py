"""Export, import, backup, restore, check: nothing is lost, and what is wrong is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from apbatch.errors import ApbatchError, FormatError, UsageError, VerificationError
from apbatch.index.backends import open_catalogue
from apbatch.index.catalogue import Catalogue
from apbatch.index.contents import Content
from apbatch.index.descriptions import Description, DescriptionKind
from apbatch.index.files import Replica, State
from apbatch.index.inventory import check_catalogue, compare_with_store
from apbatch.index.transfer import export_catalogue, import_catalogue
from apbatch.storage.backends import open_store
from tests.contract.conftest import DECLARED, POSTGRES, record

_WHEN = datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC)


def fill(catalogue: Catalogue) -> None:
    catalogue.declare(DECLARED)
    attributes = {
        "zenith": 0.1 + 0.2, "label": "ü '%\n", "simulated": False, "calibrated": date(1, 1, 1), "seed": 2**62 + 1,
        "shifted": datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    }  # fmt: skip
    catalogue.upsert(
        [
            record("E", "a", attributes=attributes, night=date(2017, 10, 28), time_start=_WHEN, checksum="1" * 64),
            record("E", "b", state=State.LISTED, checksum=""), record("E", "c", state=State.MISSING),
            record("E", "d/e", state=State.QUARANTINED, reason="cut"),
            record("E", "f", place="/tree/f", checksum="2" * 64), record("E", "g", place="/tree/f", checksum="3" * 64),
            record("F", "h", attributes={"label": "x"}),
        ]
    )  # fmt: skip
    catalogue.upsert(record("E", f"many/{n}", place=f"/tree/many/{n}") for n in range(1500))
    catalogue.add_replicas([Replica("/E/site/a", "hdfs://h/a", "hdfs", "1" * 64, _WHEN)])
    catalogue.put_contents([Content("1" * 64, 5, "00000001", b"b" * 32, b"s" * 20, b"l" * 20)])
    catalogue.put_description(Description(DescriptionKind.SITE, "E-site", "root: /x\n", preferred=True))
    catalogue.put_description(Description(DescriptionKind.POLICY, "p", "rules: []\n"))


def everything(catalogue: Catalogue, *, revisions: bool = False) -> dict[str, object]:
    """All that a catalogue holds, to be compared."""
    files = {c.key: c.record for c in catalogue.all_changes(0) if c.record is not None}
    kept = {path: record if revisions else replace(record, revision=0) for path, record in files.items()}
    names = {
        e.name for folder in ("/tree", "/E/site", "/tree/many") for e in catalogue.entries(folder, limit=5000).entries
    }
    descriptions = [replace(one, revision=0) for kind in DescriptionKind for one in catalogue.descriptions(kind)]
    return {
        "files": kept, "names": names, "descriptions": descriptions, "attributes": catalogue.attributes(),
        "replicas": {path: many for path, many in catalogue.replicas(files).items() if many},
        "contents": catalogue.contents(["1" * 64]),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("origin", "target"), [("sqlite", "sqlite"), pytest.param("sqlite", "postgres", marks=pytest.mark.postgres),
                           pytest.param("postgres", "sqlite", marks=pytest.mark.postgres)],
)  # fmt: skip
def test_a_catalogue_moves_to_another_back_end_with_nothing_lost(
    new_url: Callable[[str], str], tmp_path: Path, origin: str, target: str
) -> None:
    with open_catalogue(new_url(origin)) as catalogue, open_catalogue(new_url(target)) as other:
        fill(catalogue)
        rows = export_catalogue(catalogue, tmp_path / "export")
        assert rows == {"attributes": 7, "files": 1507, "replicas": 1, "contents": 1, "descriptions": 2}
        assert import_catalogue(other, tmp_path / "export") == rows
        assert everything(other) == everything(catalogue)
        assert import_catalogue(other, tmp_path / "export") == rows  # again, as after a kill
        assert everything(other) == everything(catalogue)
        assert list(check_catalogue(other)) == []
        with pytest.raises(UsageError, match="there already"):
            export_catalogue(catalogue, tmp_path / "export")


def test_a_damaged_or_cut_export_is_refused(new_url: Callable[[str], str], tmp_path: Path) -> None:
    with open_catalogue(new_url("sqlite")) as catalogue, open_catalogue(new_url("sqlite")) as other:
        fill(catalogue)
        folder = tmp_path / "export"
        export_catalogue(catalogue, folder)
        path = folder / "files.parquet"
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(FormatError, match=r"files\.parquet"):
            import_catalogue(other, folder)
        pq.write_table(pq.read_table(folder / "replicas.parquet").slice(0, 0), folder / "replicas.parquet")
        path.write_bytes(content)
        with pytest.raises(FormatError, match=r"0 rows instead of 1"):
            import_catalogue(other, folder)
        (folder / "catalogue.json").write_text("{}")
        with pytest.raises(FormatError, match="no whole export"):
            import_catalogue(other, folder)
        with pytest.raises(UsageError, match="there is no such folder"):
            import_catalogue(other, tmp_path / "nothing")
        assert other.revision() == 0


def test_an_import_notices_what_came_back_otherwise(
    new_url: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_catalogue(new_url("sqlite")) as catalogue, open_catalogue(new_url("sqlite")) as other:
        fill(catalogue)
        export_catalogue(catalogue, tmp_path / "export")
        monkeypatch.setattr(type(other), "add_replicas", lambda self, replicas: 0)
        with pytest.raises(VerificationError, match="a replica came back otherwise"):
            import_catalogue(other, tmp_path / "export")


@pytest.mark.parametrize("backend", ["sqlite", POSTGRES])
def test_a_backup_restores_everything_with_its_revisions(
    new_url: Callable[[str], str], tmp_path: Path, backend: str
) -> None:
    with open_catalogue(new_url(backend)) as catalogue, open_catalogue(new_url(backend)) as other:
        fill(catalogue)
        before = everything(catalogue, revisions=True)
        catalogue.backup(tmp_path / "copy")
        with pytest.raises(UsageError, match="there already"):
            catalogue.backup(tmp_path / "copy")
        catalogue.remove(["/E/site/a"])
        other.restore(tmp_path / "copy")
        assert everything(other, revisions=True) == before
        other.upsert([record("G", "new", attributes={"zenith": 1.0})])
        with pytest.raises(UsageError, match="not empty"):
            other.restore(tmp_path / "copy")
    with open_catalogue(new_url(backend)) as third:
        (tmp_path / "noise").write_bytes(b"no copy" * 1000)
        with pytest.raises(ApbatchError):
            third.restore(tmp_path / "noise")
        assert third.revision() == 0


def test_a_check_finds_what_is_wrong_both_ways(new_url: Callable[[str], str], tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}/store")
    with open_catalogue(new_url("sqlite")) as catalogue:
        for name in ("good", "short", "other", "gone", "stray"):
            with store.publish(f"E/site/{name}") as publication:
                publication.write(name.encode())
        sums = {name: store.checksums(f"E/site/{name}") for name in ("good", "short", "other", "gone")}
        catalogue.upsert(record("E", n, checksum=s.blake3, size=s.size) for n, s in sums.items())
        catalogue.add_replicas(
            Replica(f"/E/site/{n}", store.url_of(f"E/site/{n}"), "local", s.blake3, _WHEN) for n, s in sums.items()
        )
        (tmp_path / "store/E/site/short").write_bytes(b"s")
        (tmp_path / "store/E/site/other").write_bytes(b"OTHER")
        store.remove("E/site/gone")
        assert list(check_catalogue(catalogue)) == []
        faults = {fault.where.rpartition("/")[2]: fault.what for fault in compare_with_store(catalogue, store)}
        assert faults == {
            "short": "1 bytes instead of 5", "gone": "registered as a replica, but not in the store",
            "stray": "in the store, but not registered as a replica",
        }  # fmt: skip
        faults = {f.where.rpartition("/")[2]: f.what for f in compare_with_store(catalogue, store, read=True)}
        assert faults["other"].startswith("content ") and "good" not in faults


def test_a_check_finds_damage_in_the_catalogue(new_url: Callable[[str], str]) -> None:
    with open_catalogue(new_url("sqlite")) as catalogue:
        fill(catalogue)
        with catalogue._db.write() as session:  # type: ignore[attr-defined]
            session.run("UPDATE file SET parent = '/nowhere' WHERE path = '/E/site/a'")
            session.run("DELETE FROM file WHERE path = '/F/site/h'")
        assert {(fault.where, fault.what) for fault in check_catalogue(catalogue)} == {
            ("/E/site/a", "not in the merged tree"),
            ("catalogue", "1 rows of attributes_2 belong to no file"),
        }
