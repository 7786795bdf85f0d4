"""The stereo step: ranges of events hold each event whole, and give what a plain loop over events gives."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apbatch.camera.geometry import camera_from_positions
from apbatch.camera.stereo import REASONS, Images, reconstruct
from apbatch.chain.steps import PARAMETER_ROWS
from apbatch.datasets import dataset
from apbatch.errors import FormatError, UsageError
from apbatch.formats.embedded import geometry_json
from apbatch.spark import stereo as step

PLACES = {1: (60.0, 0.0, 0.0), 2: (-60.0, 10.0, 1.0), 3: (0.0, 75.0, 2.0), 4: (5.0, -80.0, 3.0)}
CAMERA = camera_from_positions(
    "seven", *np.array([(0, 0), *((np.cos(a), np.sin(a)) for a in np.arange(6) * np.pi / 3)]).T
)
MEASURED = ("cog_x", "cog_y", "psi", "size", "length", "width")


def rows(random: np.random.Generator, telescopes: tuple[int, ...], n: int) -> dict[str, np.ndarray]:
    """Make rows of image parameters of random events, each seen by some of these telescopes."""
    found = [(run, event, one) for run in (3, 5) for event in range(n) for one in telescopes if random.random() < 0.8]
    run, event, telescope = np.array(found).T
    return {
        "run": run,
        "event": event * 10,
        "telescope": telescope,
        "cog_x": random.uniform(-2, 2, len(run)),
        "cog_y": random.uniform(-2, 2, len(run)),
        "psi": random.uniform(-90, 90, len(run)),
        "size": random.uniform(20, 3000, len(run)),
        "length": random.uniform(0.1, 0.4, len(run)),
        "width": random.uniform(0.03, 0.1, len(run)),
        "pointing_altitude": np.where(random.random(len(run)) < 0.05, np.nan, 70.0),
        "pointing_azimuth": np.full(len(run), 180.0),
    }


def written(folder: Path, columns: dict[str, np.ndarray], telescopes: tuple[int, ...], group: int = 50) -> str:
    """Write a dataset of image parameters, the cleaning and the lack of one."""
    n = len(columns["run"])
    schema = PARAMETER_ROWS.with_metadata(
        {
            "apbatch.camera": CAMERA.name,
            "apbatch.geometry": geometry_json(CAMERA, {one: PLACES[one] for one in telescopes}),
        }
    )
    tables = []
    for cleaning, factor in (("tailcuts-14-7", 1.0), ("none", 2.0)):
        arrays = []
        for field in schema:
            if field.name in columns:
                values = columns[field.name] * (factor if field.name == "width" else 1)
                mask = np.isnan(values) if values.dtype.kind == "f" else None
                arrays.append(pa.array(values, field.type, mask=mask))
            else:
                text = {"experiment": "CTA-MC", "cleaning": cleaning}.get(field.name)
                arrays.append(pa.array([text] * n, field.type))
        tables.append(pa.Table.from_arrays(arrays, schema=schema))
    folder.mkdir()
    pq.write_table(pa.concat_tables(tables), folder / "part-0.parquet", row_group_size=group)
    (folder / "_SUCCESS").touch()
    (folder / "_apbatch.json").write_text(json.dumps({"kind": "parameters", "cleaning": "tailcuts-14-7"}))
    return f"file://{folder}"


@pytest.mark.parametrize("rows_a_task", [40, 10_000])
def test_ranges_of_events_give_what_a_plain_loop_gives(tmp_path, rows_a_task):
    random = np.random.default_rng(5)
    parts = {name: rows(random, ones, 60) for name, ones in (("near", (1, 2)), ("far", (3, 4)))}
    urls = {written(tmp_path / name, parts[name], ones): ones for name, ones in (("near", (1, 2)), ("far", (3, 4)))}
    files = {f"{url}/part-0.parquet": {one: PLACES[one] for one in ones} for url, ones in urls.items()}
    splits = step.range_splits(files, rows_a_task)
    assert (len(splits) > 3) == (rows_a_task == 40)
    losses: list[step.Loss] = []
    made = pa.Table.from_batches(
        [step.showers_of(step.rows_of(split, "tailcuts-14-7", 100.0), split, losses, "vertical") for split in splits]
    ).to_pylist()
    found = {(one["run"], one["event"]): one for one in made}
    assert len(found) == len(made)

    everything = {name: np.concatenate([part[name] for part in parts.values()]) for name in parts["near"]}
    bright = everything["size"] >= 100
    keys = sorted(set(zip(everything["run"][bright].tolist(), everything["event"][bright].tolist(), strict=True)))
    assert sorted(found) == keys
    reasons = set()
    for run, event in keys:
        mine = bright & (everything["run"] == run) & (everything["event"] == event)
        place = np.array([PLACES[one] for one in everything["telescope"][mine].tolist()])
        order = np.argsort(everything["telescope"][mine])
        one = {name: everything[name][mine][order] for name in everything}
        wanted = reconstruct(
            Images(
                np.zeros(mine.sum(), int), *(one[name] for name in MEASURED), one["pointing_altitude"],
                one["pointing_azimuth"], *place[order].T,
            ),
            axes="vertical",
        )  # fmt: skip
        reasons.add(found[run, event]["reason"])
        assert found[run, event]["reason"] == REASONS[int(wanted.reason[0])]
        assert found[run, event]["n_images"] == wanted.n_images[0]
        for name in ("altitude", "azimuth", "core_x", "core_y", "h_max"):
            value = getattr(wanted, name)[0]
            assert found[run, event][name] == (None if np.isnan(value) else pytest.approx(value, rel=1e-12))
    assert {"found", "only one image with an axis"} <= reasons
    lost = sum(loss.count for loss in losses if loss.reason == step.NO_POINTING)
    assert lost == np.isnan(everything["pointing_altitude"][bright]).sum() > 0


def test_an_image_that_is_there_twice_counts_once_and_is_told(tmp_path):
    columns = rows(np.random.default_rng(6), (1, 2, 3), 5)
    one = written(tmp_path / "one", columns, (1, 2, 3))
    again = written(tmp_path / "again", columns, (1, 2, 3))
    places = {number: PLACES[number] for number in (1, 2, 3)}
    losses: list[step.Loss] = []

    def showers(urls):
        (split,) = step.range_splits({f"{url}/part-0.parquet": places for url in urls})
        return step.showers_of(step.rows_of(split, "tailcuts-14-7", 0.0), split, losses, "vertical")

    once = showers([one])
    assert not [loss for loss in losses if loss.reason == step.REPEATED_IMAGE]
    assert showers([one, again]).equals(once)
    assert [loss.count for loss in losses if loss.reason == step.REPEATED_IMAGE] == [len(columns["run"])]


def test_what_does_not_fit_together_is_refused_before_spark_starts(tmp_path):
    columns = rows(np.random.default_rng(7), (1, 2), 3)
    good = written(tmp_path / "good", columns, (1, 2))
    nowhere = written(tmp_path / "nowhere", columns, ())
    other = written(tmp_path / "other", columns, (1, 2))
    about = dataset.info(other)
    (tmp_path / "other" / "_apbatch.json").write_text(json.dumps({**about, "cleaning": "tailcuts-7-3.5"}))
    no_spark = SimpleNamespace()
    output = f"file://{tmp_path}/showers"
    for urls, where, text in (
        ([], output, "no datasets"),
        ([good], good, "same dataset"),
        ([good, nowhere], output, "stand is not known"),
        ([good, other], output, "several cleanings"),
    ):
        with pytest.raises(UsageError, match=text):
            step.stereo(no_spark, urls, where)
    with pytest.raises(UsageError, match="unknown axes"):
        step.stereo(no_spark, [good], output, axes="vertikal")
    (tmp_path / "good" / "part-0.parquet").write_bytes(b"PAR1 not really PAR1")
    with pytest.raises(FormatError, match=r"part-0\.parquet"):
        step.range_splits({f"{good}/part-0.parquet": {}})
