"""A repository on the local disk: its folder, its keys, one publisher at a time, and the two signed documents."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from apbatch.access.exports.cvmfs.signing import (
    MANIFEST,
    WHITELIST,
    Keyring,
    Manifest,
    read_manifest,
    read_whitelist,
    renewed,
)
from apbatch.config import home
from apbatch.errors import UsageError, VerificationError
from apbatch.localfiles import locked, write_whole

#: Folder, in that of the repository, of what belongs to the publisher alone; no web server may serve it.
OWN = ".apbatch"
#: A whitelist that is good for less than this is signed again by any publication.
_RENEW = timedelta(days=15)
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,59}")


class Repository:
    """A repository on the local disk and its keys, for one publisher at a time.

    Parameters
    ----------
    folder : pathlib.Path
        Root of the repository, as a web server serves it.
    name : str, optional
        By default that of the repository that is there, or the folder's.
    keys : pathlib.Path, optional
        Folder of the keys, outside of the repository; by default ``$APBATCH_HOME/cvmfs``.

    Raises
    ------
    UsageError
        If the folder holds something else, or the name is none.
    """

    def __init__(self, folder: Path, name: str = "", keys: Path | None = None) -> None:
        self.folder, self.own = folder, folder / OWN
        self.keys = keys or home() / "cvmfs"
        if folder.resolve() in (self.keys.resolve(), *self.keys.resolve().parents):
            raise UsageError(
                "the keys would lie in the repository, for everybody to read",
                where=str(self.keys),
                remedy="export to a folder that does not hold $APBATCH_HOME",
            )
        if folder.is_dir() and any(folder.iterdir()) and not self.own.is_dir():
            raise UsageError("the folder holds something else", where=str(folder), remedy="name an empty or new folder")
        self.manifest = self._manifest()
        self.name = name or (self.manifest.name if self.manifest else folder.resolve().name)
        if not _NAME.fullmatch(self.name):
            raise UsageError(
                f"'{self.name}' is not a name of a repository",
                remedy="--name NAME, such as taiga.example.org: a-z 0-9 . -",
            )
        if self.manifest and self.manifest.name != self.name:
            raise UsageError(
                f"the repository there is '{self.manifest.name}'",
                where=str(folder),
                remedy=f"leave --name out, or export '{self.name}' to another folder",
            )

    def _manifest(self) -> Manifest | None:
        path = self.folder / MANIFEST
        try:
            return read_manifest(path.read_bytes(), str(path))
        except FileNotFoundError:
            return None
        except VerificationError:
            return None  # no client takes it; the next publication replaces it, and the keyring knows the revision

    @contextmanager
    def alone(self) -> Iterator[Keyring]:
        """Hold the repository against other publishers, and give its keys.

        Raises
        ------
        UsageError
            If another process publishes.
        """
        self.own.mkdir(parents=True, exist_ok=True)
        self.own.chmod(0o700)
        with locked(self.own / "lock", lambda pid: _busy(pid, self.folder)):
            for left in self.folder.glob("..cvmfs*.part"):
                left.unlink()  # of a publisher that was killed
            self.manifest = self._manifest()  # of the one before
            keyring = Keyring(self.keys, self.name)
            keyring.make()
            yield keyring

    def sign_whitelist(self, keyring: Keyring, *, now: datetime, always: bool = False) -> datetime:
        """Sign the whitelist again if it is time, or the certificate is not in it; return when it expires.

        The certificate of the manifest that is still there stays in it until the next renewal.

        Parameters
        ----------
        keyring : Keyring
        now : datetime
            UTC.
        always : bool
            Whether it is time or not.

        Raises
        ------
        NotFoundError
            If it must be signed and the master key is not here.
        """
        path, own = self.folder / WHITELIST, keyring.fingerprint()
        try:
            current = read_whitelist(path.read_bytes(), str(path))
        except (FileNotFoundError, VerificationError):
            current = None
        others: tuple[str, ...] = ()
        if current is not None and current.name == self.name:
            left = current.expires - now
            if own not in current.fingerprints:
                others = current.fingerprints[:1]
            elif not always and left > (_RENEW if keyring.has_master else timedelta()):
                return current.expires
        whitelist = renewed(self.name, (own, *others), now)
        write_whole(path, keyring.sign_whitelist(whitelist, now))
        return whitelist.expires

    def sign_manifest(self, keyring: Keyring, manifest: Manifest) -> None:
        """Make a revision the current one."""
        keyring.note(manifest.revision, manifest.time)
        write_whole(self.folder / MANIFEST, keyring.sign_manifest(manifest))
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def renew(folder: Path, name: str = "", keys: Path | None = None) -> datetime:
    """Sign the whitelist of a repository again; return when it expires. Only this needs the master key.

    Parameters
    ----------
    folder : Path
        Of the repository.
    name : str
        Of the repository, if the folder does not say it.
    keys : Path, optional
        Folder of the keys; by default ``$APBATCH_HOME/cvmfs``.

    Raises
    ------
    NotFoundError
        If the master key is not here.
    UsageError
        If there is no repository, or another process publishes.
    """
    repository = Repository(folder, name, keys)
    if repository.manifest is None:
        raise UsageError("there is no repository", where=str(folder), remedy="apbatch cvmfs publish makes one")
    with repository.alone() as keyring:
        return repository.sign_whitelist(keyring, now=datetime.now(UTC), always=True)


def _busy(pid: str, folder: Path) -> UsageError:
    return UsageError(f"process {pid} is publishing", where=str(folder), remedy="wait for its end")
