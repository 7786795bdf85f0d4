"""An answer of OAI-PMH, read as it arrives: its records, where the list goes on, and the errors of the protocol."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element

from apbatch.errors import FormatError
from apbatch.formats.oai.elements import elements
from apbatch.formats.oai.namespaces import DATACITE, OAI, OAI_DC

_LONGEST_IDENTIFIER, _LONGEST_TOKEN = 2000, 8000
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)(T\d\d:\d\d:\d\d)?(?:\.\d+)?Z?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Record:
    """A record of an archive.

    Attributes
    ----------
    identifier : str
    deleted : bool
    content : Element
        The whole record.
    """

    identifier: str
    deleted: bool
    content: Element


@dataclass
class Answer:
    """What an answer says besides its records; complete when all of them were read.

    Attributes
    ----------
    date : str
        When the archive answered, as it writes it.
    token : str
        Empty at the end of a list.
    errors : dict
        Message by code.
    refused : dict
        Why a record was passed over, by what is known of its name.
    granularity, version, deletions, name : str
        What an archive says of itself.
    """

    date: str = ""
    token: str = ""
    errors: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    granularity: str = ""
    version: str = ""
    deletions: str = ""
    name: str = ""


def read_answer(pieces: Iterable[bytes], where: str, answer: Answer) -> Iterator[Record]:
    """Yield the records of an answer.

    Parameters
    ----------
    pieces : iterable of bytes
    where : str
        URL or file, for errors.
    answer : Answer
        Takes the rest.

    Raises
    ------
    FormatError
        If it is no answer of the protocol.
    """
    names = ("responseDate", "error", "record", "resumptionToken", "Identify")
    for one in elements(pieces, [f"{{{OAI}}}{name}" for name in names], where):
        text = (one.text or "").strip()
        match one.tag.rpartition("}")[2]:
            case "responseDate":
                moment = _MOMENT.fullmatch(text)
                answer.date = "" if moment is None else moment[1] + (f"{moment[2]}Z" if moment[2] else "")
            case "error":
                answer.errors[one.get("code", "")[:100]] = text[:500]
            case "resumptionToken":
                if len(text) > _LONGEST_TOKEN:
                    raise FormatError(f"a resumption token of {len(text)} characters", where=where)
                answer.token = text
            case "Identify":
                answer.granularity, answer.version = _of(one, "granularity"), _of(one, "protocolVersion")
                answer.deletions, answer.name = _of(one, "deletedRecord"), _of(one, "repositoryName")
            case "record":
                record = _record(one, answer)
                if record is not None:
                    yield record
    if not answer.date:
        raise FormatError("no answer of OAI-PMH: the date of the answer is missing", where=where)


def _of(one: Element, name: str) -> str:
    return one.findtext(f"{{{OAI}}}{name}", "").strip()[:200]


def _record(one: Element, answer: Answer) -> Record | None:
    header = one.find(f"{{{OAI}}}header")
    identifier = "" if header is None else _of_header(header)
    deleted = header is not None and header.get("status") == "deleted"
    if not identifier or len(identifier) > _LONGEST_IDENTIFIER:
        answer.refused[identifier[:100] or f"record {len(answer.refused)}"] = "it has no usable identifier"
        return None
    if not deleted and not _has_metadata(one):
        answer.refused[identifier] = "it has no metadata in Dublin Core or DataCite"
        return None
    return Record(identifier, deleted, one)


def _of_header(header: Element) -> str:
    return header.findtext(f"{{{OAI}}}identifier", "").strip()


def _has_metadata(one: Element) -> bool:
    return any(next(one.iter(name), None) is not None for name in (f"{{{OAI_DC}}}dc", f"{{{DATACITE}}}resource"))


def read_file(pieces: Iterable[bytes], name: str) -> Iterator[Record]:
    """Yield the records of a file: of an answer of the protocol, a record, or metadata alone under the file's name.

    Parameters
    ----------
    pieces : iterable of bytes
    name : str
        Of the file.

    Raises
    ------
    FormatError
        If it holds no record.
    """
    bare = (f"{{{OAI_DC}}}dc", f"{{{DATACITE}}}resource")
    answer, number = Answer(), 0
    for one in elements(pieces, [f"{{{OAI}}}record", *bare], name):
        number += 1
        if one.tag in bare:
            whole = Element(f"{{{OAI}}}record")
            header = Element(f"{{{OAI}}}header")
            identifier = Element(f"{{{OAI}}}identifier")
            identifier.text = name if number == 1 else f"{name}#{number}"
            header.append(identifier)
            metadata = Element(f"{{{OAI}}}metadata")
            metadata.append(one)
            whole.extend([header, metadata])
            one = whole
        if (record := _record(one, answer)) is not None:
            yield record
    if not number or answer.refused:
        reason = next(iter(answer.refused.values()), "there is no record in it")
        raise FormatError(reason, where=name, remedy="give answers of OAI-PMH, Dublin Core (oai_dc) or DataCite")
