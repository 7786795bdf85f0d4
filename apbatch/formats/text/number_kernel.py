"""The compiled parser of lines of numbers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from apbatch.camera.kernels.decorators import kernel

#: A line with something else than plain numbers, which Python has to look at.
STRANGE = -1


@kernel
def parse_numbers(
    text: npt.NDArray[np.uint8],
    begins: npt.NDArray[np.int64],
    powers: npt.NDArray[np.float64],
    counts: npt.NDArray[np.int64],
    values: npt.NDArray[np.float64],
) -> None:
    """Parse the decimal numbers of every line, correctly rounded.

    Digits are gathered in an integer and divided or multiplied by a power of ten. Both are exact up to 2^53 and 10^22,
    so the result is the nearest double (W. D. Clinger, PLDI 1990, doi:10.1145/93542.93557). Longer numbers, ``nan``
    and whatever else makes the line strange.

    Parameters
    ----------
    text : ndarray of uint8
    begins : ndarray of int64, shape (n_lines + 1,)
        Where lines begin, and where the last one ends.
    powers : ndarray of float64, shape (23,)
        Of ten.
    counts : ndarray of int64, shape (n_lines,)
        Takes the number of words of each line, or `STRANGE`.
    values : ndarray of float64, shape (n_lines, most)
        Takes its first numbers.
    """
    most = values.shape[1]
    for line in range(len(counts)):
        at, end, count = begins[line], begins[line + 1], 0
        while True:
            while at < end and (text[at] == 32 or 9 <= text[at] <= 13):
                at += 1
            if at >= end:
                break
            negative = text[at] == 45
            if negative or text[at] == 43:
                at += 1
            mantissa, digits, exponent, has_digits = 0, 0, 0, False
            point = False
            while at < end:
                c = text[at]
                if 48 <= c <= 57:
                    has_digits = True
                    if mantissa > 0 or c > 48:
                        digits += 1
                    if digits <= 15:
                        mantissa = mantissa * 10 + (c - 48)
                    if point:
                        exponent -= 1
                elif c == 46 and not point:
                    point = True
                else:
                    break
                at += 1
            if at < end and has_digits and (text[at] == 101 or text[at] == 69):  # e, E
                at += 1
                minus = at < end and text[at] == 45
                if at < end and (minus or text[at] == 43):
                    at += 1
                power, figures = 0, 0
                while at < end and 48 <= text[at] <= 57 and figures < 6:
                    power = power * 10 + (text[at] - 48)
                    figures += 1
                    at += 1
                has_digits = figures > 0
                exponent += -power if minus else power
            fine = has_digits and digits <= 15 and -22 <= exponent <= 22
            if not fine or (at < end and not (text[at] == 32 or 9 <= text[at] <= 13)):
                count = STRANGE
                break
            if count < most:
                value = float(mantissa)
                value = value / powers[-exponent] if exponent < 0 else value * powers[exponent]
                values[line, count] = -value if negative else value
            count += 1
        counts[line] = count
