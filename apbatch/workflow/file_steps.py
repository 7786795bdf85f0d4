"""Steps that bring files: simulate, ingest, mirror."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, ValidationError, model_validator

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
    """Make gamma and hadron images by the air-shower Monte Carlo, in the tree of the site `simulation`.

    Several runs are productions of the same settings and seed with other showers, each finished by itself: a job that
    asks for more runs later makes the further ones only, and one that asks for fewer takes the first.
    """

    kind: ClassVar[str] = "simulate"
    of_files: ClassVar[bool] = True
    makes: ClassVar[tuple[str, ...]] = ("production", "truth", "sources")

    runs: int = Field(default=1, ge=1, le=1000, description="productions of the numbers below, numbered from 1")
    gammas: int = Field(default=500, ge=0, description="from the whole cone")
    point_gammas: int = Field(default=0, ge=0, description="from the source that the telescopes observe")
    protons: int = Field(default=900, ge=0)
    helium: int = Field(default=0, ge=0)
    seed: int | Literal["secret"] = Field(default=1, description="'secret': from the file of apbatch.sim.seeds")
    telescopes: int = Field(default=16, ge=1)
    gamma_energy_min: TeV | None = None
    gamma_energy_max: TeV | None = None
    gamma_index: float | None = None
    proton_energy_min: TeV | None = None
    proton_energy_max: TeV | None = None
    proton_index: float | None = None
    zenith: Degrees = 30.0
    cone: Degrees = 5.0
    source_offset: Degrees = 1.22
    core_max: Metres = 450.0
    night_sky: float | None = Field(default=None, ge=0, description="p.e. a pixel and ns; else the detector's")

    @model_validator(mode="after")
    def _can_be_simulated(self) -> Self:
        from apbatch.sim.settings import faults_of

        try:
            self._settings(1, seed=1 if self.seed == "secret" else self.seed)
        except ValidationError as error:
            raise ValueError(faults_of(error)) from None
        return self

    def _production(self, run: int) -> Production:
        from apbatch.sim.seeds import secret_seed

        if self.seed != "secret":
            return self._settings(run, seed=self.seed)
        secret = secret_seed()
        return self._settings(run, seed=secret.seed, seed_commitment=secret.commitment)

    def _settings(self, run: int, **seed: int | str) -> Production:
        from apbatch.sim.settings import Production

        def spectrum(primary: str) -> dict[str, Any]:
            named = {part: getattr(self, f"{primary}_{part}") for part in ("energy_min", "energy_max", "index")}
            usual = Production().spectrum_of(primary).model_dump()
            return usual | {part: value for part, value in named.items() if value is not None}

        return Production.model_validate(
            {
                "gammas": self.gammas,
                "point_gammas": self.point_gammas,
                "protons": self.protons,
                "helium_nuclei": self.helium,
                "telescopes": self.telescopes,
                "gamma": spectrum("gamma"),
                "proton": spectrum("proton"),
                "cone": self.cone,
                "source_offset": self.source_offset,
                "core_max": self.core_max,
                "run": run,
                "site": {"zenith": self.zenith},
                "detector": {} if self.night_sky is None else {"night_sky": self.night_sky},
                **seed,
            }
        )

    def inputs(self, context: Context) -> Any:
        """Return the version of the simulation and all of its settings; of a secret seed the commitment."""
        from apbatch.sim.production import key_of

        return {"settings": key_of(self._production(1))}

    def run(self, context: Context, key: str) -> Products:
        """Simulate into ``$APBATCH_HOME/simulation/KEY/run-N``; resumes what a killed run left."""
        from apbatch.sim.production import EXPERIMENT, gather, key_of, simulate

        folder = home() / "simulation" / key_of(self._production(1))
        for number in range(1, self.runs + 1):
            summary = simulate(self._production(number), folder / f"run-{number:03d}")
            images = ", ".join(f"{count} {kind} images" for kind, count in summary.images.items())
            say(f"simulate: run {number} of {self.runs}: {images} of {sum(summary.showers.values())} showers")
        gathered = gather(folder, self.runs, self._production(1))
        return self.recall(
            {
                "production": f"/{EXPERIMENT.lower()}/{SIMULATION_SITE}/{folder.name}",
                **{kind: f"file://{place}" for kind, place in gathered.items()},
            }
        )

    def recall(self, products: Products) -> Products:
        """Say how many runs of the production are the job's: another job may have asked for more."""
        return {**products, "runs": self.runs}

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
        from apbatch.ingest.sites import add_site, load_site, resolve_site, share_sites

        share_sites(context.catalogue, context.settings.catalogue)
        if self.site.endswith((".yaml", ".yml")):
            site = add_site(context.base / self.site)[0]
        else:
            site = resolve_site(self.site)
        summary = ingest(load_site(site.name), context.catalogue)
        say(
            f"ingest: {summary.registered} new, {summary.changed} changed, {summary.unchanged} unchanged, "
            f"{summary.missing} missing, {summary.quarantined.count} in quarantine"
        )
        return {"selection": context.selection_digest()}

    def check_places(self, context: Context) -> None:
        """Find the site, or its file; its root may be made by an earlier step."""
        from apbatch.ingest.sites import load_site, read_site_file

        if self.site.endswith((".yaml", ".yml")):
            read_site_file(context.base / self.site)
        else:
            load_site(self.site)

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

    def check_places(self, context: Context) -> None:
        """Find the store."""
        from apbatch.ingest.replicas.stores import target_store

        target_store(self.to, context.settings)

    def inputs(self, context: Context) -> Any:
        """Return the selection and the store."""
        from apbatch.ingest.replicas.stores import target_store

        return {"selection": context.products["selection"], "store": target_store(self.to, context.settings).url}

    def run(self, context: Context, key: str) -> Products:
        """Copy what is not there yet."""
        from apbatch.ingest.replicas.mirror import mirror_records
        from apbatch.ingest.replicas.outcomes import summarise
        from apbatch.ingest.replicas.stores import target_store

        store = target_store(self.to, context.settings)
        summary = summarise(store.url, mirror_records(context.catalogue, context.files(), store))
        if summary.failed:
            first = summary.failures[0]
            raise ApbatchError(
                f"{summary.failed} of {summary.counts.total()} files could not be mirrored; "
                f"{first.path}: {first.reason}",
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
