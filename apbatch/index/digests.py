"""Digests of a site's listing, by which a rescan sees that nothing changed without loading a row."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from blake3 import blake3


@dataclass(frozen=True, slots=True)
class ListingDigest:
    """A stretch of a site's listing: the files from one source on and before another one.

    Attributes
    ----------
    first : str
        The stretch begins with this source, or the next one after it.
    following : str, optional
        The source before which it ends; None: it is the last stretch.
    files, registered : int
        How many files there are, those that are missing left out, and how many of them are registered.
    digest : bytes, optional
        Digest of sources, sizes and times (`digest_of`); None if the rows must be compared: nothing is kept of them, or
        some files are in quarantine or archived.
    """

    first: str = ""
    following: str | None = None
    files: int = 0
    registered: int = 0
    digest: bytes | None = None


def digest_of(sources: Sequence[str], sizes: Sequence[int], mtimes_ns: Sequence[int]) -> bytes:
    """Return the digest of files, given as columns of equal length in the order of the listing.

    Parameters
    ----------
    sources : sequence of str
        Paths below the site's root.
    sizes : sequence of int
        Bytes.
    mtimes_ns : sequence of int
        Times of change since 1970, ns.
    """
    digest = blake3("\0".join(sources).encode())
    digest.update(b"\0\0" + array("q", sizes).tobytes() + array("q", mtimes_ns).tobytes())
    return digest.digest()
