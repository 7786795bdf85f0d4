"""Tail cuts against the rule of the TAIGA collaboration, and against images that it cleaned itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from apbatch.camera.cleaning import Cleaning, clean
from apbatch.camera.instruments.registry import camera_named
from apbatch.formats.images import from_binary
from apbatch.formats.reader import ImageReader, readers

CAMERA = camera_named("TAIGA-IACT01")
Images = npt.NDArray[np.float32]


def collaboration(image: Images, picture: float, boundary: float) -> npt.NDArray[np.bool_]:
    """The rule of TAIGA: brighter than one threshold, beside a pixel brighter than the other one."""
    kept = np.zeros(CAMERA.n_pixels, bool)
    for pixel, amplitude in enumerate(image):
        other = boundary if amplitude > picture else picture if amplitude > boundary else np.inf
        kept[pixel] = any(image[n] > other for n in CAMERA.neighbours[pixel] if n >= 0)
    return kept


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1, 20), st.floats(0.1, 1))
def test_off_the_thresholds_the_collaborations_rule_is_the_same(seed: int, picture: float, share: float) -> None:
    # Amplitudes of a continuous distribution are never exactly at a threshold.
    images = np.random.default_rng(seed).exponential(5, (1, CAMERA.n_pixels)).astype(np.float32)
    ours = clean(images, CAMERA, Cleaning("tailcuts", picture, picture * share))
    assert np.array_equal(ours[0], collaboration(images[0], picture, picture * share))


def test_on_the_thresholds_we_keep_what_the_collaboration_drops() -> None:
    image = np.zeros((1, CAMERA.n_pixels), np.float32)
    pair = [100, int(CAMERA.neighbours[100][0])]
    image[0, pair] = 14, 7
    assert np.flatnonzero(clean(image, CAMERA, Cleaning("tailcuts", 14, 7))[0]).tolist() == sorted(pair)
    assert not collaboration(image[0], 14, 7).any()


def test_images_that_the_collaboration_cleaned_lose_no_pixel_at_the_same_thresholds(data: Path) -> None:
    path = data / "taiga_mc" / "taiga607_clean_iact01_14_7fix_cb0.txt"
    reader = readers()["taiga-mc"]
    assert isinstance(reader, ImageReader)
    with path.open("rb") as stream:
        images = np.concatenate([from_binary(batch["image"]) for batch in reader.images(stream, path.name)])
    images = images.astype(np.float32)
    assert len(images) == 5698
    assert np.array_equal(clean(images, CAMERA, Cleaning("tailcuts", 14, 7)), images > 0)
    assert not np.array_equal(clean(images, CAMERA, Cleaning("tailcuts", 15, 7)), images > 0)
