"""A segmented reflector and the light guides of the camera: where a photon of the mirror ends in the focal plane.

A Davies-Cotton dish has its facets on a sphere of the focal length f round the focus, each turned so that its axis
meets the telescope's axis at 2f, each with the focal length f of its own. Light from the pointing direction is focused
but for the facets' own aberration; light from beside it gets a comatic tail that grows with the angle. A photon's
place on the reflector is drawn at random: a shower is far away, so it does not depend on the direction. Facets hide
nothing of each other; what the camera shadows is part of the efficiency.

References
----------
J. M. Davies and E. S. Cotton, Sol. Energy 1 (1957) 16; A. Schliesser and R. Mirzoyan, Astropart. Phys. 24 (2005) 382.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from apbatch.sim.kernel import inner
from apbatch.sim.scene import Scene
from apbatch.sim.settings import DetectorModel

Floats = npt.NDArray[np.float64]

_DEG = 57.29577951308232
#: Photons farther than this from the pointing are no part of any image: cosine.
_WIDEST = 0.97


def facet_centres(detector: DetectorModel) -> Floats:
    """Return the facets of a Davies-Cotton dish on a hexagonal lattice round a missing central facet.

    Returns
    -------
    ndarray of shape (n_facets, 3)
        Centres, m: across the axis, and up from the dish's vertex. The `facets` places nearest to the axis; empty for
        an ideal mirror.
    """
    if detector.facets == 0:
        return np.empty((0, 3))
    pitch = detector.facet_pitch
    rings = range(-12, 13)
    places = np.array([((q + 0.5 * r) * pitch, math.sqrt(0.75) * r * pitch) for q in rings for r in rings if q or r])
    distance = np.hypot(places[:, 0], places[:, 1])
    centres = places[np.lexsort((places[:, 1], places[:, 0], np.round(distance, 6)))[: detector.facets]]
    f = detector.focal_length
    return np.column_stack([centres, f - np.sqrt(f * f - (centres**2).sum(axis=1))])


def acceptance_table(detector: DetectorModel, points: int = 91) -> Floats:
    """Return the light guides' acceptance at 0, 1, … 90 degrees of incidence."""
    angles = np.linspace(0.0, 90.0, points)
    return np.interp(angles, detector.guide_angles, detector.guide_acceptance)


@inner
def focus(scene: Scene, wx: float, wy: float, wz: float) -> tuple[float, float, float]:
    """Trace a photon that meets the reflector.

    Parameters
    ----------
    scene : Scene
    wx, wy, wz : float
        Direction of flight, in the frame of `Scene`.

    Returns
    -------
    u, v : float
        Where it ends in the camera, deg on the sky.
    late : float
        Its way to the camera, m, from where its front passed the dish's vertex; negative if the photon is lost.
    """
    frame = scene.frame
    dx = frame[0, 0] * wx + frame[0, 1] * wy + frame[0, 2] * wz
    dy = frame[1, 0] * wx + frame[1, 1] * wy + frame[1, 2] * wz
    dz = frame[2, 0] * wx + frame[2, 1] * wy + frame[2, 2] * wz
    if -dz < _WIDEST:
        return 0.0, 0.0, -1.0
    f = scene.focal_length
    count = scene.facets.shape[0]
    late = f
    incidence = -dz
    if count == 0:
        u, v = -dx / -dz, -dy / -dz
    else:
        facet = min(count - 1, int(np.random.random() * count))
        cx, cy, cz = scene.facets[facet, 0], scene.facets[facet, 1], scene.facets[facet, 2]
        # The facet's axis, through (0, 0, 2f), and a random place on its disc.
        ax, ay, az = -cx, -cy, 2.0 * f - cz
        norm = 1.0 / math.sqrt(ax * ax + ay * ay + az * az)
        ax, ay, az = ax * norm, ay * norm, az * norm
        radius = scene.facet_radius * math.sqrt(np.random.random())
        turn = 2.0 * math.pi * np.random.random()
        p, q = radius * math.cos(turn), radius * math.sin(turn)
        # Two unit vectors across the facet's axis: e = (az, 0, -ax)/|.|, g = a x e.
        across = 1.0 / math.sqrt(az * az + ax * ax)
        ex, ez = az * across, -ax * across
        gx, gy, gz = ay * ez, az * ex - ax * ez, -ay * ex
        sag = radius * radius / (4.0 * f)
        px = cx + p * ex + q * gx + sag * ax
        py = cy + q * gy + sag * ay
        pz = cz + p * ez + q * gz + sag * az
        # The normal points to the facet's centre of curvature, 2f along its axis.
        nx, ny, nz = cx + 2.0 * f * ax - px, cy + 2.0 * f * ay - py, cz + 2.0 * f * az - pz
        norm = 1.0 / math.sqrt(nx * nx + ny * ny + nz * nz)
        nx, ny, nz = nx * norm, ny * norm, nz * norm
        along = dx * nx + dy * ny + dz * nz
        if along >= 0.0:
            return 0.0, 0.0, -1.0
        rx, ry, rz = dx - 2.0 * along * nx, dy - 2.0 * along * ny, dz - 2.0 * along * nz
        if rz <= 0.1:
            return 0.0, 0.0, -1.0
        way = (f - pz) / rz
        u, v = -(px + way * rx) / f, -(py + way * ry) / f
        # The front passed the vertex's plane: places off the axis are met sooner or later by p . d.
        late = way + px * dx + py * dy + pz * dz
        incidence = rz
    degree = math.acos(min(1.0, incidence)) * _DEG
    cell = min(int(degree), scene.acceptance.size - 2)
    share = degree - cell
    accepted = scene.acceptance[cell] * (1.0 - share) + scene.acceptance[cell + 1] * share
    if accepted < 1.0 and np.random.random() >= accepted:
        return 0.0, 0.0, -1.0
    return _DEG * u + scene.psf * np.random.normal(), _DEG * v + scene.psf * np.random.normal(), late
