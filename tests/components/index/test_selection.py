"""From a query of events to the rows of Parquet files: in the dataset, after it was made again, and at the site."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apbatch.camera.cleaning import Cleaning
from apbatch.camera.instruments.registry import camera_named
from apbatch.chain import steps
from apbatch.cli.analysis import on_spark
from apbatch.config import load_settings
from apbatch.datasets import dataset
from apbatch.datasets.image_rows import read_rows
from apbatch.errors import UsageError
from apbatch.formats.images import image_schema, to_binary
from apbatch.index.attributes import COMMON
from apbatch.index.backends import open_catalogue
from apbatch.index.catalogue import Catalogue
from apbatch.index.events.backends import open_events
from apbatch.index.events.columns import event_attributes
from apbatch.index.events.store import EventStore
from apbatch.index.selection import parse_selection
from apbatch.ingest.scan import ingest
from apbatch.ingest.sites import add_site, load_site
from apbatch.spark import pipeline
from apbatch.spark.inputs.selection import (
    event_sources,
    events_digest,
    parse_select,
    selected_events,
    selected_sources,
)
from apbatch.spark.inputs.sources import Source
from apbatch.spark.registration import point_again, register_events
from apbatch.storage.backends import open_url
from apbatch.workflow.model import JobDescription, load_job
from apbatch.workflow.runner import plan
from tests.synthetic import write_dataset

CAMERA = "TAIGA-IACT01"
IMAGES = 90
KEYS = {"run": pa.int64(), "event": pa.int64(), "time_ns": pa.int64()}


@pytest.mark.parametrize(
    ("text", "of_events"),
    [
        ("", False),
        ("experiment = 'T' and run = 3", False),
        ("size > 200", False),
        ("size > 200 pe and width < 0.2 deg and cleaning = 'tailcuts-14-7'", True),
        ("EVENT = 7", True),
        ("run = 1 or not alpha between 3 deg and 5 deg", True),
        ("path like '%width%' and label = 'cleaning = 3'", False),
    ],
)
def test_a_query_that_names_what_only_events_have_is_of_events(text: str, of_events: bool) -> None:
    files = {**COMMON, "label": COMMON["path"]}
    assert parse_selection(text, files, event_attributes()).of_events is of_events


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("width < 0.2 and site = 's'", "asks of events .'width'. and of files .'site'.*by experiment, run"),
        ("width < 3 m", "width: 'm' can't be converted to 'deg'"),
        ("widht < 3", "unknown attribute 'widht'"),
        ("width < ", "ends too early"),
    ],
)
def test_a_mistake_in_a_selection_is_told(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_selection(text, COMMON, event_attributes())


@pytest.fixture
def events(home: Path) -> Iterator[EventStore]:
    """The store of events that settings name by default."""
    with open_events(f"file://{home}/events") as store:
        yield store


@pytest.fixture
def catalogue(home: Path, events: EventStore, tmp_path: Path) -> Iterator[Catalogue]:
    """A site with images, cleaned in two datasets (14/7 and 10/5), with their parameters among the events."""
    random = np.random.default_rng(4)
    camera = camera_named(CAMERA)
    bright = random.uniform(1, 6, (IMAGES, 1))
    pixels = (bright * random.exponential(1, (IMAGES, camera.n_pixels))).astype(np.float32)
    site = tmp_path / "site"
    site.mkdir()
    tables = []
    for run in (1, 2, 3):
        rows = slice((run - 1) * IMAGES // 3, run * IMAGES // 3)
        count = IMAGES // 3
        columns = {
            "experiment": ["T"] * count, "run": [run] * count, "event": random.permutation(count),
            "telescope": pa.array([1] * count, pa.int32()), "image": to_binary(pixels[rows]),
            "time": pa.array(range(count), pa.timestamp("ns", tz="UTC")),
        }  # fmt: skip
        tables.append(pa.table(columns, schema=image_schema(CAMERA)))
        pq.write_table(tables[-1], site / f"run{run}.parquet", row_group_size=8)
    (tmp_path / "site.yaml").write_text(f"name: s\nexperiment: T\nroot: {site}\n")
    add_site(tmp_path / "site.yaml")
    with open_catalogue(f"sqlite:///{tmp_path}/c.sqlite") as catalogue:
        ingest(load_site("s"), catalogue)
        for picture, boundary in ((14, 7), (10, 5)):
            name = f"tailcuts-{picture}-{boundary}"
            (batch,) = pa.concat_tables(tables).combine_chunks().to_batches()
            cleaned = steps.cleaned(steps.images_of(batch), camera, Cleaning("tailcuts", picture, boundary))
            info = {"kind": "images", "camera": CAMERA, "cleaning": name}
            images = write_dataset(tmp_path / name / "images", pa.Table.from_batches([cleaned]), info)
            rows = steps.parametrised(cleaned, camera, name)
            info = {"kind": "parameters", "images_url": images}
            parameters = write_dataset(tmp_path / name / "parameters", pa.Table.from_batches([rows]), info)
            assert register_events(events, parameters) == 2 * IMAGES
        yield catalogue


TEXT = "experiment = 'T' and cleaning = 'tailcuts-14-7' and size > 600 pe and run in (1, 2)"


def picked(catalogue: Catalogue, events: EventStore, text: str = TEXT) -> set[tuple[int, int]]:
    """What the catalogue itself says of the query."""
    batches = events.select(parse_select(catalogue, events, text).query)
    return {(row["run"], row["event"]) for batch in batches for row in batch.to_pylist()}


def read(sources: list[Source]) -> list[tuple[int, int]]:
    found = []
    for source in sources:
        with open_url(source.url) as stream:
            for batch in read_rows(stream, source.url, source.rows, KEYS, 1000):
                found += zip(batch.column("run").to_pylist(), batch.column("event").to_pylist(), strict=True)
    return found


def test_events_are_read_from_the_dataset_that_holds_them(
    catalogue: Catalogue, events: EventStore, tmp_path: Path
) -> None:
    wanted = picked(catalogue, events)
    assert 5 < len(wanted) < IMAGES / 2
    sources = selected_sources(catalogue, events, parse_select(catalogue, events, TEXT))
    got = read(sources)
    assert len(got) == len(wanted) and set(got) == wanted
    assert all(source.url.startswith(f"file://{tmp_path}/tailcuts-14-7/images/part-") for source in sources)
    assert {source.camera for source in sources} == {CAMERA}


def test_an_image_that_matches_with_several_cleanings_is_read_once(catalogue: Catalogue, events: EventStore) -> None:
    text = "experiment = 'T' and size > 100 pe"
    wanted = picked(catalogue, events, text + " and event >= 0")
    got = read(event_sources(catalogue, events, parse_select(catalogue, events, text + " and event >= 0").query))
    assert len(wanted) > 20 and len(got) == len(set(got)) and set(got) == wanted


def test_files_are_selected_as_before(catalogue: Catalogue, events: EventStore) -> None:
    sources = selected_sources(catalogue, events, parse_select(catalogue, events, "run = 2 and size > 1 kbyte"))
    assert [source.url.rpartition("/")[2] for source in sources] == ["run2.parquet"]
    assert sources[0].rows == () and sources[0].only == ()


def test_a_dataset_made_again_is_looked_through(catalogue: Catalogue, events: EventStore, tmp_path: Path) -> None:
    folder = tmp_path / "tailcuts-14-7" / "images"
    table = dataset.read_table(f"file://{folder}")
    for part in folder.glob("*.parquet"):
        part.unlink()
    pq.write_table(table.take(pa.array(np.arange(IMAGES)[::-1])), folder / "part-new.parquet", row_group_size=7)
    got = read(event_sources(catalogue, events, parse_select(catalogue, events, TEXT).query))
    assert set(got) == picked(catalogue, events) and len(got) == len(set(got))
    before = events_digest(selected_events(events, parse_select(catalogue, events, TEXT).query))
    assert point_again(events, f"file://{folder}") == IMAGES  # the rows `none` belong to the dataset 10/5
    table = selected_events(events, parse_select(catalogue, events, TEXT).query)
    assert set(table.column("image_file").to_pylist()) == {"part-new.parquet"}
    assert events_digest(table) == before
    got = read(event_sources(catalogue, events, parse_select(catalogue, events, TEXT).query))
    assert set(got) == picked(catalogue, events) and len(got) == len(set(got))


def test_without_the_dataset_images_come_from_the_site(
    catalogue: Catalogue, events: EventStore, tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "tailcuts-14-7" / "images")
    sources = event_sources(catalogue, events, parse_select(catalogue, events, TEXT).query)
    assert {source.url for source in sources} == {f"file://{tmp_path}/site/run{run}.parquet" for run in (1, 2)}
    got = read(sources)
    assert set(got) == picked(catalogue, events) and len(got) == len(set(got))


def test_images_that_are_nowhere_any_more_are_told(catalogue: Catalogue, events: EventStore, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "tailcuts-14-7" / "images")
    catalogue.remove([record.path for record in catalogue.of_site("s")])
    with pytest.raises(UsageError, match=r"images/?: the images of \d+ events of T are gone.*run the step again"):
        event_sources(catalogue, events, parse_select(catalogue, events, TEXT).query)


def test_a_query_without_an_event_is_told(catalogue: Catalogue, events: EventStore) -> None:
    with pytest.raises(UsageError, match=r"picks no event.*apbatch events"):
        event_sources(catalogue, events, parse_select(catalogue, events, "experiment = 'T' and width > 9 deg").query)


def test_events_are_listed_on_the_command_line(
    catalogue: Catalogue,
    events: EventStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from tests.components.ingest.test_sites_cli import apbatch

    (tmp_path / "c.yaml").write_text(f"catalogue: sqlite:///{tmp_path}/c.sqlite\n")
    monkeypatch.setenv("APBATCH_CONFIG", str(tmp_path / "c.yaml"))
    columns = ("--columns", "run,event,size")
    assert apbatch("events", TEXT, "--format", "json", *columns, monkeypatch=monkeypatch) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {(row["run"], row["event"]) for row in rows} == picked(catalogue, events)
    assert all(row["size"] > 600 and list(row) == ["run", "event", "size"] for row in rows)
    assert apbatch("events", TEXT, "--limit", "2", "--format", "csv", monkeypatch=monkeypatch) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert apbatch("attributes", "--events", "--format", "json", monkeypatch=monkeypatch) == 0
    units = {row["name"]: row["unit"] for row in json.loads(capsys.readouterr().out)}
    assert units["width"] == "deg" and "site" not in units
    assert apbatch("events", "widht > 3", monkeypatch=monkeypatch) == 2
    assert "did you mean 'width'" in capsys.readouterr().err


def test_a_job_selects_events_and_knows_when_they_change(
    catalogue: Catalogue, events: EventStore, tmp_path: Path
) -> None:
    (tmp_path / "c.yaml").write_text(f"catalogue: sqlite:///{tmp_path}/c.sqlite\n")
    settings = load_settings(tmp_path / "c.yaml")

    def job(text: str, steps: str) -> JobDescription:
        (tmp_path / "job.yaml").write_text(f'name: bright\nselect: "{text}"\nsteps:\n{steps}')
        return load_job(tmp_path / "job.yaml")

    assert [step.state for step in plan(job(TEXT, "  - clean: {}\n  - parameters: {}\n"), settings)] == ["to do"] * 2
    with pytest.raises(UsageError, match=r"job\.yaml:4: step 'mirror' works on files, .* picks events"):
        plan(job(TEXT, "  - mirror: {}\n  - clean: {}\n"), settings)
    with pytest.raises(UsageError, match="picks no event"):
        plan(job("experiment = 'T' and width > 9 deg", "  - clean: {}\n"), settings)
    with pytest.raises(UsageError, match=r"job\.yaml: select: .*unknown attribute 'widht'"):
        plan(job("widht > 9", "  - clean: {}\n"), settings)
    selected = [parse_select(catalogue, events, TEXT + more).query for more in ("", " and run = 1")]
    assert len({events_digest(selected_events(events, query)) for query in selected}) == 2


def test_a_skim_wants_cleaned_images_of_one_kind(catalogue: Catalogue, events: EventStore, tmp_path: Path) -> None:
    outputs = {"images": f"file://{tmp_path}/skim"}
    with pytest.raises(UsageError, match=r"several kinds: tailcuts-10-5 of .*; tailcuts-14-7 of .*one cleaning"):
        sources = [
            source
            for cleaning in ("tailcuts-14-7", "tailcuts-10-5")
            for source in event_sources(
                catalogue,
                events,
                parse_select(catalogue, events, f"experiment = 'T' and cleaning = '{cleaning}'").query,
            )
        ]
        pipeline.skim(None, sources, outputs)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="the query picks files, not events"):
        on_spark.selected_events("run = 1", load_settings(settings_file(tmp_path)))
    shutil.rmtree(tmp_path / "tailcuts-14-7" / "images")
    sources = event_sources(catalogue, events, parse_select(catalogue, events, TEXT).query)  # from the site
    with pytest.raises(UsageError, match="not cleaned"):
        pipeline.skim(None, sources, outputs)  # type: ignore[arg-type]


def settings_file(folder: Path) -> Path:
    (folder / "c.yaml").write_text(f"catalogue: sqlite:///{folder}/c.sqlite\n")
    return folder / "c.yaml"
