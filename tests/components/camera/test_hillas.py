"""Hillas parameters against ctapipe, against the collaboration's table, and by hand where images are degenerate."""

from __future__ import annotations

import csv
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from ctapipe.image.hillas import hillas_parameters
from ctapipe.image.morphology import number_of_islands
from ctapipe.instrument import CameraGeometry as CtapipeGeometry

from apbatch.camera.geometry import CameraGeometry
from apbatch.camera.hillas import PARAMETERS, hillas
from apbatch.camera.instruments.registry import camera_named
from apbatch.camera.parameters import UNITS
from apbatch.formats.images import from_binary
from apbatch.formats.reader import ImageReader, readers

IMAGES = "taiga607_clean_iact01_14_7fix_cb0.txt"
TABLE = "taiga607_hillas_iact01_14_7fix_cb0.csv"


@pytest.fixture(scope="module")
def camera() -> CameraGeometry:
    return camera_named("TAIGA-IACT01")


def showers(camera: CameraGeometry, count: int = 40) -> np.ndarray:
    """Ellipses of light at random places, with threshold, so that some touch the edge."""
    rng = np.random.default_rng(5)
    images = np.zeros((count, camera.n_pixels))
    for image in images:
        x0, y0, angle = rng.uniform(-3, 3), rng.uniform(-3, 3), rng.uniform(0, np.pi)
        along = (camera.x - x0) * np.cos(angle) + (camera.y - y0) * np.sin(angle)
        across = (camera.y - y0) * np.cos(angle) - (camera.x - x0) * np.sin(angle)
        image += 200 * np.exp(-0.5 * ((along / 0.9) ** 2 + (across / 0.4) ** 2)) * rng.uniform(0.3, 1, len(image))
        image[image < 7] = 0
    return images.astype(np.float32)


def test_moments_are_those_of_ctapipe(camera):
    images = showers(camera)
    area = np.full(camera.n_pixels, np.sqrt(0.75) * camera.pitch**2)
    geometry = CtapipeGeometry(
        camera.name, np.arange(camera.n_pixels), camera.x * u.deg, camera.y * u.deg, area * u.deg**2, "hexagonal"
    )
    ours = hillas(images, camera)
    compared = 0
    for row, image in enumerate(images):
        lit = image > 0
        if lit.sum() < 3:
            continue
        theirs = hillas_parameters(geometry[lit], image[lit])
        expected = {
            "size": theirs.intensity,
            "cog_x": theirs.fov_lon.to_value("deg"),
            "cog_y": theirs.fov_lat.to_value("deg"),
            "length": theirs.length.to_value("deg"),
            "width": theirs.width.to_value("deg"),
            "distance": theirs.r.to_value("deg"),
            "psi": theirs.psi.to_value("deg"),
            "skewness": theirs.skewness,
            "kurtosis": theirs.kurtosis,
            "n_islands": number_of_islands(geometry, lit)[0],
        }
        for name, value in expected.items():
            assert ours[name][row] == pytest.approx(value, rel=1e-5, abs=1e-5), (name, row)
        compared += 1
    assert compared > 20


@pytest.fixture(scope="module")
def monte_carlo(data: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    reader = readers()["taiga-mc"]
    assert isinstance(reader, ImageReader)
    with (data / "taiga_mc" / IMAGES).open("rb") as stream:
        images = np.concatenate([from_binary(batch.column("image")) for batch in reader.images(stream, IMAGES)])
    with (data / "taiga_mc" / TABLE).open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    return images, {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


@pytest.mark.parametrize(
    ("ours", "theirs", "tolerance"),
    [
        ("size", "size", 1e-5),
        ("cog_x", "Xc[0]", 1e-5),
        ("cog_y", "Yc[0]", 1e-5),
        ("con1", "con1", 1e-5),
        ("con2", "con2", 1e-5),
        ("length", "length[0]", 1e-5),
        ("width", "width[0]", 1e-5),
        ("distance", "dist[0]", 1e-5),
        ("alpha", "alpha[0]", 2e-3),  # of an image nearly on its source: 6 digits in the file
        ("n_pixels", "numb_pix", 0),
    ],
)
def test_5698_monte_carlo_images_agree_with_the_collaborations_table(camera, monte_carlo, ours, theirs, tolerance):
    images, table = monte_carlo
    assert len(images) == len(table[theirs]) == 5698
    found, wanted = hillas(images, camera)[ours], table[theirs]
    known = np.isfinite(wanted)  # theirs is NaN for a few images on a line
    assert known.sum() > 5680
    np.testing.assert_allclose(found[known], wanted[known], rtol=tolerance, atol=tolerance)


def test_miss_and_azwidth_refer_to_the_source(camera, monte_carlo):
    images, table = monte_carlo
    for row in range(100):
        source = table["source_x"][row], table["source_y"][row]
        found = hillas(images[row : row + 1], camera, source=source)
        for ours, theirs in (("distance", "dist[1]"), ("miss", "miss[1]"), ("azwidth", "azwidth[1]")):
            assert found[ours][0] == pytest.approx(table[theirs][row], abs=5e-5), (ours, row)
        assert found["alpha"][0] == pytest.approx(table["alpha[1]"][row], abs=2e-3)


def one_image(camera: CameraGeometry, pixels: list[int], values: list[float]) -> dict[str, float]:
    image = np.zeros((1, camera.n_pixels), np.float32)
    image[0, pixels] = values
    return {name: float(column[0]) for name, column in hillas(image, camera).items()}


def test_an_image_without_light_has_size_0_and_no_shape(camera):
    found = one_image(camera, [], [])
    assert (found["size"], found["n_pixels"], found["n_islands"], found["edge"]) == (0, 0, 0, 0)
    rest = set(PARAMETERS) - {"size", "n_pixels", "n_islands", "edge"}
    assert all(np.isnan(found[name]) for name in rest)


def test_one_pixel_has_no_extent_and_no_axis(camera):
    found = one_image(camera, [5], [30.0])
    assert (found["length"], found["width"], found["con1"], found["con2"], found["n_islands"]) == (0, 0, 1, 1, 1)
    assert found["cog_x"] == pytest.approx(camera.x[5])
    assert np.isnan(found["psi"]) and np.isnan(found["alpha"]) and np.isnan(found["skewness"])


def test_two_pixels_have_half_their_distance_as_length(camera):
    found = one_image(camera, [0, int(camera.neighbours[0, 0])], [10.0, 10.0])
    assert found["length"] == pytest.approx(camera.pitch / 2)
    assert found["width"] == 0
    assert found["kurtosis"] == pytest.approx(1)


def test_pixels_on_a_line_have_width_0(camera):
    row = np.flatnonzero(camera.r == camera.r[0])[:5]
    found = one_image(camera, row.tolist(), [10.0, 12.0, 30.0, 8.0, 9.0])
    assert found["width"] == 0 and found["length"] > 0
    assert np.isfinite(found["psi"])


def test_a_round_image_has_equal_axes(camera):
    centre = int(np.flatnonzero((camera.neighbours >= 0).all(axis=1))[0])
    found = one_image(camera, [centre, *camera.neighbours[centre].tolist()], [10.0] * 7)
    assert found["length"] == pytest.approx(found["width"])
    assert np.isnan(found["psi"])


def test_missing_infinite_and_negative_pixels_have_no_light(camera):
    with_rubbish = one_image(camera, [0, 7, 8, 9], [10.0, np.nan, np.inf, -50.0])
    assert with_rubbish["size"] == 10 and with_rubbish["n_pixels"] == 1


def test_two_clumps_are_two_islands_and_edge_light_leaks(camera):
    far = int(np.argmax(np.hypot(camera.x, camera.y)))
    middle = int(np.argmin(np.hypot(camera.x, camera.y)))
    found = one_image(camera, [middle, far], [30.0, 10.0])
    assert (found["n_islands"], found["edge"]) == (2, 1)
    assert found["leakage"] == pytest.approx(0.25)


def test_only_pixels_of_the_mask_count(camera):
    images = showers(camera, 3)
    mask = images > 50
    kept = hillas(images, camera, mask)
    by_hand = hillas(np.where(mask, images, 0).astype(np.float32), camera)
    for name in PARAMETERS:
        np.testing.assert_array_equal(kept[name], by_hand[name])


def test_every_parameter_has_a_unit_or_is_a_plain_number():
    assert set(UNITS) == set(PARAMETERS)  # `apbatch.camera.parameters` names each: queries convert by it
