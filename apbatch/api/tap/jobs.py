"""Jobs of TAP, kept as files below the home: every copy of the service on this home sees them, and they outlive it.

A job is a folder with ``job.json``, the result, and a lock that is held by the process that runs the job: where the
process died, the job has failed. A job belongs to whoever made it. Nobody else sees it, nor learns that there is one;
whoever shows no token gets no list, and finds a job again by its name alone, which can't be guessed.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from apbatch.errors import ApbatchError, NotFoundError, TooManyRequestsError, UsageError
from apbatch.localfiles import locked, write_whole

#: Jobs that one asker keeps, that all keep, that run at once in a process.
OF_ONE, OF_ALL, AT_ONCE = 50, 1000, 2
#: Bytes of one result, and of all of them.
LARGEST, LARGEST_OF_ALL = 2**30, 10 * 2**30
KEPT, KEPT_AT_MOST = timedelta(days=1), timedelta(days=7)
#: Seconds that a job may run.
LONGEST_S = 3600
ENDED = ("COMPLETED", "ERROR", "ABORTED")
PHASES = ("PENDING", "QUEUED", "EXECUTING", *ENDED)
_NAME = re.compile("[0-9a-f]{32}")
_PARAMETERS = ("REQUEST", "LANG", "QUERY", "MAXREC", "RESPONSEFORMAT", "FORMAT", "RUNID", "UPLOAD")
_LONGEST_VALUE = 32_768

Write = Callable[[dict[str, str]], tuple[str, Iterator[bytes]]]


@dataclass(frozen=True, slots=True)
class Asker:
    """Who makes or asks for jobs.

    Attributes
    ----------
    name : str, optional
        None for whoever shows no token.
    counted : str
        By which jobs are counted.
    sight : str
        What the asker may see now: a result made under another one is not given.
    """

    name: str | None
    counted: str
    sight: str = ""

    def owns(self, job: Job) -> bool:
        """Tell whether a job is the asker's; one that was made without a token is for whoever knows its name."""
        return job.owner == self.name and (self.name is None or job.counted == self.counted)


@dataclass(frozen=True, slots=True)
class Job:
    """One job; times are UTC.

    Attributes
    ----------
    owner : str, optional
        None for one that was made without a token.
    phase : str
        One of `PHASES`.
    longest_s : int
        Seconds that it may run.
    media, size
        Of its result.
    sight : str
        What its owner might see when it was started.
    """

    id: str
    owner: str | None
    counted: str
    parameters: dict[str, str]
    created: datetime
    destruction: datetime
    phase: str = "PENDING"
    started: datetime | None = None
    ended: datetime | None = None
    longest_s: int = LONGEST_S
    media: str = ""
    size: int = 0
    message: str = ""
    sight: str = ""

    def written(self) -> str:
        """Return the job as JSON."""
        return json.dumps(asdict(self), default=datetime.isoformat)

    @classmethod
    def read(cls, text: str) -> Job:
        """Return a job of its JSON."""
        values: dict[str, Any] = json.loads(text)
        for name in ("created", "destruction", "started", "ended"):
            values[name] = None if values[name] is None else datetime.fromisoformat(values[name])
        return cls(**values)


class _StoppedError(ApbatchError):
    """The job is to end: it was aborted or deleted."""


@dataclass
class Jobs:
    """The jobs of a home.

    Parameters
    ----------
    folder : Path
        Theirs alone.
    explain : callable
        Returns what a client may know of an error.
    """

    folder: Path
    explain: Callable[[Exception], str] = str
    _places: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(AT_ONCE))

    def create(self, asker: Asker, parameters: dict[str, str]) -> Job:
        """Make a job that waits to be started.

        Raises
        ------
        TooManyRequestsError
            If there are too many.
        UsageError
            If a parameter is too long.
        """
        now = datetime.now(UTC)
        with self._alone():
            jobs = self._swept()
            if sum(job.counted == asker.counted for job in jobs) >= OF_ONE or len(jobs) >= OF_ALL:
                raise TooManyRequestsError(
                    "too many jobs are kept", remedy="delete some, or wait until they are destroyed"
                )
            if sum(job.size for job in jobs) >= LARGEST_OF_ALL:
                raise TooManyRequestsError("results of jobs fill their space", remedy="delete jobs, or ask by /sync")
            job = Job(secrets.token_hex(16), asker.name, asker.counted, _checked(parameters), now, now + KEPT)
            (self.folder / job.id).mkdir(mode=0o700)
            self._write(job)
        return job

    def get(self, asker: Asker, name: str) -> Job:
        """Return a job of an asker.

        Raises
        ------
        NotFoundError
            If there is none, or it is another's; the same for both.
        """
        job = self._read(name)
        if job is None or not asker.owns(job):
            raise NotFoundError("there is no such job")
        if job.destruction <= datetime.now(UTC):
            self._remove(name)
            raise NotFoundError("there is no such job")
        return job

    def of(self, asker: Asker) -> list[Job]:
        """Return the jobs of an asker, the newest first; none to whoever shows no token."""
        if asker.name is None:
            return []
        with self._alone():
            jobs = self._swept()
        return sorted((job for job in jobs if asker.owns(job)), key=lambda job: job.created, reverse=True)

    def change(self, asker: Asker, name: str, *, waiting: bool = False, **changes: Any) -> Job:
        """Change a job of an asker; `parameters` are added to those that it has.

        Parameters
        ----------
        asker : Asker
        name : str
            Of the job.
        waiting : bool
            Only a job that was not started may be changed so.
        **changes : object
            Fields of the job.

        Raises
        ------
        UsageError
            If it has to be `waiting` and was started.
        """
        with self._alone():
            job = self.get(asker, name)
            if waiting and job.phase != "PENDING":
                raise UsageError(f"the job is {job.phase} already", remedy="make a new one")
            if "parameters" in changes:
                changes["parameters"] = _checked({**job.parameters, **changes["parameters"]})
            return self._write(replace(job, **changes))

    def start(self, asker: Asker, name: str, write: Write) -> None:
        """Have a job run in a thread of its own.

        Parameters
        ----------
        asker : Asker
        name : str
            Of the job.
        write : callable
            Returns the media type of the result, and the result piece by piece.

        Raises
        ------
        UsageError
            If it was started already.
        """
        lock = ExitStack()
        with self._alone(), lock:
            job = self.get(asker, name)
            if job.phase != "PENDING":
                raise UsageError(f"the job is {job.phase} already", remedy="make a new one")
            lock.enter_context(locked(self._lock(name)))
            self._write(replace(job, phase="QUEUED", sight=asker.sight))
            lock = lock.pop_all()
        threading.Thread(target=self._run, args=(name, write, lock), name=f"tap-{name[:8]}", daemon=True).start()

    def abort(self, asker: Asker, name: str) -> None:
        """End a job; one that runs ends with the page that it reads."""
        with self._alone():
            job = self.get(asker, name)
            if job.phase not in ENDED:
                self._write(replace(job, phase="ABORTED", ended=datetime.now(UTC)))

    def delete(self, asker: Asker, name: str) -> None:
        """End and forget a job."""
        with self._alone():
            self.get(asker, name)
            self._remove(name)

    def result(self, asker: Asker, name: str) -> tuple[Path, str]:
        """Return the file with the result of a job, and its media type.

        Raises
        ------
        NotFoundError
            If the job is not completed.
        UsageError
            If its owner may see something else now than when it ran.
        """
        job = self.get(asker, name)
        if job.phase != "COMPLETED":
            raise NotFoundError(f"the job is {job.phase} and has no result")
        if job.sight != asker.sight:
            raise UsageError("the policy has changed since the job ran", remedy="run it again")
        return self._result(name), job.media

    def _run(self, name: str, write: Write, lock: ExitStack) -> None:
        with lock, suppress(_StoppedError, OSError), self._places:
            job = self._turn(name, "QUEUED", phase="EXECUTING", started=datetime.now(UTC))
            path = self._result(name)
            try:
                media, size = self._save(job, path, write)
            except _StoppedError:
                path.unlink(missing_ok=True)
            except Exception as error:  # the thread must not end in silence
                path.unlink(missing_ok=True)
                self._turn(name, "EXECUTING", phase="ERROR", ended=datetime.now(UTC), message=self.explain(error))
            else:
                done = {"phase": "COMPLETED", "ended": datetime.now(UTC), "media": media, "size": size}
                self._turn(name, "EXECUTING", **done)

    def _save(self, job: Job, path: Path, write: Write) -> tuple[str, int]:
        size = 0
        until = datetime.now(UTC) + timedelta(seconds=job.longest_s)
        media, pieces = write(job.parameters)
        with path.open("wb") as file:
            for piece in pieces:
                current = self._stored(job.id)
                if current is None or current.phase != "EXECUTING":
                    raise _StoppedError("the job was ended")
                if datetime.now(UTC) > until:
                    raise UsageError(f"the job ran longer than {job.longest_s} s", remedy="narrow the query")
                size += file.write(piece)
                if size > LARGEST:
                    raise UsageError(f"the result is larger than {LARGEST} bytes", remedy="narrow it, or ask by /sync")
        return media, size

    def _turn(self, name: str, before: str, **changes: Any) -> Job:
        """Change a job that is still in a phase."""
        with self._alone():
            job = self._stored(name)
            if job is None or job.phase != before:
                self._result(name).unlink(missing_ok=True)
                raise _StoppedError("the job was ended")
            return self._write(replace(job, **changes))

    # files

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(self.folder / ".lock"):
            yield

    def _lock(self, name: str) -> Path:
        return self.folder / name / "running"

    def _result(self, name: str) -> Path:
        return self.folder / name / "result"

    def _write(self, job: Job) -> Job:
        write_whole(self.folder / job.id / "job.json", job.written(), 0o600)
        return job

    def _stored(self, name: str) -> Job | None:
        """Return a job as its file says; None if there is none, or it is damaged."""
        if not _NAME.fullmatch(name):
            return None
        try:
            return Job.read((self.folder / name / "job.json").read_text())
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def _read(self, name: str) -> Job | None:
        """Return a job; one that runs nowhere any more has failed."""
        job = self._stored(name)
        if job is None or job.phase not in ("QUEUED", "EXECUTING"):
            return job
        try:
            with locked(self._lock(name), NotFoundError):
                pass
        except NotFoundError:
            return job  # it runs
        job = self._stored(name)  # it may have ended between the two looks
        if job is not None and job.phase in ("QUEUED", "EXECUTING"):
            self._result(name).unlink(missing_ok=True)
            message = "the service was stopped while the job ran (run it again)"
            job = self._write(replace(job, phase="ERROR", ended=datetime.now(UTC), message=message))
        return job

    def _swept(self) -> list[Job]:
        """Return all jobs; forget those whose time has come, and what is damaged."""
        jobs = []
        for folder in self.folder.iterdir():
            if not _NAME.fullmatch(folder.name):
                continue
            job = self._read(folder.name)
            if job is None or job.destruction <= datetime.now(UTC):
                self._remove(folder.name)
            else:
                jobs.append(job)
        return jobs

    def _remove(self, name: str) -> None:
        shutil.rmtree(self.folder / name, ignore_errors=True)


def _checked(parameters: dict[str, str]) -> dict[str, str]:
    """Return the parameters that a job keeps."""
    kept = {name: value for name, value in parameters.items() if name in _PARAMETERS}
    long = next((name for name, value in kept.items() if len(value) > _LONGEST_VALUE), None)
    if long is not None:
        raise UsageError("the parameter is too long", where=long, remedy=f"at most {_LONGEST_VALUE} characters")
    return kept
