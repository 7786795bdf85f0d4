"""Numbers of files by night that are kept: counted once, and again only after a write to that night.

Cassandra's own counters count a write twice that is sent twice. Here a writer notes its revision with each night before
it writes, and a count is kept with the revision up to which no writer was under way when it began: it holds as long as
no later one is noted. Both are written under their revision as time stamp, so that of several the highest stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from apbatch.index.cassandra.base import blocks
from apbatch.index.cassandra.batches import Write
from apbatch.index.cassandra.plan import Conditions
from apbatch.index.cassandra.revisions import Revisions
from apbatch.index.cassandra.session import CassandraSession

#: Experiment and night: a partition of file_by_night.
Night = tuple[str, str]
_AT_A_TIME = 16
_MOST_FETCH, _FETCH_EACH = 5000, 1000


def note_changes(session: CassandraSession, nights: Iterable[Night], revision: int) -> list[Write]:
    """Return what ends the counts of nights; to be written before the rows, while the revision is in use.

    Parameters
    ----------
    session : CassandraSession
    nights : iterable of pairs
        Experiments and nights in which rows are about to be written or removed.
    revision : int
        The last one of the block that the rows get.
    """
    note = session.prepare(
        "UPDATE count_of_night USING TIMESTAMP ? SET changed = ? WHERE experiment = ? AND night = ?"
    )  # fmt: skip
    return [(note, (revision, revision, *night)) for night in sorted(set(nights))]


def select_of_night(columns: str, conditions: Conditions = (), more: str = "") -> str:
    """Return the statement that reads a night.

    Parameters
    ----------
    columns : str
        What to select.
    conditions : tuple
        What the rows must fulfil; their values follow experiment and night.
    more : str
        A further condition.
    """
    tests = "".join(f' AND "{name}" {sign} ?' for name, sign, _ in conditions)
    return f"SELECT {columns} FROM file_by_night WHERE experiment = ? AND night = ?{tests}{more}"


def rows_of_nights(
    session: CassandraSession, nights: Sequence[Night], columns: str, conditions: Conditions = ()
) -> Iterator[tuple[Night, Iterator[dict[str, Any]]]]:
    """Yield the rows of nights, of some at the same time.

    Parameters
    ----------
    session : CassandraSession
    nights : sequence of pairs
        Experiments and nights.
    columns : str
        What to select.
    conditions : tuple
        What the rows must fulfil.
    """
    select = session.prepare(select_of_night(columns, conditions))
    values = tuple(value for _, _, value in conditions)
    for part in blocks(nights, _AT_A_TIME):
        reads = []
        for night in part:
            bound = select.bind((*night, *values))
            bound.fetch_size = _MOST_FETCH if len(part) == 1 else _FETCH_EACH
            reads.append((bound, ()))
        yield from zip(part, session.concurrently(reads), strict=True)


def counts_of_nights(
    session: CassandraSession, revisions: Revisions, nights: Sequence[Night]
) -> dict[Night, Mapping[str, int] | None]:
    """Return numbers of files by state, by night; None where a content has several sources, which one has to look at.

    Parameters
    ----------
    session : CassandraSession
    revisions : Revisions
    nights : sequence of pairs
        Experiments and nights.
    """
    counts: dict[Night, Mapping[str, int] | None] = {}
    for experiment in sorted({experiment for experiment, _ in nights}):
        for row in session.run("SELECT * FROM count_of_night WHERE experiment = ?", experiment):
            counted, changed = row["counted"], row["changed"]
            if counted is not None and (changed is None or changed < counted):
                counts[experiment, row["night"]] = None if row["has_copies"] else row["files"] or {}
    missing = [night for night in nights if night not in counts]
    if missing:
        settled = revisions.settled()
        keep = session.prepare(
            "UPDATE count_of_night USING TIMESTAMP ? SET counted = ?, has_copies = ?, files = ? "
            "WHERE experiment = ? AND night = ?"
        )
        kept: list[Write] = []
        for night, rows in rows_of_nights(session, missing, "state, site, tree_number"):
            files: Counter[str] = Counter()
            has_copies = False
            for row in rows:
                if row["site"] is not None:  # else a name that came later than the removal of its file
                    files[row["state"]] += 1
                    has_copies = has_copies or bool(row["tree_number"])
            counts[night] = None if has_copies else files
            kept.append((keep, (settled, settled, has_copies, dict(files), *night)))
        session.write(kept)
    return {night: counts[night] for night in nights}
