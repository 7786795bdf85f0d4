"""The compiled parser of FACT's photon lists: the text of one event to an image and the arrival times of its pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from apbatch.camera.kernels.decorators import kernel

MALFORMED, WRONG_PIXELS, OUT_OF_RANGE = -1, -2, -3


@kernel
def parse_photons(
    text: npt.NDArray[np.uint8],
    at: int,
    most_slices: int,
    most_photons: int,
    image: npt.NDArray[np.float32],
    peak: npt.NDArray[np.float32],
) -> int:
    """Parse a JSON list of lists of whole numbers from byte `at` on.

    Parameters
    ----------
    text : ndarray of uint8, shape (n_bytes,)
    at : int
        Where the list begins.
    most_slices : int
        Arrival times are less.
    most_photons : int
        Pixels with as many photons or more have no measurement.
    image : ndarray of float32, shape (n_pixels,)
        Takes the number of photons of each pixel.
    peak : ndarray of float32, shape (n_pixels,)
        Takes the median of their arrival times, in time slices; NaN without photons.

    Returns
    -------
    int
        The byte behind the list; or `MALFORMED`, `WRONG_PIXELS`, `OUT_OF_RANGE`.
    """
    n, n_pixels = len(text), len(image)
    histogram = np.zeros(most_slices, np.int32)
    pixel, depth = 0, 0
    count, lowest, highest = 0, most_slices, -1
    wants = True  # a value or a list may follow: after '[' and ','
    while at < n:
        c = text[at]
        if c == 32 or c == 9:
            at += 1
        elif c == 91:  # [
            if depth == 2 or not wants:
                return MALFORMED
            depth += 1
            wants = True
            if depth == 2:
                if pixel >= n_pixels:
                    return WRONG_PIXELS
                count, lowest, highest = 0, most_slices, -1
            at += 1
        elif c == 93:  # ]
            if depth == 2:
                if wants and count > 0:
                    return MALFORMED  # a comma before it
                image[pixel] = count if count < most_photons else np.nan
                if count == 0 or count >= most_photons:
                    peak[pixel] = np.nan
                    for k in range(lowest, highest + 1):
                        histogram[k] = 0
                else:
                    # The two in the middle (one, if their number is odd).
                    below, first, second = 0, -1, -1
                    for k in range(lowest, highest + 1):
                        below += histogram[k]
                        if first < 0 and below > (count - 1) // 2:
                            first = k
                        if second < 0 and below > count // 2:
                            second = k
                        histogram[k] = 0
                    peak[pixel] = 0.5 * (first + second)
                pixel += 1
                depth = 1
                wants = False
                at += 1
            elif depth == 1:
                if wants and pixel > 0:
                    return MALFORMED
                return at + 1 if pixel == n_pixels else WRONG_PIXELS
            else:
                return MALFORMED
        elif c == 44:  # ,
            if wants:
                return MALFORMED
            wants = True
            at += 1
        elif 48 <= c <= 57:
            if depth != 2 or not wants:
                return MALFORMED
            value = 0
            while at < n and 48 <= text[at] <= 57:
                value = value * 10 + (text[at] - 48)
                if value >= most_slices:
                    return OUT_OF_RANGE
                at += 1
            histogram[value] += 1
            count += 1
            lowest, highest = min(lowest, value), max(highest, value)
            wants = False
        else:
            return MALFORMED
    return MALFORMED
