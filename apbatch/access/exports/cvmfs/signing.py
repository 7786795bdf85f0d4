"""Keys of a repository, and what they sign: its own key the manifest, the master key the whitelist.

The two signatures differ. Both are over the 40 hexadecimal characters of the SHA-1 of the document. The manifest's is
an ordinary PKCS#1 v1.5 signature with SHA-1 of these characters, the whitelist's is over the bare characters, without
a DigestInfo (`cvmfs/signature.cc` of https://github.com/cvmfs/cvmfs: `VerifyRsa` beside `Verify`).
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import NoDigestInfo
from cryptography.x509.oid import NameOID

from apbatch.errors import NotFoundError, UsageError, VerificationError
from apbatch.localfiles import write_whole

MANIFEST, WHITELIST = ".cvmfspublished", ".cvmfswhitelist"
#: How long a whitelist is good for, days: what is usual.
WHITELIST_DAYS = 30
_BITS, _EXPONENT = 2048, 65537
_ROOT = hashlib.md5(b"", usedforsecurity=False).hexdigest()
_SPLIT = b"--\n"
_HEX = re.compile(r"[0-9a-f]{40}")
_TIME = "%Y%m%d%H%M%S"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a repository is at one revision.

    Attributes
    ----------
    name : str
        Of the repository.
    revision : int
        Grows with each publication: a client takes no root catalog of a lower or equal one.
    root, root_size : str, int
        SHA-1 of the root catalog's object, bytes of the database.
    certificate : str
        SHA-1 of the certificate's object.
    ttl_s : int
        After so many seconds a client looks for a newer revision.
    time : int
        Seconds since 1970; never less than that of the revision before.
    """

    name: str
    revision: int
    root: str
    root_size: int
    certificate: str
    ttl_s: int
    time: int

    def text(self) -> str:
        """Return the lines that are signed."""
        lines = (
            ("C", self.root), ("B", self.root_size), ("R", _ROOT), ("D", self.ttl_s), ("S", self.revision), ("G", "no"),
            ("A", "no"), ("N", self.name), ("X", self.certificate), ("T", self.time),
        )  # fmt: skip
        return "".join(f"{letter}{value}\n" for letter, value in lines)


@dataclass(frozen=True, slots=True)
class Whitelist:
    """Which certificates may sign a repository's manifest.

    Attributes
    ----------
    name : str
        Of the repository.
    expires : datetime.datetime
        UTC; clients look at the hour.
    fingerprints : tuple of str
        SHA-1 of the certificates (DER), as ``AB:CD:…``.
    """

    name: str
    expires: datetime
    fingerprints: tuple[str, ...]

    def text(self, now: datetime) -> str:
        """Return the lines that are signed."""
        lines = (f"{now:{_TIME}}", f"E{self.expires:{_TIME}}", f"N{self.name}", *self.fingerprints)
        return "".join(f"{line}\n" for line in lines)


class Keyring:
    """The keys of one repository, in a folder outside of it.

    Parameters
    ----------
    folder : pathlib.Path
        Made with its keys on first use; private keys are readable by their owner alone.
    name : str
        Of the repository.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.public_key = folder / f"{name}.pub"
        self._master = folder / f"{name}.masterkey"
        self._key, self._certificate = folder / f"{name}.key", folder / f"{name}.crt"
        self._revision = folder / f"{name}.revision"

    def make(self) -> None:
        """Make what is missing: master key, its public half, repository key, certificate."""
        if not self.public_key.exists() and not self._master.exists():
            write_whole(self._master, _private_pem(rsa.generate_private_key(_EXPONENT, _BITS)), 0o600)
        if not self.public_key.exists():
            public = self._load(self._master).public_key()
            write_whole(
                self.public_key,
                public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
            )
        if not self._key.exists():
            self.replace_key()
        elif not self._certificate.exists():  # killed in between
            write_whole(self._certificate, _certificate(self._load(self._key), self._name))

    def replace_key(self) -> None:
        """Make a new repository key and its certificate; the whitelist must be signed again after it.

        Raises
        ------
        NotFoundError
            If the master key, which does that, is not here.
        """
        self._load(self._master)
        key = rsa.generate_private_key(_EXPONENT, _BITS)
        self._certificate.unlink(missing_ok=True)  # never one that is not the key's
        write_whole(self._key, _private_pem(key), 0o600)
        write_whole(self._certificate, _certificate(key, self._name))

    def noted(self) -> tuple[int, int]:
        """Return the highest revision and the latest time (seconds since 1970) of a manifest that was signed.

        They belong to the keys: a repository that is made anew with the same ones must go on from there, or clients
        that know the old one take no notice of it.
        """
        try:
            revision, moment = json.loads(self._revision.read_bytes())
            return int(revision), int(moment)
        except FileNotFoundError:
            return 0, 0
        except (ValueError, TypeError):
            raise UsageError(
                "not the number of a revision and a time",
                where=str(self._revision),
                remedy="write [REVISION, SECONDS], at least those of the last manifest (S and T)",
            ) from None

    def note(self, revision: int, moment: int) -> None:
        """Note a revision before its manifest is there."""
        write_whole(self._revision, json.dumps([revision, moment]))

    @property
    def has_master(self) -> bool:
        """Whether the master key is here; it may be kept elsewhere between renewals."""
        return self._master.exists()

    def certificate(self) -> bytes:
        """Return the certificate in PEM."""
        return self._certificate.read_bytes()

    def fingerprint(self) -> str:
        """Return the certificate's fingerprint as a whitelist has it."""
        certificate = x509.load_pem_x509_certificate(self.certificate())
        return certificate.fingerprint(hashes.SHA1()).hex(":").upper()

    def sign_manifest(self, manifest: Manifest) -> bytes:
        """Return a manifest with its signature."""
        text, digest = _with_digest(manifest.text())
        return text + self._load(self._key).sign(digest, padding.PKCS1v15(), hashes.SHA1())

    def sign_whitelist(self, whitelist: Whitelist, now: datetime) -> bytes:
        """Return a whitelist with its signature.

        Raises
        ------
        NotFoundError
            If the master key is not here.
        """
        text, digest = _with_digest(whitelist.text(now))
        return text + self._load(self._master).sign(digest, padding.PKCS1v15(), NoDigestInfo())

    def _load(self, path: Path) -> rsa.RSAPrivateKey:
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), None)
        except FileNotFoundError:
            raise NotFoundError(
                "this key of the repository is not here",
                where=str(path),
                remedy="bring it back from where it is kept; a lost master key means a new repository for every client",
            ) from None
        except (ValueError, TypeError) as error:
            raise UsageError(f"not a private key in PEM without a password: {error}", where=str(path)) from error
        if not isinstance(key, rsa.RSAPrivateKey):
            raise UsageError("not an RSA key, and CernVM-FS knows no other", where=str(path))
        return key


def renewed(name: str, fingerprints: tuple[str, ...], now: datetime) -> Whitelist:
    """Return a whitelist that is good from now on.

    Parameters
    ----------
    name : str
        Of the repository.
    fingerprints : tuple of str
        Of the certificates that may sign it.
    now : datetime
        UTC.
    """
    return Whitelist(name, now.replace(microsecond=0) + timedelta(days=WHITELIST_DAYS), fingerprints)


def read_manifest(content: bytes, where: str) -> Manifest:
    """Read a manifest; its signature is not looked at, its hash is.

    Raises
    ------
    VerificationError
        If it is not whole, or not a manifest.
    """
    text = _split(content, where)[0]
    fields = {line[:1]: line[1:] for line in text.splitlines()}
    try:
        manifest = Manifest(
            fields["N"],
            int(fields["S"]),
            fields["C"],
            int(fields["B"]),
            fields["X"],
            int(fields["D"]),
            int(fields["T"]),
        )
    except (KeyError, ValueError) as error:
        raise _damaged(where, f"a field is missing or no number: {error}") from None
    if not _HEX.fullmatch(manifest.root) or not _HEX.fullmatch(manifest.certificate):
        raise _damaged(where, "a hash is no SHA-1")
    return manifest


def read_whitelist(content: bytes, where: str) -> Whitelist:
    """Read a whitelist; its signature is not looked at, its hash is.

    Raises
    ------
    VerificationError
        If it is not whole, or not a whitelist.
    """
    lines = _split(content, where)[0].splitlines()
    try:
        if lines[1][:1] != "E" or lines[2][:1] != "N":
            raise ValueError("the second line must be E…, the third N…")
        expires = datetime.strptime(lines[1][1:], _TIME).replace(tzinfo=UTC)
    except (IndexError, ValueError) as error:
        raise _damaged(where, str(error)) from None
    return Whitelist(lines[2][1:], expires, tuple(line.partition(" #")[0] for line in lines[3:]))


def _with_digest(text: str) -> tuple[bytes, bytes]:
    digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest().encode()
    return text.encode() + _SPLIT + digest + b"\n", digest


def _split(content: bytes, where: str) -> tuple[str, bytes, bytes]:
    """Return text, digest and signature of a signed document."""
    text, split, rest = content.partition(b"\n" + _SPLIT)
    digest, signature = rest[:40], rest[41:]
    text += b"\n"
    if not split or hashlib.sha1(text, usedforsecurity=False).hexdigest().encode() != digest or not signature:
        raise _damaged(where, "it is not whole")
    try:
        return text.decode("ascii"), digest, signature
    except UnicodeDecodeError:
        raise _damaged(where, "it is not plain text") from None


def _damaged(where: str, why: str) -> VerificationError:
    return VerificationError(f"not a signed document of CernVM-FS: {why}", where=where)


def _private_pem(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _certificate(key: rsa.RSAPrivateKey, name: str) -> bytes:
    """Return a self-signed certificate in PEM; clients look at its fingerprint, not at its dates."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)  # clocks differ
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=36500))
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)
