"""Where telescopes pointed: from a file's header to cone searches, ADQL and ObsCore, against the files themselves."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import AltAz, EarthLocation, SkyCoord
from astropy.time import Time

from apbatch.formats.fact.photons import FactPhotonsReader
from apbatch.formats.magic import MagicReader
from apbatch.formats.sky import Place, pointing_from_horizon, pointing_of
from apbatch.index.backends import open_catalogue
from apbatch.index.parser import parse_search
from apbatch.ingest.scan import ingest
from apbatch.ingest.sites import add_site
from apbatch.sample import magic as sample
from tests.service import Running, serving

#: Of the SIMBAD data base, ICRS.
CRAB = SkyCoord(83.6324 * u.deg, 22.0174 * u.deg)
MRK_421 = SkyCoord(166.1138 * u.deg, 38.2088 * u.deg)


def pointing(attributes: dict[str, Any]) -> SkyCoord:
    return SkyCoord(attributes["pointing_ra"] * u.deg, attributes["pointing_dec"] * u.deg)


def test_magic_points_where_its_drive_was_told(data: Path) -> None:
    uproot = pytest.importorskip("uproot")
    file = next((data / "magic_real").glob("*.root"))
    with file.open("rb") as stream:
        attributes = MagicReader().metadata(stream, file.name).attributes
    tree = uproot.open(file)["Events"]
    hours, degrees = (tree[f"MPointingPos.{name}"].array(library="np") for name in ("fRa", "fDec"))
    assert attributes["pointing_ra"] == pytest.approx(15 * hours[0], abs=1e-5)
    assert attributes["pointing_dec"] == pytest.approx(degrees[0], abs=1e-5)
    # The name says by how much the Crab nebula is off the centre, and in which direction.
    assert CRAB.separation(pointing(attributes)).deg == pytest.approx(0.40, abs=0.01)
    assert CRAB.position_angle(pointing(attributes)).deg % 360 == pytest.approx(90 - 35, abs=1)


def test_fact_pointed_beside_the_galaxy_that_it_watched(cases: Path) -> None:
    """Run 229 of 2017-01-19 followed Markarian 421 from 0.6 degrees beside it; drives are right to some 0.2 degrees."""
    file = cases / "20170119_229_trigger1024.phs.jsonl"
    with file.open("rb") as stream:
        attributes = FactPhotonsReader().metadata(stream, file.name).attributes
    assert MRK_421.separation(pointing(attributes)).deg == pytest.approx(0.6, abs=0.25)


def test_simulations_point_nowhere_in_the_sky(data: Path) -> None:
    file = data / "fact_images" / "011014.phs.jsonl.gz"
    with file.open("rb") as stream:
        assert "pointing_ra" not in FactPhotonsReader().metadata(stream, file.name).attributes


def test_directions_of_the_horizon_are_astropys_way_back() -> None:
    place = Place(-17.891116, 28.761647, 2200.0)
    seconds = 1_484_895_178 + 60 * np.arange(5)
    location = EarthLocation.from_geodetic(place.longitude * u.deg, place.latitude * u.deg, place.height * u.m)
    seen = CRAB.transform_to(AltAz(obstime=Time(seconds, format="unix"), location=location))
    back = pointing_from_horizon(90 - seen.alt.deg, seen.az.deg, seconds * 10**9, place)
    assert CRAB.separation(pointing(back)).arcsec < 1
    shifted = pointing_from_horizon(90 - seen.alt.deg, seen.az.deg, (seconds + 3600) * 10**9, place)
    assert CRAB.separation(pointing(shifted)).deg == pytest.approx(15 * np.cos(CRAB.dec.rad), abs=0.2)


@pytest.mark.parametrize(
    ("ra", "dec"),
    [([], []), ([np.nan], [1.0]), ([1.0], [91.0]), ([10.0, 10.5], [0.0, 0.0]), ([0.0, 180.0], [0.0, 0.0]),
     ([np.inf, np.nan], [0.0, np.nan])],
    ids=["none", "unknown", "no-direction", "two-targets", "opposite", "infinite"],
)  # fmt: skip
def test_several_directions_or_none_are_not_made_one(ra: list[float], dec: list[float]) -> None:
    assert pointing_of(ra, dec) == {}


def test_an_observation_without_times_has_no_place_in_the_sky() -> None:
    line = {"Night": 20170119, "Run": 229, "Event": 1, "Trigger": 4, "Az_deg": -63.25, "Zd_deg": 33.0,
            "PhotonArrivals_500ps": [[]] * 1440, "SaturatedPixels": []}  # fmt: skip
    content = json.dumps(line).encode() + b"\n"
    metadata = FactPhotonsReader().metadata(io.BytesIO(content), "20170119_229.phs.jsonl")
    assert metadata.events == 1 and "pointing_ra" not in metadata.attributes


@pytest.fixture
def running(tmp_path: Path, home: Path) -> Iterator[Running]:
    """A service over a file of MAGIC and one whose format tells no direction."""
    folder = tmp_path / "files"
    folder.mkdir()
    sample.write(folder, 1)
    shutil.move(folder / "uci_magic" / "magic.data", folder / "magic" / "magic04.data")
    description = tmp_path / "roque.yaml"
    description.write_text(f"name: roque\nexperiment: MAGIC\nroot: {folder / 'magic'}\n")
    with open_catalogue(f"sqlite:///{home}/catalogue.sqlite") as catalogue:
        ingest(add_site(description)[0], catalogue)
        with serving(tmp_path / "service", catalogue) as running:
            yield running


def test_a_file_is_met_by_cone_adql_and_obscore(running: Running) -> None:
    at = sample.RIGHT_ASCENSION_DEG, sample.DECLINATION_DEG
    catalogue = running.service.catalogue

    def met(query: str) -> list[str]:
        return [one.format for one in catalogue.select(parse_search(query, catalogue.attributes()))]

    def table(adql: str) -> list[dict[str, str]]:
        answer = running.get(f"/tap/sync?{urlencode({'QUERY': adql, 'RESPONSEFORMAT': 'csv'})}")
        assert answer.status == 200, answer.data
        return list(csv.DictReader(io.StringIO(answer.data.decode())))

    near, far = "83.63 deg, 22.01 deg, 0.5 deg", "83.63 deg, 22.01 deg, 0.3 deg"
    assert sorted(met("size > 0")) == ["magic", "uci-magic"]
    assert met(f"cone(pointing_ra, pointing_dec, {near})") == ["magic"]
    assert met(f"cone(pointing_ra, pointing_dec, {far})") == []
    contains = (
        "SELECT path FROM apbatch.files WHERE CONTAINS(POINT(pointing_ra, pointing_dec), CIRCLE(83.63, 22.01, {})) = 1"
    )
    assert (len(table(contains.format(0.5))), len(table(contains.format(0.3)))) == (1, 0)
    (row,) = table(
        "SELECT s_ra, s_dec, target_name, t_min FROM ivoa.obscore "
        "WHERE CONTAINS(POINT(s_ra, s_dec), CIRCLE(83.63, 22.01, 0.5)) = 1"
    )
    assert (float(row["s_ra"]), float(row["s_dec"])) == pytest.approx(at, abs=1e-5)
    assert row["target_name"] == "Sample-W0.40+035"
    assert Time(float(row["t_min"]), format="mjd").datetime.date() == sample.NIGHT  # the file begins before midnight
    (other,) = table("SELECT instrument_name, s_ra FROM ivoa.obscore WHERE s_ra IS NULL")
    assert other == {"instrument_name": "uci-magic", "s_ra": ""}
