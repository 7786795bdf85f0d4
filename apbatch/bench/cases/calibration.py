"""Calibration case: ADC codes to mended photo-electrons, against plain numpy and against copying the codes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from apbatch.bench.case import Case, Operation
from apbatch.bench.runner import Group
from apbatch.bench.suite import Setting
from apbatch.camera.badpixels import repair
from apbatch.camera.calibration import HIGH_GAIN_LIMIT, QUARTERS, photo_electrons
from apbatch.camera.instruments.registry import camera_named
from apbatch.errors import VerificationError

APBATCH, NUMPY, COPY = "apbatch", "numpy", "copy"
_BAD_PIXELS, _SATURATED = 8, 0.01


def calibration_group(setting: Setting) -> Group:
    """Return the group of the calibration: choice of gain, pedestals, factors, and mending of bad pixels."""
    count, camera, draw = setting.size.images, camera_named("TAIGA-IACT01"), np.random.default_rng(5)
    shape = (camera.n_pixels, 2)
    pedestal = draw.uniform(150, 300, shape)
    factors = np.column_stack([draw.uniform(8, 12, shape[0]) / k for k in (1, 4.3)])
    charge = np.where(draw.random((count, shape[0])) < _SATURATED, 400.0, draw.exponential(3.0, (count, shape[0])))
    codes = np.minimum(charge[..., None] * factors + pedestal, 4000.0)
    bad = np.zeros(shape[0], np.bool_)
    bad[draw.choice(shape[0], _BAD_PIXELS, replace=False)] = True
    data = ((codes * QUARTERS).astype(np.uint16), pedestal, factors, camera, bad)
    operation = Operation(
        "kernels",
        f"calibrate, {shape[0]} pixels",
        f"{count} simulated images of {shape[0]} pixels in two gains: low gain where the high one is saturated "
        f"({_SATURATED:.0%} of the pixels), pedestals, factors, and {_BAD_PIXELS} bad pixels that become the mean of "
        "their neighbours. numpy: the same in whole arrays. copy: the codes read, as many floats written.",
        "images/s",
        float(count),
        COPY,
        NUMPY,
        "cpu",
    )
    cases = [*(_Calibrate(operation, peer, data) for peer in (APBATCH, NUMPY)), _Copy(operation, data)]
    return Group(operation, cases)


def _by_numpy(adc: Any, pedestal: Any, factors: Any, camera: Any, bad: Any) -> npt.NDArray[np.float32]:
    above = adc.astype(np.float32) / np.float32(QUARTERS) - pedestal.astype(np.float32)
    pe = above / factors.astype(np.float32)
    images = np.where(above[..., 0] > HIGH_GAIN_LIMIT, pe[..., 1], pe[..., 0])
    for pixel in np.flatnonzero(bad):
        near = camera.neighbours[pixel]
        near = near[near >= 0]
        images[:, pixel] = images[:, near[~bad[near]]].mean(axis=1)
    return np.asarray(images, np.float32)


class _Calibrate(Case):
    """Proof: the images of both peers agree."""

    def __init__(self, operation: Operation, peer: str, data: Any) -> None:
        super().__init__(operation, peer, data[0].nbytes)
        self._data = data
        self._result: npt.NDArray[np.float32] = np.empty(0, np.float32)

    def run(self) -> None:
        adc, pedestal, factors, camera, bad = self._data
        if self.peer == APBATCH:
            self._result = repair(photo_electrons(adc, pedestal, factors), camera, bad).images
        else:
            self._result = _by_numpy(*self._data)

    def check(self) -> None:
        if not np.allclose(self._result, _by_numpy(*self._data), rtol=1e-4, atol=1e-4):
            raise VerificationError("amplitudes are not what the definition gives")


class _Copy(Case):
    """Proof: every word that was written is a copy."""

    def __init__(self, operation: Operation, data: Any) -> None:
        super().__init__(operation, COPY, data[0].nbytes)
        self._words = data[0].reshape(-1).view(np.float32)
        self._out = np.empty_like(self._words)

    def run(self) -> None:
        np.copyto(self._out, self._words)

    def check(self) -> None:
        if self._out.tobytes() != self._words.tobytes():
            raise VerificationError("the copy differs")
