"""Grid cases: camera images on square grids, against dl1-data-handler and against copying the grids in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from apbatch.bench.case import Case, Operation
from apbatch.bench.runner import Group
from apbatch.bench.suite import Setting
from apbatch.camera.geometry import CameraGeometry, camera_from_positions
from apbatch.camera.grid import METHODS, Grid, grid_of, to_grid
from apbatch.camera.instruments.registry import camera_named
from apbatch.errors import VerificationError

OURS, PEER, COPY = "apbatch", "dl1-data-handler", "memory copy"
#: Images in a batch: what is written to is used again for the next one.
BATCH = 256
#: Pixels of the large camera: that of a CTA large-sized telescope.
LARGE = 1855
#: Memory (bytes) that the peer may take for one table; its rebinning wants more than 8 GB for 560 pixels.
_ENOUGH = 2e9

_PEER_CLASSES = {"nearest": "NearestNeighborMapper", "rebinning": "RebinMapper"}


def grid_groups(setting: Setting) -> Iterator[Group]:
    """Yield the groups of the grids suite: every method, for 560 and for 1,855 pixels."""
    count = setting.size.images
    for camera in (camera_named("TAIGA-IACT01"), _large_camera()):
        images = np.random.default_rng(7).exponential(3.0, (count, camera.n_pixels)).astype(np.float32)
        for method in METHODS:
            grid = grid_of(camera, method)
            operation = Operation(
                "grids",
                f"{method}, {camera.n_pixels} pixels",
                f"{count} images of {camera.n_pixels} pixels to {grid.rows} x {grid.cols} cells, in batches of {BATCH} "
                f"that are written into one array. {PEER}: map_image for image after image, as its reader does. "
                f"{COPY}: the images and the grids once.",
                "images/s",
                float(count),
                COPY,
                PEER,
                "cpu",
            )
            cases: list[Case] = [_Ours(operation, images, camera, grid), _Copy(operation, images, grid)]
            try:
                cases.append(_Peer(operation, images, _peer(camera, method)))
            except _CanNotTakePartError as reason:
                setting.left_out[f"{PEER}, {operation.name}"] = str(reason)
            yield Group(operation, cases)


def _large_camera() -> CameraGeometry:
    """Return a round camera of hexagonal pixels with a pitch of 0.1 degrees."""
    steps = np.arange(-30, 31)
    q, r = (axis.ravel() for axis in np.meshgrid(steps, steps))
    x, y = 0.1 * (q + r / 2), 0.1 * np.sqrt(0.75) * r
    inner = np.argsort(np.hypot(x, y), kind="stable")[:LARGE]
    return camera_from_positions(f"round-{LARGE}", x[inner], y[inner])


class _CanNotTakePartError(Exception):
    """Why the peer can't take part."""


def peer_geometry(camera: CameraGeometry) -> Any:
    """Return a camera as dl1-data-handler wants it.

    It rounds positions to millimetres: pixels are put a kilometre apart, so that there is nothing to lose.

    Raises
    ------
    ImportError
        If ctapipe is not installed.
    """
    import astropy.units as u
    from ctapipe.instrument import CameraGeometry as PeerGeometry
    from ctapipe.instrument.camera import PixelShape

    scale = 1000 / camera.pitch
    return PeerGeometry(
        name=camera.name,
        pix_id=np.arange(camera.n_pixels),
        pix_x=camera.x * scale * u.m,
        pix_y=camera.y * scale * u.m,
        pix_area=np.full(camera.n_pixels, scale**2) * u.m**2,
        pix_type=PixelShape.HEXAGON,
        pix_rotation="0d",
        cam_rotation="0d",
    )


def _peer(camera: CameraGeometry, method: str) -> Any:
    """Return dl1-data-handler's mapper for a camera.

    Raises
    ------
    _CanNotTakePartError
    """
    try:
        from dl1_data_handler import image_mapper

        geometry = peer_geometry(camera)
    except ImportError as error:
        raise _CanNotTakePartError(f"{error}; pip install ctapipe && pip install --no-deps dl1-data-handler") from error
    grid = grid_of(camera, "nearest")
    padded = grid.rows + 6
    table = 4.0 * (10 * padded) ** 2 * padded**2
    if method == "rebinning" and table > _ENOUGH:
        raise _CanNotTakePartError(f"its table would take {table / 1e9:.0f} GB of memory before it is made sparse")
    try:
        mapper: Callable[..., Any] = getattr(image_mapper, _PEER_CLASSES.get(method, f"{method.capitalize()}Mapper"))
        return mapper(geometry, subarray=None)
    except (ValueError, IndexError) as error:
        raise _CanNotTakePartError(f"it fails for this camera: {error}") from error


class _GridCase(Case):
    def __init__(
        self, operation: Operation, peer: str, images: npt.NDArray[np.float32], shape: tuple[int, int]
    ) -> None:
        super().__init__(operation, peer, bytes=4 * len(images) * shape[0] * shape[1])
        self.images = images
        self.out = np.empty((BATCH, *shape), np.float32)

    def prepare(self) -> None:
        self.out.fill(np.nan)

    def batches(self) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
        """Yield each batch of images and what it is written into."""
        for first in range(0, len(self.images), BATCH):
            batch = self.images[first : first + BATCH]
            yield batch, self.out[: len(batch)]

    def compare(self, matrix: Any) -> None:
        """Compare the last batch with the images times the map."""
        last = self.images[(len(self.images) - 1) // BATCH * BATCH :]
        expected = last @ matrix
        if not np.allclose(self.out[: len(last)].reshape(len(last), -1), expected, rtol=1e-4, atol=1e-4):
            raise VerificationError("grids are not what the map gives")


class _Ours(_GridCase):
    def __init__(
        self, operation: Operation, images: npt.NDArray[np.float32], camera: CameraGeometry, grid: Grid
    ) -> None:
        super().__init__(operation, OURS, images, (grid.rows, grid.cols))
        self.camera, self.grid = camera, grid

    def run(self) -> None:
        for batch, out in self.batches():
            to_grid(batch, self.camera, method=self.grid.method, out=out)

    def check(self) -> None:
        self.compare(self.grid.matrix.T.astype(np.float32))


class _Peer(_GridCase):
    def __init__(self, operation: Operation, images: npt.NDArray[np.float32], mapper: Any) -> None:
        super().__init__(operation, PEER, images, (mapper.image_shape, mapper.image_shape))
        self.mapper = mapper

    def run(self) -> None:
        for batch, out in self.batches():
            for image, grid in zip(batch, out, strict=True):
                grid[:] = self.mapper.map_image(image[:, None])[:, :, 0]

    def check(self) -> None:
        self.compare(self.mapper.mapping_table)


class _Copy(_GridCase):
    """What the memory of the machine gives: reading the images, writing the grids, no work between."""

    def __init__(self, operation: Operation, images: npt.NDArray[np.float32], grid: Grid) -> None:
        super().__init__(operation, COPY, images, (grid.rows, grid.cols))
        self.read = np.empty((BATCH, images.shape[1]), np.float32)

    def run(self) -> None:
        for batch, out in self.batches():
            np.copyto(self.read[: len(batch)], batch)
            out.fill(1.0)

    def check(self) -> None:
        if np.isnan(self.out).any() and len(self.images) >= BATCH:
            raise VerificationError("grids were not written")
