"""What the kernels see of air, telescopes and camera, and where they leave light and energy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from apbatch.sim.stream import Stream, make_stream

Floats = npt.NDArray[np.float64]

#: Width of a bin of the longitudinal profile, g/cm2 of vertical depth.
PROFILE_STEP = 10.0

# Entries of `Record.tally`.
DEPOSITED, DROPPED, GROUND, FIRST_HEIGHT, STEPS, OVERFLOW, EMITTED = range(7)


class Scene(NamedTuple):
    """Air, telescopes and camera as the kernels need them; positions in m, z above sea level, x north, y west.

    Attributes
    ----------
    air : ndarray of shape (5, 5)
        Layers of `atmosphere_named`.
    step : float
        Longest steps of electrons over the usual ones.
    telescopes : ndarray of shape (n_telescopes, 3)
        Centres of the mirrors.
    frame : ndarray of shape (3, 3)
        Rows: the camera's x and y axis and the pointing direction, on the sky.
    pixel_at : ndarray of shape (n, n) of int16
        Pixel at a place of the camera, -1 outside; `lut_step` deg a cell, centre of the camera in the middle.
    light : ndarray
        Photo-electrons per m of track and sin2 of the Cherenkov angle, by height of emission.
    """

    air: Floats
    step: float
    telescopes: Floats
    frame: Floats
    pixel_at: npt.NDArray[np.int16]
    n_pixels: int
    lut_step: float
    psf: float  # deg
    radius: float
    facets: Floats  # (n_facets, 3), m; none: an ideal mirror
    facet_radius: float
    focal_length: float  # m
    acceptance: Floats  # of the light guides, by degree of incidence
    light: Floats
    light_step: float
    ground: float  # m
    ground_depth: float  # g/cm2
    field_x: float  # tesla
    field_y: float
    field_z: float


class Record(NamedTuple):
    """What one shower leaves: photo-electrons with their time, energy balance, electrons by depth."""

    pixel: npt.NDArray[np.int32]  # telescope x n_pixels + pixel
    time: npt.NDArray[np.float32]  # ns, against the shower front's arrival at the telescope
    number: npt.NDArray[np.int64]  # how many there are
    tally: Floats
    profile: Floats  # mean number of charged particles above the threshold for light
    stream: Stream  # random numbers of the electromagnetic cascade and its light
    light: Floats  # Cherenkov photons made, by depth of emission, as photo-electrons before any loss by distance


def make_record(capacity: int = 400_000, seed: int = 0) -> Record:
    """Return empty storage for one shower.

    Parameters
    ----------
    capacity : int
        Photo-electrons that fit.
    seed : int
        Of the stream of random numbers.
    """
    return Record(
        np.empty(capacity, np.int32),
        np.empty(capacity, np.float32),
        np.zeros(1, np.int64),
        np.zeros(8),
        np.zeros(110),
        make_stream(seed),
        np.zeros(110),
    )
