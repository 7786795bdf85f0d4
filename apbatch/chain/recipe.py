"""What is made of each batch of images: cleaned images, image parameters and grids, in one pass over the pixels."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa

from apbatch.camera.cleaning import Cleaning
from apbatch.camera.geometry import CameraGeometry
from apbatch.chain import steps
from apbatch.chain.pixel_states import Preparation
from apbatch.formats.embedded import Telescopes, geometry_json


@dataclass(frozen=True)
class Recipe:
    """What is made of each batch of images.

    Attributes
    ----------
    camera : CameraGeometry
    roles : tuple of str
        ``images``, ``parameters``, ``grids``: the datasets to write.
    rule : Cleaning, optional
        How images are cleaned; without, the input has its masks.
    cleaning : str
        Name of the cleaning.
    method : str
        Of the grid.
    telescopes : mapping
        Where telescopes stand, by number: x (to the north), y (to the west), z, m; as far as the input tells.
    more : tuple of str
        Which families of further parameters (`apbatch.chain.steps.FAMILIES`) are computed too.
    preparation : Preparation
        What is done with images before they are cleaned.
    """

    camera: CameraGeometry
    roles: tuple[str, ...]
    cleaning: str
    rule: Cleaning | None = None
    method: str = "axial"
    telescopes: Telescopes = field(default_factory=dict)
    more: tuple[str, ...] = ()
    preparation: Preparation = field(default_factory=Preparation)

    def schemas(self) -> dict[str, pa.Schema]:
        """Return the schema of each dataset, with its camera."""
        by_role = {"images": steps.CLEANED, "parameters": steps.parameter_rows(self.more), "grids": steps.GRIDS}
        about = {"apbatch.camera": self.camera.name, "apbatch.geometry": geometry_json(self.camera, self.telescopes)}
        return {role: by_role[role].with_metadata(about) for role in self.roles}

    def make(self, batch: pa.RecordBatch) -> dict[str, pa.RecordBatch]:
        """Work on a batch of `IMAGES` (or `CLEANED`, if the input has masks)."""
        batches = {}
        if self.rule is None:
            if "parameters" in self.roles:
                batches["parameters"] = steps.parametrised(batch, self.camera, self.cleaning, more=self.more)
        else:
            noise = self.preparation.noise(batch) if self.rule.method == "sigma" else None
            if "parameters" in self.roles:
                batch, batches["parameters"] = steps.cleaned_and_parametrised(
                    batch, self.camera, self.rule, noise=noise, more=self.more
                )
            else:
                batch = steps.cleaned(batch, self.camera, self.rule, noise)
        if "images" in self.roles:
            batches["images"] = batch
        if "grids" in self.roles:
            batches["grids"] = steps.gridded(batch, self.camera, self.method)
        return batches
