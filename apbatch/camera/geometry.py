"""Camera geometry: pixel positions, neighbours, axial coordinates of a hexagonal camera.

Positions are in degrees on the sky as seen in the camera (``cm x 0.1206`` for TAIGA, whose focal length is 4.75 m).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from apbatch.errors import FormatError, NotFoundError, nearest_word

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: Steps (dq, dr) to the six neighbours of a pixel in axial coordinates.
DIRECTIONS = ((1, 0), (0, 1), (-1, 1), (-1, 0), (0, -1), (1, -1))
#: How far a pixel may lie from its lattice point, in pitches, before the camera is refused as not hexagonal.
_TOLERANCE = 0.3


@dataclass(frozen=True, eq=False)
class CameraGeometry:
    """A camera of hexagonal pixels.

    Attributes
    ----------
    name : str
        Name by which images refer to it.
    x, y : ndarray of shape (n_pixels,)
        Pixel centres, deg.
    pitch : float
        Distance of neighbouring pixel centres, deg.
    neighbours : ndarray of shape (n_pixels, 6)
        Indices of neighbouring pixels, ascending, padded with -1.
    q, r : ndarray of shape (n_pixels,)
        Axial coordinates of each pixel, smallest 0.
    cluster : ndarray of shape (n_pixels,)
        Number of the read-out cluster, from 1; 0 where the camera has none.
    number : ndarray of shape (n_pixels,)
        Number of the pixel in its cluster (for TAIGA: the even, high-gain channel).
    """

    name: str
    x: Floats
    y: Floats
    pitch: float
    neighbours: Ints
    q: Ints
    r: Ints
    cluster: Ints
    number: Ints

    def __post_init__(self) -> None:
        # Cameras are shared by name; nobody may change the one that others use.
        for array in (self.x, self.y, self.neighbours, self.q, self.r, self.cluster, self.number):
            array.setflags(write=False)

    @property
    def n_pixels(self) -> int:
        """Number of pixels."""
        return len(self.x)

    @property
    def edge(self) -> npt.NDArray[np.bool_]:
        """Pixels with fewer than six neighbours."""
        return np.asarray((self.neighbours < 0).any(axis=1))

    def index(self, cluster: Ints, number: Ints) -> Ints:
        """Return the index of the pixels with these cluster and pixel numbers, -1 where there is none."""
        keys = self.cluster * _KEY_STRIDE + self.number
        order = np.argsort(keys)
        wanted = np.asarray(cluster, np.int64) * _KEY_STRIDE + np.asarray(number, np.int64)
        place = np.minimum(np.searchsorted(keys[order], wanted), len(keys) - 1)
        found = order[place]
        return np.where(keys[found] == wanted, found, -1)


#: More than any number of a pixel in its cluster.
_KEY_STRIDE = 1 << 20

_CAMERAS: dict[str, Callable[[], CameraGeometry]] = {}


def register_camera(name: str, make: Callable[[], CameraGeometry]) -> None:
    """Make a camera known by name."""
    _CAMERAS[name] = make
    _made.cache_clear()


def cameras() -> list[str]:
    """Return the names of the known cameras, sorted."""
    import apbatch.camera.taiga  # noqa: F401  registers its cameras; it imports this module

    return sorted(_CAMERAS)


def camera_named(name: str) -> CameraGeometry:
    """Return the camera with this name.

    Raises
    ------
    NotFoundError
        With the nearest known name.
    """
    known = cameras()
    if name not in _CAMERAS:
        raise NotFoundError(
            f"there is no camera '{name}'",
            nearest=nearest_word(name, known),
            remedy=f"known cameras: {', '.join(known)}",
        )
    return _made(name)


@cache
def _made(name: str) -> CameraGeometry:
    return _CAMERAS[name]()


def camera_from_positions(
    name: str,
    x: Floats,
    y: Floats,
    *,
    cluster: Ints | None = None,
    number: Ints | None = None,
) -> CameraGeometry:
    """Make a camera from the centres of its pixels: pitch, orientation, axial coordinates and neighbours are found.

    Parameters
    ----------
    name : str
        Name of the camera.
    x, y : ndarray of shape (n_pixels,)
        Pixel centres, deg.
    cluster, number : ndarray of shape (n_pixels,), optional
        Numbers of clusters, and of pixels in their cluster (default: no clusters, index as number).

    Raises
    ------
    FormatError
        If the pixels do not lie on one hexagonal lattice, or two lie on the same place.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if len(x) < 3 or len(x) != len(y) or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise FormatError("a camera needs three pixels or more with finite positions", where=name)
    q, r, pitch = axial_coordinates(x, y, name)
    return CameraGeometry(
        name=name,
        x=x.copy(),
        y=y.copy(),
        pitch=pitch,
        neighbours=neighbours_of(q, r),
        q=q,
        r=r,
        cluster=np.zeros(len(x), np.int64) if cluster is None else np.asarray(cluster, np.int64).copy(),
        number=np.arange(len(x)) if number is None else np.asarray(number, np.int64).copy(),
    )


def axial_coordinates(x: Floats, y: Floats, name: str = "camera") -> tuple[Ints, Ints, float]:
    """Find the hexagonal lattice on which the points lie.

    Returns
    -------
    q, r : ndarray of shape (n_pixels,)
        Axial coordinates, smallest 0: ``position = origin + q a + r b`` with `a` the lattice vector nearest
        above -15 degrees from the x axis and `b` 60 degrees further.
    pitch : float
        Length of the lattice vectors, in the unit of the positions.

    Raises
    ------
    FormatError
        If they do not lie on one.
    """
    dx, dy = x[:, None] - x, y[:, None] - y
    distance = np.hypot(dx, dy)
    np.fill_diagonal(distance, np.inf)
    pitch = float(np.median(distance.min(axis=1)))
    near = distance < 1.2 * pitch
    if pitch <= 0 or not near.any():
        raise FormatError("two pixels lie on the same place", where=name)
    # Directions to neighbours repeat every 60 degrees: average them as angles of a sixfold figure.
    angles = np.arctan2(dy[near], dx[near])
    direction = float(np.angle(np.exp(6j * angles).mean())) / 6
    if direction < np.radians(-15):
        direction += np.pi / 3
    basis = pitch * np.array(
        [[np.cos(direction), np.sin(direction)], [np.cos(direction + np.pi / 3), np.sin(direction + np.pi / 3)]]
    )
    positions = np.column_stack([x, y])
    first = int(np.argmin(np.hypot(x - x.mean(), y - y.mean())))  # from the centre: errors grow with distance
    origin = positions[first]
    axial = np.zeros_like(positions)
    for _ in range(3):  # an error of the pitch adds up over the camera: fit the lattice, and round again
        axial = np.rint((positions - origin) @ np.linalg.inv(basis))
        design = np.column_stack([axial, np.ones(len(x))])
        solution, _, rank, _ = np.linalg.lstsq(design, positions, rcond=None)
        if rank < 3:
            raise FormatError("the pixels lie on one line", where=name)
        basis, origin = solution[:2], solution[2]
    off = np.hypot(*(positions - np.column_stack([axial, np.ones(len(x))]) @ solution).T)
    lengths = np.hypot(basis[:, 0], basis[:, 1])
    skew = float(basis[0] @ basis[1] / lengths.prod())
    worst = int(np.argmax(off))
    if off[worst] > _TOLERANCE * pitch or abs(skew - 0.5) > 0.05 or abs(lengths[0] / lengths[1] - 1) > 0.05:
        raise FormatError(
            f"the pixels are not on one hexagonal lattice (pixel {worst} is {off[worst] / pitch:.2f} pitches off)",
            where=name,
            remedy="only cameras of hexagonal pixels can be used",
        )
    q, r = (axial - axial.min(axis=0)).astype(np.int64).T
    if len(np.unique(np.column_stack([q, r]), axis=0)) < len(q):
        raise FormatError("two pixels lie on the same place", where=name)
    return q.copy(), r.copy(), float(lengths.mean())


def neighbours_of(q: Ints, r: Ints) -> Ints:
    """Return the neighbours of pixels by their axial coordinates.

    Returns
    -------
    ndarray of shape (n_pixels, 6)
        Indices, ascending, padded with -1.
    """
    board = np.full((int(q.max()) + 3, int(r.max()) + 3), -1, np.int64)
    board[q + 1, r + 1] = np.arange(len(q))
    found = np.column_stack([board[q + 1 + dq, r + 1 + dr] for dq, dr in DIRECTIONS])
    found[found < 0] = len(q)  # sorts behind every index
    found.sort(axis=1)
    found[found == len(q)] = -1
    return np.ascontiguousarray(found)
