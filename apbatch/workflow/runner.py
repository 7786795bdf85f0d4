"""Runs a job: each step once for each set of inputs and parameters; what is done is not done again."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apbatch.config import Settings, fill_in
from apbatch.errors import ApbatchError, UsageError
from apbatch.index.backends import open_catalogue
from apbatch.index.events.upgrade import events_of
from apbatch.localfiles import locked
from apbatch.progress import say
from apbatch.provenance import digest
from apbatch.workflow.model import JobDescription
from apbatch.workflow.records import Records
from apbatch.workflow.step import Context, Keyed, Products, Step

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: Raised when a change of the code changes what steps make from the same inputs.
_GENERATION = 1


@dataclass
class Outcome:
    """What a run of a job did.

    Attributes
    ----------
    products : dict
        Everything the steps handed on.
    ran, reused : list of str
        Steps that worked and steps that were done before.
    """

    products: Products = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)
    reused: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Planned:
    """One line of a plan.

    Attributes
    ----------
    state : str
        ``done``, ``to do``, or ``each time`` for a step that looks at the outside world.
    """

    step: str
    state: str
    line: int
    parameters: dict[str, Any]


def run(job: JobDescription, settings: Settings) -> Outcome:
    """Run a job to its end, going on where an earlier run stopped.

    Raises
    ------
    ApbatchError
        From the step that failed, with the line in the job description; finished steps stay finished.
    """
    with _surroundings(job, settings) as (context, records):
        outcome = Outcome(products=context.products)
        in_pass = 0  # steps that were done together with an earlier one
        for number, (step, line) in enumerate(zip(job.steps, job.lines, strict=True), start=1):
            if in_pass:
                in_pass -= 1
                continue
            title = f"[{number}/{len(job.steps)}] {step.kind}"
            this = _keyed(step, context)
            finished = None if step.always else records.products(step, this.key)
            if finished is not None and step.intact(finished):
                say(f"{title}: done before")
                outcome.reused.append(step.kind)
                context.take(finished)
                continue
            followers = _followers(this, job.steps[number:], context, records)
            in_pass = len(followers)
            title = ", ".join([title, *(one.step.kind for one in followers)])
            say(f"{title} …")
            started = time.monotonic()
            try:
                results = step.run_with(context, this.key, followers) if followers else [step.run(context, this.key)]
            except ApbatchError as error:
                error.where = error.where or f"{job.path}:{line}"
                raise
            for one, products in zip((this, *followers), results, strict=True):
                records.finish(one.step.kind, one.key, one.inputs, one.step.parameters(), products)
                context.take(products)
                outcome.ran.append(one.step.kind)
            say(f"{title}: {time.monotonic() - started:.1f} s")
        return outcome


def _followers(this: Keyed, following: Sequence[Step], context: Context, records: Records) -> list[Keyed]:
    """Return the steps right after this one that are to do and can be done in the same pass."""
    followers: list[Keyed] = []
    for step in following:
        if not this.step.leads([one.step for one in followers], step):
            break
        promised = replace(context, products={**context.products, **this.step.promise(context, this.key)})
        one = _keyed(step, promised)
        finished = records.products(step, one.key)
        if finished is not None and step.intact(finished):
            break
        followers.append(one)
    return followers


def plan(job: JobDescription, settings: Settings) -> list[Planned]:
    """Say what a run would do, without doing any of it.

    The address of a step depends on what earlier steps made; from the first step that would work onwards, all
    later ones are to do as well.
    """
    planned: list[Planned] = []
    with _surroundings(job, settings) as (context, records):
        certain = True
        for step, line in zip(job.steps, job.lines, strict=True):
            state = "each time" if step.always else "to do"
            if certain and step.always:
                certain = step.foresee(context)
            elif certain:
                finished = records.products(step, _keyed(step, context).key)
                certain = finished is not None and step.intact(finished)
                if certain and finished is not None:
                    state = "done"
                    context.take(finished)
            planned.append(Planned(step.kind, state, line, step.parameters()))
    return planned


def _keyed(step: Step, context: Context) -> Keyed:
    inputs = step.inputs(context)
    return Keyed(step, inputs, digest([_GENERATION, step.kind, step.parameters(), inputs]))


@contextmanager
def _surroundings(job: JobDescription, settings: Settings) -> Iterator[tuple[Context, Records]]:
    """Open what steps need: the catalogue, Spark on the first demand, the records; one run of a job at a time."""
    with ExitStack() as stack:
        catalogue = stack.enter_context(open_catalogue(settings.catalogue))
        events = stack.enter_context(events_of(settings))
        sessions: list[SparkSession] = []

        def spark() -> SparkSession:
            from apbatch.spark.connect.session import close, session

            if not sessions:
                say(f"starting Spark on {settings.spark.master}")
                sessions.append(session(settings.spark, f"apbatch {job.name}"))
                stack.callback(close, sessions[0])
            return sessions[0]

        context = Context(job.name, job.path.parent, settings, catalogue, events, job.select, spark)
        stack.enter_context(locked(context.folder / "lock", lambda process: _runs_already(process, context.folder)))
        _check_steps(job, context)
        _check_query(job, context)
        elsewhere = [] if settings.events == fill_in(Settings().events) else [settings.events]
        services = digest([settings.catalogue, settings.store, *elsewhere])
        yield context, Records(context.folder / "steps" / services)


def _check_steps(job: JobDescription, context: Context) -> None:
    """Find every site and store that is named wrongly, or whose server is not up, before anything starts."""
    from apbatch.storage.backends import open_store

    faults: list[tuple[str, ApbatchError]] = []
    try:
        open_store(context.settings.store)
    except ApbatchError as error:
        faults.append((error.where or "settings: store", error))
    for step, line in zip(job.steps, job.lines, strict=True):
        try:
            step.check_places(context)
        except ApbatchError as error:
            faults.append((f"{job.path}:{line}: {step.kind}", error))
    if faults:
        if len(faults) == 1:
            faults[0][1].where = faults[0][0]
            raise faults[0][1]
        raise UsageError("\n".join(f"{place}: {fault}" for place, fault in faults))


def _check_query(job: JobDescription, context: Context) -> None:
    """Find faults of the query before anything starts; without an ingest, what it picks is known now."""
    from apbatch.formats.reader import readers
    from apbatch.index.selection import parse_selection

    declared = {attribute.name: attribute for reader in readers().values() for attribute in reader.attributes}
    files, events = context.catalogue.attributes(), context.events.attributes()
    try:
        selection = parse_selection(job.select, {**declared, **files}, events)
    except UsageError as error:
        error.where = f"{job.path}: select: {error.where}"
        raise
    for step, line in zip(job.steps, job.lines, strict=True):
        if selection.of_events and step.of_files:
            raise UsageError(
                f"step '{step.kind}' works on files, and the job's query picks events",
                where=f"{job.path}:{line}",
                remedy="leave the step out, or select files",
            )
    if job.select and not any("selection" in step.makes for step in job.steps):
        context.products["selection"] = context.selection_digest()


def _runs_already(process: str, folder: Path) -> ApbatchError:
    return ApbatchError(
        f"this job is running already (process {process})",
        where=str(folder),
        remedy="wait for it, or give the job another name",
    )
