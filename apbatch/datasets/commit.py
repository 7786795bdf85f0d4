"""Datasets written exactly once: attempts of tasks are put aside, one of each split is taken, all appear in one move.

The protocol, for a job that writes one or more datasets (images, parameters, grids of the same splits):

1. The driver locks the folder of each dataset (`apbatch.storage.lock`), and writes `.apbatch-job.json` into it: the key
   of the work (a hash of inputs, settings and versions) and a generation, a random name for what this job writes.
2. A task writes its part files as ``.apbatch-GENERATION-SPLIT-TOKEN.parquet``, each verified and renamed by the store,
   and then, last, a record ``.apbatch-GENERATION-SPLIT-TOKEN.json`` that names them. The token is the attempt's own, so
   tasks that run twice never meet.
3. When every split has a record, the driver takes one for each, renames its files to ``part-SPLIT-GENERATION.parquet``
   and writes the sidecar, which lists them. That rename of the sidecar is the moment at which the new dataset takes
   the place of an older one; until then readers of `apbatch.datasets.dataset` see the old one, whole.
4. What the sidecar does not list is removed.

Killed anywhere, the same work done again finds key and generation, counts the splits whose record and files are
there as done, and goes on. Other work into the same folder throws them away.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any

from apbatch.datasets import dataset
from apbatch.errors import ApbatchError, FormatError, ServerError, UsageError
from apbatch.storage.backends import open_store
from apbatch.storage.lock import Lock
from apbatch.storage.store import Store

_LOCK = f"{dataset.HIDDEN}lock"
_JOB = f"{dataset.HIDDEN}job.json"


@dataclass(frozen=True, slots=True)
class Loss:
    """Something that was passed over.

    Attributes
    ----------
    url : str
        The file it was in.
    reason : str
        One of a few, under which losses are counted.
    count : int
    text : str
        For people.
    """

    url: str
    reason: str
    count: int
    text: str


@dataclass(frozen=True, slots=True)
class Part:
    """A part file that a task wrote: hidden name, rows, bytes, checksum."""

    name: str
    rows: int
    bytes: int
    blake3: str


@dataclass(frozen=True)
class SplitRecord:
    """What one attempt at one split did.

    Attributes
    ----------
    split : int
        Number of the split in the job.
    images : int
    parts : dict
        The part file of each dataset; none where the split gave no image.
    bytes_read : int
        Of input files.
    losses : list of Loss
    seconds : float
        In the worker.
    peak_bytes : int
        Most memory that the worker's process had until then.
    pixels : dict
        How many pixels of images were mended or marked missing.
    """

    split: int
    images: int
    parts: dict[str, Part]
    bytes_read: int
    losses: list[Loss]
    seconds: float
    peak_bytes: int = 0
    pixels: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the record as it is kept."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> SplitRecord:
        """Read a record.

        Raises
        ------
        ValueError, TypeError, KeyError
            If it is none.
        """
        fields = json.loads(text)
        parts = {role: Part(**part) for role, part in fields.pop("parts").items()}
        losses = [Loss(**loss) for loss in fields.pop("losses")]
        return cls(**fields, parts=parts, losses=losses)


@dataclass(frozen=True)
class Staging:
    """Where tasks put what they write; goes to workers.

    Attributes
    ----------
    outputs : dict
        URL of the dataset of each role (``images``, ``parameters``, …); the first one keeps the records.
    generation : str
    """

    outputs: dict[str, str]
    generation: str

    def attempt(self, split: int) -> str:
        """Return the beginning of the hidden names of a new attempt at a split."""
        return f"{dataset.HIDDEN}{self.generation}-{split:06d}-{secrets.token_hex(4)}"

    def part_name(self, split: int) -> str:
        """Return the final name of the part file of a split."""
        return f"part-{split:06d}-{self.generation}.parquet"

    def records_store(self) -> Store:
        """Return the store that keeps the records."""
        return open_store(next(iter(self.outputs.values())))

    def keep_record(self, name: str, record: SplitRecord) -> None:
        """Keep the record of an attempt by the name `attempt` gave it; last of all, when its parts are published."""
        with self.records_store().publish(f"{name}.json") as file:
            file.write(record.to_json().encode())


@dataclass
class DatasetCommit:
    """The driver's side of the protocol; use it as a context.

    Leaving it after an error keeps what is finished, for the same work to go on, unless `discard` was called.

    Parameters
    ----------
    outputs : dict
        URL of the dataset of each role.
    key : str
        Hash of everything that determines the output.
    plan : dict
        What must be the same when the work goes on, such as the size of splits; of a job that goes on, the old one
        is found here.
    """

    outputs: dict[str, str]
    key: str
    plan: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        urls = [url.rstrip("/") for url in self.outputs.values()]
        if not urls:
            raise UsageError("a step needs an output")
        if len(set(urls)) < len(urls):
            raise UsageError("two outputs have the same URL", where=urls[0])
        for url in urls:
            dataset.parent_of(url)
        self.outputs = dict(zip(self.outputs, urls, strict=True))
        self._locks: dict[str, Lock] = {}
        self._stack = ExitStack()
        self._keep = True

    def __enter__(self) -> DatasetCommit:
        """Lock the outputs and find what an earlier run left.

        Raises
        ------
        UsageError
            If another program writes one of them, or something else is in the folder.
        ServerError
        """
        with ExitStack() as stack:
            for url in sorted(self.outputs.values()):
                _need_dataset_or_nothing(url)
                lock = Lock(open_store(url), _LOCK, "this dataset")
                self._locks[url] = stack.enter_context(lock)
            self._begin()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the outputs free."""
        if not self._keep:
            for url in self.outputs.values():
                with suppress(ApbatchError):
                    _sweep(open_store(url))
        self._stack.close()
        for url in self.outputs.values():
            with suppress(ApbatchError):
                _remove_if_empty(url)

    def _begin(self) -> None:
        stores = {role: open_store(url) for role, url in self.outputs.items()}
        jobs = {role: _job_of(store) for role, store in stores.items()}
        first = next(iter(jobs.values()))
        same = (
            first is not None
            and first.get("key") == self.key
            and all(job is not None and job.get("generation") == first.get("generation") for job in jobs.values())
        )
        if same and first is not None:
            self.staging = Staging(self.outputs, str(first["generation"]))
            self.plan = dict(first.get("plan", {}))
            return
        self.staging = Staging(self.outputs, secrets.token_hex(4))
        for store in stores.values():
            _sweep(store)
            with store.publish(_JOB) as file:
                content = {"key": self.key, "generation": self.staging.generation, "plan": self.plan}
                file.write(json.dumps(content).encode())

    def discard(self) -> None:
        """Throw away what tasks wrote when the context is left: the same work again would end no better."""
        self._keep = False

    def finished(self, splits: Sequence[int]) -> dict[int, SplitRecord]:
        """Return the records of splits that are done, verified by the sizes of their files.

        Parameters
        ----------
        splits : sequence of int
            Numbers of the job's splits.

        Raises
        ------
        ServerError
        """
        prefix = f"{dataset.HIDDEN}{self.staging.generation}-"
        sizes = {
            role: {entry.path: entry.size for entry in open_store(url).entries("")}
            for role, url in self.outputs.items()
        }
        store, numbers, done = self.staging.records_store(), set(splits), {}
        for name in sorted(next(iter(sizes.values()))):
            if not (name.startswith(prefix) and name.endswith(".json")):
                continue
            try:
                with store.open(name) as stream:
                    record = SplitRecord.from_json(stream.read())
            except (ValueError, TypeError, KeyError):
                continue
            if record.split not in numbers or record.split in done:
                continue
            final = self.staging.part_name(record.split)
            if all(
                part.bytes in (sizes[role].get(part.name), sizes[role].get(final))
                for role, part in record.parts.items()
            ):
                done[record.split] = record
        return done

    def note(self, name: str) -> Any:
        """Return what `keep` kept under this name for this job, or None."""
        try:
            with self.staging.records_store().open(self._note(name)) as stream:
                return json.loads(stream.read())
        except (ApbatchError, ValueError):
            return None

    def keep(self, name: str, content: Any) -> None:
        """Keep JSON-like content for the case that the job has to go on after a kill."""
        with self.staging.records_store().publish(self._note(name)) as file:
            file.write(json.dumps(content).encode())

    def _note(self, name: str) -> str:
        return f"{dataset.HIDDEN}{self.staging.generation}.{name}"

    def commit(self, records: Iterable[SplitRecord], contents: Mapping[str, Mapping[str, Any]]) -> None:
        """Make the datasets of one record for each split.

        Parameters
        ----------
        records : iterable of SplitRecord
        contents : mapping
            The sidecar of each role, without the list of files.

        Raises
        ------
        ServerError
            If another program has taken over, a store fails or a file went missing.
        """
        for lock in self._locks.values():
            lock.check()
        in_order = sorted(records, key=lambda record: record.split)
        for role, url in self.outputs.items():
            store = open_store(url)
            _list_files(url)
            hidden = {entry.path for entry in store.entries("")}
            files = []
            for record in in_order:
                part = record.parts.get(role)
                if part is None:
                    continue
                final = self.staging.part_name(record.split)
                if part.name in hidden:
                    store.rename(part.name, final)
                elif final not in hidden:
                    raise ServerError("a finished part file is gone", where=store.url_of(part.name))
                files.append({"name": final, "rows": part.rows, "bytes": part.bytes, "blake3": part.blake3})
            dataset.write_info(url, {**contents[role], "files": files, "generation": self.staging.generation})
            if store.info(dataset.SUCCESS) is None:
                with store.publish(dataset.SUCCESS) as file:
                    file.write(b"")
        for url in self.outputs.values():
            _sweep(open_store(url))


def _list_files(url: str) -> None:
    """Give a dataset whose sidecar lists no files such a list, before other files come into its folder."""
    if dataset.is_complete(url):
        with suppress(FormatError):
            sidecar = dataset.info(url)
            if "files" not in sidecar:
                dataset.write_info(url, {**sidecar, "files": [{"name": name} for name in dataset.part_files(url)]})


def _job_of(store: Store) -> dict[str, Any] | None:
    if store.info(_JOB) is None:
        return None
    with store.open(_JOB) as stream:
        try:
            content = json.loads(stream.read())
        except ValueError:
            return None
    return content if isinstance(content, dict) else None


def _sweep(store: Store) -> None:
    """Remove hidden files, and part files that the sidecar does not list; the lock stays."""
    listed: set[str] | None = None
    if dataset.is_complete(store.url):
        try:
            listed = set(dataset.part_files(store.url))
        except FormatError:
            listed = None  # damaged: nothing that might be data is touched
    for entry in list(store.entries("")):
        name = entry.path
        if name == _LOCK or name.startswith(f"{_LOCK}-"):
            continue
        orphan = listed is not None and name.endswith(".parquet") and name.startswith("part-") and name not in listed
        if name.startswith(dataset.HIDDEN) or name == "_temporary" or orphan:
            store.remove(name)


def _need_dataset_or_nothing(url: str) -> None:
    """Raise if the folder holds something that is no dataset: a wrong URL must not mix data.

    Raises
    ------
    UsageError
    """
    store = open_store(url)
    here = store.info("")
    if here is None:
        return
    if not here.is_directory:
        raise UsageError("this is a file, not a dataset", where=url)
    names = [entry.path for entry in store.entries("")]
    if names and not any(dataset.belongs(name) for name in names):
        raise UsageError("this folder is not a dataset, so nothing is written into it", where=url)


def _remove_if_empty(url: str) -> None:
    store = open_store(url)
    if store.info("") is not None and not any(True for _ in store.entries("")):
        parent, name = dataset.parent_of(url)
        open_store(parent).remove(name)
