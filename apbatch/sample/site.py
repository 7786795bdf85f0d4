"""The whole sample: a folder a format, the sites that describe them, and the list of what is in every file."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from importlib.resources import files
from pathlib import Path

from apbatch.errors import FormatError, UsageError
from apbatch.sample import corsika, fact, hisparc, images, kascade, magic, records, simtel, taiga_mc, taiga_raw
from apbatch.sample.contents import Contents

CONTENTS, SITES = "contents.json", "sites"
_WRITERS = (taiga_raw, taiga_mc, kascade, fact, magic, hisparc, simtel, corsika, images, records)


def write_sample(folder: Path, seed: int = 1) -> list[Contents]:
    """Write a small site of every format, complete or not at all.

    The same seed gives the same contents, whatever else changes; all but the ROOT file, which holds the time at which
    it was written, are the same to the byte. A sample of this seed that is there already is left as it is.

    Parameters
    ----------
    folder : Path
        It is made; may be there if it is empty or holds this sample.
    seed : int
        Of all random numbers.

    Returns
    -------
    list of Contents
        By path.

    Raises
    ------
    UsageError
        If the folder holds something else.
    FormatError
        If it holds a sample whose list of contents is damaged.
    MissingSoftwareError
        Without h5py or uproot.
    """
    if (folder / CONTENTS).is_file():
        stored, contents = read_contents(folder)
        if stored == seed:
            return contents
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            "the folder is not empty", where=str(folder), remedy="choose another folder, or remove what is in it"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    try:
        contents = sorted(
            (content for writer in _WRITERS for content in writer.write(draft, seed)), key=lambda content: content.path
        )
        (draft / SITES).mkdir()
        for site in files(__package__).joinpath(SITES).iterdir():
            (draft / SITES / site.name).write_bytes(site.read_bytes())
        listed = {"seed": seed, "files": [content.to_json() for content in contents]}
        (draft / CONTENTS).write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")
        draft.chmod(0o777 & ~_umask())
        os.replace(draft, folder)  # noqa: PTH105 - over an empty folder, which Path.rename does as well, but less plainly
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return contents


def read_contents(folder: Path) -> tuple[int, list[Contents]]:
    """Return the seed of a sample and what is in its files.

    Raises
    ------
    FormatError
        If the list is damaged.
    """
    path = folder / CONTENTS
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        return int(listed["seed"]), [Contents.from_json(content) for content in listed["files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(
            f"not the list of a sample's contents: {error}", where=str(path), remedy="write the sample again"
        ) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
