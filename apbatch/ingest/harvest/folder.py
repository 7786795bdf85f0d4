"""What was harvested of one archive: a file a record, and how far the harvest came; killed at any time, it goes on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Literal
from xml.etree import ElementTree

from blake3 import blake3

from apbatch.config import home
from apbatch.errors import FormatError, UsageError
from apbatch.formats.oai.namespaces import DATACITE, DC, OAI, OAI_DC, XSI
from apbatch.ingest.harvest.answers import Record
from apbatch.localfiles import locked, write_whole

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_PREFIXES = {"oai": OAI, "oai_dc": OAI_DC, "dc": DC, "datacite": DATACITE, "xsi": XSI}
Outcome = Literal["new", "changed", "unchanged", "deleted", "absent"]


@dataclass
class Progress:
    """How far a harvest came.

    Attributes
    ----------
    url, prefix, chosen_set : str
        What is harvested.
    since : str
        When the last complete harvest began, by the archive's clock; empty before the first.
    list_start : str
        When the list began that is not at its end; empty if there is none.
    token : str
        Where that list goes on.
    whole : bool
        Whether that list is of all records: what is not in it is gone.
    """

    url: str = ""
    prefix: str = ""
    chosen_set: str = ""
    since: str = ""
    list_start: str = ""
    token: str = ""
    whole: bool = False


class HarvestFolder:
    """The folder of one harvest, ``$APBATCH_HOME/harvest/NAME``.

    Parameters
    ----------
    name : str
        Of the site.
    """

    def __init__(self, name: str) -> None:
        self.path = home() / "harvest" / name
        self.records = self.path / "records"
        self._state, self._list = self.path / "progress.json", self.path / "seen"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes out.

        Raises
        ------
        UsageError
            If one harvests already.
        """
        with locked(
            self.path / "lock",
            lambda process: UsageError(f"process {process} harvests it already", where=str(self.path)),
        ):
            self.records.mkdir(parents=True, exist_ok=True)
            yield

    def progress(self) -> Progress:
        """Return how far the harvest came.

        Raises
        ------
        FormatError
            If the file that says so is damaged.
        """
        try:
            return Progress(**json.loads(self._state.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return Progress()
        except (ValueError, TypeError) as error:
            raise FormatError(
                f"damaged: {error}", where=str(self._state), remedy="remove it: all records are asked for again"
            ) from None

    def keep(self, progress: Progress) -> None:
        """Write down how far the harvest came, after its records."""
        write_whole(self._state, json.dumps(asdict(progress), indent=1))

    def take(self, record: Record) -> Outcome:
        """Write a record, or remove one that the archive deleted."""
        path = self.records / file_name(record.identifier)
        if record.deleted:
            there = path.exists()
            path.unlink(missing_ok=True)
            return "deleted" if there else "absent"
        for prefix, namespace in _PREFIXES.items():
            ElementTree.register_namespace(prefix, namespace)
        content = ElementTree.tostring(record.content, encoding="utf-8", xml_declaration=True) + b"\n"
        before = path.read_bytes() if path.exists() else None
        if before == content:
            return "unchanged"
        write_whole(path, content)
        return "new" if before is None else "changed"

    def begin_whole(self) -> None:
        """Forget what earlier lists had seen."""
        self._list.unlink(missing_ok=True)

    def note_seen(self, identifiers: list[str]) -> None:
        """Note what a list of all records held, before the progress is kept."""
        with self._list.open("a", encoding="utf-8") as file:
            file.writelines(f"{file_name(one)}\n" for one in identifiers)

    def drop_unseen(self) -> int:
        """Remove the records that a whole list did not hold; return how many."""
        listed = set(self._list.read_text(encoding="utf-8").splitlines()) if self._list.exists() else set()
        gone = [path for path in self.records.iterdir() if path.suffix == ".xml" and path.name not in listed]
        for path in gone:
            path.unlink()
        self._list.unlink(missing_ok=True)
        return len(gone)


def file_name(identifier: str) -> str:
    """Return the name of a record's file: what can be read of its identifier, and a hash of all of it."""
    readable = _UNSAFE.sub("_", identifier).strip("._-")[:120]
    return f"{readable or 'record'}-{blake3(identifier.encode('utf-8', 'backslashreplace')).hexdigest()[:12]}.xml"
