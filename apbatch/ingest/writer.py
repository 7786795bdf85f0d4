"""What an ingest tells the catalogue: in batches, and only as long as it holds the site's lease."""

from __future__ import annotations

import time
from dataclasses import replace

from apbatch.index.catalogue import Catalogue
from apbatch.index.contents import Content
from apbatch.index.files import FileRecord
from apbatch.index.leases import Keeper
from apbatch.ingest.summary import IngestSummary

#: Records are given to the catalogue when there are so many, their hashes have so many bytes, or after so many seconds.
_BATCH, _BATCH_BYTES, _BATCH_S = 500, 8 << 20, 2.0


class Writer:
    """Gathers records and hashes for the catalogue, which the calling thread alone uses."""

    def __init__(self, catalogue: Catalogue, keeper: Keeper, summary: IngestSummary) -> None:
        self._catalogue, self._keeper, self._summary = catalogue, keeper, summary
        self._records: list[FileRecord] = []
        self._contents: list[Content] = []
        self._removals: list[str] = []
        self._moves: dict[str, str] = {}
        self._bytes = 0
        self._written = time.monotonic()

    def add(self, record: FileRecord, content: Content | None = None) -> None:
        """Give a record, and the hashes of its content, which are written first."""
        self._records.append(record)
        if content is not None:
            self.add_content(content)
        self.keep()

    def add_content(self, content: Content) -> None:
        """Give hashes alone."""
        self._contents.append(content)
        self._bytes += len(content.blocks) + len(content.small_pieces) + len(content.large_pieces)

    def remove(self, path: str) -> None:
        """Have a record forgotten, after those were written that were given before."""
        self._removals.append(path)
        self.keep()

    def move(self, path: str, to: str) -> None:
        """Have a record forgotten whose file was given under another path, to which its replicas go."""
        self._moves[path] = to

    def keep(self) -> None:
        """Write what is due, and hold the lease.

        Raises
        ------
        LeaseLostError
            If another process ingests the site meanwhile: nothing more may be written.
        """
        due = time.monotonic() - self._written > _BATCH_S
        many = len(self._records) + len(self._removals) + len(self._moves) + len(self._contents)
        if due or many >= _BATCH or self._bytes >= _BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write everything that was given.

        Raises
        ------
        LeaseLostError
        """
        self._keeper.keep()
        self._written = time.monotonic()
        contents, self._contents, self._bytes = self._contents, [], 0
        records, self._records = self._records, []
        removals, self._removals = self._removals, []
        moves, self._moves = self._moves, {}
        if contents:
            self._catalogue.put_contents(contents)
        if records:
            report = self._catalogue.upsert(records)
            for refusal in report.refusals:
                self._summary.quarantined.add(refusal.record.source, refusal.reason)
            if report.refusals:
                self._catalogue.upsert(refusal.quarantined() for refusal in report.refusals)
        if moves:
            replicas = self._catalogue.replicas(moves)
            self._catalogue.add_replicas(
                replace(one, path=moves[path]) for path, many in replicas.items() for one in many
            )
        if removals or moves:
            self._catalogue.remove([*removals, *moves])
