"""`--input` and `--select` keep the same rules: pedestals are no images, each content counts once, links end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from apbatch.errors import FormatError, NotFoundError, UsageError
from apbatch.index.backends import open_catalogue
from apbatch.index.catalogue import Catalogue
from apbatch.index.query import Everything
from apbatch.ingest.replicas.mirror import mirror_records
from apbatch.ingest.scan import ingest
from apbatch.ingest.sites import add_site
from apbatch.sample.taiga_raw import CAMERA, FACTORS
from apbatch.spark.inputs.sources import RawOptions, Source, sources_at, sources_for
from apbatch.storage.backends import open_store
from tests.synthetic import write_dataset


@pytest.fixture
def raw(sample: Path, tmp_path: Path) -> Path:
    """Files of two clusters of the sample with the pedestal file of one of them: a folder that may be changed."""
    folder = tmp_path / "raw"
    for name in ("BSM04/28107004.001", "BSM05/28107005.001", "PED/28107004.ped", FACTORS):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(sample / "taiga_raw" / name, folder / name)
    return folder


@pytest.fixture
def catalogue(home: Path, tmp_path: Path) -> Iterator[Catalogue]:
    with open_catalogue(f"sqlite:///{tmp_path}/catalogue.sqlite") as catalogue:
        yield catalogue


def register(catalogue: Catalogue, name: str, root: Path) -> None:
    path = root.parent / f"{name}.yaml"
    path.write_text(
        f"name: {name}\nexperiment: TAIGA\nroot: {root}\ninclude: ['BSM*/*', 'PED/*']\ncamera: {CAMERA}\n"
        f"calibration: {{factors: {FACTORS}}}\n"
    )
    site, _ = add_site(path)
    ingest(site, catalogue)


def at(*places: Path, **options: str) -> list[Source]:
    options = {"camera": CAMERA, "factors": str(places[0] / FACTORS), **options}
    return sources_at([place.as_uri() for place in places], RawOptions(**options))  # type: ignore[arg-type]


def names(sources: list[Source]) -> list[str]:
    return sorted(source.url.rpartition("/")[2] for source in sources)


def test_both_ways_in_give_the_same_sources(raw: Path, catalogue: Catalogue) -> None:
    register(catalogue, "tunka", raw)
    selected, named = sources_for(catalogue, catalogue.select(Everything())), at(raw)
    key = [(source.url, source.format, source.run, source.cluster, source.camera) for source in selected]
    assert sorted(key) == sorted((s.url, s.format, s.run, s.cluster, s.camera) for s in named)
    of_cluster = {source.cluster: dict(source.calibration) for source in named}
    assert of_cluster == {source.cluster: dict(source.calibration) for source in selected}


def test_pedestal_files_are_no_images_and_serve_their_cluster(raw: Path) -> None:
    sources = at(raw)
    assert names(sources) == ["28107004.001", "28107005.001"]
    pedestals = {source.cluster: source.calibration.get("pedestal") for source in sources}
    assert pedestals == {4: (raw / "PED" / "28107004.ped").as_uri(), 5: None}
    with pytest.raises(UsageError, match="pedestal files only"):
        at(raw / "PED", factors=str(raw / FACTORS))


def test_what_is_named_twice_is_read_once(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = raw / "BSM04" / "28107004.001"
    sources = at(raw, file, raw / "BSM04", factors=str(raw / FACTORS))
    assert names(sources) == ["28107004.001", "28107005.001"]
    assert "2 files are named more than once" in capsys.readouterr().err


def test_a_copy_is_read_once_and_is_named(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "backup" / "28107004.001"
    copy.parent.mkdir()
    shutil.copy(raw / "BSM04" / "28107004.001", copy)
    assert len(at(raw, copy.parent)) == 2
    assert f"{copy.as_uri()} is a copy of {(raw / 'BSM04/28107004.001').as_uri()}" in capsys.readouterr().err
    # As large and with the same start, but other content: two files.
    content = bytearray(copy.read_bytes())
    content[-20] ^= 1
    copy.write_bytes(content)
    assert len(at(raw, copy.parent)) == 3


def test_a_copy_at_a_second_site_is_read_once(
    raw: Path, tmp_path: Path, catalogue: Catalogue, capsys: pytest.CaptureFixture[str]
) -> None:
    register(catalogue, "tunka", raw)
    shutil.copytree(raw, tmp_path / "karlsruhe")
    register(catalogue, "archive", tmp_path / "karlsruhe")
    capsys.readouterr()
    sources = sources_for(catalogue, catalogue.select(Everything()))
    assert names(sources) == ["28107004.001", "28107005.001"]
    assert all("/karlsruhe/" in source.url for source in sources)  # /taiga/archive comes before /taiga/tunka
    assert all((source.calibration.get("pedestal") is not None) is (source.cluster == 4) for source in sources)
    said = capsys.readouterr().err
    assert "/taiga/tunka/BSM04/28107004.001 is a copy of /taiga/archive/BSM04/28107004.001" in said


def test_of_copies_the_one_with_a_replica_is_read(raw: Path, tmp_path: Path, catalogue: Catalogue) -> None:
    register(catalogue, "tunka", raw)
    shutil.copytree(raw, tmp_path / "karlsruhe")
    register(catalogue, "archive", tmp_path / "karlsruhe")
    store = open_store((tmp_path / "store").as_uri())
    list(mirror_records(catalogue, (one for one in catalogue.select(Everything()) if one.site == "tunka"), store))
    records = list(catalogue.select(Everything()))
    sources = sources_for(catalogue, records, store.url, only_preferred=True)
    assert names(sources) == ["28107004.001", "28107005.001"]
    assert all(source.url.startswith(f"{store.url}/") for source in sources)
    with pytest.raises(UsageError, match="no replica in hdfs"):
        sources_for(catalogue, records, "hdfs", only_preferred=True)


@pytest.mark.timeout(60)
def test_links_are_followed_but_never_in_a_circle(raw: Path, tmp_path: Path) -> None:
    (raw / "BSM04" / "up").symlink_to(raw)
    (raw / "self").symlink_to(raw / "self")
    (raw / "nowhere").symlink_to(tmp_path / "gone")
    links = tmp_path / "links"
    links.mkdir()
    (links / "28107005.001").symlink_to(raw / "BSM05" / "28107005.001")
    (links / "all").symlink_to(raw)
    assert names(at(raw)) == ["28107004.001", "28107005.001"]
    assert names(at(links, factors=str(raw / FACTORS))) == ["28107004.001", "28107005.001"]


@pytest.mark.timeout(60)
def test_a_pipe_in_a_folder_is_passed_over(raw: Path) -> None:
    os.mkfifo(raw / "BSM04" / "28107004.002")
    assert names(at(raw)) == ["28107004.001", "28107005.001"]


def test_a_dataset_stands_for_the_part_files_that_its_sidecar_lists(sample: Path, tmp_path: Path) -> None:
    folder = tmp_path / "made" / "images"
    table = pq.read_table(sample / "images" / "part-00001.parquet")
    listed = [{"name": f"part-{number:05d}.parquet"} for number in (0, 1)]
    write_dataset(folder, table, {"kind": "images", "camera": "TAIGA-IACT01", "files": listed}, parts=3)
    wanted = [file["name"] for file in listed]  # the third was replaced meanwhile
    (folder / ".apbatch-draft.parquet").write_bytes(b"half")
    assert names(sources_at([folder.as_uri()])) == wanted
    assert names(sources_at([(tmp_path / "made").as_uri()])) == wanted


def test_a_broken_file_alone_is_told_what_is_wrong_with_it(raw: Path, tmp_path: Path) -> None:
    cut, empty, text = tmp_path / "28107007.001", tmp_path / "28107008.001", tmp_path / "notes.txt"
    cut.write_bytes((raw / "BSM04" / "28107004.001").read_bytes()[:100])
    empty.write_bytes(b"")
    text.write_text("nothing of interest\n")
    for path, message in ((cut, "no whole record"), (empty, "no whole record"), (text, "of no known format")):
        with pytest.raises(FormatError, match=message) as raised:
            sources_at([path.as_uri()])
        assert path.name in str(raised.value) and "camera" not in str(raised.value).replace("camera image", "")
    nothing = tmp_path / "nothing"
    nothing.write_bytes(b"")
    with pytest.raises(FormatError, match="the file is empty"):
        sources_at([nothing.as_uri()])
    with pytest.raises(NotFoundError, match="no such file"):
        sources_at([(tmp_path / "gone").as_uri()])


def test_a_broken_file_among_others_is_left_to_the_step_and_asks_for_no_camera(
    sample: Path, raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = raw / "BSM04" / "28107004.002"
    empty.write_bytes(b"")
    assert names(at(raw)) == ["28107004.001", "28107004.002", "28107005.001"]
    (source,) = sources_at([(sample / "images" / "part-00001.parquet").as_uri(), empty.as_uri()])
    assert source.format == "apbatch-images"
    assert "left out" in capsys.readouterr().err
