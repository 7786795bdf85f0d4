"""Which bytes a bulk step reads: files of a selection, with the camera and calibration that their site names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from apbatch.datasets.image_rows import Rows
from apbatch.errors import NotFoundError, UsageError
from apbatch.progress import say
from apbatch.spark.inputs.files import (
    RAW,
    UNKNOWN_EXPERIMENT,
    InputFile,
    each_content_once,
    files_at,
    image_formats,
    registered_file,
)

if TYPE_CHECKING:
    from apbatch.index.files import FileRecord, Replica

__all__ = ["RAW", "UNKNOWN_EXPERIMENT", "Source", "image_formats", "sources_at", "sources_for"]

#: What a site or an option says of the raw files of one input: camera and table of conversion factors.
Calibrated = tuple[str, str | None]


@dataclass(frozen=True)
class Source:
    """One input file.

    Attributes
    ----------
    url : str
        Of the file at its site or of a replica: ``file:///…``, ``hdfs://…``; or at a catalogue's server.
    format : str
        Name of its reader.
    experiment : str
    run, cluster : int, optional
        As registered.
    camera : str, optional
        Name of the camera; a file that holds whole images may name it itself.
    calibration : Mapping
        ``factors``: path of the table of conversion factors, read where the job is started. ``pedestal``: URL of
        a pedestal file of the same cluster; without it, pedestals are found in the data.
    telescope : int
    rows : Rows
        Of a Parquet file: the row groups, and the rows of each, that are read; by default all.
    only : tuple of (int, int, int)
        Run, event and telescope of the images that are wanted; by default all.
    """

    url: str
    format: str
    experiment: str
    run: int | None = None
    cluster: int | None = None
    camera: str | None = None
    calibration: Mapping[str, str] = field(default_factory=dict)
    telescope: int = 1
    rows: Rows = ()
    only: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True)
class RawOptions:
    """What a user says of raw files.

    Attributes
    ----------
    camera : str, optional
    factors : str, optional
        Path of the table of conversion factors.
    calibrated : bool
        Whether they need conversion factors.
    """

    camera: str | None = None
    factors: str | None = None
    calibrated: bool = True

    @property
    def needs(self) -> str:
        """What raw files need, in words."""
        return "a camera and conversion factors" if self.calibrated else "a camera"

    @property
    def options(self) -> str:
        """The options that say it."""
        return "--camera NAME --factors FILE" if self.calibrated else "--camera NAME"


class Copies(Protocol):
    """What knows where copies of registered files are: a catalogue, or a server in front of one."""

    def replicas(self, paths: Iterable[str]) -> dict[str, list[Replica]]:
        """Return the copies of files by path."""
        ...


def sources_for(
    catalogue: Copies,
    records: Iterable[FileRecord],
    prefer: str | None = None,
    *,
    only_preferred: bool = False,
    raw: RawOptions = RawOptions(),
) -> list[Source]:
    """Return the sources of images among the files of a selection, by path; each content once.

    Parameters
    ----------
    catalogue : Copies
    records : iterable of FileRecord
        Files of other formats (tables, truth) are passed over; a pedestal file serves the data files of its cluster
        and night. Of copies at several sites the first is read, or the first with a replica in the preferred store.
    prefer : str, optional
        Kind or URL of the store whose replicas are read; the site by default, and for files without such a replica.
    only_preferred : bool
        Whether a file without a replica in the preferred store is an error.
    raw : RawOptions
        Counts more than what sites say of their raw files.

    Raises
    ------
    UsageError
        If no file holds images, camera or factors of raw files are not known, or a replica is missing.
    """
    from apbatch.ingest.replicas.stores import best_source
    from apbatch.ingest.sites import load_site

    usable = set(image_formats())
    records = sorted((record for record in records if record.format in usable), key=lambda record: record.path)
    if not records:
        raise UsageError(
            "no file of the selection holds camera images",
            remedy=f"select files with format in ({', '.join(repr(name) for name in sorted(usable))})",
        )
    mirrored: list[InputFile] = []
    in_place: list[InputFile] = []
    replicas_of = catalogue.replicas([record.path for record in records]) if prefer else {}
    for record in records:
        replicas = replicas_of.get(record.path, [])
        url = best_source(record, replicas, prefer)
        there = url in {replica.url for replica in replicas}
        (mirrored if there else in_place).append(registered_file(record, url))
    files = sorted(each_content_once([*mirrored, *in_place]), key=lambda file: file.name)

    def of_site(file: InputFile) -> Calibrated:
        camera = raw.camera or file.camera
        if camera is not None and (raw.factors is not None or not raw.calibrated):
            return camera, raw.factors
        try:
            site = load_site(file.site)
        except NotFoundError as error:
            raise UsageError(
                f"nothing is known here of site '{file.site}', whose raw data need {raw.needs}",
                where=file.name,
                remedy=f"give {raw.options}",
            ) from error
        camera = camera or site.camera
        if camera is None:
            raise UsageError(
                f"site '{site.name}' does not name the camera of its raw data",
                remedy="add 'camera: NAME' to its YAML file and add it again, or give --camera NAME",
            )
        return camera, raw.factors or (str(site.calibration_file("factors")) if raw.calibrated else None)

    sources = _sources(files, of_site)
    if only_preferred:
        read = {url for source in sources for url in (source.url, source.calibration.get("pedestal"))}
        for file in in_place:
            if file.url in read:
                raise UsageError(
                    f"there is no replica in {prefer}", where=file.name, remedy="apbatch mirror QUERY --to STORE"
                )
    return sources


def sources_at(urls: Iterable[str], raw: RawOptions = RawOptions()) -> list[Source]:
    """Return the sources of images at URLs of files and folders, whether they are registered or not.

    The rules are those of `sources_for`: a pedestal file serves the data files of its cluster and night, and each
    content is read once.

    Parameters
    ----------
    urls : iterable of str
        A folder stands for all files in it and below that hold images.
    raw : RawOptions

    Raises
    ------
    NotFoundError
        If nothing is at a URL.
    UsageError
        If no file holds images, or camera or factors are missing for raw files.
    FormatError
        If no file can be read; the first of them is named.
    """
    files = files_at(urls)
    if not files:
        raise UsageError("no file there holds camera images", remedy=f"formats are {', '.join(image_formats())}")
    faults = [file.fault for file in files if file.fault is not None]
    if len(faults) == len(files):
        if len(files) > 1:
            say(f"of {len(files)} files none can be read; the first is named")
        raise faults[0]
    camera, factors = raw.camera, raw.factors
    lacking = camera is None or (raw.calibrated and factors is None)
    if lacking:  # a broken file is no reason to ask for a camera
        for file in files:
            if file.format == RAW and file.fault is not None:
                say(f"left out: {file.fault}")
        files = [file for file in files if file.format != RAW or file.fault is None]

    def of_options(file: InputFile) -> Calibrated:
        if camera is None or lacking:
            raise UsageError(
                f"raw files need {raw.needs}",
                where=file.url,
                remedy=f"give {raw.options}, or register the site and select",
            )
        return camera, factors

    files = [replace(file, camera=file.camera or camera) for file in files]
    return _sources(each_content_once(files), of_options)


def _sources(files: Sequence[InputFile], calibrated: Callable[[InputFile], Calibrated]) -> list[Source]:
    """Make sources of files that hold images, each raw one with the pedestal file of its cluster and night."""
    pedestals = {file.detector: file for file in files if file.pedestal}
    sources = []
    for file in files:
        if file.pedestal:
            continue
        camera, calibration = file.camera, {}
        if file.format == RAW:
            camera, factors = calibrated(file)
            if factors is not None:
                calibration["factors"] = factors
            if (pedestal := pedestals.get(file.detector)) is not None:
                calibration["pedestal"] = pedestal.url
        sources.append(
            Source(
                url=file.url,
                format=file.format,
                experiment=file.experiment,
                run=file.run,
                cluster=file.cluster,
                camera=camera,
                calibration=calibration,
                telescope=file.telescope if file.telescope is not None else 1,
            )
        )
    if not sources:
        raise UsageError("there are pedestal files only", remedy="name or select the data files as well")
    return sources
