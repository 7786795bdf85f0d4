"""Steps from the site to images: simulate, ingest, mirror, clean, parameters, grid."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from apbatch.config import home
from apbatch.units import Degrees, Metres, TeV
from apbatch.workflow.step import Context, Products, Step

#: Site under which the job's own productions are registered.
SIMULATION_SITE = "simulation"


class Simulate(Step):
    """Make gamma and proton images by the air-shower Monte Carlo, registered as a site like any other."""

    kind: ClassVar[str] = "simulate"
    makes: ClassVar[tuple[str, ...]] = ("production", "truth")

    gammas: int = Field(default=500, ge=1)
    protons: int = Field(default=900, ge=1)
    seed: int = Field(default=1, ge=0)
    telescopes: int = Field(default=16, ge=1)
    gamma_energy_min: TeV = 2.0
    gamma_energy_max: TeV = 60.0
    proton_energy_min: TeV = 2.0
    proton_energy_max: TeV = 150.0
    zenith: Degrees = 30.0
    cone: Degrees = 5.0
    core_max: Metres = 450.0

    def run(self, context: Context, key: str) -> Products:
        """Simulate into ``$APBATCH_HOME/simulation/KEY``; resumes what a killed run left."""
        raise NotImplementedError

    def intact(self, products: Products) -> bool:
        """The production's folder must still be there."""
        return (home() / "simulation" / products["production"].rsplit("/", 1)[1]).is_dir()


class Ingest(Step):
    """Register what is new or changed at a site."""

    kind: ClassVar[str] = "ingest"
    makes: ClassVar[tuple[str, ...]] = ("selection",)
    always: ClassVar[bool] = True

    site: str = Field(default=SIMULATION_SITE, description="a registered site, or a site file")

    def run(self, context: Context, key: str) -> Products:
        """Scan the site; a broken file is quarantined and the rest goes on."""
        raise NotImplementedError
