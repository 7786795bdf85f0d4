"""Merges what agents serve into one catalogue, by their feeds: metadata only, no data are read.

The position in a feed is kept in this home, and only spares work: without it a feed is read from its beginning, which
writes what is there already once more and forgets what the agent no longer has.
"""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from apbatch.config import home, load_settings
from apbatch.errors import ApbatchError, FormatError
from apbatch.formats.reader import Attribute
from apbatch.index.catalogue import Catalogue
from apbatch.index.changes import Change, ChangeKind
from apbatch.index.contents import BLOCK, Content
from apbatch.index.files import FileRecord, State
from apbatch.index.leases import LeaseLostError
from apbatch.ingest.remote.client import Agent, StaleFeedError, agent_at
from apbatch.ingest.remote.wire import attribute_from_json, change_from_json
from apbatch.ingest.site import Site
from apbatch.ingest.summary import IngestSummary
from apbatch.localfiles import write_whole
from apbatch.progress import say

#: Seconds between two looks at a feed, and after one that failed.
PERIOD_S, REST_S = 1.0, 10.0
_PAGE = 2000
_LOCATED = 500


class Follower:
    """Follows the feed of one agent.

    Parameters
    ----------
    agent : Agent
    catalogue : Catalogue
        Into which files go.
    site : str
        Name of the site that the agent serves; what it says of others is refused. Of a gateway's feed, which tells of
        many sites, this one's files are taken.
    folder : pathlib.Path
        Where the position is kept, for this catalogue alone.
    keep : callable
        Called between pages; may end the work by an exception.

    Attributes
    ----------
    changes, failures : int
        Changes that were taken over, and looks at the feed that failed, since the process began to follow.
    last_success : float
        Time of the last look that did not fail, s since 1970; 0 before the first.
    """

    def __init__(
        self, agent: Agent, catalogue: Catalogue, site: str, folder: Path, keep: Callable[[], None] = lambda: None
    ) -> None:
        self._agent, self._catalogue, self.site, self._keep_lease = agent, catalogue, site, keep
        self.changes, self.failures, self.last_success = 0, 0, 0.0
        self._is_gateway = False
        #: What was taken over so far.
        self.summary = IngestSummary(site)
        self._file = folder / f"{hashlib.sha256(f'{agent.url} {site}'.encode()).hexdigest()[:16]}.position"

    def catch_up(self) -> int:
        """Take over all changes that there are; return how many.

        Raises
        ------
        ServerError
            If the agent does not answer.
        FormatError
            If it answers what is not a feed.
        """
        since = self._position()
        try:
            return self._read(since, set() if since == 0 else None)
        except StaleFeedError:
            return self._read(0, set())

    def follow(self, ended: threading.Event, after: Callable[[], None] = lambda: None) -> None:
        """Catch up again and again until told to end; an agent that fails is tried again.

        Raises
        ------
        LeaseLostError
            From `keep`.
        """
        while not ended.is_set():
            pause = PERIOD_S
            try:
                self._keep_lease()
                number = self.catch_up()
                self.changes += number
                self.last_success = time.time()
                if number:
                    after()
            except LeaseLostError:
                raise
            except Exception as error:  # a thread that ended would leave the site as it is, without a word
                self.failures += 1
                say(f"site {self.site}: {error if isinstance(error, ApbatchError) else repr(error)}")
                pause = REST_S
            ended.wait(pause)

    def _read(self, since: int, paths: set[bytes] | None) -> int:
        """Read the feed on; `paths` collects what it has where it is read from its beginning."""
        attributes = self._attributes()
        number, from_start = 0, int(paths is not None)
        while True:
            page = self._agent.ask(f"/changes?since={since}&limit={_PAGE}&from_start={from_start}")
            changes, last = _page(page, attributes)
            self._keep_lease()
            number += self._take(changes, paths)
            if last == since:
                break
            since = last
            if paths is None:
                self._keep(since)
        if paths is not None:
            self._forget_others(paths)
            self._keep(since)
        return number

    def _take(self, changes: list[Change], paths: set[bytes] | None) -> int:
        records: dict[str, FileRecord] = {}
        removals: list[str] = []
        for change in changes:
            if change.record is not None:
                if self._is_gateway and change.record.site != self.site:
                    continue
                if change.record.site != self.site or change.record.path != change.key:
                    raise FormatError("the agent tells of files of another site", where=self._agent.url)
                records[change.key] = change.record
                if paths is not None:
                    paths.add(_short(change.key))
            elif change.kind is ChangeKind.GONE:
                records.pop(change.key, None)
                removals.append(change.key)
        ours = {path for path, one in self._catalogue.get_many(removals).items() if one.site == self.site}
        self._catalogue.remove(ours)
        self._count(records.values(), len(ours))
        report = self._catalogue.upsert(records.values())
        for refusal in report.refusals[:10]:
            say(f"{ascii(refusal.record.path)[:200]}: {refusal.reason}")
        self._take_hashes(records.values())
        return len(records) + len(ours)

    def _count(self, records: Iterable[FileRecord], removed: int) -> None:
        summary = self.summary
        summary.missing += removed
        for record in records:
            match record.state:
                case State.LISTED:
                    summary.listed += 1
                case State.REGISTERED:
                    summary.registered += 1
                case State.QUARANTINED:
                    summary.quarantined.add(record.source, record.reason or "")
                case State.MISSING:
                    summary.missing += 1
                case State.ARCHIVED:
                    summary.archived += 1

    def _take_hashes(self, records: Iterable[FileRecord]) -> None:
        """Take over the hashes of contents of more than one block; of those that the token may read."""
        large = {one.checksum: one for one in records if one.state is State.REGISTERED and one.size > BLOCK}
        kept = self._catalogue.has_contents(large)
        missing = [one for checksum, one in large.items() if checksum not in kept]
        for start in range(0, len(missing), _LOCATED):
            part = missing[start : start + _LOCATED]
            files = self._agent.ask("/locate", {"paths": [one.path for one in part]})
            contents = [_content(one, files) for one in part]
            self._catalogue.put_contents(one for one in contents if one is not None)

    def _forget_others(self, paths: set[bytes]) -> None:
        gone = [one.path for one in self._catalogue.of_site(self.site) if _short(one.path) not in paths]
        if gone:
            self.summary.missing += self._catalogue.remove(gone)

    def _attributes(self) -> dict[str, Attribute]:
        about = self._agent.check(self.site)
        self._is_gateway = about["site"] is None
        attributes = {one.name: one for one in map(attribute_from_json, about["attributes"])}
        declared = self._catalogue.attributes()
        self._catalogue.declare(one for name, one in attributes.items() if name not in declared)
        return attributes

    def _position(self) -> int:
        try:
            return max(0, int(self._file.read_text()))
        except (OSError, ValueError):
            return 0

    def _keep(self, since: int) -> None:
        write_whole(self._file, f"{since}\n")


def follower_of(site: Site, catalogue: Catalogue, keep: Callable[[], None]) -> Follower:
    """Return what follows the agent of a site into the catalogue of this home's settings.

    Parameters
    ----------
    site : Site
        Whose root is its agent.
    catalogue : Catalogue
    keep : callable
        Keeps the site's lease.
    """
    where = hashlib.sha256(load_settings().catalogue.encode()).hexdigest()[:16]
    return Follower(agent_at(site.root), catalogue, site.name, home() / "agents" / where, keep)


def _content(record: FileRecord, answer: Any) -> Content | None:
    """Return the hashes of a file's content that an agent gives; None if it gives none, or not of this content."""
    try:
        file = answer["files"].get(record.path)
        if file is None or file["blocks"] is None or file["checksum"] != record.checksum:
            return None
        digests = (base64.b64decode(file[name], validate=True) for name in ("blocks", "small_pieces", "large_pieces"))
        content = Content(record.checksum, record.size, record.adler32, *digests)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise FormatError("not the place of a file") from None
    return content if content.flaw() is None else None


def _page(page: Any, attributes: dict[str, Attribute]) -> tuple[list[Change], int]:
    try:
        changes, last = page["changes"], page["revision"]
        if type(last) is not int or not isinstance(changes, list):
            raise TypeError
    except (KeyError, TypeError):
        raise FormatError("not a page of changes") from None
    return [change_from_json(change, attributes) for change in changes], last


def _short(path: str) -> bytes:
    return hashlib.blake2b(path.encode("utf-8", "surrogatepass"), digest_size=16).digest()
