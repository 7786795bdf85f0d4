"""The camera of the first TAIGA Cherenkov telescope (TAIGA-IACT01): 560 photomultipliers in 22 clusters.

The camera is regular, so it is a rule and not a table. Pixels sit on a hexagonal lattice with a pitch of 3 cm.
A cluster, read out by one MAROC board, is made of up to four *flowers* of seven pixels (one and its six neighbours);
flowers lie at the same places and carry the same channel numbers in every cluster, and the clusters at the rim lack
some of them: 15 clusters have 28 pixels, six 21 and one 14.
"""

from __future__ import annotations

import numpy as np

from apbatch.camera.geometry import CameraGeometry, Ints, neighbours_of

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
#: Clusters from 1: axial place of the middle of (a possibly missing) flower A, and the flowers present.
_CLUSTERS = (
    (1, -3, "ABCD"), (6, -4, "ABCD"), (-1, 3, "ABCD"), (4, 2, "ABCD"), (3, -9, "ABCD"), (8, -10, "ABCD"),
    (-4, -2, "ABCD"), (-6, 4, "ABCD"), (-2, -8, "ABCD"), (10, -2, "ABCD"), (12, -8, "ABCD"), (8, 4, "ABCD"),
    (2, 8, "ABCD"), (-3, 9, "ABCD"), (-9, -1, "ABCD"), (-8, 10, "ABD"), (10, -16, "BCD"), (14, -14, "BCD"),
    (-11, 5, "ABD"), (-7, -7, "ACD"), (5, -15, "BCD"), (16, -6, "BC"),
)  # fmt: skip


def _pixels(places: dict[int, int]) -> Ints:
    """Return (cluster, channel, q, r) of every pixel; `places` says which cluster's place another one takes."""
    rows = []
    for cluster, (_, _, flowers) in enumerate(_CLUSTERS, start=1):
        q0, r0, _ = _CLUSTERS[places.get(cluster, cluster) - 1]
        for flower in flowers:
            (q1, r1), channels = _FLOWERS[flower]
            rows += [
                (cluster, channel, q0 + q1 + q2, r0 + r1 + r2)
                for channel, (q2, r2) in zip(channels, _PETALS, strict=True)
            ]
    return np.array(rows, dtype=np.int64)


def _camera(name: str, turn_deg: float, places: dict[int, int]) -> CameraGeometry:
    cluster, number, q, r = _pixels(places).T
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
    return _camera("TAIGA-IACT01", 0.0, {})


def iact01_2017() -> CameraGeometry:
    """Return TAIGA-IACT01 as it was mounted in autumn 2017.

    It was turned by 37.5 degrees clockwise, and clusters 2 and 3 had each other's place. Pixels have the same order
    (cluster and channel) as in `iact01`.
    """
    return _camera("TAIGA-IACT01-2017", TURN_2017_DEG, {2: 3, 3: 2})
