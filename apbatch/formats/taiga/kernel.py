"""The compiled decoder of TAIGA raw records: one pass over the bytes that checks, decodes and copies."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from apbatch.camera.kernels.decorators import kernel

Words = npt.NDArray[np.uint16]
Longs = npt.NDArray[np.int64]


@kernel
def decode_words(source: Words, offset: int, words: Words, longs: Longs) -> int:
    """Decode records up to the first one that is none; return how many.

    Parameters
    ----------
    source : ndarray of uint16, shape (n, 78)
        `apbatch.formats.taiga.raw.RECORD` as words.
    offset : int
        Byte in the file at which the first one begins.
    words, longs : ndarray of shape (n, 80) and (n, 20)
        The same memory, as uint16 and int64: `apbatch.formats.taiga.raw.DECODED`.
    """
    for i in range(source.shape[0]):
        record = source[i]
        if record[0] != 3032 or record[1] != 132 or record[76] != 0xFFFF or record[77] != 0xFFFF:
            return i
        longs[i, 0] = offset + i * 156
        longs[i, 1] = np.int64(record[2]) | np.int64(record[3]) << 16
        packed = np.int64(record[6]) | np.int64(record[7]) << 16 | np.int64(record[8]) << 32 | np.int64(record[9]) << 48
        tens, us, ms = packed & 0x7F, packed >> 7 & 0x3FF, packed >> 17 & 0x3FF
        second, minute, hour = packed >> 27 & 0x3F, packed >> 33 & 0x3F, packed >> 39 & 0x1F
        if tens >= 100 or us >= 1000 or ms >= 1000 or second >= 60 or minute >= 60 or hour >= 24:
            longs[i, 2] = -1
        else:
            seconds = (hour * 60 + minute) * 60 + second
            longs[i, 2] = seconds * 1_000_000_000 + ms * 1_000_000 + us * 1000 + tens * 10
        words[i, 12] = record[4]
        words[i, 13] = record[5]
        words[i, 14] = (record[10] & 0x1F) + 1
        words[i, 15] = 0
        for k in range(64):
            words[i, 16 + k] = record[12 + k]
    return int(source.shape[0])
