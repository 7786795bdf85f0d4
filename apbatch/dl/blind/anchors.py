"""What holds a ledger from outside its folder: heads kept by an account, and the signatures of a custodian.

A chain of hashes does not protect its end: whoever may write the folder can cut the ledger, or write another one.
Only a head that is kept where the cheater can't write shows it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apbatch.config import home
from apbatch.dl.blind.ledger import Entry, Head
from apbatch.dl.files import read_json, write_json
from apbatch.errors import FormatError, MissingSoftwareError, NotFoundError, UsageError, VerificationError
from apbatch.localfiles import locked

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

#: Signatures of heads, in the folder of the analysis.
SIGNATURES = "signatures.json"


class KeptHeads:
    """The newest head of each set that an account has seen, one file a set.

    Parameters
    ----------
    folder : pathlib.Path, optional
        ``$APBATCH_HOME/blind`` by default.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or home() / "blind"

    def of(self, name: str) -> Head | None:
        """Return the head that was kept of a set, or None.

        Raises
        ------
        FormatError
            If the file is damaged.
        """
        place = self._place(name)
        if not place.exists():
            return None
        try:
            content = read_json(place)
            return Head(int(content["n"]), str(content["head"]))
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError("not a kept head of a blind set", where=str(place)) from error

    def check(self, name: str, entries: list[Entry]) -> Head | None:
        """Return the kept head after looking for it in a ledger.

        Raises
        ------
        VerificationError
            If the ledger does not go on from it.
        """
        head = self.of(name)
        if head is not None and not holds(entries, head):
            raise VerificationError(
                f"the ledger lacks act {head.n} with the head {head.digest}, which is kept in {self._place(name)}: it "
                "was cut, rewritten, or belongs to a copy that went another way"
            )
        return head

    def keep(self, name: str, head: Head, folder: Path) -> None:
        """Keep a head in place of an older one.

        Parameters
        ----------
        name : str
            Under which the head is kept: the commitment of the set.
        head : Head
        folder : pathlib.Path
            Folder of the analysis.
        """
        write_json(self._place(name), {"n": head.n, "head": head.digest, "folder": str(folder.absolute())})

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let nobody else look and keep meanwhile."""
        with locked(self.folder / ".lock"):
            yield

    def _place(self, name: str) -> Path:
        return self.folder / f"{name}.json"


def holds(entries: list[Entry], head: Head) -> bool:
    """Tell whether a ledger holds a head at its place."""
    return 0 < head.n <= len(entries) and entries[head.n - 1]["digest"] == head.digest


def make_key(place: Path) -> str:
    """Make the key of a custodian, an Ed25519 key in PEM that only its owner can read; return its public half.

    Raises
    ------
    UsageError
        If the file exists.
    """
    _load()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    content = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise UsageError("the file exists; a key is never replaced", where=str(place)) from error
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    return _public(key)


class Custodian:
    """Somebody who signs heads, and remembers which: never two that do not follow from one another.

    Parameters
    ----------
    key : pathlib.Path
        From `make_key`. What was signed is kept in the folder ``KEY.heads`` beside it.

    Raises
    ------
    NotFoundError, FormatError
        If there is no key in the file.
    MissingSoftwareError
        If `cryptography` is not installed.
    """

    def __init__(self, key: Path) -> None:
        _load()
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        if not key.is_file():
            raise NotFoundError("there is no key", where=str(key), remedy="apbatch blind key FILE")
        try:
            loaded = load_pem_private_key(key.read_bytes(), password=None)
        except (ValueError, TypeError) as error:
            raise FormatError("not a private key in PEM without a password", where=str(key)) from error
        if not isinstance(loaded, Ed25519PrivateKey):
            raise FormatError("not an Ed25519 key", where=str(key))
        self._key = loaded
        self.public = _public(loaded)
        self.heads = KeptHeads(key.with_name(f"{key.name}.heads"))

    def sign(self, commitment: str, entries: list[Entry], folder: Path) -> Head:
        """Sign the head of a ledger into the folder of its analysis.

        Parameters
        ----------
        commitment : str
            Of the set.
        entries : list of dict
            The whole ledger, verified.
        folder : pathlib.Path
            Folder of the analysis.

        Raises
        ------
        VerificationError
            If another head was signed that this ledger does not go on from.
        """
        head = Head(entries[-1]["n"], entries[-1]["digest"])
        with self.heads.locked():
            self.heads.check(commitment, entries)
            self.heads.keep(commitment, head, folder)  # before the signature: rather one unused than two
            signatures = _signatures(folder)
            signatures[head.digest] = self._key.sign(_message(commitment, head)).hex()
            write_json(folder / SIGNATURES, signatures)
        return head


def check_public(public: str) -> None:
    """Raise a UsageError if a text is not the public half of a custodian's key."""
    _verifier(public)


def check_signature(folder: Path, public: str, commitment: str, head: Head) -> None:
    """Verify a custodian's signature of a head.

    Parameters
    ----------
    folder : pathlib.Path
        Folder of the analysis, with the signature.
    public : str
        The custodian's public key, hexadecimal.
    commitment : str
        Of the set.
    head : Head
        Head of the ledger.

    Raises
    ------
    VerificationError
        If there is none, or it is not of this key, set and head.
    """
    from cryptography.exceptions import InvalidSignature

    remedy = f"the custodian with the key {public[:16]}… runs: apbatch blind sign {folder} --key KEY"
    signature = _signatures(folder).get(head.digest)
    if signature is None:
        raise VerificationError(f"the head {head.digest} is not signed", where=str(folder), remedy=remedy)
    try:
        _verifier(public).verify(bytes.fromhex(signature), _message(commitment, head))
    except (InvalidSignature, ValueError) as error:
        raise VerificationError(
            f"the signature of the head {head.digest} is not the custodian's", where=str(folder), remedy=remedy
        ) from error


def _signatures(folder: Path) -> dict[str, str]:
    place = folder / SIGNATURES
    if not place.exists():
        return {}
    content = read_json(place)
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise FormatError("not signatures of heads", where=str(place))
    return content


def _message(commitment: str, head: Head) -> bytes:
    return f"apbatch blind set {commitment} act {head.n} head {head.digest}".encode()


def _public(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes_raw().hex()


def _verifier(public: str) -> Any:
    _load()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
    except ValueError as error:
        raise UsageError(
            f"not the public half of a custodian's key: '{public}'", remedy="64 digits, as `apbatch blind key` prints"
        ) from error


def _load() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise MissingSoftwareError("cryptography is not installed", remedy="pip install 'apbatch[dl]'") from error
