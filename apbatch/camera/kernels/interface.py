"""What kernels on batches of images compute: the functions that `vectorised` and `plain` both have."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from apbatch.camera.cleaning_rule import Cleaning
from apbatch.camera.geometry import CameraGeometry, Floats, Ints

Images = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


class Kernels(Protocol):
    """Functions on batches; arrays are contiguous and fit together, results go into arrays of the caller."""

    def clean(
        self,
        images: Images,
        picture: Images,
        boundary: Images,
        cleaning: Cleaning,
        camera: CameraGeometry,
        mask: Mask,
    ) -> None:
        """Tell which pixels the rule of two levels keeps.

        Parameters
        ----------
        images : ndarray of float32, shape (n_images, n_pixels)
            p.e.; NaN is a pixel without a measurement, which is never kept.
        picture, boundary : ndarray of float32, shape (1, 1), (1, n_pixels) or (n_images, n_pixels)
            Levels, p.e.; a pixel whose level is NaN is never kept.
        cleaning : Cleaning
            Of which `min_neighbours` and `keep_isolated` count here.
        camera : CameraGeometry
        mask : ndarray of bool, shape (n_images, n_pixels)
            Gets the result.
        """

    def parametrise(
        self, images: Images, mask: Mask, camera: CameraGeometry, source: tuple[float, float], table: Floats
    ) -> None:
        """Compute the image parameters of pixels that a mask keeps and whose amplitude is above 0 and finite.

        Parameters
        ----------
        images : ndarray of float32, shape (n_images, n_pixels)
            p.e.
        mask : ndarray of bool, shape (1, n_pixels) or (n_images, n_pixels)
        camera : CameraGeometry
        source : (float, float)
            Place of the source, deg.
        table : ndarray of float64, shape (n_parameters, n_images)
            Gets a row for each of `apbatch.camera.parameters.PARAMETERS`.
        """

    def clean_and_parametrise(
        self,
        images: Images,
        picture: Images,
        boundary: Images,
        cleaning: Cleaning,
        camera: CameraGeometry,
        source: tuple[float, float],
        mask: Mask,
        table: Floats,
    ) -> None:
        """Do both in one pass: see `Kernels.clean` and see `Kernels.parametrise`."""

    def apply_map(
        self,
        images: Images,
        mask: Mask | None,
        start: Ints,
        pixel: Ints,
        weight: npt.NDArray[np.float32],
        grids: npt.NDArray[np.float32],
    ) -> None:
        """Apply a sparse map from pixels to cells; amplitudes that are NaN or not kept count as 0.

        Parameters
        ----------
        images : ndarray of float32, shape (n_images, n_pixels)
            p.e.
        mask : ndarray of bool, shape (n_images, n_pixels), optional
            Pixels to take; all by default.
        start : ndarray of int64, shape (n_cells + 1,)
            Entries ``start[c]`` to ``start[c + 1]`` of the next two belong to cell c.
        pixel : ndarray of int64, shape (n_entries,)
        weight : ndarray of float32, shape (n_entries,)
        grids : ndarray of float32, shape (n_images, n_cells)
            Gets the result, p.e.; the terms of a cell are added in their order, in single precision.
        """

    def halo(self, images: Images, camera: CameraGeometry, source: tuple[float, float], table: Floats) -> None:
        """Compute the halo parameters.

        Parameters
        ----------
        images : ndarray of float32, shape (n_images, n_pixels)
            p.e., not cleaned.
        camera : CameraGeometry
        source : (float, float)
            Place of the source, deg.
        table : ndarray of float64, shape (n_columns, n_images)
            Gets a row for each of `apbatch.camera.halo_columns.HALO`.
        """
