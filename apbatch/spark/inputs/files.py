"""Files that a user names or selects, before they become sources: what each is, and each content once.

The rules are the same for registered files and for files and folders at URLs. A folder stands for the files in it and
below; one that is a dataset stands for its part files. Links are followed, but each folder is entered once, so a link
that leads back ends there. What is named twice, by another link, or is a copy of another file counts once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING

from blake3 import blake3

from apbatch.datasets import dataset
from apbatch.errors import ApbatchError, FormatError, NotFoundError, ServerError
from apbatch.formats.parser_process import parse_apart
from apbatch.formats.reader import ImageReader, Metadata, candidates, readers, recognise
from apbatch.formats.taiga.raw import TaigaRawReader
from apbatch.progress import say
from apbatch.storage.backends import open_store, open_url
from apbatch.storage.hashing import hash_stream

if TYPE_CHECKING:
    from apbatch.index.files import FileRecord
    from apbatch.storage.store import Store

#: Format of files of single clusters, which are put together into images; all others hold whole images.
RAW = TaigaRawReader.name
_HEAD_BYTES = 4096
#: Of a file that does not tell, or holds images of several.
UNKNOWN_EXPERIMENT = "unknown"
#: Copies that are named one by one.
_NAMED = 5


@dataclass(frozen=True)
class InputFile:
    """One file that holds images or pedestals.

    Attributes
    ----------
    name : str
        Its path in the merged tree if it is registered, else its URL.
    url : str
        Where it is read.
    format, experiment, run, night, telescope, cluster
        As its reader or the catalogue tells.
    camera : str, optional
    site : str
        Empty if it is not registered.
    pedestal : bool
        Whether it is a pedestal file, which holds no images.
    content : str
        Equal for files of equal content.
    fault : ApbatchError, optional
        Why the file can't be read.
    """

    name: str
    url: str
    format: str
    experiment: str
    run: int | None
    night: date | None
    telescope: int | None
    cluster: int | None
    camera: str | None
    site: str
    pedestal: bool
    content: str
    fault: ApbatchError | None = None

    @property
    def detector(self) -> tuple[object, ...]:
        """What a pedestal file and the data that it belongs to have in common."""
        return self.site, self.night, self.telescope, self.cluster


def image_formats() -> list[str]:
    """Return the names of formats that images can be made of."""
    return sorted({RAW} | {name for name, reader in readers().items() if isinstance(reader, ImageReader)})


def registered_file(record: FileRecord, url: str) -> InputFile:
    """Return a registered file, to be read at `url`."""
    camera = record.attributes.get("camera")
    return InputFile(
        name=record.path,
        url=url,
        format=record.format,
        experiment=record.experiment,
        run=record.run,
        night=record.night,
        telescope=record.telescope,
        cluster=record.cluster,
        camera=str(camera) if camera else None,
        site=record.site,
        pedestal=record.attributes.get("kind") == "pedestal",
        content=record.checksum or record.path,
    )


def files_at(urls: Iterable[str]) -> list[InputFile]:
    """Return the files of images and pedestals at URLs of files and folders.

    Raises
    ------
    NotFoundError
        If nothing is at a URL.
    FormatError
        If a file that is named by itself is empty, damaged beyond its format, or of none that holds images; or if
        there is nothing but damaged files.
    ServerError
        If a store does not work.
    """
    files: list[InputFile] = []
    alike: dict[str, list[int]] = {}
    paths: set[str] = set()
    damage: list[FormatError] = []
    named_again = 0
    for url in urls:
        for file_url, real, named in _walk(url):
            if real in paths:
                named_again += 1
                continue
            paths.add(real)
            try:
                file = _described(file_url, named)
            except FormatError as error:  # damaged beyond its format
                if named:
                    raise
                damage.append(error)
                continue
            if file is not None:
                alike.setdefault(file.content, []).append(len(files))
                files.append(file)
    if damage and not files:
        raise damage[0]
    for fault in damage[:_NAMED]:
        say(f"left out: {fault}")
    if len(damage) > _NAMED:
        say(f"left out: {len(damage) - _NAMED} more damaged files")
    if named_again:
        say(f"{named_again} files are named more than once, by links or within folders; each is read once")
    for places in alike.values():
        if len(places) > 1:  # equal in size and start: only the whole tells
            for place in places:
                with open_url(files[place].url) as stream:
                    files[place] = replace(files[place], content=hash_stream(stream).blake3)
    return files


def each_content_once(files: Iterable[InputFile]) -> list[InputFile]:
    """Leave out copies of other files, and say so; of pedestal files all stay, since data are looked for beside them.

    Of equal files the first is kept.
    """
    first_of: dict[str, InputFile] = {}
    copies: list[str] = []
    out = []
    for file in files:
        if not file.pedestal:
            first = first_of.setdefault(file.content, file)
            if first is not file:
                copies.append(f"{file.name} is a copy of {first.name}")
                continue
        out.append(file)
    for text in copies[:_NAMED]:
        say(f"{text}, which is read instead")
    if len(copies) > _NAMED:
        say(f"{len(copies) - _NAMED} more files are copies of others, which are read instead")
    return out


def _walk(url: str) -> Iterator[tuple[str, str, bool]]:
    """Yield URL, what is behind its links, and whether it is named by itself, of the files that a URL stands for."""
    store = open_store(url)
    here = store.info("")
    if here is None:
        raise NotFoundError("no such file or folder", where=url)
    if not here.is_directory:
        yield store.url, _behind_links(store, ""), True
        return
    folders, entered = [""], set[str]()
    while folders:
        folder = folders.pop()
        real = _behind_links(store, folder)
        if real in entered:
            continue
        entered.add(real)
        place = store.url_of(folder) if folder else store.url
        if dataset.is_complete(place):
            inner = open_store(place)
            for name in dataset.part_files(place):
                yield inner.url_of(name), _behind_links(inner, name), False
            continue
        for entry in store.entries(folder):
            if entry.path.rpartition("/")[2].startswith((".", "_")):
                continue
            if entry.is_directory:
                folders.append(entry.path)
            else:
                yield store.url_of(entry.path), _behind_links(store, entry.path), False


def _behind_links(store: Store, path: str) -> str:
    return f"{store.kind} {store.resolved(path)}"


def _described(url: str, named: bool) -> InputFile | None:
    """Do what `_identify` does, in a process of its own where a library in C parses the file."""
    with open_url(url) as stream:
        head = stream.read(_HEAD_BYTES)
        size = stream.seek(0, 2)
    if not any(reader.isolated(head) for reader in candidates(url, head)):
        return _identify(url, named)
    file: InputFile | None = parse_apart(_identify, url, named, size=size, where=url)
    return file


def _identify(url: str, named: bool) -> InputFile | None:
    """Look into a file; None for one in a folder that is of no use. `content` is of its size and start only."""
    fault: ApbatchError | None = None
    with open_url(url) as stream:
        head = stream.read(_HEAD_BYTES)
        reader = recognise(url, head, stream)
        if reader is None or reader.name not in image_formats():
            if not named:
                return None
            if not head:
                raise FormatError("the file is empty", where=url, remedy="copy it again from where it came")
            what = "of no known format" if reader is None else f"a file of the format '{reader.name}', without images"
            raise FormatError(what, where=url, remedy=f"formats with images are {', '.join(image_formats())}")
        try:
            metadata = reader.metadata(stream, url)  # `recognise` left the stream at its start
        except ServerError:
            raise
        except ApbatchError as error:
            metadata, fault = Metadata(), error
        except (OSError, MemoryError):
            raise
        except Exception as error:  # hostile content finds the holes of a plug-in; the other files must go on
            metadata, fault = Metadata(), FormatError(f"the reader failed: {type(error).__name__}: {error}", where=url)
        size = stream.seek(0, 2)
    camera = metadata.attributes.get("camera")
    return InputFile(
        name=url,
        url=url,
        format=reader.name,
        experiment=metadata.experiment or UNKNOWN_EXPERIMENT,
        run=metadata.run,
        night=metadata.night,
        telescope=metadata.telescope,
        cluster=metadata.cluster,
        camera=str(camera) if camera else None,
        site="",
        pedestal=metadata.attributes.get("kind") == "pedestal",
        content=f"{size} {blake3(head).hexdigest()}",
        fault=fault,
    )
