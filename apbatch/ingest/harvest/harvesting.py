"""A harvest from its first question to entries of the catalogue."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from apbatch.errors import ApbatchError, FormatError, NotFoundError, ServerError, UsageError
from apbatch.index.catalogue import Catalogue
from apbatch.ingest.harvest.answers import Answer, Record, read_file
from apbatch.ingest.harvest.archive import Archive
from apbatch.ingest.harvest.folder import HarvestFolder, Progress
from apbatch.ingest.scan import ingest
from apbatch.ingest.site import Site
from apbatch.ingest.sites import keep_site, load_site
from apbatch.ingest.summary import IngestSummary, Noted
from apbatch.progress import progress

#: Answers without a record that are followed; records of one harvest unless more are allowed.
_EMPTY, MOST = 20, 1_000_000
_PIECE = 1 << 16


@dataclass
class HarvestSummary:
    """What a harvest found.

    Attributes
    ----------
    site : str
    new, changed, unchanged, deleted : int
        Records.
    refused : Noted
        Records, or files, that are not usable.
    """

    site: str
    new: int = 0
    changed: int = 0
    unchanged: int = 0
    deleted: int = 0
    refused: Noted = field(default_factory=Noted)

    def count(self, folder: HarvestFolder, record: Record) -> None:
        """Take a record, and count what became of it."""
        outcome = folder.take(record)
        if outcome != "absent":
            setattr(self, outcome, getattr(self, outcome) + 1)

    @property
    def records(self) -> int:
        """Records that were read."""
        return self.new + self.changed + self.unchanged + self.deleted


def harvest_archive(
    folder: HarvestFolder,
    archive: Archive,
    summary: HarvestSummary,
    *,
    prefix: str = "oai_dc",
    chosen_set: str = "",
    again: bool = False,
    most: int = MOST,
) -> None:
    """Bring a folder to what an archive holds: what changed since the last harvest, or everything.

    Parameters
    ----------
    folder : HarvestFolder
        Held by the caller.
    archive : Archive
    summary : HarvestSummary
    prefix : str
        Format of the metadata.
    chosen_set : str
        Part of the archive; empty for all of it.
    again : bool
        Ask for all records; those that the archive no longer has are removed.
    most : int
        Records that are taken.

    Raises
    ------
    ServerError, FormatError, NotFoundError, UsageError
        What was taken before stays, and the next harvest goes on there.
    """
    about = Answer()
    for _ in archive.ask({"verb": "Identify"}, about):
        pass
    if about.version != "2.0":
        raise FormatError("this does not speak OAI-PMH 2.0", where=archive.url)
    state = folder.progress()
    if (state.url, state.prefix, state.chosen_set) != (archive.url, prefix, chosen_set):
        state = Progress(archive.url, prefix, chosen_set)
    if again and not state.whole:
        state.token = ""
    marks: set[bytes] = set()
    empty = count = 0
    with progress(f"harvest {summary.site}") as task:
        while True:
            if not state.token:
                _begin(folder, state, again)
            arguments = {"verb": "ListRecords", **_question(state, about.granularity)}
            answer = Answer()
            identifiers: list[str] = []
            before = count
            for record in archive.ask(arguments, answer):
                summary.count(folder, record)
                identifiers += [] if record.deleted else [record.identifier]
                count += 1
                task.advance()
            for name, reason in answer.refused.items():
                summary.refused.add(name, reason)
            if "badResumptionToken" in answer.errors and state.token:
                if not marks:  # it expired since the last run
                    state.token = ""
                    continue
                raise ServerError("the archive forgot where the list goes on", where=archive.url, remedy="run again")
            _check(answer, archive.url)
            state.list_start = state.list_start or answer.date
            if state.whole:
                folder.note_seen(identifiers)
            mark = hashlib.blake2b(answer.token.encode("utf-8", "backslashreplace"), digest_size=12).digest()
            empty = 0 if count > before else empty + 1
            if answer.token and (mark in marks or answer.token == state.token or empty > _EMPTY):
                raise FormatError("the list goes in a circle: a resumption token came twice", where=archive.url)
            if count > most:
                raise UsageError(f"the archive gives more than {most} records", where=archive.url, remedy="--most N")
            marks.add(mark)
            state.token = answer.token
            if not answer.token:
                break
            folder.keep(state)
    if state.whole:
        summary.deleted += folder.drop_unseen()
    folder.keep(Progress(state.url, state.prefix, state.chosen_set, since=state.list_start))


def _begin(folder: HarvestFolder, state: Progress, again: bool) -> None:
    state.list_start, state.token, state.whole = "", "", again or not state.since
    if state.whole:
        folder.begin_whole()


def _question(state: Progress, granularity: str) -> dict[str, str]:
    if state.token:
        return {"resumptionToken": state.token}
    question = {"metadataPrefix": state.prefix}
    if state.chosen_set:
        question["set"] = state.chosen_set
    if not state.whole:
        question["from"] = state.since[:10] if granularity == "YYYY-MM-DD" else state.since
    return question


def _check(answer: Answer, url: str) -> None:
    errors = {code: text for code, text in answer.errors.items() if code != "noRecordsMatch"}
    for code, text in errors.items():
        raise UsageError(f"the archive refuses: {code}: {text}", where=url, remedy="see --prefix and --set")


def harvest_files(folder: HarvestFolder, paths: Sequence[Path], summary: HarvestSummary) -> None:
    """Take records from files, or from all ``*.xml`` of folders; a file that is not usable stops no other.

    Parameters
    ----------
    folder : HarvestFolder
        Held by the caller.
    paths : sequence of Path
    summary : HarvestSummary

    Raises
    ------
    NotFoundError
        If a file is not there.
    FormatError
        If none of the files is usable.
    """
    files = [file for path in paths for file in (sorted(path.rglob("*.xml")) if path.is_dir() else [path])]
    failure: ApbatchError | None = None
    usable = False
    for file in files:
        try:
            for record in read_file(_pieces(file), file.name):
                summary.count(folder, record)
            usable = True
        except FileNotFoundError:
            raise NotFoundError("no such file", where=str(file)) from None
        except (FormatError, OSError) as error:
            failure = error if isinstance(error, FormatError) else FormatError(str(error.strerror), where=str(file))
            summary.refused.add(str(file), failure.what)
    if failure is not None and not usable:
        raise failure


def _pieces(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while piece := stream.read(_PIECE):
            yield piece


def known_site(folder: HarvestFolder, name: str) -> Site | None:
    """Return the site of a harvest, or None before the first.

    Raises
    ------
    UsageError
        If another site has the name.
    """
    try:
        site = load_site(name)
    except NotFoundError:
        return None
    if os.path.realpath(site.root) != os.path.realpath(folder.records):
        raise UsageError(f"there is another site '{name}'", where=site.root, remedy="choose another --name")
    return site


def new_site(folder: HarvestFolder, name: str, experiment: str, description: str) -> Site:
    """Make the site of a harvest known under its name, and return it.

    Parameters
    ----------
    folder : HarvestFolder
        Whose records are the site's files.
    name, experiment, description : str
        Of the site.
    """
    root = os.path.realpath(folder.records)
    site = Site(name=name, experiment=experiment, root=root, include=("*.xml",), description=description)
    keep_site(site)
    return site


def register(catalogue: Catalogue, site: Site) -> IngestSummary:
    """Bring the catalogue to what was harvested; that all records are gone is believed, since the archive said so."""
    return ingest(site, catalogue, threads=1, accept_empty=True)
