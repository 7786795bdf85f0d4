"""What a step of a job is, and what it sees while it runs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from apbatch.config import Settings, home
from apbatch.errors import UsageError
from apbatch.provenance import digest

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from apbatch.index.catalogue import Catalogue
    from apbatch.index.events.store import EventStore
    from apbatch.index.files import FileRecord
    from apbatch.index.query import Like, Or
    from apbatch.index.selection import Selection
    from apbatch.spark.inputs.sources import Source

#: What steps hand on, by name: URLs, folders, digests; plain JSON.
Products = dict[str, Any]


@dataclass
class Context:
    """The surroundings of a running job.

    Attributes
    ----------
    job : str
        Name of the job; its local outputs lie under ``$APBATCH_HOME/jobs/NAME``.
    base : pathlib.Path
        Folder of the job description, for relative paths in it.
    select : str
        The job's query.
    products : dict
        What earlier steps made.
    spark : callable
        Returns the Spark session, started at the first call.
    history : dict
        All products of each name, in order: a job may make parameters of several cameras.
    """

    job: str
    base: Path
    settings: Settings
    catalogue: Catalogue
    events: EventStore
    select: str
    spark: Callable[[], SparkSession]
    products: Products = field(default_factory=dict)
    history: dict[str, list[Any]] = field(default_factory=dict)

    def take(self, products: Products) -> None:
        """Take what a step made; what is replaced by it stays in `history`."""
        self.products.update(products)
        for name, product in products.items():
            earlier = self.history.setdefault(name, [])
            if product not in earlier:
                earlier.append(product)

    @property
    def folder(self) -> Path:
        """Local folder of the job."""
        return home() / "jobs" / self.job

    def dataset(self, kind: str, key: str) -> str:
        """Return the URL of a step's dataset in the configured store."""
        return f"{self.settings.store}/datasets/{self.job}/{kind}-{key}"

    def selection(self) -> Selection:
        """Return what the job's query picks, files or events; files of its own runs if it simulates."""
        from apbatch.index.query import And
        from apbatch.index.selection import Selection, parse_selection

        selection = parse_selection(self.select, self.catalogue.attributes(), self.events.attributes())
        if "production" in self.products and not selection.of_events:
            own = _of_runs(self.products["production"], self.products["runs"])
            return Selection(And((selection.query, *own)), of_events=False)
        return selection

    def files(self) -> list[FileRecord]:
        """Return the files that the job's query picks, by path.

        Raises
        ------
        UsageError
            If it picks events.
        """
        selection = self.selection()
        if selection.of_events:
            raise UsageError("the job's query picks events, not files", remedy="ask for attributes of files only")
        return sorted(self.catalogue.select(selection.query), key=lambda record: record.path)

    def sources(self, prefer: str | None) -> list[Source]:
        """Return the sources of the images that the job's query picks."""
        from apbatch.spark.inputs.selection import selected_sources

        return selected_sources(self.catalogue, self.events, self.selection(), prefer)

    def selection_digest(self, *, empty: bool = False) -> str:
        """Return the hash of what is selected: files by path and content, or events by key and dataset.

        Raises
        ------
        UsageError
            If nothing is selected, unless `empty`.
        """
        selection = self.selection()
        if selection.of_events:
            from apbatch.spark.inputs.selection import events_digest, selected_events

            events = selected_events(self.events, selection.query)
            if not events.num_rows and not empty:
                raise UsageError("the job's query picks no event", remedy='apbatch events "QUERY" shows what it picks')
            return events_digest(events)
        files = self.files()
        if not files and not empty:
            raise UsageError("the job's query picks no file", remedy='apbatch find "QUERY" shows what a query picks')
        return digest([[file.path, file.checksum] for file in files])


def _of_runs(production: str, runs: int) -> tuple[Like, Or]:
    """Return the conditions for files of the first runs, 1 to 1000, of a production."""
    from apbatch.index.query import Like, Or

    last = f"{runs:03d}"
    # Numbers below the last one, by the first digit in which they differ: 0__, 1__, 20_, 210, 211 before 212.
    numbers = [last, *(["___"] if len(last) > 3 else [])]
    for place, digit in enumerate(last):
        free = "_" * (len(last) - place - 1)
        numbers += [f"{last[:place]}{lower}{free}" for lower in range(int(digit))]
    return Like("path", f"{production}/%"), Or(tuple(Like("path", f"{production}/run-{one}/%") for one in numbers))


class Step(BaseModel):
    """One step with its parameters; subclasses say what it needs, makes and does."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)

    kind: ClassVar[str]
    #: Products of earlier steps without which this one can't run.
    needs: ClassVar[tuple[str, ...]] = ()
    #: Products that it makes.
    makes: ClassVar[tuple[str, ...]] = ()
    #: Whether it works only in jobs whose query picks files.
    of_files: ClassVar[bool] = False
    #: Whether it looks at the outside world, so that it runs each time (and does only what changed there).
    always: ClassVar[bool] = False

    def parameters(self) -> dict[str, Any]:
        """Return the parameters as they are recorded and hashed: JSON-like, equal for equal work.

        A parameter that a step got later is left out at its default, so that addresses of work done before stay.
        """
        return self.model_dump(mode="json")

    def inputs(self, context: Context) -> Any:
        """Return what, with the parameters, determines the output: JSON-like, hashed into its address."""
        return {name: context.products[name] for name in self.needs}

    @abstractmethod
    def run(self, context: Context, key: str) -> Products:
        """Do the work; return the products. Killed anywhere, a second call must end in the same state."""

    def leads(self, followers: Sequence[Step], step: Step) -> bool:
        """Tell whether `step`, next after this one and `followers`, can be done in one pass with them."""
        return False

    def promise(self, context: Context, key: str) -> Products:
        """Return what a run will make, where that is known before it; followers are addressed by it."""
        raise NotImplementedError

    def run_with(self, context: Context, key: str, followers: Sequence[Keyed]) -> list[Products]:
        """Do the work of this step and of those that follow it in one pass; return the products of each.

        As of `run`, a second call after a kill must end in the same state.

        Parameters
        ----------
        context : Context
        key : str
            Address of this step.
        followers : sequence of Keyed
            Steps that follow, with their addresses.
        """
        raise NotImplementedError

    def check_places(self, context: Context) -> None:
        """Find what is wrong with the sites and stores that the step names, before any step works.

        Raises
        ------
        ApbatchError
        """

    def foresee(self, context: Context) -> bool:
        """Add the products that a run would make if nothing changed outside; False if they can't be known."""
        return False

    def recall(self, products: Products) -> Products:
        """Return the products of a record, with what the step's parameters say of them."""
        return products

    def intact(self, products: Products) -> bool:
        """Tell whether the products of an earlier run are still there."""
        return True


@dataclass(frozen=True)
class Keyed:
    """A step with what it is addressed by: its inputs, and the hash of them and its parameters."""

    step: Step
    inputs: Any
    key: str
