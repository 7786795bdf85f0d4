"""What Spark's workers are given, so that they need nothing but Python: two archives, made here without a network.

One holds this program with its entry points, the other the packages that it needs, as they are installed here. Both
are named by a hash of what is in them and kept in the cache, so each is made once for a set of versions. Workers
unpack them and find them through ``PYTHONPATH``.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import platform
import sys
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution, entry_points
from importlib.util import find_spec
from pathlib import Path, PurePath

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import apbatch
from apbatch.config import cache
from apbatch.errors import MissingSoftwareError
from apbatch.progress import say
from apbatch.storage.hashing import READ_BYTES

_GROUP = "apbatch.readers"
#: Extras of this program that no worker needs: learning and simulation run beside Spark. (`bench` has the plots of the
#: pages on quality, too.)
_EXTRAS_LEFT = frozenset({"all", "dl", "torch", "onnx", "sim", "test"})
#: Never shipped: Spark brings its own Python side, and what trains is larger than all the rest.
_LEFT = frozenset(
    {"apbatch", "pyspark", "py4j", "tensorflow", "tensorflow-cpu", "keras", "horovod", "torch", "tf2onnx"}
)
_FOLDERS_LEFT = frozenset({"__pycache__", "tests", "include"})
#: Folders of tests that are imported in use.
_FOLDERS_KEPT = frozenset({"astropy/tests"})
_SUFFIXES_LEFT = (".pyc", ".pth", ".a", ".h", ".hpp", ".pxd", ".pyx", ".pxi")
#: Of a distribution's metadata: `direct_url.json` may hold a password.
_METADATA = frozenset({"METADATA", "entry_points.txt", "top_level.txt"})
#: Files of a package that is being worked on; anything else in its folder (keys, notes, data) stays here.
_SOURCES = frozenset({".py", ".cql", ".lark", ".j2", ".xml", ".json", ".yaml", ".typed", ".so"})
PYTHON_PATH = "spark.executorEnv.PYTHONPATH"
_PROGRAM, _LIBRARIES = "apbatch-program", "apbatch-libraries"
#: Raised when the same files would be packed differently.
_GENERATION = 1
_TIME = 946_684_800  # of all files: 2000-01-01


@dataclass(frozen=True)
class Shipment:
    """What workers are given.

    Attributes
    ----------
    archives : tuple of pathlib.Path
    names : tuple of str
        Folder of each in the worker's working folder.
    """

    archives: tuple[Path, ...]
    names: tuple[str, ...] = (_PROGRAM, _LIBRARIES)

    @property
    def urls(self) -> str:
        """The archives as Spark names them, ``URL#FOLDER`` with commas between."""
        return ",".join(f"{path.as_uri()}#{name}" for path, name in zip(self.archives, self.names, strict=True))

    @property
    def python_path(self) -> str:
        """``PYTHONPATH`` of a worker."""
        return ":".join(self.names)


def with_shipment(conf: Mapping[str, str], shipment: Shipment, *, yarn: bool) -> dict[str, str]:
    """Return Spark's settings `conf` with those by which workers get a shipment; what `conf` ships already stays.

    Parameters
    ----------
    conf : mapping of str to str
    shipment : Shipment
    yarn : bool
        Whether YARN starts the workers.
    """
    # YARN keeps what it unpacked for the next job; others are sent it by the driver
    key = "spark.yarn.dist.archives" if yarn else "spark.archives"
    more = conf.get(key)
    path = conf.get(PYTHON_PATH)
    return {
        **conf,
        key: f"{shipment.urls},{more}" if more else shipment.urls,
        PYTHON_PATH: f"{shipment.python_path}:{path}" if path else shipment.python_path,
    }


def is_shipment(archives: str) -> bool:
    """Tell whether a list of archives, as Spark names them, has a shipment."""
    return any(one.endswith(f"#{_PROGRAM}") for one in archives.split(","))


def shipment() -> Shipment:
    """Return the archives, made if this set of versions is not in the cache yet.

    Raises
    ------
    MissingSoftwareError
        If this program is not installed, so that nobody knows what it needs.
    """
    libraries = list(needed())
    files = sorted(_files_of_all(libraries))
    key = [_versions(libraries), [name for name, _ in files]]
    return Shipment((_archive(_PROGRAM, sorted(_program_files())), _archive(_LIBRARIES, files, key)))


def needed() -> Iterator[Distribution]:
    """Yield the installed distributions that workers need, by name: what this program and reader plug-ins require.

    Raises
    ------
    MissingSoftwareError
    """
    program = _this_program()
    extras = [extra for extra in program.metadata.get_all("Provides-Extra") or [] if extra not in _EXTRAS_LEFT]
    by_name: dict[str, Distribution] = {}
    waiting = [(program, frozenset(extras))] + [(plugin, frozenset[str]()) for plugin in _plugins()]
    visits = set()
    while waiting:
        here, extras_of = waiting.pop()
        name = canonicalize_name(here.name)
        if (name, extras_of) in visits:
            continue
        visits.add((name, extras_of))
        if name not in _LEFT:
            by_name[name] = here
        for text in here.requires or ():
            requirement = Requirement(text)
            if canonicalize_name(requirement.name) in _LEFT or not _applies(requirement, extras_of):
                continue
            try:
                waiting.append((distribution(requirement.name), frozenset(requirement.extras)))
            except PackageNotFoundError:
                continue  # an extra that is not installed here: what runs here does without it
    yield from (by_name[name] for name in sorted(by_name))


def _this_program() -> Distribution:
    try:
        return distribution(apbatch.__name__)
    except PackageNotFoundError:
        raise MissingSoftwareError("apbatch is not installed", remedy="pip install -e .") from None


def _plugins() -> list[Distribution]:
    """Return the other distributions that bring readers."""
    by_name = {entry.dist.name: entry.dist for entry in entry_points(group=_GROUP) if entry.dist is not None}
    return [by_name[name] for name in sorted(by_name) if canonicalize_name(name) not in _LEFT]


def _applies(requirement: Requirement, extras: frozenset[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras or [""])


#: Name in the archive, and the file here or its content.
_Entry = tuple[str, Path | bytes]


def _program_files() -> Iterator[_Entry]:
    """Yield the package that is imported here, installed or worked on, and its metadata."""
    yield from _sources(apbatch.__name__)
    yield from _metadata(_this_program())


def _files_of_all(distributions: Iterable[Distribution]) -> Iterator[_Entry]:
    for one in distributions:
        yield from _files_of(one)


def _files_of(one: Distribution) -> Iterator[_Entry]:
    if _worked_on(one):
        for name in sorted({entry.module.partition(".")[0] for entry in one.entry_points if entry.group == _GROUP}):
            yield from _sources(name)
        yield from _metadata(one)
        return
    for file in one.files or ():
        parts = file.parts
        if ".." in parts or file.is_absolute():  # programs and manual pages
            continue
        if parts[0].endswith((".dist-info", ".egg-info")):
            if file.name not in _METADATA:
                continue
        elif file.name.endswith(_SUFFIXES_LEFT) or _left(file.parent):
            continue
        here = Path(str(one.locate_file(file)))
        if here.is_file():
            yield str(file), here


def _left(folder: PurePath) -> bool:
    return bool(_FOLDERS_LEFT & set(folder.parts)) and str(folder) not in _FOLDERS_KEPT


def _worked_on(one: Distribution) -> bool:
    """Tell whether a distribution is installed as a link to its source."""
    text = one.read_text("direct_url.json")
    return bool(text and json.loads(text).get("dir_info", {}).get("editable")) or one.files is None


def _sources(package: str) -> Iterator[_Entry]:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return
    if not spec.submodule_search_locations:
        yield Path(spec.origin).name, Path(spec.origin)
        return
    root = Path(spec.origin).parent
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in _FOLDERS_LEFT]
        for name in files:
            path = Path(folder, name)
            if path.suffix in _SOURCES and not name.startswith("."):
                yield f"{package}/{path.relative_to(root)}", path


def _metadata(one: Distribution) -> Iterator[_Entry]:
    folder = f"{canonicalize_name(one.name).replace('-', '_')}-{one.version}.dist-info"
    yield f"{folder}/METADATA", (one.read_text("METADATA") or one.read_text("PKG-INFO") or "").encode()
    yield f"{folder}/entry_points.txt", (one.read_text("entry_points.txt") or "").encode()


def _versions(distributions: Iterable[Distribution]) -> list[list[str]]:
    """Return what tells one set of versions from another, without reading the files: their recorded hashes."""
    rows = []
    for one in distributions:
        record = one.read_text("RECORD") or ""
        if _worked_on(one):
            record = _content(sorted(_files_of(one)))
        rows.append([one.name, one.version, hashlib.sha256(record.encode()).hexdigest()])
    return rows


def _content(entries: list[_Entry]) -> str:
    digest = hashlib.sha256()
    for name, what in entries:
        digest.update(f"{name}\0".encode())
        digest.update(hashlib.sha256(what if isinstance(what, bytes) else what.read_bytes()).digest())
    return digest.hexdigest()


def _archive(kind: str, entries: list[_Entry], key: object = None) -> Path:
    """Return the archive of `entries`; `key` stands for their content, where reading it all would take long."""
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    identity = [_GENERATION, python, platform.system(), platform.machine(), key or _content(entries)]
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:20]
    folder = cache() / "ship"
    path = folder / f"{kind}-{digest}.tar.gz"
    if path.exists():
        return path
    say(f"packing {kind} for Spark's workers (once for this set of versions)")
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{path.name}.{os.getpid()}"
    try:
        with part.open("wb") as file:
            _pack(file, entries)
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _pack(file: io.BufferedWriter, entries: list[_Entry]) -> None:
    """Write the same bytes for the same files, whatever their times and owners are here."""
    with (
        gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=1, mtime=0) as squeezed,
        tarfile.TarFile(fileobj=squeezed, mode="w", format=tarfile.PAX_FORMAT, copybufsize=READ_BYTES) as tar,
    ):
        for name, what in entries:
            info = tarfile.TarInfo(name)
            info.mtime, info.mode = _TIME, 0o644
            if isinstance(what, bytes):
                info.size = len(what)
                tar.addfile(info, io.BytesIO(what))
                continue
            status = what.stat()
            info.size = status.st_size
            if status.st_mode & 0o100:
                info.mode = 0o755
            with what.open("rb") as content:
                tar.addfile(info, content)
