"""The vector kernels against the plain ones, and the plain ones in their place where the vector kernels fail."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apbatch.camera.cleaning import Cleaning, clean
from apbatch.camera.geometry import CameraGeometry
from apbatch.camera.grid import METHODS, to_grid
from apbatch.camera.halo import halo
from apbatch.camera.hillas import PARAMETERS, clean_and_parametrise, hillas
from apbatch.camera.instruments.registry import camera_named
from apbatch.camera.kernels import batch, plain, selfcheck, vectorised
from apbatch.camera.kernels.interface import Images, Kernels
from apbatch.cli import doctor
from apbatch.formats.images import camera_in, from_binary
from apbatch.formats.reader import ImageReader, readers
from tests.components.camera.test_board import CAMERAS
from tests.components.camera.test_hillas_properties import PIXELS, image_of, line_of

TAIGA = camera_named("TAIGA-IACT01")
FUNCTIONS = ("clean", "parametrise", "clean_and_parametrise", "apply_map", "halo")
CLEANINGS = {
    rule.name: rule
    for rule in (
        Cleaning("tailcuts", 14, 7), Cleaning("tailcuts", 6, 3, 2), Cleaning("tailcuts", 6, 3, keep_isolated=True),
        Cleaning("sigma", 3, 1.5),
    )
}  # fmt: skip
Columns = dict[str, npt.NDArray[np.float64]]


@contextmanager
def only(kernels: Kernels) -> Iterator[None]:
    """Use some kernels and no others."""
    before = dict(batch._choice)
    batch._choice.update(dict.fromkeys(FUNCTIONS, kernels))
    try:
        yield
    finally:
        batch._choice.clear()
        batch._choice.update(before)


def by_both(function: Callable[..., Any], *arguments: Any, **words: Any) -> tuple[Any, Any]:
    results = []
    for kernels in (vectorised, plain):
        with only(kernels):
            results.append(function(*arguments, **words))
    return results[0], results[1]


def assert_same_parameters(ours: Columns, theirs: Columns, camera: CameraGeometry) -> None:
    """Parameters agree but for rounding, which grows where an image is nearly round or nearly at its source."""
    pitch = camera.pitch
    with np.errstate(all="ignore"):
        elongation = np.nan_to_num(1 - (theirs["width"] / theirs["length"]) ** 2, nan=1.0)
        turn = 1e-9 + 1e-11 / np.maximum(elongation, 1e-11)  # rad, of the axis
        towards = 1e-9 + 1e-11 * pitch / np.maximum(theirs["distance"], 1e-11 * pitch)  # rad, of the line to the source
    for name in ("n_pixels", "n_islands", "edge"):
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    flip = np.cos(np.radians(ours["psi"] - theirs["psi"]))  # -1 where an upright axis points up here and down there
    for name in PARAMETERS:
        one, other = ours[name], theirs[name]
        np.testing.assert_array_equal(np.isnan(one), np.isnan(other), err_msg=name)
        there = np.isfinite(other)
        difference = np.abs(one - other)
        allowed = 1e-9 * (np.abs(other) + (pitch if name in ("cog_x", "cog_y", "distance", "azwidth") else 0))
        if name == "width":  # below 1e-5 of the pitch it counts as 0
            allowed = 1e-9 * other + 2e-5 * pitch * (other < 1e-3 * pitch)
        elif name == "azwidth":
            allowed = allowed + 1e-6 * pitch + towards * theirs["length"]
        elif name == "psi":
            difference, allowed = np.abs(np.sin(np.radians(one - other))), turn
        elif name == "alpha":
            difference, allowed = np.radians(difference), turn + towards
        elif name == "miss":
            allowed = 1e-9 * pitch + turn * theirs["distance"]
        elif name == "skewness":
            difference, allowed = np.abs(one - other * flip), turn * (1 + np.abs(other)) * 10
        elif name == "kurtosis":
            allowed = turn * (1 + np.abs(other)) * 10
        worst = (difference - allowed)[there]
        assert not len(worst) or worst.max() <= 0, (name, one[there][worst.argmax()], other[there][worst.argmax()])


def noise_of(cleaning: Cleaning, camera: CameraGeometry) -> npt.NDArray[np.float64] | None:
    return np.linspace(1.0, 3.0, camera.n_pixels) if cleaning.method == "sigma" else None


def odd_images(camera: CameraGeometry) -> Images:
    """Dark and full images and all between; pixels that are missing, infinite, huge, negative or at a level."""
    rng = np.random.default_rng(camera.n_pixels)
    lit = rng.random((75, 1)) ** 2  # 75 fills no block
    images = np.where(rng.random((75, camera.n_pixels)) < lit, rng.uniform(3, 12, (75, camera.n_pixels)), 0)
    images[3], images[5, 0], images[6, ::3] = 9, np.nan, np.inf
    images[7], images[8, 1], images[9, 1], images[10] = np.nan, -1e30, 3e38, -np.inf
    images[11], images[12], images[13] = 0, 0, 0
    images[12, camera.n_pixels // 2] = 50
    images[13, [0, int(camera.neighbours[0][0])]] = 14, 7
    return images.astype(np.float32)


@pytest.mark.parametrize("name", CAMERAS)
def test_odd_images_have_the_same_masks_and_parameters_by_both(name: str) -> None:
    camera = CAMERAS[name]
    images = odd_images(camera)
    for cleaning in CLEANINGS.values():
        noise = noise_of(cleaning, camera)
        ours, theirs = by_both(clean_and_parametrise, images, camera, cleaning, source=(0.3, -0.2), noise=noise)
        np.testing.assert_array_equal(ours[0], theirs[0], err_msg=cleaning.name)
        np.testing.assert_array_equal(*by_both(clean, images, camera, cleaning, noise=noise))
        if noise is not None:
            each = noise * np.linspace(0.3, 2, len(images))[:, None]
            masks = by_both(clean, images, camera, cleaning, noise=each)
            np.testing.assert_array_equal(*masks, err_msg="a noise for each image")
            assert not np.array_equal(masks[0], ours[0])
        assert_same_parameters(ours[1], theirs[1], camera)
    assert_same_parameters(*by_both(hillas, images, camera), camera)


@settings(max_examples=60, deadline=None)
@given(PIXELS)
def test_any_few_pixels_have_the_same_parameters_by_both(pixels: dict[int, float]) -> None:
    assert_same_parameters(*by_both(hillas, image_of(pixels), TAIGA), TAIGA)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, TAIGA.n_pixels - 1), st.integers(0, 2), st.integers(1, 12), st.floats(1e-3, 1.0))
def test_pixels_on_a_line_have_the_same_parameters_by_both(start: int, way: int, length: int, faint: float) -> None:
    line = line_of(start, way, length)
    beside = int(TAIGA.neighbours[line[0]][0])
    for extra in ({}, {beside: faint}):
        amplitudes = {pixel: 5.0 + 7.3 * (number % 3) for number, pixel in enumerate(line)}
        assert_same_parameters(*by_both(hillas, image_of({**amplitudes, **extra}), TAIGA), TAIGA)


@pytest.mark.parametrize("per_image", [False, True])
def test_grids_are_the_same_bit_for_bit_by_both(per_image: bool) -> None:
    images = odd_images(TAIGA)
    mask = images > 4 if per_image else None
    for method in METHODS:
        np.testing.assert_array_equal(*by_both(to_grid, images, TAIGA, mask, method), err_msg=method)


def assert_same_halo(ours: Columns, theirs: Columns, camera: CameraGeometry) -> None:
    for picture in (5, 7, 10, 14):
        one, other = ({name: table[f"{name}_{picture}"] for name in PARAMETERS} for table in (ours, theirs))
        assert_same_parameters(one, other, camera)
    for name in (name for name in ours if name.startswith("ring_")):
        if name.endswith("light"):
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-9, atol=1e-9, err_msg=name)
        else:
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


REAL = {
    "taiga_mc/taiga607_clean_iact01_14_7fix_cb0.txt": "taiga-mc",
    "fact_images/011014.phs.jsonl.gz": "fact-photons",
    "magic_real/20131004_M1_05029747.003_Y_MagicCrab-W0.40+035.root": "magic",
    "simtel/lst_muons_with_true_photons.simtel.zst": "simtel",
}


@pytest.mark.parametrize("file", REAL)
def test_real_images_have_the_same_results_by_both(data: Path, file: str) -> None:
    path = data / file
    if not path.exists():
        pytest.skip(f"no {path}")
    reader = readers()[REAL[file]]
    assert isinstance(reader, ImageReader)
    with path.open("rb") as stream:
        table = next(iter(reader.images(stream, path.name)))
    camera = camera_in(table.schema)
    images = np.asarray(from_binary(table.column("image")), np.float32)[:200]
    for cleaning in CLEANINGS.values():
        ours, theirs = by_both(clean_and_parametrise, images, camera, cleaning, noise=noise_of(cleaning, camera))
        np.testing.assert_array_equal(ours[0], theirs[0], err_msg=cleaning.name)
        assert_same_parameters(ours[1], theirs[1], camera)
    assert_same_parameters(*by_both(hillas, images, camera), camera)
    assert_same_halo(*by_both(halo, images, camera), camera)
    np.testing.assert_array_equal(*by_both(to_grid, images, camera, None, "bilinear"))


@pytest.fixture
def undecided(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A process that has not used any kernel yet."""
    monkeypatch.setattr(batch, "_choice", {})
    return monkeypatch


def results(images: Images) -> list[npt.NDArray[Any]]:
    """What every function gives."""
    cleaning = CLEANINGS["tailcuts-6-3-n2"]
    mask, table = clean_and_parametrise(images, TAIGA, cleaning)
    return [
        clean(images, TAIGA, cleaning), mask, *table.values(), *hillas(images, TAIGA).values(),
        *halo(images, TAIGA).values(), to_grid(images, TAIGA, mask, "bicubic"),
    ]  # fmt: skip


def test_a_process_uses_the_vector_kernels_once_they_are_verified(
    undecided: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[str] = []

    def verify(name: str, kernels: Kernels, reference: Kernels) -> None:
        calls.append(name)
        selfcheck.verify(name, kernels, reference)

    undecided.setattr(batch, "verify", verify)
    for _ in range(2):
        results(odd_images(TAIGA))
    assert sorted(calls) == sorted(FUNCTIONS)
    assert set(batch._choice.values()) == {vectorised} and not caplog.records


@pytest.mark.parametrize("name", FUNCTIONS)
def test_kernels_that_give_something_else_are_not_used(
    undecided: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    compute = getattr(vectorised, name)

    def slightly_wrong(*arguments: Any) -> None:
        compute(*arguments)
        result = arguments[-1]
        if result.dtype == bool:
            result[-1, -1] ^= True
        else:
            result[-1, -1] += 1e-4

    undecided.setattr(vectorised, name, slightly_wrong)
    images = odd_images(TAIGA)[20:]
    with caplog.at_level(logging.WARNING):
        outcome = results(images)
    assert set(batch._choice.values()) == {plain}
    (record,) = caplog.records
    assert f"results of '{name}' are not those" in record.getMessage()
    assert "constraints/all.txt" in record.getMessage()
    with only(plain):
        for ours, theirs in zip(outcome, results(images), strict=True):
            if ours.dtype == np.float64:  # some of it by verified vector kernels, before the failure
                np.testing.assert_allclose(ours, theirs, rtol=selfcheck.TOLERANCE, atol=selfcheck.TOLERANCE)
            else:
                np.testing.assert_array_equal(ours, theirs)


def test_kernels_that_do_not_compile_are_not_used(
    undecided: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*arguments: Any) -> None:
        raise TypeError("make_array() takes\n 3 arguments")

    undecided.setattr(vectorised, "clean", refuse)
    finding = doctor._kernels()
    assert finding.state == "optional" and finding.remedy == batch.REMEDY
    assert "make_array() takes 3 arguments" in finding.found and not batch._choice
    with caplog.at_level(logging.WARNING):
        mask = clean(odd_images(TAIGA), TAIGA, CLEANINGS["tailcuts-14-7"])
    assert mask.any() and batch._choice["halo"] is plain
    assert "(TypeError: make_array() takes 3 arguments)" in caplog.records[0].getMessage()


def test_the_environment_can_ask_for_the_plain_kernels(
    undecided: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    undecided.setenv(batch.VARIABLE, "plain")
    undecided.setattr(vectorised, "clean", None)
    assert clean(odd_images(TAIGA), TAIGA, CLEANINGS["tailcuts-14-7"]).any()
    assert not caplog.records
    assert doctor._kernels().remedy == "unset APBATCH_KERNELS"


def test_the_doctor_says_that_the_vector_kernels_are_in_use() -> None:
    finding = doctor._kernels()
    assert finding.state == "ok"
    assert finding.found.startswith("vector, verified; numba ")


def test_without_numba_the_error_names_the_remedy() -> None:
    program = """
import sys

sys.modules["numba"] = None
from apbatch.cli.doctor import _kernels

print(_kernels())
import apbatch.camera.cleaning
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600, check=False)
    assert ran.returncode == 1
    assert "state='missing'" in ran.stdout and "pip install" in ran.stdout
    assert "ImportError: numba can't be imported" in ran.stderr and "pip install 'apbatch[images]'" in ran.stderr


def test_where_a_private_interface_of_numba_is_gone_the_plain_kernels_compute_and_one_warning_says_so(
    tmp_path: Path,
) -> None:
    program = f"""
import logging
import sys

import numba.core.extending

del numba.core.extending.register_model
logging.basicConfig(format="%(levelname)s %(message)s")

import numpy as np

from apbatch.camera.cleaning import cleaning_named
from apbatch.camera.grid import to_grid
from apbatch.camera.halo import halo
from apbatch.camera.hillas import clean_and_parametrise, hillas
from apbatch.camera.instruments.registry import camera_named

camera, images = camera_named("TAIGA-IACT01"), np.load({str(tmp_path / "images.npy")!r})
mask, table = clean_and_parametrise(images, camera, cleaning_named("tailcuts-14-7"))
np.savez(
    {str(tmp_path / "results.npz")!r}, mask=mask, grid=to_grid(images, camera, mask), **table,
    **{{"all_" + name: column for name, column in hillas(images, camera).items()}}, **halo(images, camera),
)
print("kernels" if "apbatch.camera.kernels.vectorised" in sys.modules else "plain")
"""
    images = odd_images(TAIGA)
    np.save(tmp_path / "images.npy", images)
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "plain"
    assert ran.stderr.count("WARNING") == 1
    assert "register_model" in ran.stderr and "install the versions of numba and llvmlite" in ran.stderr
    plainly = dict(np.load(tmp_path / "results.npz"))
    with only(vectorised):
        mask, table = clean_and_parametrise(images, TAIGA, CLEANINGS["tailcuts-14-7"])
        np.testing.assert_array_equal(plainly["mask"], mask)
        np.testing.assert_array_equal(plainly["grid"], to_grid(images, TAIGA, mask))
        assert_same_parameters(plainly, table, TAIGA)
        assert_same_parameters({name: plainly["all_" + name] for name in PARAMETERS}, hillas(images, TAIGA), TAIGA)
    assert np.isfinite(plainly["ring_1_along_light"]).any()
