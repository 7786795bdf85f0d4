"""Files of sim_telarray against ctapipe, and damaged copies."""

from __future__ import annotations

import gzip
import io
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apbatch.errors import FormatError
from apbatch.formats.eventio_objects import MARK, objects_of
from apbatch.formats.images import camera_in, camera_of, from_binary, telescopes_in
from apbatch.formats.reader import Span
from apbatch.formats.simtel.reader import SimtelReader
from apbatch.formats.text.lines import Problems

pytest.importorskip("eventio")
READER = SimtelReader()
SEVERAL, MUONS = "gamma_prod6_tel_event_header_v4.simtel.zst", "lst_muons_with_true_photons.simtel.zst"
FILES = (SEVERAL, "history_meta_75.simtel.zst", MUONS, "n_hv_disabled.simtel.gz")


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest) -> Path:
    data: Path = request.getfixturevalue("data")
    return data / "simtel"


@cache
def muons(path: Path) -> bytes:
    """The content of the smallest file, not compressed."""
    import zstandard

    return zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes())


def read(content: bytes, name: str = "x.simtel", **options: Any) -> tuple[list[Any], Problems]:
    problems = Problems()
    return list(READER.images(io.BytesIO(content), name, problems=problems, **options)), problems


@pytest.mark.parametrize("name", FILES)
def test_images_cameras_pointings_and_sources_are_ctapipes(folder: Path, name: str) -> None:
    io_ = pytest.importorskip("ctapipe.io")
    import astropy.units as u
    from astropy.coordinates import AltAz, SkyCoord
    from ctapipe.coordinates import TelescopeFrame

    batches, problems = read((folder / name).read_bytes(), name)
    truth = {
        (row["event"], row["telescope"]): row
        for batch in READER.truth(io.BytesIO((folder / name).read_bytes()), name)
        for row in batch.to_pylist()
    }
    ours = {}
    for batch in batches:
        images, camera = from_binary(batch["image"]), camera_in(batch.schema)
        for row, key in enumerate(batch.select(["event", "telescope"]).to_pylist()):
            pointing = (batch["pointing_altitude"][row].as_py(), batch["pointing_azimuth"][row].as_py())
            ours[key["event"], key["telescope"]] = (images[row], camera, telescopes_in(batch.schema), pointing)
    theirs = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with io_.SimTelEventSource(folder / name, focal_length_choice="EQUIVALENT") as source:
            for event in source:
                for number, found in event.r1.tel.items():
                    theirs += 1
                    image, camera, places, (altitude, azimuth) = ours[event.index.event_id, number]
                    wave = np.asarray(found.waveform)
                    wanted = wave.reshape(-1, *wave.shape[-2:])[0].sum(axis=-1)  # over the same samples
                    there = np.isfinite(image)
                    assert np.allclose(image[there], wanted[there], rtol=1e-5, atol=2e-5)
                    geometry = source.subarray.tel[number].camera.geometry
                    scale = camera.focal_length * np.radians(1)
                    assert np.abs(camera.x * scale - geometry.pix_x.to_value("m")).max() < 1e-6
                    assert np.abs(camera.y * scale - geometry.pix_y.to_value("m")).max() < 1e-6
                    assert np.allclose(places[number], source.subarray.positions[number].to_value("m"), atol=1e-3)
                    pointing = event.monitoring.tel[number].pointing
                    assert altitude == pytest.approx(pointing.altitude.to_value("deg"), abs=1e-5)
                    row, shower = truth[event.index.event_id, number], event.simulation.shower
                    assert row["true_energy"] == pytest.approx(shower.energy.to_value("TeV"))
                    assert row["true_h_first"] == pytest.approx(shower.h_first_int.to_value("m"))
                    core = shower.core_x.to_value("m") - places[number][0]
                    assert row["true_core_x"] == pytest.approx(core, abs=1e-3)
                    frame = TelescopeFrame(
                        telescope_pointing=SkyCoord(alt=min(altitude, 90) * u.deg, az=azimuth * u.deg, frame=AltAz())
                    )
                    there = SkyCoord(alt=shower.alt, az=shower.az, frame=AltAz()).transform_to(frame)
                    assert row["true_source_x"] == pytest.approx(there.fov_lat.to_value("deg"), abs=1e-3)
                    assert row["true_source_y"] == pytest.approx(there.fov_lon.to_value("deg"), abs=1e-3)
    assert theirs == len(ours) == len(truth) and not problems.count


def test_a_file_of_several_cameras_gives_batches_of_one_camera_each(folder: Path) -> None:
    batches, _ = read((folder / SEVERAL).read_bytes())
    assert [(camera_of(batch.schema), batch.num_rows) for batch in batches] == [("LSTcam", 3), ("NectarCam", 4)]
    assert [len(telescopes_in(batch.schema)) for batch in batches] == [4, 39]
    small, _ = read((folder / SEVERAL).read_bytes(), batch_size=2)
    assert sorted(batch.num_rows for batch in small) == [1, 2, 2, 2]
    found = READER.metadata(io.BytesIO((folder / SEVERAL).read_bytes()), SEVERAL)
    assert (found.events, found.attributes["cameras"]) == (7, "LSTcam,NectarCam")
    assert "camera" not in found.attributes


def test_light_arrives_when_the_simulation_says_it_peaks(folder: Path) -> None:
    from eventio import SimTelFile

    (batch,), _ = read((folder / MUONS).read_bytes())
    images, peaks = from_binary(batch["image"]), from_binary(batch["peak_time"])
    with SimTelFile(folder / MUONS) as file:
        for row, event in enumerate(file):
            (record,) = event["telescope_events"].values()
            timing, bright = record["pixel_timing"], images[row] > 20
            slice_ns = file.telescope_descriptions[1]["pixel_settings"]["time_slice"]
            wanted = timing["time"][bright, 0] * slice_ns  # of the largest sample
            assert np.median(np.abs(peaks[row][bright] - wanted)) < 0.5
            # True photo-electrons, added up by the simulation.
            assert images[row].sum() == pytest.approx(event["photoelectron_sums"]["n_pe"][0], rel=0.1)


def test_pixels_without_high_voltage_have_no_measurement(folder: Path) -> None:
    (batch,), _ = read((folder / "n_hv_disabled.simtel.gz").read_bytes())
    assert np.isnan(from_binary(batch["image"])[0]).sum() == 409


def test_the_catalogue_gets_primary_energies_and_showers(folder: Path) -> None:
    for name, primary, energy, showers in (
        ("n_hv_disabled.simtel.gz", "proton", 0.0, 29),
        (MUONS, "muon", 0.1, 3),
        (SEVERAL, "gamma", 0.075, 1),
    ):
        found = READER.metadata(io.BytesIO((folder / name).read_bytes()), name)
        assert (found.attributes["primary"], found.attributes["showers"]) == (primary, showers)
        if energy:
            assert found.attributes["energy_max"] == pytest.approx(energy)


def test_files_are_recognised_whatever_their_name(folder: Path) -> None:
    for name in FILES:
        content = (folder / name).read_bytes()
        assert READER.sniff("renamed", content[:4096]) and READER.confirm(io.BytesIO(content), "renamed")
    assert not READER.sniff("x.gz", gzip.compress(b"hello"))
    zstandard = pytest.importorskip("zstandard")
    assert not READER.confirm(io.BytesIO(zstandard.compress(b"hello")), "x.zst")
    for broken in (b"", content[:2], b"\x1f\x8b" + bytes(50)):
        assert READER.sniff("broken.simtel.gz", broken)


def test_a_span_is_refused(folder: Path) -> None:
    assert READER.spans(io.BytesIO(b""), "x", 1) == []
    with pytest.raises(FormatError, match="read whole"):
        read(b"", span=Span(0, 1))


def events_of(content: bytes) -> tuple[list[int], Problems]:
    try:
        batches, problems = read(content)
    except FormatError:
        return [], Problems()
    return [event for batch in batches for event in batch["event"].to_pylist()], problems


def test_a_cut_file_keeps_the_events_before_the_cut(folder: Path) -> None:
    content = muons(folder / MUONS)
    places = [found.offset for found in objects_of(io.BytesIO(content), {2010}, Problems())]
    for event, place in enumerate(places):
        found, problems = events_of(content[: place + 500])
        assert found == [100, 200, 300][:event]
        assert problems.kept[-1].offset == place
    packed, problems = events_of((folder / MUONS).read_bytes()[:400_000])
    assert packed == [100, 200, 300][: len(packed)] and "end early" in problems.kept[-1].reason


@pytest.mark.parametrize("damage", ["length", "junk between", "lost bytes", "flipped trigger"])
def test_a_damaged_event_costs_only_itself_and_is_reported_by_byte(folder: Path, damage: str) -> None:
    content = bytearray(muons(folder / MUONS))
    place = [found.offset for found in objects_of(io.BytesIO(content), {2010}, Problems())][1]
    wanted = [100, 300]
    if damage == "length":
        content[place + 12 : place + 16] = (0x3FFFFFF).to_bytes(4, "little")
    elif damage == "junk between":
        content[place:place] = b"junk" * 25
        wanted = [100, 200, 300]
    elif damage == "lost bytes":
        del content[place + 1000 : place + 1500]
    else:
        content[place + 16 : place + 3000] = b"\xff" * 2984
    found, problems = events_of(bytes(content))
    assert found in (wanted, [100, 200, 300]) and problems.count
    assert any(abs(problem.offset - place) <= 100 for problem in problems.kept)


def test_objects_within_a_damaged_one_are_found_again() -> None:
    def made(kind: int, content: bytes, length: int | None = None) -> bytes:
        size = len(content) if length is None else length
        return MARK + b"".join(word.to_bytes(4, "little") for word in (kind, 7, size)) + content

    wrong = made(2010, b"first", length=60) + made(2020, b"second") + made(2021, b"third")
    problems = Problems()
    found = [(one.kind, one.content) for one in objects_of(io.BytesIO(wrong), {2010, 2020, 2021}, problems)]
    assert found == [(2020, b"second"), (2021, b"third")]
    assert problems.kept[0].offset == 0
    whole = made(2010, b"first") + b"xx" + made(2020, b"second")
    assert len(list(objects_of(io.BytesIO(whole), {2010, 2020}, Problems()))) == 2


@given(st.lists(st.tuples(st.integers(0, 2**31), st.integers(0, 255)), max_size=6))
@settings(max_examples=25)
def test_flipped_bytes_raise_no_other_error(flips: list[tuple[int, int]]) -> None:
    from tests.conftest import DATA

    path = DATA / "simtel" / MUONS
    if not path.exists():
        pytest.skip("real data are missing")
    content = bytearray(muons(path))
    for place, value in flips:
        content[place % len(content)] = value
    found, _ = events_of(bytes(content))
    assert set(found) <= {100, 200, 300} or flips


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_reader(junk: bytes) -> None:
    for content in (junk, MARK + junk, MARK + (2000).to_bytes(4, "little") + junk):
        READER.sniff("x", content)
        with pytest.raises(FormatError):
            READER.metadata(io.BytesIO(content), "x")


class _Every:
    def __contains__(self, kind: int) -> bool:
        return True


def pieces(content: bytes) -> list[tuple[int, bytes]]:
    """Return the objects of a file as (type, bytes)."""
    objects = list(objects_of(io.BytesIO(content), _Every(), Problems()))
    ends = [*(one.offset for one in objects[1:]), len(content)]
    return [(one.kind, content[one.offset : end]) for one, end in zip(objects, ends, strict=True)]


def test_calibration_before_the_first_shower_is_counted_and_makes_no_images(folder: Path) -> None:
    parts = pieces(muons(folder / MUONS))
    first = next(place for place, (kind, _) in enumerate(parts) if kind == 2020)
    events = [part for kind, part in parts if kind == 2010]
    wrapped = MARK + (2028).to_bytes(4, "little") + bytes(4) + len(events[0]).to_bytes(4, "little") + events[0]
    before = b"".join(part for _, part in parts[:first])
    showers = b"".join(part for _, part in parts[first:])
    for content, images, calibrations in (
        (before + events[0] + events[1] + showers + wrapped, 3, 3),
        (before + b"".join(events) * 2, 0, 6),
    ):
        found = READER.metadata(io.BytesIO(content), "x.simtel")
        assert (found.events, found.attributes["calibrations"]) == (images, calibrations)
        assert sum(batch.num_rows for batch in read(content)[0]) == images
        assert sum(batch.num_rows for batch in READER.truth(io.BytesIO(content), "x.simtel")) == images


@pytest.mark.parametrize("lost", [2002, 2022, 2023])
def test_images_of_a_camera_that_is_lost_are_not_announced(folder: Path, lost: int) -> None:
    content = b"".join(part for kind, part in pieces(muons(folder / MUONS)) if kind != lost)
    found = READER.metadata(io.BytesIO(content), "x.simtel")
    batches, problems = read(content)
    assert (found.events, sum(batch.num_rows for batch in batches)) == (0, 0)
    assert found.problems == problems.result() and len(found.problems) == 3


def test_a_zenith_angle_is_not_negative_by_rounding(folder: Path) -> None:
    found = READER.metadata(io.BytesIO(muons(folder / MUONS)), "x.simtel")
    assert (found.attributes["zenith_min"], found.attributes["zenith_max"]) == (0.0, 0.0)  # float32 of pi/2 is larger
    zeniths = [row for batch in READER.truth(io.BytesIO(muons(folder / MUONS)), "x") for row in batch["true_zenith"]]
    assert {zenith.as_py() for zenith in zeniths} == {0.0}
