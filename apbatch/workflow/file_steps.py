"""Steps that bring files: simulate, ingest, mirror."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from apbatch.config import home
from apbatch.errors import ApbatchError
from apbatch.progress import say
from apbatch.units import Degrees, Metres, TeV
from apbatch.workflow.step import Context, Products, Step

if TYPE_CHECKING:
    from apbatch.sim.settings import Production

#: Site under which productions of jobs are registered: `conf/sites/simulation.yaml`.
SIMULATION_SITE = "simulation"


class Simulate(Step):
    """Make gamma and proton images by the air-shower Monte Carlo, in the tree of the site `simulation`."""

    kind: ClassVar[str] = "simulate"
    of_files: ClassVar[bool] = True
    makes: ClassVar[tuple[str, ...]] = ("production", "truth")

    gammas: int = Field(default=500, ge=1)
    protons: int = Field(default=900, ge=1)
    seed: int = Field(default=1, ge=0)
    telescopes: int = Field(default=16, ge=1)
    gamma_energy_min: TeV = 2.0
    gamma_energy_max: TeV = 60.0
    gamma_index: float = -2.6
    proton_energy_min: TeV = 2.0
    proton_energy_max: TeV = 150.0
    proton_index: float = -2.7
    zenith: Degrees = 30.0
    cone: Degrees = 5.0
    core_max: Metres = 450.0

    def _production(self) -> Production:
        from apbatch.sim.settings import Production, SiteModel, Spectrum

        def spectrum(low: float, high: float, index: float) -> Spectrum:
            return Spectrum(energy_min=low, energy_max=high, index=index)

        return Production(
            gammas=self.gammas,
            protons=self.protons,
            seed=self.seed,
            telescopes=self.telescopes,
            gamma=spectrum(self.gamma_energy_min, self.gamma_energy_max, self.gamma_index),
            proton=spectrum(self.proton_energy_min, self.proton_energy_max, self.proton_index),
            cone=self.cone,
            core_max=self.core_max,
            site=SiteModel(zenith=self.zenith),
        )

    def run(self, context: Context, key: str) -> Products:
        """Simulate into ``$APBATCH_HOME/simulation/KEY``; resumes what a killed run left."""
        from apbatch.sim.production import EXPERIMENT, key_of, simulate

        settings = self._production()
        folder = home() / "simulation" / key_of(settings)
        summary = simulate(settings, folder)
        images = ", ".join(f"{number} {primary} images" for primary, number in summary.images.items())
        say(f"simulate: {images} of {sum(summary.showers.values())} showers")
        return {
            "production": f"/{EXPERIMENT.lower()}/{SIMULATION_SITE}/{folder.name}",
            "truth": f"file://{folder}/truth",
        }

    def intact(self, products: Products) -> bool:
        """The truth, and so the production's folder, must still be there."""
        return Path(products["truth"].removeprefix("file://")).is_dir()


class Ingest(Step):
    """Register what is new or changed at a site; says which files the job's query picks."""

    kind: ClassVar[str] = "ingest"
    makes: ClassVar[tuple[str, ...]] = ("selection",)
    always: ClassVar[bool] = True

    site: str = Field(description="a registered site, or a site file relative to the job")

    def run(self, context: Context, key: str) -> Products:
        """Scan the site; a broken file is quarantined and the rest goes on."""
        from apbatch.ingest.scan import ingest
        from apbatch.ingest.sites import add_site, load_site, resolve_site

        if self.site.endswith((".yaml", ".yml")):
            site = add_site(context.base / self.site)[0]
        else:
            site = resolve_site(self.site)
        summary = ingest(load_site(site.name), context.catalogue)
        say(
            f"ingest: {summary.registered} new, {summary.changed} changed, {summary.unchanged} unchanged, "
            f"{summary.missing} missing, {len(summary.quarantined)} in quarantine"
        )
        return {"selection": context.selection_digest()}

    def foresee(self, context: Context) -> bool:
        """Nothing new at the site: the selection is what the catalogue gives now."""
        context.products["selection"] = context.selection_digest(empty=True)
        return True


class Mirror(Step):
    """Copy the selected files into a store, verified; later steps read them there."""

    kind: ClassVar[str] = "mirror"
    of_files: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("selection",)
    makes: ClassVar[tuple[str, ...]] = ("mirrored",)

    to: str = Field(default="store", description="store (of the settings), hdfs, webhdfs, afs, local, or a URL")

    def inputs(self, context: Context) -> Any:
        """Return the selection and the store."""
        from apbatch.ingest.mirror import target_store

        return {"selection": context.products["selection"], "store": target_store(self.to, context.settings).url}

    def run(self, context: Context, key: str) -> Products:
        """Copy what is not there yet."""
        from apbatch.ingest.mirror import mirror_records, target_store

        store = target_store(self.to, context.settings)
        summary = mirror_records(context.catalogue, context.files(), store)
        failed = [file for file in summary.files if file.reason]
        if failed:
            first = failed[0]
            raise ApbatchError(
                f"{len(failed)} of {len(summary.files)} files could not be mirrored; {first.path}: {first.reason}",
                remedy="mend it and run the job again: what is copied stays",
            )
        return {"mirrored": store.url}

    def intact(self, products: Products) -> bool:
        """The store must still answer and hold something."""
        from apbatch.storage.backends import open_store

        try:
            return open_store(products["mirrored"]).info("") is not None
        except ApbatchError:
            return False
