"""A site with its telescopes: the tables that all showers share, and the scene of one shower."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from apbatch.camera.geometry import CameraGeometry
from apbatch.sim.atmosphere import atmosphere_named, depth, light_yield
from apbatch.sim.detector.optics import acceptance_table, facet_centres
from apbatch.sim.scene import Scene
from apbatch.sim.settings import DetectorModel, SiteModel

Floats = npt.NDArray[np.float64]

_LIGHT_STEP = 100.0
_LUT_STEP = 0.012  # deg, about 1 mm in the camera


def pixel_table(camera: CameraGeometry, step: float = _LUT_STEP) -> npt.NDArray[np.int16]:
    """Return the nearest pixel for each cell of a grid over the camera; -1 where no pixel is.

    A hexagon reaches at most pitch/sqrt(3) from its centre; cells farther than that from every centre are outside.
    """
    reach = camera.pitch / math.sqrt(3.0)
    half = int(math.ceil((max(np.abs(camera.x).max(), np.abs(camera.y).max()) + camera.pitch) / step))
    grid = np.full((2 * half + 1, 2 * half + 1), -1, np.int16)
    best = np.full(grid.shape, (reach * 1.0001) ** 2)
    around = np.arange(-math.ceil(reach / step) - 1, math.ceil(reach / step) + 2)
    for pixel, (x, y) in enumerate(zip(camera.x, camera.y, strict=True)):
        columns, rows = round(x / step) + half + around, round(y / step) + half + around
        distance = ((columns - half) * step - x)[:, None] ** 2 + ((rows - half) * step - y)[None, :] ** 2
        block = np.ix_(columns, rows)
        nearer = distance < best[block]
        grid[block] = np.where(nearer, pixel, grid[block])
        best[block] = np.where(nearer, distance, best[block])
    return grid


def camera_frame(zenith: float, azimuth: float) -> Floats:
    """Return the camera's axes on the sky for a pointing in degrees: x horizontal, y upward, z to the sky.

    Azimuth counts from north through west, in the frame of `Scene`.
    """
    theta, phi = math.radians(zenith), math.radians(azimuth)
    pointing = np.array([math.sin(theta) * math.cos(phi), math.sin(theta) * math.sin(phi), math.cos(theta)])
    across = np.array([math.sin(phi), -math.cos(phi), 0.0])
    return np.array([across, np.cross(pointing, across), pointing])


class Optics(NamedTuple):
    """The parts of a scene that all showers share."""

    pixel_at: npt.NDArray[np.int16]
    n_pixels: int
    light: Floats
    facets: Floats
    acceptance: Floats
    air: Floats

    @classmethod
    def of(cls, site: SiteModel, detector: DetectorModel, camera: CameraGeometry) -> Optics:
        """Make the look-up tables of a site and detector.

        Parameters
        ----------
        site : SiteModel
        detector : DetectorModel
        camera : CameraGeometry
        """
        return cls(
            pixel_table(camera),
            camera.n_pixels,
            light_yield(site, detector, _LIGHT_STEP),
            facet_centres(detector),
            acceptance_table(detector),
            atmosphere_named(site.atmosphere),
        )


def make_scene(
    optics: Optics, site: SiteModel, detector: DetectorModel, telescopes: Floats, azimuth: float, step: float = 1.0
) -> Scene:
    """Return the scene of one shower: its telescopes, all looking at the same direction.

    Parameters
    ----------
    optics : Optics
        Tables of site and detector.
    site, detector : models
        The zenith angle of the site is that of the pointing.
    telescopes : ndarray of shape (n, 3)
        Centres of the mirrors, m.
    azimuth : float
        Of the pointing, deg, from north through west.
    step : float
        Longest steps of electrons over the usual ones: less than 1 for tests of convergence.
    """
    north, west, up = (float(component) * 1e-6 for component in site.magnetic_field)
    return Scene(
        air=optics.air,
        step=step,
        telescopes=np.ascontiguousarray(telescopes, np.float64),
        frame=camera_frame(site.zenith, azimuth),
        pixel_at=optics.pixel_at,
        n_pixels=optics.n_pixels,
        lut_step=_LUT_STEP,
        psf=float(detector.psf),
        radius=math.sqrt(detector.mirror_area / math.pi),
        facets=optics.facets,
        facet_radius=0.5 * float(detector.facet_diameter),
        focal_length=float(detector.focal_length),
        acceptance=optics.acceptance,
        light=optics.light,
        light_step=_LIGHT_STEP,
        ground=float(site.altitude),
        ground_depth=depth(float(site.altitude), optics.air),
        field_x=north,
        field_y=west,
        field_z=up,
    )
