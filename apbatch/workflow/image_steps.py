"""Steps from the site to images: simulate, ingest, mirror, clean, parameters, grid."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from apbatch.config import home
from apbatch.errors import ApbatchError, UsageError
from apbatch.progress import say
from apbatch.units import Degrees, Metres, PhotoElectrons, TeV
from apbatch.workflow.step import Context, Products, Step

if TYPE_CHECKING:
    from apbatch.sim.settings import Production
    from apbatch.spark.pipeline import StepSummary

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
        from apbatch.storage.store import open_store

        try:
            return open_store(products["mirrored"]).info("") is not None
        except ApbatchError:
            return False


class Clean(Step):
    """Decode, calibrate, and clean by two-level tail cuts."""

    kind: ClassVar[str] = "clean"
    needs: ClassVar[tuple[str, ...]] = ("selection",)
    makes: ClassVar[tuple[str, ...]] = ("images",)

    picture: PhotoElectrons = Field(default=14.0, gt=0)
    boundary: PhotoElectrons = Field(default=7.0, ge=0)
    min_neighbours: int = Field(default=0, ge=0, le=6)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.boundary > self.picture:
            raise ValueError("the boundary threshold is above the picture threshold")
        return self

    def inputs(self, context: Context) -> Any:
        """Return the selection, where it is read, and where the output goes."""
        known = {name: context.products.get(name) for name in ("selection", "mirrored")}
        return {**known, "store": context.settings.store}

    def run(self, context: Context, key: str) -> Products:
        """Write images with masks as Parquet."""
        from apbatch.spark import pipeline

        sources = context.sources(context.products.get("mirrored"))
        output = context.dataset(self.kind, key)
        summary = pipeline.clean(
            context.spark(),
            sources,
            output,
            picture=self.picture,
            boundary=self.boundary,
            min_neighbours=self.min_neighbours,
        )
        _tell(self.kind, summary)
        return {"images": output}

    def intact(self, products: Products) -> bool:
        """The dataset must be complete."""
        return _complete(products["images"])


class Skim(Step):
    """The images of the selected events, with the masks that they have: a small dataset out of large ones."""

    kind: ClassVar[str] = "skim"
    needs: ClassVar[tuple[str, ...]] = ("selection",)
    makes: ClassVar[tuple[str, ...]] = ("images",)

    def inputs(self, context: Context) -> Any:
        """Return the selection, and where the output goes."""
        return {"selection": context.products["selection"], "store": context.settings.store}

    def run(self, context: Context, key: str) -> Products:
        """Copy the images."""
        from apbatch.spark import pipeline
        from apbatch.spark.selection import event_sources

        selection = context.selection()
        if not selection.of_events:
            raise UsageError(
                "'skim' wants events, and the job's query picks files",
                remedy="ask for cleaning = '…' and image parameters",
            )
        output = context.dataset(self.kind, key)
        sources = event_sources(context.catalogue, selection.query)
        _tell(self.kind, pipeline.skim(context.spark(), sources, {"images": output}))
        return {"images": output}

    def intact(self, products: Products) -> bool:
        """The dataset must be complete."""
        return _complete(products["images"])


class Parameters(Step):
    """Hillas parameters without and with cleaning, written to Parquet and into the catalogue."""

    kind: ClassVar[str] = "parameters"
    needs: ClassVar[tuple[str, ...]] = ("images",)
    makes: ClassVar[tuple[str, ...]] = ("parameters",)

    register_events: bool = True

    def run(self, context: Context, key: str) -> Products:
        """Compute the parameters of every image."""
        from apbatch.spark import pipeline
        from apbatch.spark.registration import register_events

        output = context.dataset(self.kind, key)
        _tell(self.kind, pipeline.parameters(context.spark(), context.products["images"], output))
        if self.register_events:
            rows = register_events(context.catalogue, output)
            say(f"parameters: {rows} rows in the catalogue")
        return {"parameters": output}

    def intact(self, products: Products) -> bool:
        """The dataset must be complete."""
        return _complete(products["parameters"])


class Grid(Step):
    """Hexagonal camera to square grid."""

    kind: ClassVar[str] = "grid"
    needs: ClassVar[tuple[str, ...]] = ("images",)
    makes: ClassVar[tuple[str, ...]] = ("grids",)

    method: Literal["axial", "shifting", "nearest", "bilinear", "bicubic", "oversampling", "rebinning"] = "axial"

    def run(self, context: Context, key: str) -> Products:
        """Map every image, whole and cleaned."""
        from apbatch.spark import pipeline

        output = context.dataset(self.kind, key)
        _tell(self.kind, pipeline.grid(context.spark(), context.products["images"], output, self.method))
        return {"grids": output}

    def intact(self, products: Products) -> bool:
        """The dataset must be complete."""
        return _complete(products["grids"])


def _complete(url: str) -> bool:
    from apbatch.formats import dataset

    try:
        return dataset.is_complete(url)
    except ApbatchError:
        return False


def _tell(kind: str, summary: StepSummary) -> None:
    losses = "; ".join(f"{number} {reason}" for reason, number in summary.losses.items())
    say(f"{kind}: {summary.images} images in {summary.seconds:.1f} s" + (f"; passed over: {losses}" if losses else ""))
    for problem in summary.problems[:5]:
        say(f"{kind}: {problem}")
