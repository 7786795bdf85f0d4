"""The catalogue in Cassandra, whole; a keyspace of schema 3 is brought up to date when it is opened."""

from __future__ import annotations

from collections.abc import Iterator

from apbatch.index.attributes import COMMON
from apbatch.index.cassandra.base import BATCH, blocks
from apbatch.index.cassandra.keeping import CassandraKeeping
from apbatch.index.cassandra.rows import to_record
from apbatch.index.cassandra.visibility import CassandraSeen
from apbatch.index.files import FileRecord, Replica
from apbatch.index.records import from_plain
from apbatch.progress import say


class CassandraCatalogue(CassandraSeen, CassandraKeeping):
    """A catalogue in one keyspace; see `CassandraSession` for the URL."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        if self._session.is_old:
            try:
                self._upgrade()
            except BaseException:
                self.close()
                raise

    def _upgrade(self) -> None:
        """Write the files and replicas of schema 3 anew, which fills the new tables; if killed, all is done again.

        Files get new revisions, so that followers hear of all of them.
        """
        say("the catalogue is brought to a new schema: every file is written once")
        for part in blocks(self._old_files(), BATCH):
            self.upsert(part)
        for copies in blocks(self._old_replicas(), BATCH):
            self.add_replicas(copies)
        self._session.change_schema("DROP TABLE IF EXISTS directory_of_site")
        self._session.write_version()

    def _old_files(self) -> Iterator[FileRecord]:
        declared = self.attributes()
        for row in self._session.run("SELECT * FROM file_by_directory"):
            if row["site"] is not None and row["tree_number"] is None:
                yield to_record({**row, "place": row["place"] or row["path"]}, declared)

    def _old_replicas(self) -> Iterator[Replica]:
        for row in self._session.run("SELECT * FROM replica"):
            if row["revision"] is None:
                verified = from_plain(COMMON["time_start"], row["verified"])
                yield Replica(row["path"], row["url"], row["kind"], row["checksum"], verified)
