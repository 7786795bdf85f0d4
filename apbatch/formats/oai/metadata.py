"""What Dublin Core and DataCite say, as attributes of the catalogue."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import date
from xml.etree.ElementTree import Element

from apbatch.formats.oai import attributes as a
from apbatch.formats.oai.namespaces import DATACITE, DC, OAI_DC
from apbatch.formats.reader import Attribute, Scalar

#: Longest text that is kept; an abstract may be a whole table.
_LONGEST = 2000
_DOI = re.compile(r"(?:https?://(?:dx\.)?doi\.org/|doi:)(10\.\d{4,9}/\S+)", re.I)
_WEB = re.compile(r"https?://\S+", re.I)
_SIZE = re.compile(r"size:\s*(.+)|(\d[\d.,]*\s*(?:bytes?|[kmgtp]i?b))", re.I)
_LABEL = re.compile(r"(?:format|abstract):\s*", re.I)


def attributes_of(metadata: Element) -> dict[str, Scalar]:
    """Return what a record says; nothing for a format that is not known here.

    Parameters
    ----------
    metadata : Element
        The record, or any part of it that holds its Dublin Core or DataCite.
    """
    for name, read in ((f"{{{DATACITE}}}resource", _of_datacite), (f"{{{OAI_DC}}}dc", _of_dublin_core)):
        if (resource := next(metadata.iter(name), None)) is not None:
            return {one.name: value for one, value in read(resource).items() if value not in ("", None)}  # type: ignore[misc]
    return {}


def _of_dublin_core(resource: Element) -> Mapping[Attribute, Scalar | None]:
    def texts(name: str) -> list[str]:
        return _texts(resource.iter(f"{{{DC}}}{name}"))

    names = [*texts("identifier"), *texts("relation"), *texts("source")]
    sizes, forms = _sizes_and_formats(texts("format"))
    kinds = texts("type")
    dates = (_date(text) for text in texts("date"))
    return {
        a.TITLE: _first(texts("title")),
        a.CREATORS: _joined(texts("creator")),
        a.PUBLISHER: _first(texts("publisher")),
        a.PUBLISHED: next((one for one in dates if one is not None), None),
        a.KIND: _first([kind for kind in kinds if kind != "Dataset"] or kinds),
        a.ABSTRACT: _first(texts("description")),
        a.DOI: _doi(names),
        a.URL: _url(texts("identifier")),
        **_rights(texts("rights")),
        a.DATA_FORMAT: _first(forms),
        a.EXTENT: _first(sizes),
        a.SUBJECTS: _joined(texts("subject")),
    }


def _of_datacite(resource: Element) -> Mapping[Attribute, Scalar | None]:
    def parts(path: str) -> list[Element]:
        return resource.findall("/".join(f"{{{DATACITE}}}{name}" for name in path.split("/")))

    def texts(path: str, kind: str = "", *kinds: str) -> list[str]:
        return _texts(one for one in parts(path) if not kind or one.get(kind) in kinds)

    own = texts("identifier", "identifierType", "DOI") + texts(
        "relatedIdentifiers/relatedIdentifier", "relatedIdentifierType", "DOI"
    )
    dates = (_date(text) for text in texts("dates/date", "dateType", "Issued", "Available", "Created"))
    rights = parts("rightsList/rights")
    related = "relatedIdentifiers/relatedIdentifier"
    web = [*texts("alternateIdentifiers/alternateIdentifier"), *texts(related, "relatedIdentifierType", "URL")]
    return {
        a.TITLE: _first(texts("titles/title")),
        a.CREATORS: _joined(texts("creators/creator/creatorName")),
        a.PUBLISHER: _first(texts("publisher")),
        a.PUBLISHED: next((one for one in dates if one is not None), None),
        a.KIND: _first(texts("resourceType")),
        a.ABSTRACT: _first(texts("descriptions/description", "descriptionType", "Abstract")),
        a.DOI: _doi(text if text.lower().startswith(("doi:", "http")) else f"doi:{text}" for text in own),
        a.URL: _url([*texts("identifier", "identifierType", "URL"), *web]),
        **_rights([text for one in rights for text in (*_texts([one]), one.get("rightsURI", "").strip()) if text]),
        a.DATA_FORMAT: _first(texts("formats/format")),
        a.EXTENT: _first(texts("sizes/size")),
        a.SUBJECTS: _joined(texts("subjects/subject")),
    }


def _texts(elements: Iterable[Element]) -> list[str]:
    texts = (" ".join("".join(one.itertext()).split()) for one in elements)
    return [text for text in texts if text]


def _first(texts: list[str]) -> str:
    text = _LABEL.sub("", texts[0], count=1) if texts and _LABEL.match(texts[0]) else (texts[0] if texts else "")
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _joined(texts: list[str]) -> str:
    return _first(["; ".join(dict.fromkeys(texts))]) if texts else ""


def _date(text: str) -> date | None:
    try:
        return date.fromisoformat(text[:10])
    except ValueError:
        return None


def _doi(texts: Iterable[str]) -> str:
    for text in texts:
        if match := _DOI.match(text):
            return match[1]
    return ""


def _url(texts: Iterable[str]) -> str:
    return next((text for text in texts if _WEB.fullmatch(text) and not _DOI.match(text)), "")


def _rights(texts: list[str]) -> dict[Attribute, Scalar | None]:
    return {
        a.LICENCE: _first([text for text in texts if not _WEB.fullmatch(text)]),
        a.LICENCE_URL: _url(texts),
    }


def _sizes_and_formats(texts: list[str]) -> tuple[list[str], list[str]]:
    sizes: list[str] = []
    forms: list[str] = []
    for text in texts:
        match = _SIZE.fullmatch(text)
        (sizes if match else forms).append((match[1] or match[2]) if match else text)
    return sizes, forms
