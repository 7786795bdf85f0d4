"""Records of archives in files: one record of OAI-PMH, or its metadata alone, as Dublin Core or DataCite."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Iterator
from typing import BinaryIO, ClassVar

from apbatch.errors import FormatError
from apbatch.formats.oai import attributes as a
from apbatch.formats.oai.elements import elements
from apbatch.formats.oai.metadata import attributes_of
from apbatch.formats.oai.namespaces import DATACITE, OAI, OAI_DC
from apbatch.formats.reader import Attribute, Metadata, Reader

#: Bytes of a file of one record.
_LARGEST = 16 << 20
_PIECE = 1 << 16


class OaiRecordReader(Reader):
    """One record of an archive's catalogue."""

    name: ClassVar[str] = "oai-record"
    attributes: ClassVar[tuple[Attribute, ...]] = a.ALL

    def sniff(self, name: str, head: bytes) -> bool:
        """Recognise XML that uses Dublin Core of the protocol, or DataCite."""
        text = head.removeprefix(BOM_UTF8).lstrip()
        return text.startswith(b"<") and (OAI_DC.encode() in head or f'"{DATACITE}'.encode() in head)

    def isolated(self, head: bytes) -> bool:
        """Return False: `elements` has limits of its own, and takes nothing that could grow."""
        return False

    def metadata(self, stream: BinaryIO, name: str) -> Metadata:
        """Read the record.

        Raises
        ------
        FormatError
            If it is no whole XML, or holds no record or several.
        """
        names = (f"{{{OAI}}}record", f"{{{OAI_DC}}}dc", f"{{{DATACITE}}}resource")
        records = list(elements(_pieces(stream, name), names, name))
        if len(records) != 1:
            raise FormatError(
                f"{len(records)} records are in the file instead of one",
                where=name,
                remedy="apbatch harvest takes files with several records",
            )
        values = attributes_of(records[0])
        if not values:
            raise FormatError("the record says nothing in Dublin Core or DataCite", where=name)
        identifier = records[0].findtext(f"{{{OAI}}}header/{{{OAI}}}identifier", "").strip()
        return Metadata(events=0, attributes={**values, **({a.IDENTIFIER.name: identifier} if identifier else {})})


def _pieces(stream: BinaryIO, name: str) -> Iterator[bytes]:
    read = 0
    while piece := stream.read(_PIECE):
        read += len(piece)
        if read > _LARGEST:
            raise FormatError(f"larger than {_LARGEST} bytes, which no record is", where=name)
        yield piece
