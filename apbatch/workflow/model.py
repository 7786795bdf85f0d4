"""Job descriptions: YAML read whole and checked whole before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from apbatch.errors import UsageError, nearest_word
from apbatch.workflow.dataset_steps import Compact, Stereo
from apbatch.workflow.file_steps import Ingest, Mirror, Simulate
from apbatch.workflow.image_steps import Clean, Grid, Parameters, Skim
from apbatch.workflow.quality_step import Quality
from apbatch.workflow.step import Step
from apbatch.workflow.study_steps import Application, Blind, Report, Robustness, Showers, Study
from apbatch.yamlfile import Lines, read_yaml, validate

#: Every kind of step by the name that it has in a job description.
STEPS: dict[str, type[Step]] = {
    step.kind: step
    for step in (
        *(Simulate, Ingest, Mirror, Clean, Skim, Parameters, Grid, Stereo, Compact, Quality),
        *(Blind, Study, Robustness, Showers, Application, Report),
    )
}


class _Head(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    description: str = ""
    select: str = ""
    steps: list[Any] = Field(min_length=1)


class JobDescription:
    """A checked job description.

    Attributes
    ----------
    name, description, select : str
    steps : list of Step
    path : pathlib.Path
        The file it came from.
    lines : list of int
        Line of each step in the file.
    """

    def __init__(self, path: Path, head: _Head, steps: list[Step], lines: list[int]) -> None:
        self.path, self.name, self.description, self.select = path, head.name, head.description, head.select
        self.steps, self.lines = steps, lines

    def until(self, kind: str) -> JobDescription:
        """Return the job up to its last step of a kind, that one included.

        Parameters
        ----------
        kind : str
            Name of the step, as in the description.

        Raises
        ------
        UsageError
            If the job has no such step.
        """
        kinds = [step.kind for step in self.steps]
        if kind not in kinds:
            raise UsageError(f"the job has no step '{kind}'", where=str(self.path), nearest=nearest_word(kind, kinds))
        stop = len(kinds) - kinds[::-1].index(kind)
        head = _Head(name=self.name, description=self.description, select=self.select, steps=self.steps)
        return JobDescription(self.path, head, self.steps[:stop], self.lines[:stop])


def load_job(path: Path) -> JobDescription:
    """Read and check a job description.

    Raises
    ------
    NotFoundError
        If there is no such file.
    UsageError
        With every fault: file, line, what is wrong and the nearest right word.
    """
    content, lines = read_yaml(path)
    head = validate(path, content, lines, _Head)
    steps: list[Step] = []
    places: list[int] = []
    faults: list[str] = []
    for index, item in enumerate(head.steps):
        line = lines.get(("steps", index), 1)
        try:
            steps.append(_step(path, index, item, lines, line))
            places.append(line)
        except UsageError as error:
            faults.append(str(error))
    if not faults:
        faults = _order_faults(path, head, steps, places)
    if faults:
        raise UsageError("\n".join(faults))
    return JobDescription(path, head, steps, places)


def _step(path: Path, index: int, item: Any, lines: Lines, line: int) -> Step:
    if isinstance(item, str):
        item = {item: {}}
    if not isinstance(item, dict) or len(item) != 1:
        raise UsageError(
            "a step is one key with its parameters, such as '- clean: {picture: 14 pe}'", where=f"{path}:{line}"
        )
    (kind, parameters), *_ = item.items()
    if kind not in STEPS:
        raise UsageError(
            f"unknown step '{kind}'",
            where=f"{path}:{line}",
            nearest=nearest_word(str(kind), STEPS),
            remedy=f"steps are {', '.join(STEPS)}",
        )
    return validate(path, parameters, lines, STEPS[kind], at=("steps", index, kind))


def _order_faults(path: Path, head: _Head, steps: list[Step], places: list[int]) -> list[str]:
    """Every step must find what it needs; else say which step is missing before it."""
    products: set[str] = {"selection"} if head.select else set()
    faults = []
    for step, line in zip(steps, places, strict=True):
        for product in step.needs:
            if product not in products:
                makers = [kind for kind, other in STEPS.items() if product in other.makes]
                hint = " or ".join(f"'{maker}'" for maker in makers)
                faults.append(f"{path}:{line}: step '{step.kind}' needs {product}: put {hint} before it")
        products.update(step.makes)
    return faults
