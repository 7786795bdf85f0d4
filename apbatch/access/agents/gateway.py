"""What an agent or a gateway serves: places of blocks, blocks by capability, files by path. Knows no HTTP.

An agent serves the files of one site, in place; a gateway those of the catalogue, from sites, agents and replicas.
Neither keeps anything of its own: several copies with the same secrets stand in for each other.
"""

from __future__ import annotations

import base64
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from apbatch.access.agents.capability import Secrets
from apbatch.access.blocks import block_count
from apbatch.access.guard import Guard
from apbatch.access.policy import Policy
from apbatch.access.principals import OWNER, Principal
from apbatch.access.reader import OpenFile, Reader
from apbatch.access.view import WHOLE, View
from apbatch.errors import ApbatchError, NotFoundError
from apbatch.index import query as q
from apbatch.index.catalogue import Catalogue
from apbatch.index.contents import BLOCK
from apbatch.index.files import FileRecord, State

#: Most files that one request may locate.
MOST_PATHS = 1000
#: Contents that are kept open: their hashes, and where they were found.
_OPEN_CONTENTS = 256
#: Places of one content that are looked at.
_PLACES = 20


@dataclass(eq=False)
class _Content:
    """An open content, and how many requests read it at the moment."""

    file: OpenFile
    users: int = 0


class Gateway:
    """Serves what a policy allows; threads share it.

    Parameters
    ----------
    catalogue : Catalogue
    policy : Policy
    secrets : Secrets
        Of the capabilities that it gives and takes.
    reader : Reader
        Reads blocks; its guard must be the owner's, since the capability decides.
    site : str, optional
        Serve this site's files alone.
    view : View
        Serve this part of the tree alone.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        policy: Policy,
        secrets: Secrets,
        reader: Reader,
        site: str | None = None,
        view: View = WHOLE,
    ) -> None:
        self.catalogue, self.policy, self._secrets, self._reader, self.site = catalogue, policy, secrets, reader, site
        of_site = None if site is None else q.Compare("site", "=", site)
        parts = [one for one in (of_site, view.scope(catalogue.attributes())) if one is not None]
        self._scope = q.And(tuple(parts)) if len(parts) > 1 else parts[0] if parts else None
        self._owner = Guard(catalogue, None, policy, OWNER, self._scope)
        self._lock = threading.Lock()
        self._contents: OrderedDict[str, _Content] = OrderedDict()

    def guard(self, who: Principal) -> Guard:
        """Return what somebody may see of what is served here."""
        return Guard(self.catalogue, None, self.policy, who, self._scope)

    def locate(self, guard: Guard, paths: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return, by path (key), where the blocks of files are; those that may not be read are left out.

        Returns
        -------
        dict
            ``checksum``, ``size``, ``mtime_ns``, ``capability``, ``expires``; ``blocks``, ``small_pieces``,
            ``large_pieces``: those of `Content` in base64, or None where they are not kept.
        """
        records = guard.get_many(paths)
        good = (one for one in records.values() if one.state is State.REGISTERED and one.checksum)
        readable = [one for one in good if guard.may_read(one)]
        contents = self.catalogue.contents({one.checksum for one in readable})
        located = {}
        for one in readable:
            capability, content = self._secrets.capability(one.checksum), contents.get(one.checksum)
            located[one.path] = {
                "checksum": one.checksum, "size": one.size, "mtime_ns": one.mtime_ns, "capability": capability.text,
                "expires": capability.expires,
                **{name: None if content is None else base64.b64encode(getattr(content, name)).decode()
                   for name in ("blocks", "small_pieces", "large_pieces")},
            }  # fmt: skip
        return located

    def block(self, text: str, number: int) -> tuple[bytes, str, int]:
        """Return a block by capability, its BLAKE3, and for how many seconds the capability is good.

        Raises
        ------
        NotFoundError
            The same for every reason: a guess, an expired capability, no such block, a file that is gone or changed.
        ServerError
            If no source answers.
        """
        capability = self._secrets.read(text)
        if capability is None:
            raise nothing()
        checksum = capability.checksum
        with self._content(checksum) as file:
            digests = file.digests
            if digests is None:  # its hashes may come with a change of the catalogue
                self._forget(checksum, file)
                raise nothing()
            if not 0 <= number < max(1, block_count(file.size)):
                raise nothing()
            try:
                data = file.read(number * BLOCK, BLOCK)
            except ApbatchError:  # where it was found it is no longer, or not as it was
                self._forget(checksum, file)
                raise
        digest = digests.blocks[32 * number : 32 * number + 32] or bytes.fromhex(checksum)
        return data, digest.hex(), self._secrets.seconds_left(capability)

    def open(self, guard: Guard, path: str) -> OpenFile:
        """Open a file by its path in the merged tree, if it may be read; see `Reader.open`."""
        return OpenFile(self._reader, path, guard.readable(path))

    def close(self) -> None:
        """Close what is open and not in use."""
        with self._lock:
            gone, self._contents = list(self._contents.values()), OrderedDict()
        _close_unused(gone)

    @contextmanager
    def _content(self, checksum: str) -> Iterator[OpenFile]:
        """Give a content, opened once for many blocks; it stays open as long as somebody reads it."""
        content = self._kept_content(checksum) or self._open_content(checksum)
        try:
            yield content.file
        finally:
            with self._lock:
                content.users -= 1
                is_kept = self._contents.get(checksum) is content
            if not is_kept:
                _close_unused([content])

    def _kept_content(self, checksum: str) -> _Content | None:
        with self._lock:
            content = self._contents.get(checksum)
            if content is not None:
                self._contents.move_to_end(checksum)
                content.users += 1
            return content

    def _open_content(self, checksum: str) -> _Content:
        records = list(self._owner.select(q.Compare("checksum", "=", checksum), limit=_PLACES))
        if not records:
            raise nothing()
        holdings = {one.path: one for record in records for one in self._holdings(record)}
        file = OpenFile(self._reader, records[0].path, list(holdings.values()))
        with self._lock:
            content = self._contents.setdefault(checksum, _Content(file))
            content.users += 1
            gone = [self._contents.popitem(last=False)[1] for _ in range(len(self._contents) - _OPEN_CONTENTS)]
        _close_unused(gone)
        return content

    def _forget(self, checksum: str, file: OpenFile) -> None:
        """Look for a content anew the next time; whoever reads it now goes on."""
        with self._lock:
            content = self._contents.get(checksum)
            if content is not None and content.file is file:
                del self._contents[checksum]

    def _holdings(self, record: FileRecord) -> list[FileRecord]:
        """Return what sites hold of the entry of a file, of which a search gives one: any of them may be away."""
        for entry in (record.place, f"{record.place}@{record.site}"):  # the other one where sites disagree
            holdings = self._owner.sources(entry)
            if any(one.path == record.path for one in holdings):
                return [one for one in holdings if one.checksum == record.checksum]
        return [record]


def _close_unused(contents: Iterable[_Content]) -> None:
    """Close contents that nobody is given any more; who still reads one closes it."""
    for one in contents:
        if one.users == 0:
            with suppress(ApbatchError, OSError):
                one.file.close()


def nothing() -> NotFoundError:
    """Return the error for everything that is not there or may not be had."""
    return NotFoundError("not found")
