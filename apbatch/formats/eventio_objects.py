"""Top-level objects of an EventIO file (CORSIKA's IACT output, sim_telarray), one after the other from any stream.

Each begins with a mark. After damage the next mark is looked for, so that a broken object costs itself only; the
package eventio is given the bytes of one whole object and parses them.
"""

from __future__ import annotations

import struct
from collections.abc import Container, Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO

from apbatch.errors import MissingSoftwareError
from apbatch.formats.text.lines import Problems

#: The mark of a top-level object, little-endian. (The programs in use write no other.)
MARK = b"\x37\x8a\x1f\xd4"
_HEADER = struct.Struct("<III")
_EXTENSION = struct.Struct("<I")
_EXTENDED, _LENGTH, _NESTED = 1 << 17, (1 << 30) - 1, 1 << 30
#: Of objects that are read: a longer one is none. The largest cameras of a whole array are less.
LARGEST = 1 << 29
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Object:
    """One object with its content.

    Attributes
    ----------
    offset : int
        Byte at which it begins, of the content if the file is compressed.
    kind : int
        Number of its type.
    id : int
        What it means is the type's: a number of an event, of a telescope.
    head : bytes
        Its header without mark and extension.
    content : bytes
        Without the header.
    """

    offset: int
    kind: int
    id: int
    head: bytes
    content: bytes

    def opened(self) -> Any:
        """Return it as eventio's object of this type, over these bytes alone.

        Raises
        ------
        MissingSoftwareError
            Without eventio.
        """
        base = eventio_base()
        header = base.parse_header_bytes(self.head, toplevel=True)
        header.content_address, header.content_size = 0, len(self.content)
        return base.KNOWN_OBJECTS.get(self.kind, base.EventIOObject)(header, filehandle=BytesIO(self.content))


def eventio_base() -> Any:
    """Return the module `eventio.base`, with the types of CORSIKA and sim_telarray known to it.

    Raises
    ------
    MissingSoftwareError
        Without eventio.
    """
    try:
        import eventio.base
        import eventio.simtel.objects
    except ImportError as error:
        raise MissingSoftwareError(
            "EventIO files need the package eventio", remedy="pip install 'apbatch[simtel]'"
        ) from error
    return eventio.base


def first_kind(head: bytes) -> int | None:
    """Return the type of the first object of which a mark is among the first bytes of a file; None without one."""
    at = head.find(MARK)
    word = head[at + len(MARK) : at + len(MARK) + 2] if at >= 0 else b""
    return int.from_bytes(word, "little") if len(word) == 2 else None


class _Source:
    """A stream into which bytes can be pushed back, and that knows where it is."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._pushed, self.offset = stream, b"", 0

    def take(self, count: int) -> bytes:
        """Return up to `count` bytes; fewer only at the end."""
        content, self._pushed = self._pushed[:count], self._pushed[count:]
        pieces, missing = [content], count - len(content)
        while missing > 0 and (piece := self._stream.read(min(missing, LARGEST))):
            pieces.append(piece)
            missing -= len(piece)
        content = b"".join(pieces) if len(pieces) > 1 else content
        self.offset += len(content)
        return content

    def give_back(self, content: bytes) -> None:
        """Put bytes back in front."""
        self._pushed = content + self._pushed
        self.offset -= len(content)

    def pass_over(self, count: int) -> int:
        """Drop up to `count` bytes; return how many there were."""
        dropped = 0
        while dropped < count and (piece := self.take(min(count - dropped, _PIECE))):
            dropped += len(piece)
        return dropped

    def to_mark(self) -> None:
        """Go on to the next mark, or to the end."""
        while piece := self.take(_PIECE):
            at = piece.find(MARK)
            if at >= 0:
                self.give_back(piece[at:])
                return
            tail = piece[-(len(MARK) - 1) :]
            more = self.take(len(MARK) - 1)
            self.give_back(tail + more)
            if not more:
                self.take(len(tail))
                return


def objects_of(stream: BinaryIO, kinds: Container[int], problems: Problems) -> Iterator[Object]:
    """Yield the objects of the wanted types; others are passed over unread, damage is noted and passed over.

    Parameters
    ----------
    stream : BinaryIO
        Of the content, not compressed; needs only `read`.
    kinds : container of int
        Types.
    problems : Problems
        Takes what was passed over, with its offset.
    """
    source = _Source(stream)
    while True:
        start = source.offset
        mark = source.take(len(MARK))
        if not mark:
            return
        if mark != MARK:
            source.give_back(mark[1:])
            source.to_mark()
            problems.add(start, f"{source.offset - start} bytes that are no object")
            continue
        head = source.take(_HEADER.size)
        if len(head) < _HEADER.size:
            problems.add(start, "the file ends within the header of an object")
            return
        word, number, length = _HEADER.unpack(head)
        size = length & _LENGTH
        if word & _EXTENDED:
            extension = source.take(_EXTENSION.size)
            size += (_EXTENSION.unpack(extension)[0] & 0xFFF) << 30 if len(extension) == _EXTENSION.size else 0
        kind = word & 0xFFFF
        if kind not in kinds:
            if source.pass_over(size) < size:
                problems.add(start, f"the file ends within an object of type {kind}")
                return
            continue
        if size > LARGEST:
            problems.add(start, f"an object of type {kind} with {size} bytes; passed over up to the next mark")
            source.to_mark()
            continue
        content = source.take(size)
        follows = source.take(len(MARK))
        source.give_back(follows)
        if len(content) == size and follows in (MARK, b""):
            yield Object(start, kind, number, head, content)
            continue
        inner = content.find(MARK)
        if inner >= 0:  # its length is wrong, or bytes of it are lost: others lie within what it takes for its own
            source.give_back(content[inner:])
            problems.add(start, f"an object of type {kind} is damaged; passed over up to byte {source.offset}")
        elif len(content) < size:
            problems.add(start, f"the file ends within an object of type {kind}: {len(content)} of {size} bytes")
        else:
            yield Object(start, kind, number, head, content)  # what follows it is damaged
