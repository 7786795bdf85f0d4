"""Camera images of events: pixels, cleaning, parameters, a picture before and after cleaning."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from apbatch.access.event_image import EventImage
from apbatch.camera.cleaning import clean, cleaning_named
from apbatch.camera.geometry import CameraGeometry
from apbatch.camera.grid import to_grid
from apbatch.camera.hillas import hillas
from apbatch.client.transport import EventKey
from apbatch.errors import MissingSoftwareError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Image:
    """The image of one event.

    Parameters
    ----------
    key : tuple
        Experiment, run, event and telescope.
    image : EventImage
    cleaning : str
        Name of a cleaning, such as ``standard`` or ``tailcuts-10-5``.
    """

    def __init__(self, key: EventKey, image: EventImage, cleaning: str) -> None:
        self.key = key
        self.camera: CameraGeometry = image.camera
        self.pixels = image.pixels
        self.times = image.times
        self.cleaning = cleaning_named(cleaning)

    def __repr__(self) -> str:
        return f"<image of {' '.join(map(str, self.key))}, {self.camera.name}, {self.camera.n_pixels} pixels>"

    @cached_property
    def mask(self) -> npt.NDArray[np.bool_]:
        """Pixels that the cleaning keeps, shape (n_pixels,)."""
        times = None if self.times is None else self.times[None, :]
        kept: npt.NDArray[np.bool_] = clean(self.pixels[None, :], self.camera, self.cleaning, peak_time=times)[0]
        return kept

    def parameters(self, cleaned: bool = True) -> dict[str, float]:
        """Return the image parameters, of the cleaned image or of all pixels."""
        columns = hillas(self.pixels[None, :], self.camera, self.mask[None, :] if cleaned else None)
        return {name: float(values[0]) for name, values in columns.items()}

    def grid(self, cleaned: bool = False, method: str = "axial") -> npt.NDArray[np.float32]:
        """Return the image on the square grid, shape (rows, columns)."""
        mask = self.mask[None, :] if cleaned else None
        grids: npt.NDArray[np.float32] = to_grid(self.pixels[None, :], self.camera, mask, method)
        return np.asarray(grids[0], np.float32)

    def plot(self) -> Figure:
        """Return a picture: before and after cleaning, the Hillas ellipse on the cleaned image.

        Raises
        ------
        MissingSoftwareError
            Without matplotlib.
        """
        try:
            from matplotlib.collections import RegularPolyCollection
            from matplotlib.figure import Figure
            from matplotlib.patches import Ellipse
        except ImportError as error:
            raise MissingSoftwareError("matplotlib is not installed", remedy="pip install matplotlib") from error
        camera = self.camera
        figure = Figure(figsize=(11, 4.8), layout="constrained")
        corners, turn = (6, 0.0) if camera.lattice == "hexagonal" else (4, np.pi / 4)
        finite = self.pixels[np.isfinite(self.pixels)]
        span = (min(0.0, float(finite.min())), float(finite.max())) if len(finite) else (0.0, 1.0)
        pixels: Any = None
        for number, (title, kept) in enumerate((("before cleaning", None), (self.cleaning.name, self.mask))):
            axes = figure.add_subplot(1, 2, number + 1, aspect="equal", title=title, xlabel="x, deg", ylabel="y, deg")
            edge = 1.1 * max(np.abs(camera.x).max(), np.abs(camera.y).max())
            axes.set_xlim(-edge, edge)
            axes.set_ylim(-edge, edge)
            figure.draw_without_rendering()
            points = axes.transData.transform([(0, 0), (camera.pitch, 0)])
            size = float(np.pi * (np.diff(points[:, 0])[0] * 72 / figure.dpi / np.sqrt(3 if corners == 6 else 2)) ** 2)
            pixels = RegularPolyCollection(
                corners,
                rotation=turn,
                sizes=(size,),
                offsets=np.stack([camera.x, camera.y], axis=1),
                offset_transform=axes.transData,
                cmap="viridis",
            )
            values = np.where(kept, self.pixels, np.nan) if kept is not None else self.pixels
            pixels.set_array(values)
            pixels.set_clim(*span)
            axes.add_collection(pixels)
        moments = self.parameters()
        if np.isfinite(moments["psi"]):
            axes.add_patch(
                Ellipse(
                    (moments["cog_x"], moments["cog_y"]),
                    2 * moments["length"],
                    2 * moments["width"],
                    angle=moments["psi"],
                    fill=False,
                    edgecolor="red",
                    linewidth=1.5,
                )
            )
        figure.colorbar(pixels, ax=figure.axes, label="p.e.")
        return figure

    def _repr_png_(self) -> bytes:
        from io import BytesIO

        target = BytesIO()
        self.plot().savefig(target, format="png", dpi=90)
        return target.getvalue()
