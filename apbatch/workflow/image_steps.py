"""Steps that make datasets of images: clean, skim, parameters, grid; neighbours are one pass over the pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, model_validator

from apbatch.camera.cleaning_rule import Cleaning
from apbatch.camera.cleaning_words import WORDS, cleaning_of, level, words_of
from apbatch.errors import ApbatchError, UsageError
from apbatch.progress import say
from apbatch.quality.monitor import KEEP, KINDS, TREATMENTS, USUAL, BadPixels
from apbatch.units import quantity
from apbatch.workflow.step import Context, Keyed, Products, Step

if TYPE_CHECKING:
    from apbatch.spark.inputs.sources import Source
    from apbatch.spark.summary import StepSummary


def _checked_level(value: Any) -> Any:
    try:
        level(value)
    except UsageError as error:
        raise ValueError(str(error)) from error
    return value


#: Kept as it was written: its unit tells which method is meant.
Level = Annotated[float | str, BeforeValidator(_checked_level)]
Nanoseconds = Annotated[float, quantity("ns")]


class CleaningWords(BaseModel):
    """The words of `apbatch.camera.cleaning_words` as keys of a step."""

    cleaning: str | None = Field(default=None, description=WORDS["cleaning"])
    picture: Level | None = Field(default=None, description=WORDS["picture"])
    boundary: Level | None = Field(default=None, description=WORDS["boundary"])
    min_neighbours: int | None = Field(default=None, description=WORDS["min_neighbours"])
    keep_isolated: bool | None = Field(default=None, description=WORDS["keep_isolated"])
    time_limit: Nanoseconds | None = Field(default=None, description=WORDS["time_limit"])
    time_neighbours: int | None = Field(default=None, description=WORDS["time_neighbours"])
    largest_island: bool | None = Field(default=None, description=WORDS["largest_island"])

    @property
    def rule(self) -> Cleaning | None:
        """The cleaning that is asked for; None without any word."""
        words = {word: value for word in WORDS if (value := getattr(self, word)) is not None}
        return cleaning_of(**words) if words else None

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        try:
            _ = self.rule
        except ApbatchError as error:
            raise ValueError(str(error)) from error
        return self

    def others(self) -> dict[str, Any]:
        """Return the parameters that are no words of a cleaning."""
        return self.model_dump(mode="json", exclude=set(WORDS))


class ImageStep(Step):
    """A step whose dataset comes out of a pass over pixels; those that follow it may join the pass.

    A follower joins if it takes the images as they are, cleaned, and makes another dataset than those that joined
    already. Its address is that which it has alone, and so is its dataset but for the provenance.
    """

    #: Its dataset in a pass (`apbatch.spark.pipeline.images`), which is also the name of its product.
    role: ClassVar[str]

    def options(self) -> dict[str, Any]:
        """Return what a pass has to know of this step."""
        return {}

    def promise(self, context: Context, key: str) -> Products:
        """Return the URL of the dataset."""
        return {self.role: context.dataset(self.kind, key)}

    def run(self, context: Context, key: str) -> Products:
        """Make the dataset."""
        return self.run_with(context, key, [])[0]

    def run_with(self, context: Context, key: str, followers: Sequence[Keyed]) -> list[Products]:
        """Make all datasets in one pass; one that a killed run has written to its end is not made again."""
        steps: list[tuple[ImageStep, str]] = [(self, key)]
        steps += [(one.step, one.key) for one in followers if isinstance(one.step, ImageStep)]
        outputs: dict[str, str] = {}
        options: dict[str, Any] = {}
        for step, its_key in steps:
            output = context.dataset(step.kind, its_key)
            if not complete(output):
                outputs[step.role] = output
                options |= step.options()
        if outputs:
            summary = self.work(context, outputs, self.promise(context, key)[self.role], options)
            tell(", ".join(step.kind for step, _ in steps), summary)
        return [step.finished(context, context.dataset(step.kind, its_key)) for step, its_key in steps]

    def work(self, context: Context, outputs: dict[str, str], own: str, options: dict[str, Any]) -> StepSummary:
        """Make datasets by their roles; `own` is the URL of this step's.

        Parameters
        ----------
        context : Context
        outputs : dict of str to str
            URLs of the datasets by role.
        own : str
            URL of this step's dataset.
        options : dict
            Of the functions of `apbatch.spark.pipeline`.
        """
        from apbatch.spark import pipeline
        from apbatch.spark.inputs.plan import check_dataset

        check_dataset(options.get("cleaning"), context.products["images"])
        return pipeline.derived(context.spark(), context.products["images"], outputs, **options)

    def finished(self, context: Context, output: str) -> Products:
        """Return the product once its dataset is complete."""
        return {self.role: output}

    def intact(self, products: Products) -> bool:
        """The dataset must be complete."""
        return complete(products[self.role])


class Clean(ImageStep, CleaningWords):
    """Decode, calibrate, and clean."""

    kind: ClassVar[str] = "clean"
    role: ClassVar[str] = "images"
    needs: ClassVar[tuple[str, ...]] = ("selection",)
    makes: ClassVar[tuple[str, ...]] = ("images",)

    camera: str | None = Field(default=None, description="only images of this camera, if files hold several")
    bad_pixels: str = Field(default=KEEP, description=f"{', '.join(TREATMENTS)} pixels that are not as the others")
    bad_kinds: tuple[str, ...] = Field(default=USUAL, description=f"which are bad, of {', '.join(KINDS)}")

    @model_validator(mode="after")
    def _known_words(self) -> Self:
        try:
            BadPixels(self.bad_pixels, self.bad_kinds)
        except UsageError as error:
            raise ValueError(str(error)) from error
        return self

    def parameters(self) -> dict[str, Any]:
        """Return the cleaning in words, equal for equal cleanings, and what else is not at its default."""
        defaults = {"camera": None, "bad_pixels": KEEP, "bad_kinds": list(USUAL)}
        others = {name: value for name, value in self.others().items() if value != defaults[name]}
        return {**words_of(self.rule or cleaning_of()), **others}

    def inputs(self, context: Context) -> Any:
        """Return the selection, where it is read, and where the output goes."""
        products = {name: context.products.get(name) for name in ("selection", "mirrored")}
        return {**products, "store": context.settings.store}

    def leads(self, followers: Sequence[Step], step: Step) -> bool:
        """Parameters and grids of the images come out of the same pass."""
        return _joins((self, *followers), step)

    def work(self, context: Context, outputs: dict[str, str], own: str, options: dict[str, Any]) -> StepSummary:
        """Read the selected files; if the images are there already, those."""
        from apbatch.spark import pipeline
        from apbatch.spark.inputs.plan import check_sources

        if "images" not in outputs:
            return pipeline.derived(context.spark(), own, outputs, **options)
        sources, rule = self._sources(context), self.rule or cleaning_of()
        check_sources(rule, sources)
        return pipeline.images(
            context.spark(),
            sources,
            outputs,
            rule,
            bad_pixels=BadPixels(self.bad_pixels, self.bad_kinds),
            step="clean" if len(outputs) == 1 else "images",
            **options,
        )

    def _sources(self, context: Context) -> list[Source]:
        sources = context.sources(context.products.get("mirrored"))
        if self.camera is None:
            return sources
        named = [source for source in sources if source.camera in (None, self.camera)]
        if not named:
            cameras = ", ".join(sorted({str(source.camera) for source in sources}))
            raise UsageError(f"no selected file is of the camera {self.camera}", remedy=f"they are of {cameras}")
        return [replace(source, camera=self.camera) for source in named]


class Skim(ImageStep):
    """The images of the selected events, with the masks that they have: a small dataset out of large ones."""

    kind: ClassVar[str] = "skim"
    role: ClassVar[str] = "images"
    needs: ClassVar[tuple[str, ...]] = ("selection",)
    makes: ClassVar[tuple[str, ...]] = ("images",)

    def inputs(self, context: Context) -> Any:
        """Return the selection, and where the output goes."""
        return {"selection": context.products["selection"], "store": context.settings.store}

    def leads(self, followers: Sequence[Step], step: Step) -> bool:
        """Parameters and grids of the images come out of the same pass."""
        return _joins((self, *followers), step)

    def work(self, context: Context, outputs: dict[str, str], own: str, options: dict[str, Any]) -> StepSummary:
        """Read the images of the events and nothing else."""
        from apbatch.spark import pipeline
        from apbatch.spark.inputs.selection import event_sources

        if "images" not in outputs:
            return pipeline.derived(context.spark(), own, outputs, **options)
        selection = context.selection()
        if not selection.of_events:
            raise UsageError(
                "'skim' wants events, and the job's query picks files",
                remedy="ask for cleaning = '…' and image parameters",
            )
        sources = event_sources(context.catalogue, context.events, selection.query)
        return pipeline.skim(context.spark(), sources, outputs, **options)


class _OfImages(ImageStep, CleaningWords):
    """A step that takes cleaned images; asked for another cleaning, it makes masks of its own."""

    needs: ClassVar[tuple[str, ...]] = ("images",)

    def parameters(self) -> dict[str, Any]:
        """Return the parameters; the cleaning only if there is another one."""
        rule = self.rule
        return {**self.others(), **(words_of(rule) if rule else {})}

    def options(self) -> dict[str, Any]:
        """Return the other cleaning, if there is one."""
        rule = self.rule
        return {"cleaning": rule} if rule else {}

    def leads(self, followers: Sequence[Step], step: Step) -> bool:
        """The other one of parameters and grids comes out of the same pass."""
        return self.rule is None and _joins((self, *followers), step)


class Parameters(_OfImages):
    """Hillas parameters without and with cleaning, written to Parquet and into the store of events."""

    kind: ClassVar[str] = "parameters"
    role: ClassVar[str] = "parameters"
    makes: ClassVar[tuple[str, ...]] = ("parameters",)

    register_events: bool = True
    extras: bool = Field(default=False, description="uncertainties, leakage, concentrations, islands, times as well")
    halo: bool = Field(default=False, description="after four cleanings, and of the light around the image, as well")

    def parameters(self) -> dict[str, Any]:
        """Return the parameters; families of further ones only if they are asked for."""
        absent = {family for family in ("extras", "halo") if not getattr(self, family)}
        return {name: value for name, value in super().parameters().items() if name not in absent}

    def options(self) -> dict[str, Any]:
        """Return which families of further parameters are computed."""
        more = tuple(family for family in ("extras", "halo") if getattr(self, family))
        return super().options() | ({"more": more} if more else {})

    def finished(self, context: Context, output: str) -> Products:
        """Write the parameters into the store of events."""
        from apbatch.spark.registration import register_events

        if self.register_events:
            rows = register_events(context.events, output)
            say(f"parameters: {rows} events registered")
        return {"parameters": output}


def _known_method(value: str) -> str:
    from apbatch.camera.grid import METHODS
    from apbatch.errors import nearest_word

    if value not in METHODS:
        near = nearest_word(value, METHODS)
        hint = f"; did you mean '{near}'?" if near else ""
        raise ValueError(f"unknown method '{value}'{hint} (known are {', '.join(METHODS)})")
    return value


class Grid(_OfImages):
    """Hexagonal camera to square grid."""

    kind: ClassVar[str] = "grid"
    role: ClassVar[str] = "grids"
    makes: ClassVar[tuple[str, ...]] = ("grids",)

    method: Annotated[str, AfterValidator(_known_method)] = "axial"

    def options(self) -> dict[str, Any]:
        """Return the method."""
        return super().options() | {"method": self.method}


def _joins(steps: Sequence[Step], step: Step) -> bool:
    roles = {one.role for one in steps if isinstance(one, ImageStep)}
    return isinstance(step, _OfImages) and step.rule is None and step.role not in roles


def complete(url: str) -> bool:
    """Tell whether there is a complete dataset; not, if its store can't be asked."""
    from apbatch.datasets import dataset

    try:
        return dataset.is_complete(url)
    except ApbatchError:
        return False


def tell(kinds: str, summary: StepSummary, what: str = "images") -> None:
    """Say what a step did: how much, how fast, and what was passed over.

    Parameters
    ----------
    kinds : str
        What was made, in the plural.
    summary : StepSummary
    what : str
        What is counted.
    """
    losses = "; ".join(f"{number} {reason}" for reason, number in summary.losses.items())
    pixels = "; ".join(f"{number} pixels {what}" for what, number in summary.pixels.items())
    rate = f", {summary.images_a_second:.0f}/s" if summary.images_a_second else ""
    size = f", {summary.bytes_read / 1e6:.1f} MB read, {summary.bytes_written / 1e6:.1f} MB written"
    say(
        f"{kinds}: {summary.images} {what} in {summary.seconds:.1f} s{rate}{size}"
        + (f"; {pixels}" if pixels else "")
        + (f"; passed over: {losses}" if losses else "")
    )
    for problem in summary.problems[:5]:
        say(f"{kinds}: {problem}")
