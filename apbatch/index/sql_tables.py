"""The tables of the catalogue in SQLite, and what brings older ones up to date."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from apbatch.index.attributes import COMMON
from apbatch.index.catalogue import COMMON_FIELDS

SCHEMA_VERSION = 2
#: What makes the schema of the version before into that of the version named.
UPGRADES: dict[int, tuple[str, ...]] = {
    2: (
        "ALTER TABLE image_event ADD COLUMN image_file TEXT",
        "ALTER TABLE image_event ADD COLUMN image_row_group BIGINT",
        "ALTER TABLE image_event ADD COLUMN image_row BIGINT",
    ),
}
_INTEGERS = {name for name, attribute in COMMON.items() if attribute.type == "integer"}


class _Number(sa.types.UserDefinedType[Any]):
    """Whole numbers and fractions in one column, each as exact as it came (`sa.Numeric` makes floats of them)."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "NUMERIC"


metadata = sa.MetaData()
files = sa.Table(
    "file",
    metadata,
    sa.Column("path", sa.Text, primary_key=True),
    sa.Column("parent", sa.Text, nullable=False, index=True),
    *(
        sa.Column(name, sa.BigInteger if name in _INTEGERS else sa.Text, nullable=name not in ("site", "size"))
        for name in COMMON_FIELDS
        if name != "path"
    ),
    sa.Column("attributes", sa.Text, nullable=False),
    sa.Index("file_by_night", "experiment", "night"),
    sa.Index("file_by_run", "experiment", "run"),
    sa.Index("file_by_site", "site"),
    sa.Index("file_by_format", "format"),
    sa.Index("file_by_events", "events"),
    sa.Index("file_by_revision", "revision"),
)
directories = sa.Table(
    "directory",
    metadata,
    sa.Column("path", sa.Text, primary_key=True),
    sa.Column("parent", sa.Text, nullable=False, index=True),
)
values = sa.Table(
    "attribute_value",
    metadata,
    sa.Column("path", sa.Text, sa.ForeignKey("file.path", ondelete="CASCADE"), primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("number", _Number),
    sa.Column("text", sa.Text),
    sa.Index("value_by_number", "name", "number"),
    sa.Index("value_by_text", "name", "text"),
)
declarations = sa.Table(
    "attribute",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("unit", sa.Text),
    sa.Column("description", sa.Text, nullable=False),
)
replicas = sa.Table(
    "replica",
    metadata,
    sa.Column("path", sa.Text, sa.ForeignKey("file.path", ondelete="CASCADE"), primary_key=True),
    sa.Column("url", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("checksum", sa.Text, nullable=False),
    sa.Column("verified", sa.Text, nullable=False),
)
events = sa.Table(
    "image_event",
    metadata,
    sa.Column("experiment", sa.Text, primary_key=True),
    sa.Column("run", sa.BigInteger, primary_key=True),
    sa.Column("event", sa.BigInteger, primary_key=True),
    sa.Column("telescope", sa.Integer, primary_key=True),
    sa.Column("cleaning", sa.Text, primary_key=True),
    sa.Column("dataset", sa.Text),
    sa.Column("image_file", sa.Text),
    sa.Column("image_row_group", sa.BigInteger),
    sa.Column("image_row", sa.BigInteger),
    sa.Column("parameters", sa.Text, nullable=False),  # JSON object
)
event_parameters = sa.Table(
    "event_parameter",
    metadata,
    sa.Column("experiment", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
)
counters = sa.Table(
    "counter", metadata, sa.Column("name", sa.Text, primary_key=True), sa.Column("value", sa.BigInteger, nullable=False)
)
