"""The step that looks at the quality of runs."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from apbatch.errors import ApbatchError
from apbatch.progress import say
from apbatch.units import quantity
from apbatch.workflow.image_steps import tell
from apbatch.workflow.step import Context, Products, Step

Seconds = Annotated[float, quantity("s")]


class Quality(Step):
    """Rates, pedestals, pixels and losses of runs: of the selected files, or after `clean` of the images it made."""

    kind: ClassVar[str] = "quality"
    needs: ClassVar[tuple[str, ...]] = ("selection",)
    makes: ClassVar[tuple[str, ...]] = ("quality",)

    bin: Seconds = Field(default=10.0, gt=0, description="width of a bin of time")

    def inputs(self, context: Context) -> Any:
        """Return the images, or the selection and where it is read."""
        names = ("images",) if "images" in context.products else ("selection", "mirrored")
        return {**{name: context.products.get(name) for name in names}, "store": context.settings.store}

    def run(self, context: Context, key: str) -> Products:
        """Write tables, summary and page."""
        from apbatch.spark.quality import check_quality, image_sources

        images = context.products.get("images")
        sources = image_sources(images) if images else context.sources(context.products.get("mirrored"))
        output = context.dataset(self.kind, key)
        runs, summary = check_quality(context.spark(), sources, output, self.bin)
        tell(self.kind, summary, "events")
        for run in runs:
            say(f"quality: {_summary(run)}")
        say(f"quality: {output}/report.html")
        return {"quality": output}

    def intact(self, products: Products) -> bool:
        """The folder must be complete."""
        from apbatch.quality.report import is_complete

        try:
            return is_complete(products["quality"])
        except ApbatchError:
            return False


def _summary(run: dict[str, Any]) -> str:
    pixels = ", ".join(f"{count} {status}" for status, count in next(iter(run["pixels"].values())).items())
    rate = run["event_rate"]["median"]
    rates = f", {rate:.4g}/s" if rate is not None else ""
    absent = f", no cluster {', '.join(map(str, run['absent_clusters']))}" if run["absent_clusters"] else ""
    return f"run {run['run']}, telescope {run['telescope']}: {run['events']} events{rates}; pixels: {pixels}{absent}"
