"""The sample: every file is what it claims to be, by its reader here and by the format's public readers."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from apbatch.camera.instruments.files import camera_from_table
from apbatch.camera.instruments.registry import camera_named
from apbatch.errors import FormatError, UsageError
from apbatch.formats.images import from_binary
from apbatch.formats.reader import ImageReader, Reader, readers, recognise
from apbatch.formats.taiga.calibration import read_factors
from apbatch.formats.text.lines import Problems
from apbatch.ingest.sites import read_site_file
from apbatch.sample import corsika, fact, hisparc, kascade, magic, simtel, taiga_mc, taiga_raw
from apbatch.sample.contents import Contents
from apbatch.sample.site import CONTENTS, SITES, read_contents, write_sample


@pytest.fixture(scope="module")
def contents(sample: Path) -> dict[str, Contents]:
    return {content.path: content for content in read_contents(sample)[1]}


def reader_of(sample: Path, content: Contents) -> Reader:
    with (sample / content.path).open("rb") as stream:
        reader = recognise(content.path, stream.read(4096), stream)
    assert reader is not None and reader.name == content.format, content.path
    return reader


def test_every_format_is_in_the_sample(contents: dict[str, Contents]) -> None:
    assert {content.format for content in contents.values()} == set(readers())


def test_every_file_is_listed_and_every_listed_file_is_there(sample: Path, contents: dict[str, Contents]) -> None:
    tables = {f"taiga_raw/{name}" for name in (taiga_raw.FACTORS, taiga_raw.COORDINATES)}
    files = {str(path.relative_to(sample)) for path in sample.rglob("*") if path.is_file()}
    assert {path for path in files if not path.startswith(SITES)} == set(contents) | tables | {CONTENTS}


FORMATS = sorted(readers())
IMAGES = [name for name in FORMATS if isinstance(readers()[name], ImageReader)]


@pytest.mark.parametrize("format", FORMATS)
def test_readers_find_the_listed_events_runs_and_nights_without_a_problem(
    sample: Path, contents: dict[str, Contents], format: str
) -> None:
    for content in (content for content in contents.values() if content.format == format):
        with (sample / content.path).open("rb") as stream:
            metadata = reader_of(sample, content).metadata(stream, content.path)
        assert metadata.problems == (), content.path
        listed = (content.events, content.run, content.night, content.telescope, content.cluster)
        assert (metadata.events, metadata.run, metadata.night, metadata.telescope, metadata.cluster) == listed, content


@pytest.mark.parametrize("format", IMAGES)
def test_images_have_the_listed_light(sample: Path, contents: dict[str, Contents], format: str) -> None:
    for content in (content for content in contents.values() if content.format == format):
        reader = reader_of(sample, content)
        assert isinstance(reader, ImageReader)
        problems = Problems()
        with (sample / content.path).open("rb") as stream:
            images = [from_binary(batch["image"]) for batch in reader.images(stream, content.path, problems=problems)]
        found = sum(np.nansum(batch, dtype=np.float64) for batch in images)
        light = content.sums["photons"] if "photons" in content.sums else content.sums["pe"]
        assert sum(map(len, images)) == content.events and not problems.count, content.path
        assert found == pytest.approx(light, rel=1e-5), content.path


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(sample: Path, tmp_path: Path) -> None:
    write_sample(tmp_path / "again")
    write_sample(tmp_path / "other", seed=2)
    for path in sorted(sample.rglob("*")):
        name = str(path.relative_to(sample))
        if path.is_dir() or path.suffix == ".root":  # a ROOT file holds the time at which it was written
            continue
        assert (tmp_path / "again" / name).read_bytes() == path.read_bytes(), name
        if name.startswith(("taiga_raw/BSM01", "kascade", "simtel")):
            assert (tmp_path / "other" / name).read_bytes() != path.read_bytes(), name


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(UsageError, match="not empty"):
        write_sample(tmp_path)
    (tmp_path / "mine").rename(tmp_path / CONTENTS)
    with pytest.raises(FormatError, match="not the list of a sample's contents"):
        write_sample(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [CONTENTS]


def test_sites_lie_within_the_sample_and_name_only_files_that_are_there(sample: Path) -> None:
    names = set()
    for path in sorted((sample / SITES).glob("*.yaml")):
        site = read_site_file(path)
        names.add(site.name)
        assert Path(site.root).is_relative_to(sample) and Path(site.root).is_dir()
        if site.name == "taiga-raw":
            assert Path(site.calibration_file("factors")).is_file()
    assert names == {
        "taiga-raw",
        "taiga-mc",
        "kascade",
        "fact",
        "magic",
        "hisparc",
        "cta",
        "corsika",
        "images",
        "records",
    }


def test_raw_records_by_struct_have_the_listed_sums(sample: Path, contents: dict[str, Contents]) -> None:
    for path, content in contents.items():
        if content.format == "taiga-raw":
            words = np.frombuffer((sample / path).read_bytes(), "<u2").reshape(-1, 78)
            assert (words[:, :2] == (3032, 132)).all() and (words[:, -2:] == 0xFFFF).all()
            assert words[:, 12:76].sum(dtype=np.int64) == content.sums["adc"]
            assert set(words[:, 10] & 31) == {int(Path(path).name[5:8]) - 1}


def test_the_tables_of_the_raw_site_are_the_cameras(sample: Path) -> None:
    camera = camera_named(taiga_raw.CAMERA)
    table = camera_from_table(sample / taiga_raw.FOLDER / taiga_raw.COORDINATES)
    order = table.index(camera.cluster, camera.number)
    assert np.allclose(table.x[order], camera.x, atol=1e-3) and np.allclose(table.y[order], camera.y, atol=1e-3)
    factors = read_factors(sample / taiga_raw.FOLDER / taiga_raw.FACTORS)
    assert len(factors) == 2 * camera.n_pixels and np.isfinite(factors["codes_per_pe"]).all()


def test_text_of_the_monte_carlo_agrees_with_its_table_line_by_line(
    sample: Path, contents: dict[str, Contents]
) -> None:
    with (sample / taiga_mc.FOLDER / taiga_mc.TABLE).open() as file:
        rows = list(csv.DictReader(file))
    lines = (sample / taiga_mc.FOLDER / taiga_mc.IMAGES).read_text().splitlines()
    at, total = 0, 0.0
    for row in rows:
        header = lines[at].split()
        hits = [line.split() for line in lines[at + 1 : at + 1 + int(header[3])]]
        at += 1 + len(hits)
        size = sum(float(hit[4]) for hit in hits)
        total += size
        assert (header[1], header[3]) == (row["event_number"], row["numb_pix"])
        assert size == pytest.approx(float(row["size"]), abs=0.01)
        middle = sum(float(hit[2]) * float(hit[4]) for hit in hits) / size * 0.1206
        assert middle == pytest.approx(float(row["Xc[0]"]), abs=1e-4)
    listed = contents[f"{taiga_mc.FOLDER}/{taiga_mc.IMAGES}"]
    assert at == len(lines) and len(rows) == listed.events and total == pytest.approx(listed.sums["pe"])


def test_kascade_text_by_numpy_and_table_by_pytables_are_the_same_events(
    sample: Path, contents: dict[str, Contents]
) -> None:
    tables = pytest.importorskip("tables")
    text = np.loadtxt(sample / kascade.FOLDER / "kascade.dat")
    with tables.open_file(sample / kascade.FOLDER / "kascade.h5") as file:
        table = file.root.kascade.events.read()
    for column, name in enumerate(("run_id", "event_id", "timestamp", "nanoseconds", "energy")):
        assert (text[:, column] == table[name]).all(), name
    assert text.shape == (len(table), 21) and (text[:, 13:19:2] == table["dens_e"][:, 1:]).all()
    listed = contents[f"{kascade.FOLDER}/kascade.dat"]
    assert table["energy"].sum() == listed.sums["energy"] and len(table) == listed.events


def test_photon_streams_by_plain_json_have_the_listed_photons(sample: Path, contents: dict[str, Contents]) -> None:
    for name in (fact.OBSERVATION, fact.SIMULATION):
        content = (sample / fact.IMAGES_FOLDER / name).read_bytes()
        events = [json.loads(line) for line in io.BytesIO(gzip.decompress(content) if name.endswith("gz") else content)]
        listed = contents[f"{fact.IMAGES_FOLDER}/{name}"]
        physics = [event for event in events if event.get("Trigger", 4) == 4]
        photons = sum(len(pixel) for event in physics for pixel in event["PhotonArrivals_500ps"])
        assert len(physics) == listed.events and photons == listed.sums["photons"]
        assert all(len(event["PhotonArrivals_500ps"]) == 1440 for event in events)
    assert sum(event["Trigger"] == 1024 for event in map(json.loads, _observation(sample))) == 4


def _observation(sample: Path) -> list[str]:
    return gzip.decompress((sample / fact.IMAGES_FOLDER / fact.OBSERVATION).read_bytes()).decode().splitlines()


def test_fact_tables_by_h5py(sample: Path, contents: dict[str, Contents]) -> None:
    h5py = pytest.importorskip("h5py")
    for primary in ("gamma", "proton"):
        with h5py.File(sample / fact.TABLE_FOLDER / f"{primary}.hdf5") as file:
            size = file["events/size"][:]
        listed = contents[f"{fact.TABLE_FOLDER}/{primary}.hdf5"]
        assert len(size) == listed.events and size.sum() == pytest.approx(listed.sums["size"])


def test_the_hisparc_station_by_pytables(sample: Path, contents: dict[str, Contents]) -> None:
    tables = pytest.importorskip("tables")
    (listed,) = (content for content in contents.values() if content.format == "hisparc")
    with tables.open_file(sample / listed.path) as file:
        table = file.get_node(f"/s{hisparc.STATION}/events").read()
    assert len(table) == listed.events and table["pulseheights"].sum(dtype=int) == listed.sums["pulseheights"]
    assert (table["ext_timestamp"] == table["timestamp"].astype(int) * 10**9 + table["nanoseconds"]).all()


def test_the_magic_file_by_uproot_and_its_table_by_csv(sample: Path, contents: dict[str, Contents]) -> None:
    uproot = pytest.importorskip("uproot")
    (listed,) = (content for content in contents.values() if content.format == "magic")
    with uproot.open(sample / listed.path) as file:
        tree = file["Events"]
        pixels = np.stack(tree["MCerPhotEvt.fPixels.fPhot"].array(library="np"))
        physics = tree["MTriggerPattern.fPrescaled"].array(library="np") & 8 == 0
        assert file["RunHeaders"]["MRawRunHeader.fRunNumber"].array(library="np").tolist() == [magic.RUN]
    assert physics.sum() == listed.events and (~physics).sum() == listed.sums["pedestals"]
    assert pixels.shape[1] == 1183 and not pixels[:, 1039:].any()
    assert pixels[physics].sum(dtype=np.float64) == pytest.approx(listed.sums["pe"])
    with (sample / magic.TABLE_FOLDER / "magic.data").open() as lines:
        kinds = [row[-1] for row in csv.reader(lines)]
    table = contents[f"{magic.TABLE_FOLDER}/magic.data"].sums
    assert (kinds.count("g"), kinds.count("h")) == (table["gammas"], table["hadrons"])


def test_particles_by_corsikaio(sample: Path, contents: dict[str, Contents]) -> None:
    corsikaio = pytest.importorskip("corsikaio")
    listed = contents[f"{corsika.FOLDER}/{corsika.PARTICLES}"]
    with corsikaio.CorsikaParticleFile(str(sample / listed.path)) as file:
        assert file.run_header["run_number"] == listed.run
        showers = list(file)
        assert file.run_end["n_events"] == listed.events
    assert len(showers) == listed.events
    assert sum(len(shower.particles) for shower in showers) == listed.sums["particles"]
    energy = sum(float(shower.header["total_energy"]) for shower in showers) / 1000
    assert energy == pytest.approx(listed.sums["energy"], rel=1e-6)


def test_light_by_eventio(sample: Path, contents: dict[str, Contents]) -> None:
    eventio = pytest.importorskip("eventio")
    listed = contents[f"{corsika.FOLDER}/{corsika.LIGHT}"]
    with eventio.IACTFile(str(sample / listed.path)) as file:
        showers = list(file)
        assert (int(file.header["run_number"]), file.n_telescopes) == (listed.run, 1)
        assert b"PRMPAR 1" in bytes(file.input_card)
    assert len(showers) == listed.events
    assert sum(shower.n_photons[0] for shower in showers) == pytest.approx(listed.sums["photons"], rel=1e-6)
    bunches = sum(float(shower.photon_bunches[0]["photons"].sum()) for shower in showers)
    assert bunches == pytest.approx(listed.sums["photons"], rel=1e-5)


def simtel_file(sample: Path) -> str:
    return str(sample / simtel.FOLDER / simtel.NAME)


def test_the_array_by_eventio(sample: Path, contents: dict[str, Contents]) -> None:
    eventio = pytest.importorskip("eventio")
    listed = contents[f"{simtel.FOLDER}/{simtel.NAME}"]
    with eventio.SimTelFile(simtel_file(sample), skip_calibration=False) as file:
        events = list(file)
        assert (file.header["run"], file.n_telescopes) == (listed.run, len(simtel.TELESCOPES))
    flashes = [event for event in events if event["type"] == "calibration"]
    showers = [event for event in events if event["type"] == "data"]
    assert len(flashes) == 1 and len(showers) == listed.sums["array_events"]
    light, images = 0.0, 0
    for event in showers:
        for number, record in event["telescope_events"].items():
            calibration = event["laser_calibrations"][number]["calib"][0]
            pedestal = event["camera_monitorings"][number]
            level = pedestal["pedestal"][0] / pedestal["n_ped_slices"]
            light += float(((record["adc_samples"][0] - level[:, None]).sum(1) * calibration).sum())
            images += 1
    assert images == listed.events and light == pytest.approx(listed.sums["pe"], rel=1e-6)


def test_the_array_by_ctapipe(sample: Path, contents: dict[str, Contents]) -> None:
    io_module: Any = pytest.importorskip("ctapipe.io")
    calib: Any = pytest.importorskip("ctapipe.calib")
    listed = contents[f"{simtel.FOLDER}/{simtel.NAME}"]
    with io_module.SimTelEventSource(simtel_file(sample), focal_length_choice="EQUIVALENT") as source:
        process = calib.CameraCalibrator(subarray=source.subarray, image_extractor_type="FullWaveformSum")
        assert set(source.subarray.tel) == set(simtel.TELESCOPES)
        for number, (_, name) in simtel.TELESCOPES.items():
            inner = (simtel.camera(name).neighbours >= 0).all(axis=1)
            theirs = source.subarray.tel[number].camera.geometry.neighbor_matrix.sum(axis=1)
            assert ((theirs == 6) == inner).all()
        light, images, energies = 0.0, 0, set()
        for event in source:
            process(event)
            energies.add(event.simulation.shower.energy.to_value("TeV"))
            for one in event.dl1.tel.values():
                light, images = light + float(one.image.sum()), images + 1
    assert images == listed.events and light == pytest.approx(listed.sums["pe"], rel=1e-4)
    assert sum(energies) <= listed.sums["energy"] * (1 + 1e-6)


def test_truth_and_images_have_the_same_keys(sample: Path, contents: dict[str, Contents]) -> None:
    for name in ("part-00001.parquet", "part-00002.parquet"):
        images, truth = (pq.read_table(sample / folder / name) for folder in ("images", "truth"))
        keys = ["experiment", "run", "event", "telescope"]
        assert images.select(keys).equals(truth.select(keys))
        listed = contents[f"truth/{name}"].sums
        assert sum(truth["true_energy"].to_pylist()) == pytest.approx(listed["energy"])
        assert len(set(truth["shower"].to_pylist())) == listed["showers"]
