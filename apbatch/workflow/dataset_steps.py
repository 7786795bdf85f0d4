"""Steps on datasets as a whole: stereo, compact."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, cast

from pydantic import AfterValidator, Field

from apbatch.camera.pointing import AXES, Axes
from apbatch.errors import ApbatchError, nearest_word
from apbatch.progress import say
from apbatch.units import PhotoElectrons, quantity
from apbatch.workflow.image_steps import complete, tell
from apbatch.workflow.step import Context, Products, Step

Bytes = Annotated[float, quantity("byte")]


def _known_axes(value: str) -> str:
    if value not in AXES:
        near = nearest_word(value, AXES)
        raise ValueError(
            f"unknown axes '{value}'" + (f"; did you mean '{near}'?" if near else f" ({' or '.join(AXES)})")
        )
    return value


class Stereo(Step):
    """Direction, core and height of showers, from all image parameters that the job made: one dataset a camera."""

    kind: ClassVar[str] = "stereo"
    needs: ClassVar[tuple[str, ...]] = ("parameters",)
    makes: ClassVar[tuple[str, ...]] = ("stereo",)

    size_min: PhotoElectrons = Field(default=0.0, ge=0, description="images with less light do not count")
    axes: Annotated[str, AfterValidator(_known_axes)] = Field(
        default="vertical", description="of the cameras: x to the zenith, as in sim_telarray, or to larger azimuth"
    )

    def inputs(self, context: Context) -> Any:
        """Return the datasets of image parameters."""
        return {"parameters": context.history["parameters"]}

    def run(self, context: Context, key: str) -> Products:
        """Bring the rows of each event together and reconstruct it."""
        from apbatch.spark.stereo import stereo

        output, inputs = context.dataset(self.kind, key), context.history["parameters"]
        axes = cast(Axes, self.axes)
        tell(self.kind, stereo(context.spark(), inputs, output, size_min=self.size_min, axes=axes), "events")
        return {"stereo": output}

    def intact(self, products: Products) -> bool:
        """The dataset must be complete."""
        return complete(products["stereo"])


class Compact(Step):
    """Few part files of the many of the datasets that the job made so far, in their place: addresses stay."""

    kind: ClassVar[str] = "compact"
    needs: ClassVar[tuple[str, ...]] = ("images",)
    makes: ClassVar[tuple[str, ...]] = ("compacted",)

    size: Bytes = Field(default=128e6, ge=1e6, description="of a part file")

    def inputs(self, context: Context) -> Any:
        """Return the datasets."""
        names = ("images", "parameters", "grids")
        return {name: context.history[name] for name in names if name in context.history}

    def run(self, context: Context, key: str) -> Products:
        """Make few files of many, and renew the pointers of events to their images."""
        from apbatch.spark.compact import compact
        from apbatch.spark.registration import point_again

        inputs = self.inputs(context)
        for name, urls in inputs.items():
            for url in urls:
                summary = compact(context.spark(), url, None, int(self.size))
                tell(f"{self.kind} {name}", summary, "rows")
                if name == "images" and summary.tasks:
                    say(f"{self.kind}: {point_again(context.events, url)} pointers renewed")
        return {"compacted": [url for urls in inputs.values() for url in urls]}

    def intact(self, products: Products) -> bool:
        """The datasets must be complete, and of as few files as they can be."""
        from apbatch.spark.compact import is_compact

        try:
            return all(complete(url) and is_compact(url, int(self.size)) for url in products["compacted"])
        except ApbatchError:
            return False
