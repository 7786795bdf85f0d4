"""The picture of all grid methods is a PNG, of images with nothing in them as well."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from apbatch.camera.instruments.registry import camera_named
from apbatch.errors import UsageError

CAMERA = camera_named("TAIGA-IACT01-2017")


@pytest.mark.parametrize("value", [0.0, 5.0, np.nan])
def test_an_image_is_drawn_under_all_methods(value):
    pictures = pytest.importorskip("apbatch.dl.judging.grid_pictures", reason="matplotlib is not installed")
    image = np.full(CAMERA.n_pixels, value, np.float32)
    head, _, content = pictures.grid_pictures(image, CAMERA).partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(content).startswith(b"\x89PNG")


def test_an_image_of_another_camera_is_refused():
    pictures = pytest.importorskip("apbatch.dl.judging.grid_pictures", reason="matplotlib is not installed")
    with pytest.raises(UsageError, match="560 pixels"):
        pictures.grid_pictures(np.zeros(7, np.float32), CAMERA)
