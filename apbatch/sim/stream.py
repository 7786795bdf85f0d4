"""A stream of random numbers for what draws a dozen of them at each step: one takes 1 ns, numba's own generator 7.

References
----------
D. Blackman and S. Vigna, Scrambled linear pseudorandom number generators, ACM Trans. Math. Softw. 47 (2021) 36:
xoroshiro128+ with the shifts 24, 16 and 37, of which the upper 53 bits are taken.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from apbatch.sim.kernel import inner

Stream = npt.NDArray[np.uint64]


def make_stream(seed: int) -> Stream:
    """Return the state of a stream, two words, which `uniform` moves on.

    Parameters
    ----------
    seed : int
        Any number of bits; streams of different seeds are independent.
    """
    return np.random.SeedSequence(seed).generate_state(2, np.uint64).astype(np.uint64)


@inner
def uniform(stream: Stream) -> float:
    """Draw a number, evenly from 0 to below 1."""
    one, two = stream[0], stream[1]
    total = one + two
    two ^= one
    stream[0] = ((one << np.uint64(24)) | (one >> np.uint64(40))) ^ two ^ (two << np.uint64(16))
    stream[1] = (two << np.uint64(37)) | (two >> np.uint64(27))
    return float(total >> np.uint64(11)) * 1.1102230246251565e-16  # 2^-53


@inner
def point_in_disc(stream: Stream) -> tuple[float, float, float]:
    """Return a random point of the unit disc and the square of its distance from the centre.

    The square is even between 0 and 1 and does not depend on the azimuth, so one point gives both of them without a
    sine or cosine (G. Marsaglia and T. A. Bray, SIAM Rev. 6 (1964) 260).
    """
    while True:
        a, b = 2.0 * uniform(stream) - 1.0, 2.0 * uniform(stream) - 1.0
        square = a * a + b * b
        if 0.0 < square < 1.0:
            return a, b, square
