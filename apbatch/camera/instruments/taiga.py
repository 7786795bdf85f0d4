"""The cameras of the TAIGA Cherenkov telescopes: 560 photomultipliers in the first (TAIGA-IACT01), 595 in the second.

The cameras are regular, so each is a rule and not a table. Pixels sit on a hexagonal lattice with a pitch of 3 cm.
A cluster, read out by one MAROC board, is made of up to four *flowers* of seven pixels (one and its six neighbours);
flowers lie at the same places and carry the same channel numbers in every cluster, and the clusters at the rim lack
some of them. TAIGA-IACT01 has 15 clusters of 28 pixels, six of 21 and one of 14; TAIGA-IACT02 has 19 of 28 and three of
21, one cluster built in turned, and three pixels at other channels than their flowers have elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from apbatch.camera.geometry import CameraGeometry, Ints, neighbours_of

#: Names of the cameras in the orientation of the Monte Carlo.
IACT01, IACT02 = "TAIGA-IACT01", "TAIGA-IACT02"
#: Distance of neighbouring pixels, cm.
PITCH_CM = 3.0
FOCAL_LENGTH_M = 4.75
#: Degrees on the sky of one centimetre in the camera, as the collaboration rounds it.
DEG_PER_CM = 0.1206
#: By how much the camera was turned in 2017 against its orientation in the Monte Carlo, deg clockwise.
TURN_2017_DEG = 37.5

#: A flower's pixels in the order of their numbers, as axial steps from its middle.
_PETALS = ((0, 0), (1, -1), (0, -1), (-1, 0), (-1, 1), (0, 1), (1, 0))
#: Flowers: axial place of the middle in the cluster, and the high-gain channels of the seven pixels.
_FLOWERS = {
    "A": ((0, 0), (4, 20, 16, 12, 8, 28, 24)),
    "B": ((-3, 2), (6, 22, 18, 14, 10, 30, 26)),
    "C": ((-4, 5), (58, 54, 34, 38, 42, 46, 50)),
    "D": ((-1, 3), (56, 52, 32, 36, 40, 44, 48)),
}


@dataclass(frozen=True, slots=True)
class _Layout:
    """How a camera is put together.

    Attributes
    ----------
    clusters : tuple
        From 1: axial place of the middle of (a possibly missing) flower A, and the flowers present.
    turned : frozenset of int
        Clusters that are built in turned by 60 degrees clockwise about the middle of their flower A.
    rewired : Mapping
        High-gain channels of pixels that are not at their flower's, by cluster and the channel of the flower.
    """

    clusters: tuple[tuple[int, int, str], ...]
    turned: frozenset[int] = frozenset()
    rewired: Mapping[tuple[int, int], int] = field(default_factory=dict)


_LAYOUTS = {
    IACT01: _Layout(
        (
            (1, -3, "ABCD"), (6, -4, "ABCD"), (-1, 3, "ABCD"), (4, 2, "ABCD"), (3, -9, "ABCD"), (8, -10, "ABCD"),
            (-4, -2, "ABCD"), (-6, 4, "ABCD"), (-2, -8, "ABCD"), (10, -2, "ABCD"), (12, -8, "ABCD"), (8, 4, "ABCD"),
            (2, 8, "ABCD"), (-3, 9, "ABCD"), (-9, -1, "ABCD"), (-8, 10, "ABD"), (10, -16, "BCD"), (14, -14, "BCD"),
            (-11, 5, "ABD"), (-7, -7, "ACD"), (5, -15, "BCD"), (16, -6, "BC"),
        )
    ),
    IACT02: _Layout(
        (
            (1, -3, "ABCD"), (-1, 3, "ABCD"), (4, 2, "ABCD"), (6, -4, "ABCD"), (8, -10, "ABCD"), (3, -9, "ABCD"),
            (-3, -5, "ABCD"), (-5, 1, "ABCD"), (-7, 7, "ABCD"), (5, 6, "ABCD"), (11, 2, "ABCD"), (10, -2, "ABCD"),
            (12, -8, "ABCD"), (5, -15, "ABCD"), (-1, -11, "ABCD"), (-7, -7, "ABCD"), (-9, -1, "ABCD"),
            (-3, 9, "ABCD"), (-11, 5, "ABCD"), (-6, 11, "ABD"), (14, -14, "BCD"), (10, -16, "BCD"),
        ),
        turned=frozenset({18}),
        rewired={(10, 12): 0, (14, 22): 2, (17, 22): 2},
    ),
}  # fmt: skip


def _pixels(layout: _Layout, places: Mapping[int, int]) -> Ints:
    """Return (cluster, channel, q, r) of every pixel; `places` says which cluster's place another one takes."""
    rows = []
    for cluster, (_, _, flowers) in enumerate(layout.clusters, start=1):
        q0, r0, _ = layout.clusters[places.get(cluster, cluster) - 1]
        for flower in flowers:
            (q1, r1), channels = _FLOWERS[flower]
            for channel, (q2, r2) in zip(channels, _PETALS, strict=True):
                q, r = q1 + q2, r1 + r2
                if cluster in layout.turned:
                    q, r = q + r, -q
                rows.append((cluster, layout.rewired.get((cluster, channel), channel), q0 + q, r0 + r))
    return np.array(rows, dtype=np.int64)


def _camera(
    name: str, layout: _Layout, turn_deg: float = 0.0, places: Mapping[int, int] | None = None
) -> CameraGeometry:
    cluster, number, q, r = _pixels(layout, places or {}).T
    x = PITCH_CM * DEG_PER_CM * (q + r / 2)
    y = PITCH_CM * DEG_PER_CM * np.sqrt(0.75) * r
    cosine, sine = np.cos(np.radians(turn_deg)), np.sin(np.radians(turn_deg))
    q, r = q - q.min(), r - r.min()
    return CameraGeometry(
        name=name,
        x=cosine * x + sine * y,
        y=cosine * y - sine * x,
        pitch=PITCH_CM * DEG_PER_CM,
        neighbours=neighbours_of(q, r),
        q=q,
        r=r,
        cluster=cluster.copy(),
        number=number.copy(),
        focal_length=FOCAL_LENGTH_M,
    )


def iact01() -> CameraGeometry:
    """Return TAIGA-IACT01 in the orientation of the Monte Carlo; pixels by cluster, flower and petal."""
    return _camera(IACT01, _LAYOUTS[IACT01])


def iact01_2017() -> CameraGeometry:
    """Return TAIGA-IACT01 as it was mounted in autumn 2017.

    It was turned by 37.5 degrees clockwise, and clusters 2 and 3 had each other's place. Pixels have the same order
    (cluster and channel) as in `iact01`.
    """
    return _camera(f"{IACT01}-2017", _LAYOUTS[IACT01], TURN_2017_DEG, {2: 3, 3: 2})


def iact02() -> CameraGeometry:
    """Return TAIGA-IACT02 in the orientation of the Monte Carlo; pixels by cluster, flower and petal.

    The collaboration's programs take this camera for every telescope but the first.
    """
    return _camera(IACT02, _LAYOUTS[IACT02])
