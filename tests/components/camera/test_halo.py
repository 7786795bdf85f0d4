"""Halo parameters against ctapipe's cleaning and moments, and against plain numpy for the rings."""

from __future__ import annotations

from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from ctapipe.image import hillas_parameters, tailcuts_clean
from ctapipe.instrument import CameraGeometry as CtapipeGeometry
from hypothesis import given, settings
from hypothesis import strategies as st

from apbatch.camera.cleaning import clean
from apbatch.camera.geometry import CameraGeometry, camera_from_positions
from apbatch.camera.halo import CLEANINGS, HALO, LEVELS, REFERENCE, RINGS, halo
from apbatch.camera.hillas import PARAMETERS, hillas
from apbatch.camera.instruments.registry import camera_named
from apbatch.errors import UsageError
from apbatch.formats.fact import photons as fact
from apbatch.formats.images import camera_in, from_binary
from apbatch.formats.reader import ImageReader
from apbatch.formats.taiga import monte_carlo as taiga_mc

CAMERA = camera_named("TAIGA-IACT01")
GEOMETRY = CtapipeGeometry(
    CAMERA.name, np.arange(CAMERA.n_pixels), CAMERA.x * u.deg, CAMERA.y * u.deg,
    np.full(CAMERA.n_pixels, np.sqrt(0.75) * CAMERA.pitch**2) * u.deg**2, "hexagonal",
)  # fmt: skip


def showers(number: int = 60, camera: CameraGeometry = CAMERA) -> np.ndarray:
    """Ellipses on noise, some with a second, fainter patch of light."""
    rng = np.random.default_rng(17)
    images = rng.normal(0, 1.9, (number, camera.n_pixels))
    for image in images:
        for bright in (rng.uniform(15, 150), rng.choice([0.0, 8.0])):
            x0, y0, axis = *rng.uniform(-3.5, 3.5, 2), rng.uniform(0, np.pi)
            along = (camera.x - x0) * np.cos(axis) + (camera.y - y0) * np.sin(axis)
            across = (camera.y - y0) * np.cos(axis) - (camera.x - x0) * np.sin(axis)
            image += rng.poisson(bright * np.exp(-0.5 * ((along / 0.7) ** 2 + (across / 0.3) ** 2)))
    return images.astype(np.float32)


def rings(image: np.ndarray, camera: CameraGeometry = CAMERA) -> dict[str, float]:
    """The rings of one image in plain numpy, from the kept pixels on: moments by an eigenvalue decomposition."""
    names = [name for name in HALO if name.startswith("ring_")]
    nothing = dict.fromkeys(names, np.nan)
    kept = clean(image[None], camera, CLEANINGS[REFERENCE])[0] & np.isfinite(image)
    if kept.sum() < 2:
        return nothing
    weight = image[kept].astype(float)
    places = np.stack([camera.x[kept], camera.y[kept]])
    middle = np.average(places, axis=1, weights=weight)
    wide, long = (values := np.linalg.eigh(np.cov(places, aweights=weight, ddof=0)))[0]
    if long - wide <= 1e-10 * camera.pitch**2:
        return nothing
    axis = values[1][:, 1]
    dx, dy = camera.x - middle[0], camera.y - middle[1]
    along = (dx * axis[0] + dy * axis[1]) / (np.sqrt(long) + camera.pitch / 2)
    across = (dy * axis[0] - dx * axis[1]) / (np.sqrt(max(wide, 0)) + camera.pitch / 2)
    rho = np.hypot(along, across)
    found = {}
    for number, (begin, end) in enumerate(zip(RINGS, (*RINGS[1:], np.inf), strict=True), start=1):
        for part, here in (("along", abs(along) > abs(across)), ("across", abs(along) <= abs(across))):
            values_here = image[(rho > begin) & (rho <= end) & here & np.isfinite(image)].astype(float)
            bright = values_here[values_here >= LEVELS[0]]
            start = f"ring_{number}_{part}"
            found[f"{start}_pixels"] = float(len(values_here))
            found[f"{start}_light"] = values_here.sum()
            found[f"{start}_brightest"] = bright.max(initial=0.0)
            for level in LEVELS:
                found[f"{start}_above_{level:g}"] = float((values_here >= level).sum())
    assert list(found) == names
    return found


def assert_rings(columns: dict[str, np.ndarray], images: np.ndarray, camera: CameraGeometry = CAMERA) -> int:
    """Compare all rings; return how many images have some."""
    defined = 0
    for row, image in enumerate(images):
        for name, value in rings(image, camera).items():
            assert columns[name][row] == pytest.approx(value, rel=1e-6, abs=1e-4, nan_ok=True), (name, row)
        defined += np.isfinite(columns["ring_1_along_light"][row])
    return defined


def assert_parameters(columns: dict[str, np.ndarray], images: np.ndarray, camera: CameraGeometry = CAMERA) -> None:
    """The parameters of each cleaning are, bit for bit, those of cleaning and parametrising by itself."""
    for rule in CLEANINGS:
        alone = hillas(images, camera, clean(images, camera, rule))
        for name in PARAMETERS:
            assert np.array_equal(columns[f"{name}_{rule.picture:g}"], alone[name], equal_nan=True), (name, rule.name)


def test_every_column_has_a_unit_and_its_place() -> None:
    assert list(halo(showers(2), CAMERA)) == list(HALO)
    assert len(HALO) == len(CLEANINGS) * len(PARAMETERS) + 2 * len(RINGS) * (3 + len(LEVELS))
    assert HALO["size_5"] == "pe" and HALO["width_14"] == "deg" and HALO["ring_2_across_above_3.5"] == ""


def test_moments_of_all_four_cleanings_are_those_of_ctapipe() -> None:
    images = showers()
    columns = halo(images, CAMERA)
    compared = 0
    for row, image in enumerate(images):
        for rule in CLEANINGS:
            kept = tailcuts_clean(GEOMETRY, image, rule.picture, rule.boundary)
            if kept.sum() < 3:
                continue
            theirs = hillas_parameters(GEOMETRY[kept], image[kept])
            wanted = [
                theirs.intensity, theirs.fov_lon.value, theirs.fov_lat.value, theirs.length.value, theirs.width.value,
                theirs.skewness, theirs.kurtosis,
            ]  # fmt: skip
            names = ("size", "cog_x", "cog_y", "length", "width", "skewness", "kurtosis")
            found = [columns[f"{name}_{rule.picture:g}"][row] for name in names]
            if theirs.width.value > 1e-6:
                assert found == pytest.approx(wanted, rel=1e-5, abs=1e-6), (rule.name, row)
                compared += 1
    assert compared > 150


def test_rings_are_those_of_plain_numpy_and_parameters_those_of_each_cleaning() -> None:
    images = showers(70)  # two whole blocks and a part of one
    columns = halo(images, CAMERA)
    assert assert_rings(columns, images) > 60
    assert_parameters(columns, images)


def test_odd_images_have_what_is_defined_and_nan_for_the_rest() -> None:
    images = np.zeros((9, CAMERA.n_pixels), np.float32)
    images[1] = np.nan  # nothing measured
    images[2, 100] = 80  # one pixel, alone
    images[3] = 50  # everything bright
    images[4, np.flatnonzero(CAMERA.edge)[:6]] = 40  # at the edge
    images[5] = showers(1)[0]
    images[5, ::3] = np.nan
    images[6] = showers(1)[0]
    images[6, :20] = np.inf
    images[7] = showers(1)[0]
    images[7, 3] = -1e30
    images[8] = showers(1)[0]
    images[8, 5] = 3e38  # as large as can be, still a number
    columns = halo(images, CAMERA)
    for row in (0, 1, 2):
        assert all(np.isnan(columns[name][row]) for name in HALO if name.startswith("ring_"))
        assert columns["size_14"][row] == 0 and np.isnan(columns["width_14"][row])
    for row in range(3, 9):
        assert_rings({name: values[row : row + 1] for name, values in columns.items()}, images[row : row + 1])
    assert all(np.isfinite(columns["ring_3_across_light"][5:]))
    assert_parameters(columns, images)


def test_the_parts_of_rings_hold_every_measured_pixel_outside_of_the_ellipse_once() -> None:
    image = showers(1)
    image[0, ::5] = np.nan
    columns = halo(image, CAMERA)
    pixels = sum(columns[f"ring_{k}_{part}_pixels"][0] for k in range(1, 6) for part in ("along", "across"))
    size = np.isfinite(image[0]).sum()
    assert size * 0.7 < pixels < size


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.sampled_from([0.0, 2.5, 3.5, 7.0, 20.0, float("nan"), -4.0]), min_size=37, max_size=37),
                min_size=1, max_size=3))  # fmt: skip
def test_any_image_of_a_small_camera_has_the_rings_of_plain_numpy(amplitudes: list[list[float]]) -> None:
    images = np.array(amplitudes, np.float32)
    columns = halo(images, SMALL)
    assert_rings(columns, images, SMALL)
    assert_parameters(columns, images, SMALL)


def _small() -> CameraGeometry:
    """37 hexagons, slightly turned, so that no pixel lies exactly on the border of a ring."""
    q, r = np.meshgrid(np.arange(-3, 4), np.arange(-3, 4))
    inside = np.abs(q + r) <= 3
    place = 0.5 * (q + r * np.exp(1j * np.pi / 3))[inside] * np.exp(0.1234j) + (0.313 + 0.171j)
    return camera_from_positions("37 pixels", place.real, place.imag)


SMALL = _small()


@pytest.mark.parametrize(
    ("file", "reader"),
    [
        ("taiga_mc/taiga607_clean_iact01_14_7fix_cb0.txt", taiga_mc.TaigaMcReader),
        ("fact_images/011014.phs.jsonl.gz", fact.FactPhotonsReader),
    ],
)
def test_real_images_have_the_rings_of_plain_numpy(data: Path, file: str, reader: type[ImageReader]) -> None:
    path = data / file
    if not path.exists():
        pytest.skip(f"no {path}")
    with path.open("rb") as stream:
        batch = next(iter(reader().images(stream, path.name)))
    camera = camera_in(batch.schema)
    images = np.asarray(from_binary(batch.column("image")), np.float32)[:80]
    columns = halo(images, camera)
    assert assert_rings(columns, images, camera) > 20
    assert_parameters(columns, images, camera)


def test_images_of_another_camera_are_refused() -> None:
    with pytest.raises(UsageError, match="560 pixels"):
        halo(np.zeros((2, 7), np.float32), CAMERA)
