"""What the service says of itself (VOSI 1.1): availability, capabilities, tables."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from apbatch.api.tap.jobs import KEPT, KEPT_AT_MOST, LONGEST_S
from apbatch.api.tap.request import MOST_ROWS, ROWS, TABLE_FORMS
from apbatch.api.tap.schema import SCHEMAS
from apbatch.api.tap.tables import Column, ForeignKey, Table
from apbatch.api.tap.uws import time_text
from apbatch.api.tap.votable import MEDIA, clean, datatype_of, unit_of
from apbatch.api.tap.words import quoted

_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
_XSI = 'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
_VS = 'xmlns:vs="http://www.ivoa.net/xml/VODataService/v1.1"'
_STANDARD = "ivo://ivoa.net/std"


def availability(since: datetime) -> bytes:
    """Say that the service is there, since when."""
    return (
        f'{_HEAD}<vosi:availability xmlns:vosi="http://www.ivoa.net/xml/VOSIAvailability/v1.0">'
        f"<vosi:available>true</vosi:available><vosi:upSince>{time_text(since)}</vosi:upSince></vosi:availability>\n"
    ).encode()


def capabilities(base: str) -> bytes:
    """Say what the service can; `base` is the address of TAP."""
    formats = [(f"{MEDIA};serialization=TABLEDATA", "votable")]
    formats += [(form.media, form.name) for form in TABLE_FORMS]
    written = "".join(
        f"<outputFormat><mime>{clean(media)}</mime><alias>{alias}</alias></outputFormat>" for media, alias in formats
    )
    geometry = "".join(f"<feature><form>{name}</form></feature>" for name in ("CONTAINS", "POINT", "CIRCLE"))
    access = (
        f'<dataModel ivo-id="{_STANDARD}/ObsCore#core-1.1">ObsCore-1.1</dataModel>'
        f'<language><name>ADQL</name><version ivo-id="{_STANDARD}/ADQL#v2.1">2.1</version>'
        f'<version ivo-id="{_STANDARD}/ADQL#v2.0">2.0</version>'
        "<description>One table; conditions, cones, counts, groups, order. No JOIN, no arithmetic.</description>"
        f'<languageFeatures type="{_STANDARD}/TAPRegExt#features-adqlgeo">{geometry}</languageFeatures></language>'
        f"{written}"
        f"<retentionPeriod><default>{KEPT.total_seconds():.0f}</default><hard>{KEPT_AT_MOST.total_seconds():.0f}</hard>"
        f"</retentionPeriod><executionDuration><default>{LONGEST_S}</default><hard>{LONGEST_S}</hard></executionDuration>"
        f'<outputLimit><default unit="row">{ROWS}</default><hard unit="row">{MOST_ROWS}</hard></outputLimit>'
    )
    parts = (
        f'<capability standardID="{_STANDARD}/TAP" xsi:type="tr:TableAccess">{_interface(base, "1.1", "base")}{access}'
        "</capability>",
        *(
            f'<capability standardID="{_STANDARD}/{standard}">{_interface(base + path, version)}</capability>'
            for standard, path, version in (
                ("VOSI#capabilities", "/capabilities", "1.1"),
                ("VOSI#availability", "/availability", "1.1"),
                ("VOSI#tables-1.1", "/tables", "1.1"),
                ("DataLink#links-1.1", "/links", "1.1"),
                ("DALI#examples", "/examples", "1.1"),
            )
        ),
    )
    spaces = f'{_XSI} {_VS} xmlns:tr="http://www.ivoa.net/xml/TAPRegExt/v1.0"'
    name = 'vosi:capabilities xmlns:vosi="http://www.ivoa.net/xml/VOSICapabilities/v1.0"'
    return f"{_HEAD}<{name} {spaces}>{''.join(parts)}</vosi:capabilities>\n".encode()


def _interface(address: str, version: str, use: str = "full") -> str:
    return (
        f'<interface xsi:type="vs:ParamHTTP" role="std" version="{version}"><accessURL use="{use}">'
        f"{clean(address)}</accessURL></interface>"
    )


def tableset(tables: Mapping[str, Table], *, with_columns: bool) -> bytes:
    """Describe all tables."""
    by_schema: dict[str, list[str]] = {}
    for name, table in tables.items():
        by_schema.setdefault(name.partition(".")[0], []).append(_table(table, with_columns=with_columns))
    schemas = "".join(
        f"<schema><name>{name}</name><description>{clean(SCHEMAS.get(name, ''))}</description>"
        f"{''.join(listed)}</schema>"
        for name, listed in by_schema.items()
    )
    name = 'vosi:tableset xmlns:vosi="http://www.ivoa.net/xml/VOSITables/v1.0"'
    return f"{_HEAD}<{name} {_XSI} {_VS}>{schemas}</vosi:tableset>\n".encode()


def table_document(table: Table) -> bytes:
    """Describe one table."""
    text = _table(table, with_columns=True).removeprefix("<table").removesuffix("</table>")
    name = 'vosi:table xmlns:vosi="http://www.ivoa.net/xml/VOSITables/v1.0"'
    return f"{_HEAD}<{name} {_XSI} {_VS}{text}</vosi:table>\n".encode()


def _table(table: Table, *, with_columns: bool) -> str:
    columns = "".join(map(_column, table.columns.values())) if with_columns else ""
    keys = "".join(map(_key, table.keys)) if with_columns else ""
    utype = f"<utype>{table.utype}</utype>" if table.utype else ""
    kind = "view" if table.utype else "table"
    return (
        f'<table type="{kind}"><name>{table.name}</name><description>{clean(table.description)}</description>'
        f"{utype}{columns}{keys}</table>"
    )


def _key(key: ForeignKey) -> str:
    return (
        f"<foreignKey><targetTable>{key.target_table}</targetTable><fkColumn><fromColumn>{key.column}</fromColumn>"
        f"<targetColumn>{key.target_column}</targetColumn></fkColumn></foreignKey>"
    )


def _column(column: Column) -> str:
    about = column.attribute
    kind = datatype_of(column.kind, is_ascii=column.is_ascii)
    sizes = "".join(
        f' {name}="{kind[key]}"' for name, key in (("arraysize", "arraysize"), ("extendedType", "xtype")) if kind[key]
    )
    texts = (("unit", unit_of(about.unit)), ("ucd", column.ucd), ("utype", column.utype))
    return (
        f'<column std="{str(column.is_standard).lower()}"><name>{clean(quoted(about.name))}</name>'
        f"<description>{clean(about.description)}</description>"
        + "".join(f"<{name}>{clean(text)}</{name}>" for name, text in texts if text)
        + f'<dataType xsi:type="vs:VOTableType"{sizes}>{kind["datatype"]}</dataType></column>'
    )
