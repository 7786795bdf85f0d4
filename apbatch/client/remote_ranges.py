"""Bytes of a file behind a catalogue's server, by ranges, verified here."""

from __future__ import annotations

import re
from collections import OrderedDict
from functools import cached_property

import urllib3

from apbatch.access.blocks import Digests, block_length, pieces
from apbatch.client.connection import Connection, reason_of
from apbatch.errors import ServerError, VerificationError
from apbatch.index.contents import BLOCK

#: Blocks of a file that are kept.
_BLOCKS = 16
#: Version of a file that was read when it was registered.
_OF_CONTENT = re.compile(r'"([0-9a-f]{64})"')


class RemoteRanges:
    """Bytes of an entry behind a server, read by blocks, each compared with its hash; the last ones read are kept.

    A file that the catalogue only lists has no hashes, and one above a block may lack them: it comes as it is.

    Parameters
    ----------
    connection : Connection
    path : str
        In the merged tree.

    Raises
    ------
    NotFoundError
        If there is no such file, or it may not be read.
    """

    def __init__(self, connection: Connection, path: str) -> None:
        self._connection, self._path = connection, path
        answer = connection.request("/content", {"path": path}, method="HEAD")
        self.size = int(answer.headers["content-length"])
        self.tag = answer.headers["etag"]
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    @cached_property
    def _digests(self) -> Digests | None:
        """What the blocks must be."""
        version = _OF_CONTENT.fullmatch(self.tag)
        if version is None:
            return None
        content = self._connection.content(version[1]) if self.size > BLOCK else None
        return Digests.of(version[1], self.size, content)

    def read(self, offset: int, length: int) -> bytes:
        """Return the bytes of a range, cut at the end of the file.

        Raises
        ------
        VerificationError
            If the file is another one by now, or its bytes are not those that were registered.
        ServerError
            If the answer broke off.
        """
        return b"".join(self._block(part.block)[part.start : part.stop] for part in pieces(offset, length, self.size))

    def close(self) -> None:
        """Forget the blocks."""
        self._blocks.clear()

    def _block(self, number: int) -> bytes:
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        begin = number * BLOCK
        block = self.fetch(begin, begin + block_length(self.size, number))
        if self._digests is not None:
            try:
                self._digests.check(number, block)
            except VerificationError as error:
                error.where = f"{self._connection.name} {self._path}"
                raise
        self._blocks[number] = block
        if len(self._blocks) > _BLOCKS:
            self._blocks.popitem(last=False)
        return block

    def fetch(self, begin: int, end: int) -> bytes:
        """Return a range of bytes in one request, as they come; any number of threads may ask.

        Raises
        ------
        VerificationError
            If the file is another one by now.
        ServerError
            If they can't be had.
        """
        headers = {"Range": f"bytes={begin}-{end - 1}", "If-Range": self.tag}
        answer = self._connection.request("/content", {"path": self._path}, headers, stream=True)
        try:
            if answer.status != 206 or answer.headers.get("etag") != self.tag:
                raise VerificationError("the file changed while it was read", where=self._path, remedy="open it again")
            block = answer.read()
        except urllib3.exceptions.HTTPError as error:
            raise ServerError(
                f"the answer broke off: {reason_of(error)}", where=self._path, remedy="read again"
            ) from error
        finally:
            answer.close()
        if len(block) != end - begin:
            raise ServerError("the server gave too few bytes", where=self._path, remedy="read again")
        return block
