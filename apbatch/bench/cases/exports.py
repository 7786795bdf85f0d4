"""Export cases: a CernVM-FS repository of files that the catalogue knows, whole and after one change."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from apbatch.access.exports.cvmfs.publish import Publication, publish
from apbatch.access.exports.cvmfs.repository import Repository
from apbatch.access.guard import Guard
from apbatch.access.policy import Policy
from apbatch.access.principals import OWNER
from apbatch.bench.case import Case, Operation
from apbatch.bench.cases.catalogue.records import SEED, synthetic_records
from apbatch.bench.runner import Group
from apbatch.bench.suite import Setting
from apbatch.errors import VerificationError
from apbatch.index.backends import open_catalogue
from apbatch.index.catalogue import Catalogue
from apbatch.index.contents import BLOCK, LARGE_PIECE, SMALL_PIECE, Content
from apbatch.index.files import FileRecord

_NAME = "bench.example.org"


def export_groups(setting: Setting) -> Iterator[Group]:
    """Yield the groups of the export suite: all files anew, and one changed file."""
    draw = random.Random(SEED)
    records = synthetic_records(setting.size.records)
    catalogue = setting.at_end.enter_context(open_catalogue(f"sqlite:///{setting.scratch}/exports.sqlite"))
    catalogue.upsert(records)
    catalogue.put_contents(_content(record, draw) for record in records)
    whole = Operation(
        "exports",
        "publish",
        f"{len(records)} known files as a new CernVM-FS repository, 2 MiB pieces.",
        "files/s",
        float(len(records)),
    )
    yield Group(whole, [_Whole(whole, catalogue, setting.scratch, len(records))])
    one = Operation(
        "exports", "publish a change", f"One of {len(records)} files changed: the next revision.", "ms", 1.0
    )
    yield Group(one, [_Change(one, catalogue, setting.scratch, records)])


def _content(record: FileRecord, draw: random.Random) -> Content:
    small, large = (-(-record.size // length) for length in (SMALL_PIECE, LARGE_PIECE))
    blocks = -(-record.size // BLOCK)
    return Content(
        record.checksum,
        record.size,
        record.adler32,
        draw.randbytes(32 * blocks),
        draw.randbytes(20 * small),
        draw.randbytes(20 * large),
    )


class _Publish(Case):
    def __init__(self, operation: Operation, catalogue: Catalogue, scratch: Path) -> None:
        super().__init__(operation, "CernVM-FS")
        self._guard = Guard(catalogue, None, Policy.load(None, catalogue), OWNER)
        self._catalogue, self._folder, self._keys = catalogue, scratch / "cvmfs", scratch / "keys"
        self._report: Publication | None = None

    def set_up(self) -> None:
        """Make the keys, which takes long and is done once."""
        self.run()

    def run(self) -> None:
        """Publish."""
        self._report = publish(self._guard, "/", Repository(self._folder, _NAME, self._keys))


class _Whole(_Publish):
    """Into an empty folder; proof: all files are in the root's counters."""

    def __init__(self, operation: Operation, catalogue: Catalogue, scratch: Path, files: int) -> None:
        super().__init__(operation, catalogue, scratch)
        self._files = files

    def prepare(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def check(self) -> None:
        if self._report is None or not self._report.is_new or self._report.files != self._files:
            raise VerificationError(f"not a repository of {self._files} files: {self._report}")


class _Change(_Publish):
    """After one file got another time; proof: a new revision, of which only the path to the file was written."""

    def __init__(
        self, operation: Operation, catalogue: Catalogue, scratch: Path, records: Sequence[FileRecord]
    ) -> None:
        super().__init__(operation, catalogue, scratch)
        self._draw, self._records = random.Random(SEED + 2), records

    def prepare(self) -> None:
        record = self._draw.choice(self._records)
        self._catalogue.upsert([replace(record, mtime_ns=record.mtime_ns + self._draw.randrange(1, 10**9))])

    def check(self) -> None:
        if self._report is None or not self._report.is_new or not 1 <= self._report.catalogs_written <= 5:
            raise VerificationError(f"not a revision of one change: {self._report}")
