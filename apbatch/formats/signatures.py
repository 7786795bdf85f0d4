"""What names say of files, and first bytes by which other kinds are told, so that no name alone claims one of them."""

from __future__ import annotations

import re

#: Of files that are nothing else, whatever they are called: data of other libraries, documents, pictures, archives.
_SIGNATURES = (
    b"\x89HDF\r\n\x1a\n", b"root", b"PAR1", b"\x93NUMPY", b"SIMPLE  =", b"SQLite format 3\0", b"%PDF", b"%!PS",
    b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"PK\x03\x04", b"\xfd7zXZ\0", b"7z\xbc\xaf\x27\x1c", b"\x7fELF",
)  # fmt: skip
#: A tar archive has its mark within its first header.
_TAR, _TAR_AT = b"ustar", 257


def is_of_another_kind(head: bytes) -> bool:
    """Tell whether the first bytes of a file, or of its content, are those of a kind that is known for them.

    Parameters
    ----------
    head : bytes
        First bytes; that they are none of a reader's own kind is for that reader to know.
    """
    return head.startswith(_SIGNATURES) or head[_TAR_AT : _TAR_AT + len(_TAR)] == _TAR


def names_word(path: str, word: str) -> bool:
    """Tell whether a path has a word that no other letters stand beside.

    Parameters
    ----------
    path : str
    word : str
        In lower case.
    """
    return re.search(rf"(?<![a-z]){word}(?![a-z])", path.lower()) is not None
