"""What `select:` and `--select` ask for: files, or events by their image parameters.

A query that names something only events have (``cleaning``, ``event``, ``width``, …) is one of events; any other is one
of files. `size` is the length of a file in the one, the light of an image in the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from apbatch.errors import UsageError
from apbatch.formats.reader import Attribute
from apbatch.index.parser import names_in, parse
from apbatch.index.query import Query


@dataclass(frozen=True, slots=True)
class Selection:
    """A parsed selection.

    Attributes
    ----------
    query : Query
    of_events : bool
        Whether it picks events; else it picks files.
    """

    query: Query
    of_events: bool


def parse_selection(text: str, files: Mapping[str, Attribute], events: Mapping[str, Attribute]) -> Selection:
    """Parse a query of files or of events.

    Parameters
    ----------
    text : str
        The query; empty text matches every file.
    files, events : Mapping
        What may be named, as `Catalogue.attributes` and `Catalogue.event_attributes` return it.

    Raises
    ------
    UsageError
        With the place in the text and the nearest known attribute or keyword.
    """
    named = names_in(text)
    of_events = sorted(name for name in named if name in events and name not in files)
    if not of_events:
        return Selection(parse(text, files), False)
    of_files = sorted(name for name in named if name in files and name not in events)
    if of_files:
        raise UsageError(
            f"the query asks of events ('{of_events[0]}') and of files ('{of_files[0]}')",
            where="query",
            remedy="pick events by experiment, run, event, telescope, cleaning and image parameters only",
        )
    return Selection(parse(text, events), True)
