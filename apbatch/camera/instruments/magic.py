"""The camera of the MAGIC telescopes since 2012: 1,039 photomultipliers of one size.

The camera is a rule: pixels on a hexagonal lattice with a pitch of 3 cm, numbered from the middle outwards, ring by
ring, and all that lie within 17 pitches. The lattice is turned, for the camera is built of clusters of seven pixels
that stand in straight columns themselves. Reference: J. Aleksić et al., Astropart. Phys. 72 (2016) 61,
doi:10.1016/j.astropartphys.2015.04.004.
"""

from __future__ import annotations

import numpy as np

from apbatch.camera.geometry import CameraGeometry, camera_from_positions

NAME = "MAGICCam"
PITCH_M = 0.03
#: Effective focal length: 17 m, less by the coma of the reflector's images.
FOCAL_LENGTH_M = 16.97
#: Pixels lie nearer to the middle than this many pitches.
_RADIUS = 17
#: From a ring's corner on the axis of pixel 1 round to the same corner, as axial steps.
_SIDES = ((-1, 1), (-1, 0), (0, -1), (1, -1), (1, 0), (0, 1))


def magic() -> CameraGeometry:
    """Return the camera in the order of its pixel numbers, x and y as ctapipe has them."""
    places = [(0, 0)]
    for ring in range(1, 2 * _RADIUS):
        q, r = ring, 0
        for dq, dr in _SIDES:
            for _ in range(ring):
                if q * q + q * r + r * r < _RADIUS**2:
                    places.append((q, r))
                q, r = q + dq, r + dr
    q, r = np.array(places).T
    # Pixel 1 lies where a cluster of seven has its neighbour: 5/2 along and sqrt(3)/2 across, in units of sqrt(7).
    turn = np.arctan2(np.sqrt(3), 5)
    along, across = q + r / 2, np.sqrt(0.75) * r
    scale = np.degrees(PITCH_M / FOCAL_LENGTH_M)
    x = scale * (np.cos(turn) * along - np.sin(turn) * across)
    y = scale * (np.sin(turn) * along + np.cos(turn) * across)
    return camera_from_positions(NAME, -y, -x, lattice="hexagonal", focal_length=FOCAL_LENGTH_M)
