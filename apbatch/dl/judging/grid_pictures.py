"""One camera image under every grid method, to see what a network would be given."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt

from apbatch.camera.geometry import CameraGeometry
from apbatch.camera.grid import METHODS, grid_of, to_grid
from apbatch.dl.judging.plots import STYLE, camera_picture, png


def grid_pictures(image: npt.NDArray[np.float32], camera: CameraGeometry) -> str:
    """Draw an image in its camera and on the grid of each method; return the data URL of a PNG.

    Parameters
    ----------
    image : ndarray of float32, shape (n_pixels,)
        Photo-electrons; NaN is drawn as 0.
    camera : CameraGeometry

    Raises
    ------
    UsageError
        If the image is not of this camera.
    """
    grids = {method: to_grid(image[None], camera, method=method)[0] for method in METHODS}
    top = float(np.log10(1 + float(np.nan_to_num(image).max(initial=1.0))))
    with plt.rc_context({**STYLE, "axes.grid": False}):
        figure, panels = plt.subplots(2, 4, figsize=(11.0, 6.0))
        camera_picture(panels[0, 0], image, camera, top)
        panels[0, 0].set_title(camera.name, fontsize=9)
        for axes, (method, grid) in zip(panels.flat[1:], grids.items(), strict=True):
            empty = ~grid_of(camera, method).occupied
            light = np.where(empty, np.nan, np.log10(1 + np.maximum(grid, 0)))
            axes.imshow(light, origin="lower", cmap="magma", vmin=0, vmax=top, interpolation="nearest")
            axes.set_title(f"{method}, {grid.shape[0]} x {grid.shape[1]}", fontsize=9)
            axes.set_axis_off()
        figure.tight_layout()
        return png(figure)
