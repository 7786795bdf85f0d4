"""Where the bytes of an observation are (DataLink 1.1)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from apbatch.access.guard import Guard
from apbatch.api.tap.obscore import DATALINK, place_of
from apbatch.api.tap.votable import votable
from apbatch.errors import ApbatchError, NotFoundError

MEDIA = DATALINK
#: Identifiers that one request may name.
MOST = 100
_COLUMNS = (
    ("ID", "meta.id;meta.main"),
    ("access_url", "meta.ref.url"),
    ("service_def", "meta.ref"),
    ("error_message", "meta.code.error"),
    ("description", "meta.note"),
    ("semantics", "meta.code"),
    ("content_type", "meta.code.mime"),
)
_SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string(), metadata={"ucd": ucd}) for name, ucd in _COLUMNS),
        pa.field("content_length", pa.int64(), metadata={"ucd": "phys.size;meta.file", "unit": "byte"}),
    ]
)


def links(door: Guard, content: str, identifiers: Iterable[str], *, has_bytes: bool) -> bytes:
    """Return the links of observations as a VOTable.

    An identifier that is not there, is not seen, or whose bytes may not be read: all get the same answer.

    Parameters
    ----------
    door : Guard
    content : str
        Address that gives bytes.
    identifiers : iterable of str
    has_bytes : bool
        Whether the service gives bytes at all.
    """
    rows = []
    for identifier in identifiers:
        row: dict[str, Any] = dict.fromkeys(_SCHEMA.names) | {"ID": identifier, "semantics": "#this"}
        place = place_of(identifier)
        try:
            if place is None or not has_bytes:
                raise NotFoundError("no bytes")
            record = door.readable(place)[0]
        except ApbatchError as error:
            kind = "NotFoundFault" if isinstance(error, NotFoundError) else "DefaultFault"
            row["error_message"] = f"{kind}: there are no such bytes, or they may not be read"
        else:
            row |= {
                "access_url": f"{content}?path={quote(place, safe='')}",
                "description": f"the file ({record.format})",
                "content_type": "application/octet-stream",
                "content_length": record.size,
            }
        rows.append(row)
    return b"".join(votable(_SCHEMA, [pa.RecordBatch.from_pylist(rows, _SCHEMA)]))
