"""What a step of a job is, and what it sees while it runs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from apbatch.config import Settings, home

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from apbatch.index.catalogue import Catalogue, FileRecord

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
    """

    job: str
    base: Path
    settings: Settings
    catalogue: Catalogue
    select: str
    spark: Callable[[], SparkSession]
    products: Products = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Local folder of the job."""
        return home() / "jobs" / self.job

    def dataset(self, kind: str, key: str) -> str:
        """Return the URL of a step's dataset in the configured store."""
        return f"{self.settings.store}/datasets/{self.job}/{kind}-{key}"

    def selection(self) -> list[FileRecord]:
        """Return the files that the job's query picks, by path; those of its own production if it simulates."""
        from apbatch.index.query import And, Like, parse

        query = parse(self.select, self.catalogue.attributes())
        if "production" in self.products:
            query = And((query, Like("path", f"{self.products['production']}/%")))
        return sorted(self.catalogue.select(query), key=lambda record: record.path)


class Step(BaseModel):
    """One step with its parameters; subclasses say what it needs, makes and does."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: ClassVar[str]
    #: Products of earlier steps without which this one can't run.
    needs: ClassVar[tuple[str, ...]] = ()
    #: Products that it makes.
    makes: ClassVar[tuple[str, ...]] = ()
    #: Whether it looks at the outside world, so that it runs each time (and does only what changed there).
    always: ClassVar[bool] = False

    def inputs(self, context: Context) -> Any:
        """Return what, with the parameters, determines the output: JSON-like, hashed into its address."""
        return {name: context.products[name] for name in self.needs}

    @abstractmethod
    def run(self, context: Context, key: str) -> Products:
        """Do the work; return the products. Killed anywhere, a second call must end in the same state."""

    def foresee(self, context: Context) -> bool:
        """Add the products that a run would make if nothing changed outside; False if they can't be known."""
        return False

    def intact(self, products: Products) -> bool:
        """Tell whether the products of an earlier run are still there."""
        return True
