"""What the paths of TAIGA-IACT's raw files tell: night, cluster, part, run, telescope; and the days of their times.

Files are named ``DDMMYCCC.PPP``: day, month, last digit of the year, cluster, part. The digit is completed to the
first year from 2016, when the telescope started, unless a folder of the path says ``DDMMYY``, ``DDMMYY.RR`` (with a
number of the run) or ``YYYY``. Nothing in a file tells the telescope: it is the first one unless the path names another
(``iact02``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import PurePosixPath

from apbatch.formats.compressed import plain_name
from apbatch.formats.taiga.numbering import telescope_of_path

#: Before this time of day (UTC, noon in the Tunka valley) it belongs to the day after the file's date.
NOON_UTC_NS = 5 * 3_600_000_000_000
_FIRST_YEAR = 2016

_NAME = re.compile(r"^(?P<day>\d\d)(?P<month>\d\d)(?P<year>\d)(?P<cluster>\d{3})\.(?P<part>\d{3}|ped)$")
_DAY_FOLDER = re.compile(r"^(?P<day>\d\d)(?P<month>\d\d)(?P<year>\d\d)(?:\.(?P<run>\d{1,2}))?$")
_YEAR_FOLDER = re.compile(r"^20\d\d$")
_CLUSTER_FOLDER = re.compile(r"^BSM(?P<cluster>\d{1,2})$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class FileName:
    """What the path of a raw file tells; None where it does not."""

    night: date | None = None
    cluster: int | None = None
    part: int | None = None
    pedestal: bool = False
    run: int | None = None
    telescope: int = 1


def is_raw_name(name: str) -> bool:
    """Tell whether a file is named as the data acquisition does, compressed or not."""
    return _NAME.match(plain_name(name)) is not None


def parse_name(name: str) -> FileName:
    """Read night, cluster, part, run and telescope from a path such as ``281017.01/BSM07/28107007.001``."""
    path = PurePosixPath(name)
    own_name = plain_name(name)
    match = _NAME.match(own_name)
    pedestal = own_name.endswith(".ped") or any(folder.upper() == "PED" for folder in path.parts[:-1])
    cluster = int(match["cluster"]) if match else None
    part = int(match["part"]) if match and match["part"].isdigit() else None
    night, number = None, None
    years = range(_FIRST_YEAR, _FIRST_YEAR + 10)
    for folder in reversed(path.parts[:-1]):
        if cluster is None and (folder_match := _CLUSTER_FOLDER.match(folder)):
            cluster = int(folder_match["cluster"])
        if _YEAR_FOLDER.match(folder):
            years = range(int(folder), int(folder) + 1)
        if night is None and (folder_match := _DAY_FOLDER.match(folder)):
            night = _date(2000 + int(folder_match["year"]), int(folder_match["month"]), int(folder_match["day"]))
            number = int(folder_match["run"]) if night and folder_match["run"] else None
    if match:
        # The file's own day counts: a folder of a night may hold a file of another one by mistake.
        if night is not None and night.year % 10 == int(match["year"]):
            years = range(night.year, night.year + 1)
        year = next((year for year in years if year % 10 == int(match["year"])), None)
        night = _date(year, int(match["month"]), int(match["day"])) if year else night
    run = None
    if night is not None:
        run = night.year * 10000 + night.month * 100 + night.day
        run = run * 100 + number if number is not None else run
    return FileName(night, cluster, part, pedestal, run, telescope_of_path(name))


def _date(year: int, month: int, day: int) -> date | None:
    try:
        return date(year, month, day)
    except ValueError:
        return None


def utc(night: date, time_of_day_ns: int) -> datetime:
    """Return the UTC of a time of day in a night; before 5 h UTC, noon in the Tunka valley, it is the next day's."""
    day = night if time_of_day_ns >= NOON_UTC_NS else night + timedelta(days=1)
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(microseconds=time_of_day_ns // 1000)
