"""Which bytes a bulk step reads: files of a selection, with the camera and calibration that their site names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from apbatch.errors import UsageError
from apbatch.formats.reader import ImageReader, readers
from apbatch.formats.taiga_raw import TaigaRawReader

if TYPE_CHECKING:
    from apbatch.index.catalogue import Catalogue, FileRecord

#: Format of files of single clusters, which are put together into images; all others hold whole images.
RAW = TaigaRawReader.name


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
    """

    url: str
    format: str
    experiment: str
    run: int | None = None
    cluster: int | None = None
    camera: str | None = None
    calibration: Mapping[str, str] = field(default_factory=dict)
    telescope: int = 1


def image_formats() -> list[str]:
    """Return the names of formats that images can be made of."""
    return sorted({RAW} | {name for name, reader in readers().items() if isinstance(reader, ImageReader)})


def sources_for(catalogue: Catalogue, records: Iterable[FileRecord], prefer: str | None = None) -> list[Source]:
    """Return the sources of images among the files of a selection, by path.

    Parameters
    ----------
    catalogue : Catalogue
        Knows the replicas.
    records : iterable of FileRecord
        Files of other formats (tables, truth) are passed over; a pedestal file serves the data files of its cluster
        and night.
    prefer : str, optional
        Kind or URL of the store whose replicas are read; the site by default.

    Raises
    ------
    UsageError
        If no file holds images, or raw files come from a site without camera or factors.
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
        return best_source(record, catalogue.replicas(record.path) if prefer else (), prefer)

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


def _is_pedestal(record: FileRecord) -> bool:
    return record.format == RAW and record.attributes.get("kind") == "pedestal"


def _detector(record: FileRecord) -> tuple[object, ...]:
    return record.site, record.night, record.telescope, record.cluster
