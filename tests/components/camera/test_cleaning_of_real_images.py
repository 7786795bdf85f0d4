"""Masks and image parameters of every file of images in the real data, against ctapipe image by image."""

from __future__ import annotations

from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from ctapipe.image import hillas_parameters, tailcuts_clean
from ctapipe.instrument import CameraGeometry as CtapipeGeometry

from apbatch.camera.cleaning import Cleaning
from apbatch.camera.geometry import CameraGeometry
from apbatch.camera.hillas import clean_and_parametrise
from apbatch.formats import magic
from apbatch.formats.fact import photons as fact
from apbatch.formats.images import camera_in, from_binary
from apbatch.formats.reader import ImageReader
from apbatch.formats.simtel import reader as simtel
from apbatch.formats.taiga import monte_carlo as taiga_mc

FILES = {
    "taiga_mc/taiga607_clean_iact01_14_7fix_cb0.txt": taiga_mc.TaigaMcReader,
    "fact_images/011014.phs.jsonl.gz": fact.FactPhotonsReader,
    "magic_real/20131004_M1_05029747.003_Y_MagicCrab-W0.40+035.root": magic.MagicReader,
    "simtel/gamma_prod6_tel_event_header_v4.simtel.zst": simtel.SimtelReader,
    "simtel/history_meta_75.simtel.zst": simtel.SimtelReader,
    "simtel/lst_muons_with_true_photons.simtel.zst": simtel.SimtelReader,
    "simtel/n_hv_disabled.simtel.gz": simtel.SimtelReader,
}
#: At most so many images of a file are compared: ctapipe takes them one by one.
MOST = 600


def in_ctapipe(camera: CameraGeometry) -> CtapipeGeometry:
    """The same pixels with the same neighbours."""
    rows, columns = np.nonzero(camera.neighbours >= 0)
    near = np.zeros((camera.n_pixels, camera.n_pixels), bool)
    near[rows, camera.neighbours[rows, columns]] = True
    kind = "hexagonal" if camera.lattice == "hexagonal" else "square"
    area = np.full(camera.n_pixels, camera.pitch**2) * u.deg**2
    places = camera.x * u.deg, camera.y * u.deg
    return CtapipeGeometry(camera.name, np.arange(camera.n_pixels), *places, area, kind, neighbors=near)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("cleaning", [Cleaning("tailcuts", 14, 7), Cleaning("tailcuts", 6, 3, 2)], ids=lambda c: c.name)
def test_masks_are_identical_and_parameters_within_1e_5(data: Path, file: str, cleaning: Cleaning) -> None:
    path = data / file
    if not path.exists():
        pytest.skip(f"no {path}")
    reader = FILES[file]()
    assert isinstance(reader, ImageReader)
    seen, compared, geometries = 0, 0, {}
    with path.open("rb") as stream:
        for batch in reader.images(stream, path.name):
            camera = camera_in(batch.schema)
            geometry = geometries.setdefault(camera.name, in_ctapipe(camera))
            images = np.asarray(from_binary(batch.column("image")), np.float32)[: MOST - seen]
            seen += len(images)
            mask, ours = clean_and_parametrise(images, camera, cleaning)
            for row, image in enumerate(images):
                least = cleaning.min_neighbours
                kept = tailcuts_clean(geometry, image, cleaning.picture, cleaning.boundary, False, least)
                np.testing.assert_array_equal(mask[row], kept, err_msg=f"image {row}")
                if kept.sum() < 3 or not ours["width"][row] > 1e-3 * camera.pitch:
                    continue  # nearly degenerate: exact arithmetic judges these elsewhere
                theirs = hillas_parameters(geometry[kept], image[kept])
                wanted = {
                    "size": theirs.intensity, "length": theirs.length.value, "width": theirs.width.value,
                    "distance": theirs.r.value, "kurtosis": theirs.kurtosis,
                }  # fmt: skip
                for name, value in wanted.items():
                    assert ours[name][row] == pytest.approx(value, rel=1e-5), (name, row)
                for name, value in (("cog_x", theirs.fov_lon.value), ("cog_y", theirs.fov_lat.value)):
                    assert ours[name][row] == pytest.approx(value, rel=1e-5, abs=1e-7), (name, row)
                assert ours["skewness"][row] == pytest.approx(theirs.skewness, rel=1e-5, abs=1e-7)
                compared += 1
            if seen >= MOST:
                break
    assert seen > 0
    assert compared > 0 or "n_hv" in file
