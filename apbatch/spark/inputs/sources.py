"""Which bytes a bulk step reads: files of a selection, with the camera and calibration that their site names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from apbatch.datasets.image_rows import Rows
from apbatch.errors import FormatError, NotFoundError, UsageError
from apbatch.formats.reader import ImageReader, Metadata, Reader, readers, recognise
from apbatch.formats.taiga_raw import TaigaRawReader
from apbatch.storage.backends import open_store, open_url

if TYPE_CHECKING:
    from apbatch.index.catalogue import Catalogue
    from apbatch.index.files import FileRecord

#: Format of files of single clusters, which are put together into images; all others hold whole images.
RAW = TaigaRawReader.name
_HEAD_BYTES = 4096
#: Of a file that does not tell, or holds images of several.
UNKNOWN_EXPERIMENT = "unknown"


@dataclass(frozen=True)
class Source:
    """One input file.

    Attributes
    ----------
    url : str
        Of the file at its site or of a replica: ``file:///…``, ``hdfs://…``.
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


def image_formats() -> list[str]:
    """Return the names of formats that images can be made of."""
    return sorted({RAW} | {name for name, reader in readers().items() if isinstance(reader, ImageReader)})


def sources_for(
    catalogue: Catalogue, records: Iterable[FileRecord], prefer: str | None = None, *, only_preferred: bool = False
) -> list[Source]:
    """Return the sources of images among the files of a selection, by path.

    Parameters
    ----------
    catalogue : Catalogue
        Knows the replicas.
    records : iterable of FileRecord
        Files of other formats (tables, truth) are passed over; a pedestal file serves the data files of its cluster
        and night.
    prefer : str, optional
        Kind or URL of the store whose replicas are read; the site by default, and for files without such a replica.
    only_preferred : bool
        Whether a file without a replica in the preferred store is an error.

    Raises
    ------
    UsageError
        If no file holds images, raw files come from a site without camera or factors, or a replica is missing.
    """
    from apbatch.ingest.mirror import best_source
    from apbatch.ingest.sites import load_site

    usable = set(image_formats())
    records = sorted((record for record in records if record.format in usable), key=lambda record: record.path)
    if not records:
        raise UsageError(
            "no file of the selection holds camera images",
            remedy=f"select files with format in ({', '.join(repr(name) for name in sorted(usable))})",
        )

    def url(record: FileRecord) -> str:
        replicas = catalogue.replicas([record.path])[record.path] if prefer else []
        found = best_source(record, replicas, prefer)
        if only_preferred and found not in {replica.url for replica in replicas}:
            raise UsageError(
                f"there is no replica in {prefer}", where=record.path, remedy="apbatch mirror QUERY --to STORE"
            )
        return found

    pedestals = {_detector(record): record for record in records if _is_pedestal(record)}
    found = []
    for record in records:
        if _is_pedestal(record):
            continue
        camera, calibration = record.attributes.get("camera"), {}
        if record.format == RAW:
            site = load_site(record.site)
            camera = camera or site.camera
            if camera is None:
                raise UsageError(
                    f"site '{site.name}' does not name the camera of its raw data",
                    remedy="add 'camera: NAME' to its YAML file and add it again",
                )
            calibration["factors"] = str(site.calibration_file("factors"))
            pedestal = pedestals.get(_detector(record))
            if pedestal is not None:
                calibration["pedestal"] = url(pedestal)
        found.append(
            Source(
                url=url(record),
                format=record.format,
                experiment=record.experiment,
                run=record.run,
                cluster=record.cluster,
                camera=str(camera) if camera else None,
                calibration=calibration,
                telescope=record.telescope if record.telescope is not None else 1,
            )
        )
    if not found:
        raise UsageError("the selection holds pedestal files only", remedy="select the data files as well")
    return found


def sources_at(
    urls: Iterable[str], *, camera: str | None = None, factors: str | None = None, calibrated: bool = True
) -> list[Source]:
    """Return the sources of images at URLs of files and folders, whether they are registered or not.

    Parameters
    ----------
    urls : iterable of str
        A folder stands for all files in it and below that hold images.
    camera : str, optional
        Camera of raw files.
    factors : str, optional
        Path of the table of conversion factors of raw files.
    calibrated : bool
        Whether raw files need conversion factors.

    Raises
    ------
    NotFoundError
        If nothing is at a URL.
    FormatError
        If all files of images are damaged.
    UsageError
        If no file holds images, or camera or factors are missing for raw files.
    """
    usable = set(image_formats())
    found: list[Source] = []
    broken: list[Source] = []
    damage: list[FormatError] = []
    for url in urls:
        for file_url in _files_at(url):
            reader: Reader | None = None
            metadata: Metadata | None = None
            with open_url(file_url) as stream:
                try:
                    reader = recognise(file_url, stream.read(_HEAD_BYTES), stream)
                    if reader is None or reader.name not in usable:
                        continue
                    metadata = reader.metadata(stream, file_url)  # `recognise` left the stream at its start
                except FormatError as error:
                    damage.append(error)
            if reader is None:
                continue
            if metadata is None:
                broken.append(Source(file_url, reader.name, UNKNOWN_EXPERIMENT, camera=camera))
                continue
            if reader.name == RAW and (camera is None or (calibrated and factors is None)):
                what, how = (" and conversion factors", " --factors FILE") if calibrated else ("", "")
                raise UsageError(
                    f"raw files need a camera{what}",
                    where=file_url,
                    remedy=f"give --camera NAME{how}, or register the site and select",
                )
            named = metadata.attributes.get("camera") or camera
            found.append(
                Source(
                    url=file_url,
                    format=reader.name,
                    experiment=metadata.experiment or UNKNOWN_EXPERIMENT,
                    run=metadata.run,
                    cluster=metadata.cluster,
                    camera=str(named) if named else None,
                    calibration={"factors": factors} if reader.name == RAW and factors else {},
                    telescope=metadata.telescope if metadata.telescope is not None else 1,
                )
            )
    if not found and damage:
        raise damage[0]
    if not found:
        raise UsageError("no file there holds camera images", remedy=f"formats are {', '.join(sorted(usable))}")
    return [*found, *broken]  # the step says what is wrong with the broken ones


def _files_at(url: str) -> Iterator[str]:
    store = open_store(url)
    here = store.info("")
    if here is None:
        raise NotFoundError("no such file or folder", where=url)
    if not here.is_directory:
        yield store.url
        return
    folders = [""]
    while folders:
        for entry in store.entries(folders.pop()):
            if entry.is_directory:
                folders.append(entry.path)
            else:
                yield store.url_of(entry.path)


def _is_pedestal(record: FileRecord) -> bool:
    return record.format == RAW and record.attributes.get("kind") == "pedestal"


def _detector(record: FileRecord) -> tuple[object, ...]:
    return record.site, record.night, record.telescope, record.cluster
