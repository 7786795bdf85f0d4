"""Digests of stretches of a site's listing: made from the rows when they are asked for, dropped with any change.

A row of the table is a stretch, which ends where the next one begins. Whatever writes a file drops the digest of its
stretch in the same transaction, so that a digest always is that of the rows.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping

from apbatch.index.digests import ListingDigest, digest_of
from apbatch.index.files import State
from apbatch.index.records import is_text
from apbatch.index.sql.base import SqlBase
from apbatch.index.sql.database import Row, Run, Session

#: Files of a stretch.
_FILES = 2000
#: A stretch begins with no longer source: an index of PostgreSQL takes some 2,700 bytes.
_LONGEST_FIRST = 500
_AT = "FROM listing_digest d WHERE d.site = ? AND d.first <= ? ORDER BY d.first DESC LIMIT 1"
_PLAIN = (State.REGISTERED.value, State.LISTED.value)


class SqlDigests(SqlBase):
    """Stretches of listings."""

    def digests(self, site: str, below: str = "") -> Iterator[ListingDigest]:
        """Yield the stretches of a site; see `Catalogue.digests`."""
        below = below.strip("/")
        if not is_text(site) or not is_text(below):
            return
        start, end = (f"{below}/", f"{below}0") if below else ("", None)
        at = start
        while True:
            part = self._stretch_at(site, at)
            following = part.following
            if end is not None and (following is None or following > end):
                following = end
            whole = (part.first, part.following) == (at, following)
            yield part if whole else ListingDigest(at, following)
            if following == end:
                return
            assert following is not None
            at = following

    def _stretch_at(self, site: str, source: str) -> ListingDigest:
        """Return the stretch that a source is in; one without a digest is given one."""
        part = self._kept(self._db.ask, site, source)
        if part is None:
            with self._db.write() as session:
                part = self._kept(session.rows, site, source)  # another process may be first
                if part is None:
                    self._summarise(session, site, source)
                    part = self._kept(session.rows, site, source)
        assert part is not None
        return part

    def _kept(self, run: Run, site: str, source: str) -> ListingDigest | None:
        following = "SELECT MIN(n.first) FROM listing_digest n WHERE n.site = d.site AND n.first > d.first"
        rows = run(f"SELECT d.first, ({following}), d.files, d.registered, d.digest {_AT}", (site, source))
        if not rows or rows[0][-1] is None:
            return None
        first, end, files, registered, digest = rows[0]
        return ListingDigest(first, end, files, registered, bytes(digest) or None)

    def _following(self, session: Session, site: str, first: str) -> str | None:
        following: str | None = session.value(
            "SELECT MIN(first) FROM listing_digest WHERE site = ? AND first > ?", (site, first)
        )
        return following

    def _summarise(self, session: Session, site: str, source: str) -> None:
        """Give the stretch that a source is in its digest; of a long one only the beginning, the rest is cut off."""
        rows = session.rows(f"SELECT first {_AT}", (site, source))
        first = rows[0][0] if rows else ""
        following = self._following(session, site, first)
        cut, files = None, self._files(session, site, first, following, _FILES + 1)
        if len(files) > _FILES:
            files = self._files(session, site, first, following, 2 * _FILES + 1) if _no_cut(files) else files
            cut = next((n for n in range(_FILES, len(files)) if _may_cut(files, n)), None)
        session.run("DELETE FROM listing_digest WHERE site = ? AND first = ?", (site, first))
        begin = files[cut][0] if cut is not None else None
        stays = [file for file in files[:cut] if file[3] != State.MISSING.value]
        registered = sum(file[3] == State.REGISTERED.value for file in stays)
        plain = all(file[3] in _PLAIN for file in stays) and (cut is not None or len(files) <= 2 * _FILES)
        columns = list(zip(*stays, strict=True))[:3] if stays else ([], [], [])
        digest = digest_of(*columns) if plain else b""
        new: list[tuple[str, str, int, int, bytes | None]] = [(site, first, len(stays), registered, digest)]
        if begin is not None:
            new.append((site, begin, 0, 0, None))
        session.many("INSERT INTO listing_digest (site, first, files, registered, digest) VALUES (?, ?, ?, ?, ?)", new)

    def _files(self, session: Session, site: str, first: str, following: str | None, limit: int) -> list[Row]:
        narrow = self._db.narrow("source")
        tests, values = [f"{narrow} >= ? AND source >= ?"], [site, self._db.narrowed(first), first]
        if following is not None:
            tests.append(f"{narrow} <= ? AND source < ?")
            values += [self._db.narrowed(following), following]
        order = "source" if narrow == "source" else f"{narrow}, source"
        return session.rows(
            f"SELECT source, size, mtime_ns, state FROM file WHERE site = ? AND {' AND '.join(tests)} "
            f"ORDER BY {order} LIMIT {limit}",
            values,
        )

    def _drop_digests(self, session: Session, sources: Mapping[str, Iterable[str]]) -> None:
        """Drop the digests of the stretches that files, by site, are in."""
        for site, many in sources.items():
            waiting, at = sorted(set(many)), 0
            while at < len(waiting):
                rows = session.rows(f"SELECT first, digest IS NULL {_AT}", (site, waiting[at]))
                if not rows:
                    break  # nothing is kept of this site
                first, is_dropped = rows[0]
                if not is_dropped:
                    session.run("UPDATE listing_digest SET digest = NULL WHERE site = ? AND first = ?", (site, first))
                following = self._following(session, site, first)
                at = len(waiting) if following is None else bisect_left(waiting, following, at + 1)


def _may_cut(files: list[Row], at: int) -> bool:
    """Tell whether a stretch may begin with a file: records of one source stay together."""
    return len(files[at][0]) <= _LONGEST_FIRST and files[at][0] != files[at - 1][0]


def _no_cut(files: list[Row]) -> bool:
    return not _may_cut(files, _FILES)
