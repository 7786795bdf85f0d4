"""What is registered of a site follows its name, or goes with it; killed anywhere, the same command ends the work."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from apbatch.config import load_settings
from apbatch.errors import NotFoundError, UsageError
from apbatch.index.backends import open_catalogue
from apbatch.index.catalogue import Catalogue
from apbatch.index.descriptions import DescriptionKind
from apbatch.index.files import FileRecord, Replica
from apbatch.index.leases import LeaseHeldError, leased
from apbatch.index.query import Everything
from apbatch.ingest import site_records
from apbatch.ingest.scan import lease_name
from apbatch.ingest.site_records import forget_site, rename_site
from apbatch.ingest.sites import add_site, load_site, sites

FILES = 7


@pytest.fixture
def catalogue(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(site_records, "_BATCH", 3)
    for name in ("one", "other"):
        file = tmp_path / f"{name}.yaml"
        file.write_text(f"name: {name}\nexperiment: TAIGA\nroot: {tmp_path}\ncamera: TAIGA-IACT01\n")
        add_site(file)
    with open_catalogue(load_settings().catalogue) as catalogue:
        for name in ("one", "other"):
            catalogue.upsert(
                FileRecord(f"/taiga/{name}/f{n}", name, f"f{n}", n, n, f"{n:064x}", "00", "x", "TAIGA", events=n)
                for n in range(FILES)
            )
        verified = datetime(2026, 1, 1, tzinfo=UTC)
        catalogue.add_replicas(
            Replica(f"/taiga/one/f{n}", f"hdfs://h:1/f{n}", "hdfs", f"{n:064x}", verified) for n in range(FILES)
        )
        yield catalogue


def files_of(catalogue: Catalogue, site: str) -> dict[str, FileRecord]:
    return {record.source: record for record in catalogue.of_site(site)}


def test_a_site_is_forgotten_with_its_records_and_no_other(catalogue: Catalogue) -> None:
    assert forget_site(catalogue, load_site("one")) == FILES
    assert {record.site for record in catalogue.select(Everything())} == {"other"}
    assert catalogue.replicas(["/taiga/one/f1"]) == {"/taiga/one/f1": []}
    assert len(files_of(catalogue, "other")) == FILES


def test_records_and_replicas_follow_a_new_name(catalogue: Catalogue) -> None:
    before = files_of(catalogue, "one")
    site, files = rename_site(catalogue, "one", "uno")
    assert (site.name, site.camera, files) == ("uno", "TAIGA-IACT01", FILES)
    assert [known.name for known in sites()] == ["other", "uno"]
    after = files_of(catalogue, "uno")
    assert {name: (record.path, record.checksum, record.events) for name, record in after.items()} == {
        name: (f"/taiga/uno/{name}", record.checksum, record.events) for name, record in before.items()
    }
    assert {one.name for one in catalogue.descriptions(DescriptionKind.SITE)} == {"uno"}, "what other hosts learn"
    assert files_of(catalogue, "one") == {} and catalogue.get("/taiga/one/f1") is None
    (replica,) = catalogue.replicas(["/taiga/uno/f3"])["/taiga/uno/f3"]
    assert (replica.url, replica.checksum) == ("hdfs://h:1/f3", f"{3:064x}")


@pytest.mark.parametrize("moment", range(8))
def test_a_renaming_killed_at_any_moment_goes_on(catalogue: Catalogue, moment: int) -> None:
    calls = 0

    def dying(call):
        def counted(*arguments):
            nonlocal calls
            calls += 1
            if calls > moment:
                raise KeyboardInterrupt
            return call(*arguments)

        return counted

    with pytest.MonkeyPatch.context() as patch:
        for name in ("upsert", "remove", "add_replicas"):
            patch.setattr(catalogue, name, dying(getattr(catalogue, name)))
        with pytest.raises(KeyboardInterrupt):
            rename_site(catalogue, "one", "uno")
    assert {record.source for name in ("one", "uno") for record in catalogue.of_site(name)} == {
        f"f{n}" for n in range(FILES)
    }
    rename_site(catalogue, "one", "uno")
    assert len(files_of(catalogue, "uno")) == FILES and files_of(catalogue, "one") == {}
    assert all(map(len, catalogue.replicas([f"/taiga/uno/f{n}" for n in range(FILES)]).values()))


def test_a_name_that_is_taken_or_impossible_is_refused(catalogue: Catalogue, tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    file.write_text(f"name: two\nexperiment: KASCADE\nroot: {tmp_path}\n")
    add_site(file)
    for name in ("two", "one", "a/b"):
        with pytest.raises(UsageError):
            rename_site(catalogue, "one", name)
    with pytest.raises(NotFoundError):
        rename_site(catalogue, "on", "uno")
    with leased(catalogue, lease_name("one")), pytest.raises(LeaseHeldError, match="is being done"):
        rename_site(catalogue, "one", "uno")
    assert len(files_of(catalogue, "one")) == FILES
