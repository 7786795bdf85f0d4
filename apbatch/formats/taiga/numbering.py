"""How the collaboration numbers its Monte Carlo: showers and their uses, and what only the names of files say."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from apbatch.camera.instruments.taiga import IACT01, IACT02

_PRIMARIES = frozenset({"gamma", "proton", "electron", "helium", "iron"})
#: Words by which a path names what its files hold; hadrons are of no one primary.
_NAMED = _PRIMARIES | {"hadron"}
#: A word of a name, also where only a capital separates it from the one before.
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")

#: An event is ``shower x 100 + array offset``, as in CORSIKA's own numbering of used showers.
USES = 100
#: More than any number of a shower or of its use.
MOST_SHOWER, MOST_USE = 1e15, 1e6


def run_of(name: str) -> int | None:
    """Return the number of the production in a file's name: 607 for ``taiga607_clean_…``."""
    match = re.match(r"^\D*?(\d{1,18})_", PurePosixPath(name).name)
    return int(match[1]) if match else None


_TELESCOPE = re.compile(r"iact(\d{1,9})", re.IGNORECASE)


def telescope_of(name: str) -> int:
    """Return the telescope in a file's name: 1 for ``…_iact01_…``; 1 if there is none."""
    match = _TELESCOPE.search(PurePosixPath(name).name)
    return int(match[1]) if match else 1


def telescope_of_path(name: str) -> int:
    """Return the telescope that a path names, the file's name before its folders; 1 if there is none."""
    return next(
        (int(match[1]) for part in reversed(PurePosixPath(name).parts) if (match := _TELESCOPE.search(part))), 1
    )


def camera_name_of(name: str) -> str:
    """Return the camera of the telescope in a file's name: every telescope but the first has that of the second."""
    return IACT01 if telescope_of(name) == 1 else IACT02


def primary_of(name: str) -> str:
    """Return the primary that a path names, or ``unknown``: these files do not tell.

    Only whole words count (``iron`` is not in ``environment``), those of the file's name before those of its folders.
    A name with two primaries, such as ``gamma-hadron`` or ``gamma-vs-proton``, tells nothing.
    """
    for part in reversed(PurePosixPath(name).parts):
        named = _NAMED.intersection(word.lower().removesuffix("s") for word in _WORD.findall(part))
        if len(named) == 1 and named <= _PRIMARIES:
            return next(iter(named))
    return "unknown"
