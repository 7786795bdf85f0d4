"""A brighter night sky over images that are there already, so that one production serves a band of levels.

Light of the sky is a Poisson number of photo-electrons in each pixel, each with a charge of its own, less the mean that
a pedestal takes away (`apbatch.sim.detector.response`). Independent light adds up, so images under a brighter sky are
those under a darker one with more of it. What is not done again: the trigger, the steps of the ADC, the gains' errors
(5 % of the added noise), arrival times. A sky can't be made darker: simulate under the darkest one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.float32]
#: Relative width of the charge of one photo-electron, as in the simulation's detector.
SINGLE_PE = 0.45


def sky_light(shape: tuple[int, ...], mean: float, random: np.random.Generator) -> Pixels:
    """Return light of the night sky less its mean, p.e.

    Parameters
    ----------
    shape : tuple of int
        Of the result.
    mean : float
        Photo-electrons in a pixel.
    random : numpy.random.Generator
    """
    photons = random.poisson(mean, shape)
    charge = photons + SINGLE_PE * np.sqrt(photons) * random.standard_normal(shape, np.float32)
    return np.asarray(charge - mean, np.float32)


def under_brighter_sky(images: Pixels, ids: Sequence[str], added: float) -> Pixels:
    """Return images with light of the sky added to each pixel; what an image gets depends on its name and the level.

    Parameters
    ----------
    images : ndarray of float32, shape (n_images, n_pixels)
        p.e.; NaN, where nothing was measured, stays.
    ids : sequence of str
        Names of the images.
    added : float
        Mean added to each pixel, p.e.; 0 changes nothing.
    """
    if not added:
        return images
    brighter = np.empty_like(images)
    for row, name in enumerate(ids):
        digits = hashlib.blake2b(f"night sky {added:g} {name}".encode(), digest_size=16).digest()
        random = np.random.default_rng(int.from_bytes(digits, "big"))
        brighter[row] = images[row] + sky_light(images.shape[1:], added, random)
    return brighter
