"""What plots of reports share: their style, pictures of cameras, and figures as text for a page."""

from __future__ import annotations

import base64
import io

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from apbatch.camera.geometry import CameraGeometry

#: Style of every plot.
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "axes.edgecolor": "#888",
    "axes.titlesize": 10.5,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "apbatch",  # equal figures have equal bytes
    "font.family": "sans-serif",
}


def camera_picture(
    axes: Axes, image: npt.NDArray[np.float32], camera: CameraGeometry, top: float, cmap: str = "magma"
) -> PolyCollection:
    """Draw one image, shape (n_pixels,) in p.e., as the hexagons of its camera; `top` is log10(1 + p.e.).

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    image : ndarray of float32, shape (n_pixels,)
        p.e.
    camera : CameraGeometry
    top : float
        log10(1 + p.e.) of the brightest colour.
    cmap : str
        Name of a colour map.
    """
    # A corner points between two neighbours: 30 degrees from the direction to one of them.
    near = camera.neighbours[:, 0]
    first = int(np.flatnonzero(near >= 0)[0])
    direction = np.arctan2(camera.y[near[first]] - camera.y[first], camera.x[near[first]] - camera.x[first])
    turn = direction + np.radians(np.arange(30, 390, 60))
    corners = np.stack([np.cos(turn), np.sin(turn)], axis=1) * camera.pitch / np.sqrt(3)
    hexagons = np.stack([camera.x, camera.y], axis=1)[:, None, :] + corners
    values = np.log10(1 + np.maximum(np.nan_to_num(image), 0))
    pixels = PolyCollection(list(hexagons), array=values, cmap=cmap, edgecolors="none")
    pixels.set_clim(0, top)
    axes.add_collection(pixels)
    margin = camera.pitch
    axes.set(
        xlim=(camera.x.min() - margin, camera.x.max() + margin),
        ylim=(camera.y.min() - margin, camera.y.max() + margin),
        aspect="equal",
    )
    axes.set_axis_off()
    return pixels


def png(figure: Figure) -> str:
    """Return a figure as the data URL of a PNG for a page, and close it."""
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=130, metadata={"Software": None})
    plt.close(figure)
    return "data:image/png;base64," + base64.b64encode(sink.getvalue()).decode()


def svg(figure: Figure) -> str:
    """Return a figure as SVG text for a page, and close it."""
    sink = io.StringIO()
    figure.savefig(sink, format="svg", metadata={"Date": None})
    plt.close(figure)
    text = sink.getvalue()
    return text[text.index("<svg") :]
