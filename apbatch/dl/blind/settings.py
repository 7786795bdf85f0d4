"""How a blind set is made: which images, how they are split, and how blind it is."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from apbatch.errors import UsageError
from apbatch.units import Metres, PhotoElectrons


class ImageSelection(BaseModel):
    """Cuts on the cleaned image; no cut knows the primary.

    Attributes
    ----------
    size_min : float
        Smallest sum of the kept pixels, p.e.
    pixels_min : int
        Fewest pixels that cleaning must keep.
    leakage_max : float
        Largest share of the light in edge pixels; 1 keeps images at the edge.
    cleaning : str, optional
        Name of the cleaning in the image parameters, such as ``tailcuts-14-7``; the only one there by default.
    world : str
        Which gammas: ``point``, those of the observed source; ``diffuse``, those from anywhere; ``all`` of them.
        Hadrons are the same in each. A set of the world ``point`` holds the source's place in the camera.
    times : bool
        Whether the set holds the arrival times of the pixels.
    partners : int
        Images of so many other telescopes of the same shower that lie beside each image, whether they pass the cuts or
        not; the nearest within `partner_min` and `partner_max`. One that is missing is dark.
    partner_min, partner_max : float
        Distance of the telescopes on the ground, m.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)

    size_min: PhotoElectrons = Field(default=60.0, ge=0)
    pixels_min: int = Field(default=4, ge=3)
    leakage_max: float = Field(default=1.0, ge=0, le=1)
    cleaning: str | None = None
    world: Literal["all", "diffuse", "point"] = "all"
    times: bool = False
    partners: int = Field(default=0, ge=0, le=20)
    partner_min: Metres = Field(default=50.0, ge=0)
    partner_max: Metres = Field(default=200.0, gt=0)


class BlindSettings(ImageSelection):
    """How a blind set is made.

    Attributes
    ----------
    test_fraction, validation_fraction : float
        Shares of the showers of each class.
    gamma_fraction_min, gamma_fraction_max : float
        The share of gammas in the test set is drawn uniformly between these.
    open : bool
        The set is for practice: its labels may be found by others, and it takes other scores after they were opened.
    seed : int, optional
        Makes an open set repeatable. Without it the randomness is the operating system's and is kept nowhere but in
        the sealed file.
    custodian : str, optional
        Public half of the key of a custodian, who must sign every act (`apbatch.dl.blind.anchors`).
    """

    test_fraction: float = Field(default=0.3, gt=0, lt=1)
    validation_fraction: float = Field(default=0.2, gt=0, lt=1)
    gamma_fraction_min: float = Field(default=0.25, gt=0, lt=1)
    gamma_fraction_max: float = Field(default=0.6, gt=0, lt=1)
    open: bool = False
    seed: int | None = Field(default=None, ge=0)
    custodian: str | None = None

    def check(self) -> None:
        """Raise a UsageError if the settings contradict each other."""
        if self.gamma_fraction_min > self.gamma_fraction_max:
            raise UsageError("gamma_fraction_min is above gamma_fraction_max")
        if self.test_fraction + self.validation_fraction >= 1:
            raise UsageError("test_fraction and validation_fraction leave nothing to train on")
        if self.seed is not None and not self.open:
            raise UsageError(
                "whoever knows the seed of a set can find its labels, so it is not blind",
                remedy="leave out the seed, or call the set open: --open, or 'open: true' in a job",
            )
        if self.custodian is not None:
            from apbatch.dl.blind.anchors import check_public

            check_public(self.custodian)
