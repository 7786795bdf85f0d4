"""DataCite's metadata kernel 4.5 (``datacite``): doi:10.14454/g8e5-6293."""

from __future__ import annotations

from apbatch.api.oai.described import Description
from apbatch.api.oai.markup import element, wrapped
from apbatch.formats.oai.namespaces import DATACITE, XSI

SCHEMA = "https://schema.datacite.org/meta/kernel-4.5/metadata.xsd"


def datacite(one: Description) -> str:
    """Return a record's metadata as an element of XML.

    A DOI that a file carries is that of a whole, so it is a related identifier; the record's own is that of the
    protocol.
    """
    licence, licence_url = one.rights
    related = element("relatedIdentifier", one.doi, relatedIdentifierType="DOI", relationType="IsPartOf")
    source = element("relatedIdentifier", one.url, relatedIdentifierType="URL", relationType="IsMetadataFor")
    parts = [
        element("identifier", one.identifier, identifierType="OAI"),
        wrapped("creators", "".join(
            wrapped("creator", element("creatorName", name, nameType="Organizational")) for name in one.creators
        )),
        wrapped("titles", element("title", one.title)),
        element("publisher", one.publisher),
        element("publicationYear", str(one.year)),
        wrapped("subjects", "".join(element("subject", subject) for subject in one.subjects)),
        wrapped("dates", element("date", "/".join(one.span), dateType="Collected") if one.span else ""),
        element("resourceType", one.kind or one.format, resourceTypeGeneral="Dataset"),
        wrapped("alternateIdentifiers",
                element("alternateIdentifier", one.page, alternateIdentifierType="URL")
                + (element("alternateIdentifier", one.checksum, alternateIdentifierType="BLAKE3")
                   if one.checksum else "")),
        wrapped("relatedIdentifiers", (related if one.doi else "") + (source if one.url else "")),
        wrapped("sizes", element("size", f"{one.size} bytes")),
        wrapped("formats", element("format", one.format)),
        wrapped("rightsList", element("rights", licence, rightsURI=licence_url or None)
                if licence or licence_url else ""),
        wrapped("descriptions", element("description", one.summary, descriptionType="Abstract")),
    ]  # fmt: skip
    return wrapped(
        "resource",
        "".join(parts),
        **{"xmlns": DATACITE, "xmlns:xsi": XSI, "xsi:schemaLocation": f"{DATACITE} {SCHEMA}"},
    )
