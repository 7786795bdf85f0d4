"""The camera of FACT: 1,440 silicon photomultipliers behind light guides, in 160 patches of nine.

Pixels are numbered as they are read out (CHID): crate, board, patch and pixel count in 4 x 10 x 4 x 9. Most patches
are blocks of three columns by three pixels on a hexagonal lattice, and the blocks fill the plane with a period of
three pixels; at the rim patches take the pixels that are left. So the camera is told by the places of its blocks, in
the order of the read-out, and by the patches of the rim. Reference: H. Anderhub et al., JINST 8 (2013) P06008,
doi:10.1088/1748-0221/8/06/P06008.
"""

from __future__ import annotations

import numpy as np

from apbatch.camera.geometry import CameraGeometry, camera_from_positions

NAME = "FACT"
PITCH_M = 0.0095
FOCAL_LENGTH_M = 4.889

#: Pixels of a block in the order of their numbers, as steps (column, place in the column) from the first.
_BLOCK = ((0, 0), (-1, 1), (1, 0), (0, 1), (-1, 2), (1, 1), (0, 2), (-1, 3), (1, 2))
#: Patches in the order of the read-out: the block of columns and of pixels, ``~`` where it is built in upside down;
#: a letter stands for a patch of the rim.
_PATCHES = (
    "7,-5~ 7,-4~ 6,-6 6,-5 5,-7 A B C 4,-7 D "
    "4,-6 4,-5 5,-6 5,-5 5,-4 4,-4 E F 3,-7 3,-6 "
    "3,-5 3,-4 3,-3 4,-3 G 2,-7 2,-6 2,-5 2,-3 2,-4 "
    "1,-3 1,-2 1,-7 1,-6 1,-5 1,-4 0,-6 0,-7 0,-5 0,-4 "
    "0,-3 0,-2 -1,-1 0,-1 -1,-3 -1,-2 -2,-1 -2,0 H -1,-6 "
    "-1,-5 -1,-4 I -2,-5 -2,-4 -2,-3 -3,-1 -2,-2 -4,0 -3,0 "
    "J -3,-4 -3,-3 -3,-2 K -4,-3 -4,-2 -4,-1 L -5,-2 "
    "M -5,-1 -5,0 -5,1 -6,1 -6,2 N -6,0 -7,2~ -7,3~ "
    "-7,5~ -7,4~ -6,4 -6,3 -5,5 O P Q -4,5 R "
    "-4,4 -4,3 -5,4 -5,3 -4,2 -5,2 S T -3,5 -3,4 "
    "-3,3 -3,2 -3,1 -4,1 U -2,5 -2,4 -2,3 -2,2 -2,1 "
    "-1,1 -1,0 -1,5 -1,4 -1,3 -1,2 V W 0,4 0,3 "
    "0,2 0,1 0,0 1,-1 1,1 1,0 2,-1 2,-2 X 1,4 "
    "1,3 1,2 Y 2,3 2,2 2,1 3,-1 2,0 4,-2 3,-2 "
    "Z 3,2 3,1 3,0 a 4,1 4,0 4,-1 b 5,0 "
    "c 5,-1 5,-2 5,-3 6,-3 6,-4 d 6,-2 7,-2~ 7,-3~"
)
#: Patches of the rim: column and place in the column of each pixel.
_RIM = {
    "A": "15,-22 16,-22 15,-21 14,-20 17,-22 16,-21 17,-21 18,-21 17,-20",
    "B": "19,-21 18,-20 19,-20 20,-20 17,-19 18,-19 17,-18 18,-18 17,-17",
    "C": "19,-19 20,-19 19,-18 21,-19 20,-18 21,-18 20,-17 22,-18 21,-17",
    "D": "13,-23 12,-22 13,-22 12,-21 14,-23 15,-23 14,-22 13,-21 14,-21",
    "E": "6,-22 8,-23 7,-22 8,-22 7,-21 9,-22 8,-21 9,-21 8,-20",
    "F": "9,-23 10,-23 11,-23 10,-22 12,-23 11,-22 10,-21 11,-21 11,-20",
    "G": "2,-21 4,-22 3,-21 2,-20 5,-22 4,-21 5,-21 6,-21 5,-20",
    "H": "-4,-18 -2,-19 -3,-18 -2,-18 -5,-17 -4,-17 -5,-16 -6,-15 -5,-15",
    "I": "-8,-15 -6,-16 -7,-15 -8,-14 -9,-13 -7,-14 -8,-13 -9,-12 -8,-12",
    "J": "-9,-14 -10,-13 -11,-12 -10,-12 -12,-11 -11,-11 -10,-11 -11,-10 -11,-9",
    "K": "-13,-10 -12,-10 -13,-9 -12,-9 -14,-9 -15,-8 -14,-8 -13,-8 -14,-7",
    "L": "-15,-7 -16,-6 -15,-6 -14,-6 -17,-5 -16,-5 -17,-4 -18,-3 -17,-3",
    "M": "-19,-2 -18,-2 -19,-1 -20,0 -17,-2 -18,-1 -17,-1 -18,0 -17,0",
    "N": "-19,0 -20,1 -21,2 -19,1 -20,2 -21,3 -22,4 -20,3 -21,4",
    "O": "-17,19 -17,20 -16,20 -17,21 -15,19 -14,19 -15,20 -16,21 -14,20",
    "P": "-18,16 -17,16 -18,17 -17,17 -18,18 -17,18 -18,19 -19,20 -18,20",
    "Q": "-20,16 -21,17 -20,17 -21,18 -19,17 -20,18 -19,18 -20,19 -19,19",
    "R": "-12,19 -13,20 -11,19 -12,20 -15,21 -14,21 -15,22 -13,21 -14,22",
    "S": "-8,19 -9,20 -8,20 -9,21 -10,22 -8,21 -9,22 -7,21 -8,22",
    "T": "-11,20 -10,20 -9,19 -10,21 -11,21 -13,22 -12,22 -12,21 -11,22",
    "U": "-6,19 -7,20 -5,19 -6,20 -5,20 -6,21 -4,20 -5,21 -4,21",
    "V": "0,16 -1,17 1,16 0,17 1,17 3,16 2,17 3,17 2,18",
    "W": "-3,19 -1,18 -2,19 -3,20 0,18 -1,19 1,18 -2,20 0,19",
    "X": "6,13 5,14 7,13 6,14 5,15 4,16 6,15 5,16 4,17",
    "Y": "8,11 9,11 8,12 9,12 8,13 10,12 7,14 9,13 8,14",
    "Z": "9,10 11,9 10,10 10,11 12,9 11,10 13,9 12,10 11,11",
    "a": "12,7 11,8 13,7 12,8 15,6 14,7 13,8 15,7 14,8",
    "b": "17,2 17,3 16,4 17,4 15,4 14,5 15,5 14,6 16,5",
    "c": "18,-2 17,-1 18,-1 17,0 18,0 17,1 18,1 19,1 18,2",
    "d": "20,-4 21,-4 20,-3 21,-3 19,-2 20,-2 19,-1 20,-1 19,0",
}


def fact() -> CameraGeometry:
    """Return the camera in the order of CHID, x and y as ctapipe has them; a cluster is a trigger patch."""
    places: list[tuple[int, int]] = []
    for patch in _PATCHES.split():
        if patch in _RIM:
            pairs = (word.split(",") for word in _RIM[patch].split())
            places += [(int(q), int(r)) for q, r in pairs]
            continue
        q, r = (int(word) for word in patch.rstrip("~").split(","))
        sign = -1 if patch.endswith("~") else 1
        places += [(3 * q + sign * dq, 3 * r + 1 + sign * dr) for dq, dr in _BLOCK]
    q, r = np.array(places).T
    scale = np.degrees(PITCH_M / FOCAL_LENGTH_M)
    pixel = np.arange(len(places))
    return camera_from_positions(
        NAME,
        -scale * np.sqrt(0.75) * q,
        scale * (r + (q + 1) / 2),
        cluster=pixel // 9 + 1,
        number=pixel % 9,
        lattice="hexagonal",
        focal_length=FOCAL_LENGTH_M,
    )
