"""Merges what agents serve into one catalogue, by their feeds: metadata only, no data are read.

The position in a feed is kept in this home, and only spares work: without it a feed is read from its beginning, which
writes what is there already once more and forgets what the agent no longer has.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from apbatch.access.agents.client import Agent, StaleFeedError
from apbatch.access.agents.wire import attribute_from_json, change_from_json
from apbatch.errors import ApbatchError, FormatError
from apbatch.formats.reader import Attribute
from apbatch.index.catalogue import Catalogue
from apbatch.index.changes import Change, ChangeKind
from apbatch.index.contents import BLOCK, Content
from apbatch.index.files import FileRecord, State
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
        Name of the site that the agent serves; what it says of others is refused.
    folder : pathlib.Path
        Where the position is kept.
    """

    def __init__(self, agent: Agent, catalogue: Catalogue, site: str, folder: Path) -> None:
        self._agent, self._catalogue, self._site = agent, catalogue, site
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

    def follow(self, ended: threading.Event) -> None:
        """Catch up again and again until told to end; an agent that fails is tried again."""
        while not ended.is_set():
            pause = PERIOD_S
            try:
                self.catch_up()
            except ApbatchError as error:
                say(f"site {self._site}: {error}")
                pause = REST_S
            ended.wait(pause)

    def _read(self, since: int, paths: set[bytes] | None) -> int:
        """Read the feed on; `paths` collects what it has where it is read from its beginning."""
        attributes = self._attributes()
        number, from_start = 0, int(paths is not None)
        while True:
            page = self._agent.ask(f"/changes?since={since}&limit={_PAGE}&from_start={from_start}")
            changes, last = _page(page, attributes)
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
                if change.record.site != self._site or change.record.path != change.key:
                    raise FormatError("the agent tells of files of another site", where=self._agent.url)
                records[change.key] = change.record
                if paths is not None:
                    paths.add(_short(change.key))
            elif change.kind is ChangeKind.GONE:
                records.pop(change.key, None)
                removals.append(change.key)
        ours = {path for path, one in self._catalogue.get_many(removals).items() if one.site == self._site}
        self._catalogue.remove(ours)
        report = self._catalogue.upsert(records.values())
        for refusal in report.refusals[:10]:
            say(f"{ascii(refusal.record.path)[:200]}: {refusal.reason}")
        self._take_hashes(records.values())
        return len(records) + len(ours)

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
        gone = [one.path for one in self._catalogue.of_site(self._site) if _short(one.path) not in paths]
        if gone:
            self._catalogue.remove(gone)

    def _attributes(self) -> dict[str, Attribute]:
        about = self._agent.ask("/")
        try:
            if about["site"] not in (self._site, None):
                raise FormatError(f"the agent serves site {ascii(about['site'])[:80]}", where=self._agent.url)
            attributes = {one.name: one for one in map(attribute_from_json, about["attributes"])}
        except (KeyError, TypeError):
            raise FormatError("this is not an agent", where=self._agent.url) from None
        known = self._catalogue.attributes()
        self._catalogue.declare(one for name, one in attributes.items() if name not in known)
        return attributes

    def _position(self) -> int:
        try:
            return max(0, int(self._file.read_text()))
        except (OSError, ValueError):
            return 0

    def _keep(self, since: int) -> None:
        write_whole(self._file, f"{since}\n")


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
