"""The merged tree and stores by name in other people's programs: fsspec, pandas, pyarrow, DuckDB."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import duckdb
import fsspec
import fsspec.parquet
import pandas as pd
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from apbatch.access.opening import Opening
from apbatch.client.filesystem import TreeFileSystem
from apbatch.errors import ServerError, VerificationError
from apbatch.index.sql.sqlite import SqliteCatalogue
from apbatch.ingest.scan import ingest
from apbatch.ingest.sites import add_site
from apbatch.sample.images import write as write_images
from apbatch.storage.local import LocalStore
from tests.merged import Merged
from tests.service import serving


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of images at a site."""
    folder = tmp_path_factory.mktemp("sites")
    write_images(folder, seed=1)
    return min((folder / "images").glob("*.parquet"))


@pytest.fixture(scope="module")
def options(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, str]]]:
    """Options of the file system: of the catalogue here, and of a server in front of it."""
    home = tmp_path_factory.mktemp("names")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APBATCH_HOME", str(home))
        patch.setenv("APBATCH_CACHE", str(home / "cache"))
        patch.delenv("APBATCH_CONFIG", raising=False)
        url = f"sqlite:///{home}/catalogue.sqlite"
        with SqliteCatalogue(url) as catalogue:
            site = home / "images.yaml"
            site.write_text(f"{{name: images, experiment: TAIGA-SIM, root: {images.parent}, camera: TAIGA-IACT01}}\n")
            ingest(add_site(site)[0], catalogue)
            with serving(home, catalogue, rules=None, files=Opening()) as running:
                yield {"here": {}, "catalogue": {"catalogue": url}, "server": {"catalogue": running.url}}
    TreeFileSystem.clear_instance_cache()


@pytest.fixture(params=["here", "catalogue", "server"])
def option(request: pytest.FixtureRequest, options: dict[str, dict[str, str]]) -> dict[str, str]:
    return options[request.param]


def test_pandas_reads_a_file_of_the_tree_by_name(option: dict[str, str], images: Path) -> None:
    frame = pd.read_parquet(f"apbatch:///taiga-sim/images/{images.name}", storage_options=option)
    pd.testing.assert_frame_equal(frame, pd.read_parquet(images))


def test_pyarrow_reads_a_folder_of_the_tree(option: dict[str, str], images: Path) -> None:
    files = fsspec.filesystem("apbatch", **option)
    table = ds.dataset("/taiga-sim/images", filesystem=files, format="parquet").to_table()
    expected = ds.dataset(sorted(map(str, images.parent.glob("*.parquet")))).to_table()
    assert table.equals(expected) and table.num_rows > 100


def test_duckdb_searches_the_tree(option: dict[str, str], images: Path) -> None:
    with duckdb.connect() as connection:
        connection.register_filesystem(fsspec.filesystem("apbatch", **option))
        count = "SELECT run, count(*) FROM read_parquet('{}/*.parquet') GROUP BY run ORDER BY run"
        rows = connection.sql(count.format("apbatch:///taiga-sim/images")).fetchall()
        assert rows == connection.sql(count.format(images.parent)).fetchall() and len(rows) == 2


def test_threads_that_share_a_file_read_where_they_went(option: dict[str, str], images: Path) -> None:
    content, errors = images.read_bytes(), []
    size = len(content)

    def read(number: int, file: BinaryIO, turn: threading.Barrier) -> None:
        for step in range(40):
            place = (number * 7919 + step * 104729) % (size - 50)
            file.seek(place)
            turn.wait(60)  # all have gone somewhere before any reads
            if file.read(50) != content[place : place + 50]:
                errors.append((number, step))
            turn.wait(60)

    with fsspec.filesystem("apbatch", **option).open(f"/taiga-sim/images/{images.name}") as file:
        turn = threading.Barrier(3)
        threads = [threading.Thread(target=read, args=(number, file, turn)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        file.seek(-3, 2)
        with ThreadPoolExecutor(1) as other:
            assert file.read(1) == content[-3:-2]
            assert other.submit(file.read).result() == content[-2:]
        assert file.read() == b"" and file.tell() == size


def test_the_tree_is_listed_as_folders_and_files(option: dict[str, str], images: Path) -> None:
    files = fsspec.filesystem("apbatch", **option)
    assert files.ls("apbatch://", detail=False) == ["/taiga-sim"]
    path = f"/taiga-sim/images/{images.name}"
    info = files.info(path)
    assert (info["size"], info["type"]) == (images.stat().st_size, "file") and len(info["checksum"]) == 64
    assert files.ls(path) == [info] and files.glob("/taiga-sim/*/*.parquet")[0] == path
    assert files.isdir("/taiga-sim") and not files.isfile("/taiga-sim") and not files.exists("/taiga-sim/other")
    assert files.modified(path).timestamp() == pytest.approx(images.stat().st_mtime, abs=1e-3)
    for call in (files.info, files.ls, files.open):
        with pytest.raises(FileNotFoundError):
            call("/taiga-sim/images/other")


def test_ranges_are_those_of_the_file(option: dict[str, str], images: Path) -> None:
    files, data = fsspec.filesystem("apbatch", **option), images.read_bytes()
    path = f"/taiga-sim/images/{images.name}"
    ranges = [(100, 200), (-8, None), (None, 4), (0, -10), (10**9, None), (5, 2)]
    starts, ends = map(list, zip(*ranges, strict=True))
    assert files.cat_ranges([path] * 6, starts, ends) == [data[start:end] for start, end in ranges]
    assert files.cat(path) == data and files.cat_file(path, -8) == data[-8:]
    good, missing = files.cat_ranges([path, "/none"], 0, 4)
    assert good == data[:4] and isinstance(missing, FileNotFoundError)
    with pytest.raises(FileNotFoundError):
        files.cat_ranges([path, "/none"], 0, 4, on_error="raise")
    with fsspec.parquet.open_parquet_file(path, columns=["event"], fs=files, engine="pyarrow") as stream:
        assert pq.read_table(stream, columns=["event"]).equals(pq.read_table(images, columns=["event"]))


def test_a_file_system_travels_to_another_process(option: dict[str, str], images: Path) -> None:
    files = pickle.loads(pickle.dumps(fsspec.filesystem("apbatch", **option)))
    assert files.cat(f"/taiga-sim/images/{images.name}") == images.read_bytes()


def test_nothing_is_written(option: dict[str, str], images: Path) -> None:
    files, path = fsspec.filesystem("apbatch", **option), f"/taiga-sim/images/{images.name}"
    for call in (files.rm, files.rm_file, files.mkdir, files.makedirs, files.touch):
        with pytest.raises(OSError, match="nothing can be written"):
            call(path)
    with pytest.raises(OSError, match="nothing can be written"):
        pd.DataFrame({"a": [1]}).to_parquet(f"apbatch://{path}", storage_options=option)
    assert files.cat(path) == images.read_bytes()


def test_wrong_bytes_are_never_read(tmp_path: Path, home: Path) -> None:
    merged = Merged(tmp_path / "sites", home)
    merged.add("f", b"right")
    file = merged.site() / "f"
    status = file.stat()
    file.write_bytes(b"wrong")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))  # as a rotten disk does it
    files = TreeFileSystem(f"sqlite:///{home}/catalogue.sqlite", skip_instance_cache=True)
    with pytest.raises(VerificationError):
        files.cat("/taiga/one/f")
    assert isinstance(files.cat_ranges(["/taiga/one/f"], 0, 2)[0], VerificationError)


def test_pandas_and_pyarrow_read_a_store_by_name(images: Path) -> None:
    store = {"store": f"file://{images.parent}"}
    expected = pd.read_parquet(images)
    pd.testing.assert_frame_equal(pd.read_parquet(f"apbatch-store://{images.name}", storage_options=store), expected)
    files = fsspec.filesystem("apbatch-store", **store)
    assert [entry["name"] for entry in files.ls("/")] == sorted(f"/{file.name}" for file in images.parent.iterdir())
    assert ds.dataset("/", filesystem=files, format="parquet").count_rows() > len(expected)


def test_a_store_that_does_not_answer_is_not_an_empty_one(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*_: object) -> None:
        raise ServerError("no answer", where="here")

    files = fsspec.filesystem("apbatch-store", store=f"file://{images.parent}")
    monkeypatch.setattr(LocalStore, "info", silent)
    for call in (files.exists, files.info, files.ls):
        with pytest.raises(OSError, match="no answer"):
            call(images.name)
