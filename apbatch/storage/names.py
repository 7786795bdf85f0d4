"""Paths in stores: what is refused, how HDFS gets names that it can't hold, and names of files being written."""

from __future__ import annotations

import os
import re
import secrets
import socket
from functools import cache
from pathlib import Path

import psutil
from blake3 import blake3

from apbatch.errors import UsageError

#: Parts of writers on other machines, whose life can't be seen from here, count as left behind after a day.
FOREIGN_PART_AGE_S = 24 * 3600.0
_LONGEST_NAME_BYTES = 160
#: Parts of large files, with which another writer can go on, are kept for so long.
BEGUN_AGE_S = 3 * 24 * 3600.0
_BEGUN = re.compile(r"^\..+\.of-[0-9a-f]{16}\.[0-9a-f]{8}-\d+-\d+-[0-9a-f]{8}\.part$", re.DOTALL)
_PART = re.compile(r"^\..+\.([0-9a-f]{8})-(\d+)-(\d+)-[0-9a-f]{8}\.part$", re.DOTALL)
# In HDFS a name can't hold ':' nor bytes that are not UTF-8; they become %3A and %80 … %FF. Text that happens to look
# like that gets one '25' more, so that every name comes back as it was and all other names stay as they are.
_LIKE_ESCAPE = re.compile(r"%((?:25)*(?:3A|[89A-F][0-9A-F]))")
_SPECIAL = re.compile("[:\udc80-\udcff]")


def clean_path(path: str) -> str:
    """Return `path` relative to a store's root, without empty components.

    Raises
    ------
    UsageError
        For ``.`` and ``..``, a NUL, or a name that is kept for files being written.
    """
    components = [component for component in path.split("/") if component]
    for component in components:
        if component in (".", "..") or "\0" in component:
            raise UsageError("a path in a store has no '.', '..' or NUL in it", where=repr(path))
        if is_part(component):
            raise UsageError("names like this are kept for files being written", where=repr(path))
    return "/".join(components)


def split(path: str) -> tuple[str, str]:
    """Return folder and name of a path."""
    folder, _, name = path.rpartition("/")
    return folder, name


def escape(path: str) -> str:
    """Return the path under which HDFS keeps `path`."""
    path = _LIKE_ESCAPE.sub(r"%25\1", path)
    return _SPECIAL.sub(lambda match: f"%{ord(match[0]) & 0xFF:02X}", path)


def unescape(path: str) -> str:
    """Return the path that `escape` was given."""

    def plain(match: re.Match[str]) -> str:
        code = match[1]
        if len(code) > 2:
            return f"%{code[2:]}"
        byte = int(code, 16)
        return ":" if byte == 0x3A else chr(0xDC00 + byte)

    return _LIKE_ESCAPE.sub(plain, path)


@cache
def _machine() -> str:
    try:
        identity = Path("/etc/machine-id").read_text().strip()
    except OSError:
        identity = ""
    return blake3(f"{socket.gethostname()}:{identity}".encode()).hexdigest()[:8]


@cache
def _own_birth(pid: int) -> int | None:
    return _birth(pid)


def _birth(pid: int) -> int | None:
    try:
        return int(psutil.Process(pid).create_time() * 100)
    except psutil.Error:
        return None


#: Names of the parts that this process is writing.
_writing: set[str] = set()


def new_part(name: str, content: str = "") -> str:
    """Return a hidden name, told by `is_part`, under which the file `name` is written; it carries who writes.

    Parameters
    ----------
    name : str
    content : str
        BLAKE3 that the file will have, so that another writer of the same can go on with it (`is_begun`).
    """
    pid = os.getpid()
    part = f"{_stem(name, content)}{_machine()}-{pid}-{_own_birth(pid)}-{secrets.token_hex(4)}.part"
    _writing.add(part)
    return part


def _stem(name: str, content: str) -> str:
    if len(os.fsencode(name)) > _LONGEST_NAME_BYTES:
        name = blake3(os.fsencode(name)).hexdigest()[:32]
    return f".{name}.{f'of-{content[:16]}.' if content else ''}"


def is_begun(part: str, name: str, content: str) -> bool:
    """Tell whether a part is what a writer of the file `name` of this content left; `is_left_behind` says if it did.

    Parameters
    ----------
    part : str
        Name of a file being written.
    name : str
        Of the file that it would become.
    content : str
        BLAKE3 of the content, hexadecimal.
    """
    stem = _stem(name, content)
    return part.startswith(stem) and "." not in part[len(stem) :].removesuffix(".part")


def end_part(part: str) -> None:
    """Note that this process no longer writes `part`."""
    _writing.discard(part)


def is_part(name: str) -> bool:
    """Tell whether a name is that of a file being written (or left by a writer that was killed)."""
    return _PART.match(name) is not None


def is_left_behind(name: str, age_s: float) -> bool:
    """Tell whether the writer of the part `name`, last changed `age_s` ago, is gone."""
    match = _PART.match(name)
    if match is None:
        return False
    if match[1] != _machine():
        return age_s > FOREIGN_PART_AGE_S
    pid = int(match[2])
    if pid == os.getpid():
        return name not in _writing
    return _birth(pid) != int(match[3])


def is_waste(name: str, age_s: float) -> bool:
    """Tell whether the part `name` is left behind and nobody will go on with it."""
    return is_left_behind(name, age_s) and not (age_s < BEGUN_AGE_S and _BEGUN.match(name))
