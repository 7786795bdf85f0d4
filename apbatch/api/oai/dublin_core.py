"""Dublin Core, which every repository gives (``oai_dc``)."""

from __future__ import annotations

from apbatch.api.oai.described import Description
from apbatch.api.oai.markup import element, wrapped
from apbatch.formats.oai.namespaces import DC, OAI_DC, XSI

SCHEMA = "http://www.openarchives.org/OAI/2.0/oai_dc.xsd"


def dublin_core(one: Description) -> str:
    """Return a record's metadata as an element of XML."""
    content = [
        ("title", one.title),
        *(("creator", name) for name in one.creators),
        *(("subject", subject) for subject in one.subjects),
        ("description", one.summary),
        ("publisher", one.publisher),
        ("date", one.span[0] if one.span else str(one.year)),
        ("type", "Dataset"),
        ("type", one.kind),
        ("format", one.format),
        ("format", f"{one.size} bytes"),
        ("identifier", one.page),
        ("identifier", f"https://doi.org/{one.doi}" if one.doi else ""),
        ("identifier", one.url),
        ("identifier", f"blake3:{one.checksum}" if one.checksum else ""),
        ("coverage", "/".join(one.span) if len(one.span) == 2 else ""),
        *(("rights", right) for right in one.rights),
    ]
    return wrapped(
        "oai_dc:dc",
        "".join(element(f"dc:{name}", text) for name, text in content if text),
        **{"xmlns:oai_dc": OAI_DC, "xmlns:dc": DC, "xmlns:xsi": XSI, "xsi:schemaLocation": f"{OAI_DC} {SCHEMA}"},
    )
