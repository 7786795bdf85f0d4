"""What Cassandra reads for a query: partitions and indexes that the query names, or a refusal with the reason."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from apbatch.errors import UsageError
from apbatch.formats.reader import Attribute
from apbatch.index.attributes import COMMON
from apbatch.index.cassandra.plan import Access, Index, Nights, Path, Run, Site, Tree, describe, plan
from apbatch.index.parser import parse
from apbatch.index.query import of_registered

KNOWN = {
    **COMMON,
    "zenith": Attribute("zenith", "number", "zenith angle", "deg"),
    "label": Attribute("label", "string", "text"),
    "simulated": Attribute("simulated", "boolean", "flag"),
}
REGISTERED = ("state", "=", "registered")
ZENITHS = (("zenith", ">=", 10.0), ("zenith", "<=", 20.0))
OCTOBER = (date(2017, 10, 1), date(2017, 10, 31))
MOMENT = datetime(2017, 10, 28, 1, 2, 3, 456_789, tzinfo=UTC)


def read(text: str) -> list[Access]:
    return plan(of_registered(parse(text, KNOWN)), KNOWN)


@pytest.mark.parametrize(
    ("text", "accesses"),
    [
        ("", [Nights(None)]),
        ("state != 'missing'", [Nights(None)]),
        ("path = '/a/b'", [Path(("/a/b",))]),
        ("path in ('/a', '/b') and zenith < 3", [Path(("/a", "/b"))]),
        ("path like '/taiga/raw/%'", [Tree("/taiga/raw", "/taiga/raw/")]),
        ("path like '/taiga/raw/BSM%01'", [Tree("/taiga/raw", "/taiga/raw/BSM")]),
        ("experiment = 'T' and run = 3", [Run("T", 3)]),
        ("experiment in ('T', 'K') and run in (3, 4)", [Run("T", 3), Run("T", 4), Run("K", 3), Run("K", 4)]),
        ("experiment = 'T' and run = 3.5", []),
        ("experiment = 'T' and night = 2017-10-01", [Nights("T", None, None, (OCTOBER[0],))]),
        (
            "experiment = 'T' and night = 2017-10-01 and site = 's' and zenith between 10 and 20 and events > 5",
            [Nights("T", None, None, (OCTOBER[0],), ZENITHS)],
        ),
        ("experiment = 'T' and night between 2017-10-01 and 2017-10-31", [Nights("T", *OCTOBER)]),
        ("night >= 2017-10-01 and night > 2017-09-01 and night <= 2017-10-31", [Nights(None, *OCTOBER)]),
        ("experiment = 'T'", [Nights("T")]),
        ("site = 's'", [Site("s")]),
        ("experiment = 'T' and site = 's'", [Site("s")]),
        ("events > 1000", [Index((REGISTERED, ("events", ">=", 1000)))]),
        ("experiment = 'T' and zenith < 30 deg",
         [Index((("experiment", "=", "T"), REGISTERED, ("zenith", "<=", 30.0)))]),
        ("events > 5.5 and events < 7 and events < 9", [Index((REGISTERED, ("events", ">=", 5), ("events", "<=", 7)))]),
        ("label = 'x' and size between 1 and 2",
         [Index((("label", "=", "x"), REGISTERED, ("size", ">=", 1), ("size", "<=", 2)))]),
        ("format = 'kascade'", [Index((("format", "=", "kascade"), REGISTERED))]),
        ("state = 'quarantined'", [Index((("state", "=", "quarantined"),))]),
        ("time_start <= '2017-10-28T01:02:03.456789'",
         [Index((REGISTERED, ("time_start", "<=", MOMENT.replace(microsecond=457_000))))]),
        ("time_start >= '2017-10-28T01:02:03.456789'",
         [Index((REGISTERED, ("time_start", ">=", MOMENT.replace(microsecond=456_000))))]),
        ("experiment = 'T' or site = 's' or experiment = 'T'", [Nights("T"), Site("s")]),
        ("not (experiment != 'T' or zenith is null)", [Nights("T")]),
        ("(site = 's' or run = 3) and simulated = true", [Site("s"), Index((("run", "=", 3),))]),
        ("telescope in (1, 2)", [Index((("telescope", "=", 1),)), Index((("telescope", "=", 2),))]),
    ],
)  # fmt: skip
def test_a_query_reads_what_it_names(text: str, accesses: list[Access]) -> None:
    got = read(text)
    assert [_sorted(access) for access in got] == [_sorted(access) for access in accesses]
    assert all(describe(access) for access in got)


def _sorted(access: Access) -> object:
    return Index(tuple(sorted(access.conditions, key=str))) if isinstance(access, Index) else access


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("zenith is null", "zenith"),
        ("not label = 'x'", "label"),
        ("label > 'x'", "label"),
        ("label like 'x%'", "label"),
        ("path like '%.001'", "path"),
        ("simulated = true", "simulated"),
        ("experiment = 'T' or simulated = true", "simulated"),
        (f"label = '{'x' * 2000}'", "label"),
    ],
)
def test_what_needs_every_file_is_refused(text: str, named: str) -> None:
    with pytest.raises(UsageError, match=f"only by reading every file: no index serves what is asked of {named}"):
        read(text)


def test_files_without_a_night_are_in_no_range_of_nights() -> None:
    assert Nights("T").holds("none-07")
    assert not Nights("T", *OCTOBER).holds("none-07")
    assert Nights("T", *OCTOBER).holds("2017-10-31") and not Nights("T", *OCTOBER).holds("2017-11-01")
