"""Every number of the Monte Carlo: site, detector, what is drawn, and how it is cut into work.

One detector and one set of draws serve all primaries. What a primary has of its own is the particle and its spectrum.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from apbatch.errors import UsageError
from apbatch.sim.seeds import SECRET, secret_seed
from apbatch.units import Degrees, Metres, PhotoElectrons, TeV
from apbatch.yamlfile import load_model


class Section(BaseModel):
    """Base of every section: unknown keys and numbers that are not finite are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


#: The US standard atmosphere, and that of Tunka (51.8 N, 103.1 E) in January.
Atmosphere = Literal["us-standard", "tunka-winter"]


class SiteModel(Section):
    """Where the telescopes stand and where they look."""

    atmosphere: Atmosphere = Field(default="tunka-winter", description="thickness and refraction by height")
    altitude: Metres = Field(default=675.0, ge=0, le=5000, description="observation level above sea level")
    zenith: Degrees = Field(default=30.0, ge=0, le=45, description="pointing; the flat atmosphere ends near 45 deg")
    magnetic_field: tuple[float, float, float] = Field(
        default=(18.0, 0.0, -57.0), description="microtesla: north, west, up (assumed, not surveyed)"
    )
    aerosol_depth: float = Field(
        default=0.06, ge=0, description="vertical optical depth of aerosol at 400 nm (assumed)"
    )
    aerosol_height: Metres = Field(default=1200.0, gt=0, description="scale height of aerosol (assumed)")
    aerosol_exponent: float = Field(default=1.3, description="aerosol extinction falls with wavelength to this power")
    ozone_column: float = Field(default=370.0, ge=0, description="Dobson units: a winter's mean at 52 N (assumed)")
    ozone_height: Metres = Field(default=20000.0, gt=0, description="where ozone is densest (assumed)")
    ozone_width: Metres = Field(default=4500.0, gt=0, description="scale height of ozone's layer (assumed)")


class DetectorModel(Section):
    """One telescope: mirror, camera, electronics, trigger. Most numbers are assumed, see docs/simulation.md."""

    camera: str = Field(
        default="TAIGA-IACT01",
        description="name of a camera, or a file: *.camgeom.fits[.gz], or a table of pixels in cm",
    )
    mirror_area: float = Field(default=9.6, gt=0, description="m2; taken as a sphere of the same cross-section")
    focal_length: Metres = Field(default=4.75, gt=0)
    facets: int = Field(default=34, ge=0, le=400, description="of a Davies-Cotton dish; 0: an ideal mirror")
    facet_diameter: Metres = Field(default=0.6, gt=0)
    facet_pitch: Metres = Field(default=0.64, gt=0, description="distance of neighbouring facets")
    psf: Degrees = Field(
        default=0.02, ge=0, description="Gaussian blur of facets and alignment, one axis, beside aberrations (assumed)"
    )
    guide_angles: tuple[float, ...] = Field(default=(0.0, 28.0, 33.0, 90.0), description="deg of incidence")
    guide_acceptance: tuple[float, ...] = Field(
        default=(1.0, 1.0, 0.0, 0.0), description="of the light guides, relative to normal incidence (assumed)"
    )
    wavelengths: tuple[float, ...] = Field(
        default=(270.0, 290.0, 310.0, 330.0, 360.0, 400.0, 440.0, 480.0, 520.0, 560.0, 600.0, 650.0),
        description="nm, where the quantum efficiency is given",
    )
    quantum_efficiency: tuple[float, ...] = Field(
        default=(0.0, 0.05, 0.13, 0.19, 0.235, 0.25, 0.235, 0.2, 0.14, 0.07, 0.03, 0.0),
        description="of a bialkali photo-cathode behind its window (assumed shape)",
    )
    efficiency: float = Field(
        default=0.275, gt=0, le=1, description="mirror, shadow, light guides, collection: the one fitted number"
    )
    integration_window: float = Field(
        default=100.0, gt=0, description="ns around the median arrival time of the telescope's photons (assumed)"
    )
    night_sky: float = Field(
        default=0.035, ge=0, description="photo-electrons a pixel and ns, from real pedestals: 3.5 p.e. in 100 ns"
    )
    single_pe_spread: float = Field(default=0.45, ge=0, description="relative width of one photo-electron's charge")
    pedestal_noise: PhotoElectrons = Field(
        default=1.2, ge=0, description="electronic noise, standard deviation, from real pedestals"
    )
    time_resolution: float = Field(default=1.0, ge=0, description="ns, of a pixel's arrival time (assumed)")
    noise_library: Path | None = Field(
        default=None, description="folder of a raw TAIGA run whose noise takes the place of night_sky, pedestal_noise"
    )
    noise_factors: Path | None = Field(default=None, description="its table of conversion factors")
    dead_pixels: float = Field(default=0.0, ge=0, lt=1, description="share of pixels without a measurement")
    codes_per_pe: float = Field(
        default=14.0, ge=0, description="ADC codes of a photo-electron in the high gain; 0: exact"
    )
    gain_ratio: float = Field(default=4.3, gt=1, description="high over low gain, as in data of 2017")
    high_gain_limit: float = Field(default=1800.0, gt=0, description="ADC codes beyond which the low gain is taken")
    low_gain_end: float = Field(default=3700.0, gt=0, description="ADC codes at which the low gain saturates")
    gain_spread: float = Field(default=0.05, ge=0, lt=0.5, description="pixel to pixel error of the gains' calibration")
    trigger_threshold: PhotoElectrons = Field(
        default=10.0, gt=0, description="of each pixel that takes part, within the trigger window"
    )
    trigger_window: float = Field(
        default=15.0, gt=0, description="ns in which a pixel's light is summed, and in which neighbours must fire"
    )
    trigger_pixels: Literal[2, 3] = Field(default=2, description="a pixel and neighbours of the same cluster")

    @model_validator(mode="after")
    def _curves_match(self) -> Self:
        if len(self.wavelengths) != len(self.quantum_efficiency) or len(self.wavelengths) < 2:
            raise ValueError("wavelengths and quantum_efficiency must have the same length, at least 2")
        if len(self.guide_angles) != len(self.guide_acceptance):
            raise ValueError("guide_angles and guide_acceptance must have the same length")
        for name in ("wavelengths", "guide_angles"):
            values = getattr(self, name)
            if any(b <= a for a, b in pairwise(values)):
                raise ValueError(f"{name} must increase")
        return self

    def published(self) -> dict[str, Any]:
        """Return the settings as they may be handed out, JSON-like: files by their content, not by where they lie.

        Raises
        ------
        NotFoundError
            If there is no such run of noise.
        """
        from apbatch.sim.detector.noise import content_of, file_content

        content = self.model_dump(mode="json")
        content |= {"noise_library": None, "noise_factors": None}
        if self.noise_library is not None:
            content["noise_library"], content["noise_factors"] = content_of(self.noise_library, self.noise_factors)
        camera = Path(self.camera)
        if camera.parent != Path() and camera.is_file():
            content["camera"] = f"{camera.name} {file_content(camera)}"
        return content

    @property
    def sky_charge(self) -> float:
        """Mean number of photo-electrons of the night sky in a pixel and integration window."""
        return self.night_sky * self.integration_window


class Primary(NamedTuple):
    """A kind of shower: number of nucleons (0: electromagnetic), charge, and the particle as the truth names it."""

    nucleons: int
    charge: int
    particle: str


POINT_GAMMA = "point gamma"
#: Kinds of showers by name.
PRIMARIES = {
    "gamma": Primary(0, 0, "gamma"),
    POINT_GAMMA: Primary(0, 0, "gamma"),
    "proton": Primary(1, 1, "proton"),
    "electron": Primary(0, -1, "electron"),
    "helium": Primary(4, 2, "helium"),
    "iron": Primary(56, 26, "iron"),
}
#: Energy of a nucleon from which SIBYLL works, TeV.
_LEAST_A_NUCLEON = 0.08


class Spectrum(Section):
    """Energies: a power law, or a spectrum given at points."""

    energy_min: TeV = Field(ge=0.01, le=10000)
    energy_max: TeV = Field(ge=0.01, le=10000)
    index: float = Field(default=-2.7, description="differential: dN/dE ~ E^index; unused if points are given")
    energies: tuple[TeV, ...] = Field(default=(), description="increasing; the flux between them is a power law")
    flux: tuple[float, ...] = Field(default=(), description="differential, any unit, at `energies`")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.energy_max < self.energy_min:
            raise ValueError("energy_max is below energy_min")
        if len(self.energies) != len(self.flux) or len(self.energies) == 1:
            raise ValueError("energies and flux must have the same length, at least 2")
        if any(b <= a for a, b in pairwise(self.energies)):
            raise ValueError("energies must increase")
        if not all(value > 0 for value in self.flux):
            raise ValueError("flux must be positive")
        if self.energies and not self.energies[0] <= self.energy_min <= self.energy_max <= self.energies[-1]:
            raise ValueError("energy_min and energy_max must lie within energies")
        return self


class BankModel(Section):
    """How many hadronic interactions are made beforehand; the size decides the time the first run takes."""

    low_nodes: int = Field(default=8, ge=2, description="UrQMD energies, evenly in log E")
    low_events: int = Field(default=90, ge=1, description="UrQMD events a node and projectile")
    low_min: float = Field(default=2.0, ge=2.0, description="GeV, total energy of the projectile")
    low_max: float = Field(default=50.0, description="GeV")
    high_nodes: int = Field(default=22, ge=2, description="SIBYLL energies, evenly in log E")
    high_events: int = Field(default=250, ge=1, description="SIBYLL events a node and projectile")
    high_min: float = Field(default=80.0, ge=60.0, description="GeV; SIBYLL starts at 10 GeV in the centre of mass")
    high_max: float = Field(default=3.0e5, description="GeV")
    seed: int = Field(default=20181, ge=0)


class Production(Section):
    """One production of images: what is thrown, into which detector, with which seed."""

    gammas: int = Field(default=500, ge=0, description="gamma showers thrown, from the whole cone")
    point_gammas: int = Field(default=0, ge=0, description="gamma showers thrown, from the place of the source")
    protons: int = Field(default=900, ge=0, description="proton showers thrown")
    electrons: int = Field(default=0, ge=0, description="electron showers thrown")
    helium_nuclei: int = Field(default=0, ge=0, description="helium showers thrown")
    iron_nuclei: int = Field(default=0, ge=0, description="iron showers thrown")
    seed: int = Field(default=1, ge=0, description="a number, or in files 'secret': see apbatch.sim.seeds")
    seed_commitment: str = Field(default="", description="published hash of a secret seed, which is then never written")
    telescopes: int = Field(
        default=16, ge=1, le=200, description="uses of a shower: telescopes, or whole arrays, at random around its axis"
    )
    array: tuple[tuple[Metres, Metres, Metres], ...] = Field(
        default=((0.0, 0.0, 0.0),),
        min_length=1,
        max_length=100,
        description="telescopes of an array: north, west, up, from its centre; all look the same way",
    )
    array_trigger: int = Field(default=1, ge=1, description="telescopes that must fire for any to be kept")
    gamma: Spectrum = Spectrum(energy_min=0.5, energy_max=200.0, index=-2.6)
    proton: Spectrum = Spectrum(energy_min=0.8, energy_max=500.0, index=-2.7)
    electron: Spectrum = Spectrum(energy_min=0.5, energy_max=60.0, index=-3.9)
    helium: Spectrum = Spectrum(energy_min=1.2, energy_max=500.0, index=-2.64)
    iron: Spectrum = Spectrum(energy_min=6.0, energy_max=1000.0, index=-2.6)
    cone: Degrees = Field(default=5.0, ge=0, le=20, description="arrival directions: within this of the pointing")
    source_offset: Degrees = Field(
        default=1.22, ge=0, le=5, description="of the source from the pointing, at an azimuth drawn for each shower"
    )
    core_max: Metres = Field(default=450.0, gt=0, le=2000, description="distance across the axis")
    run: int = Field(default=1, ge=0, description="run number of all images; other runs of a seed are other showers")
    site: SiteModel = SiteModel()
    detector: DetectorModel = DetectorModel()
    banks: BankModel = BankModel()
    showers_per_chunk: int = Field(default=10, ge=1, le=1000, description="unit of work and of resuming")
    images_per_part: int = Field(default=2000, ge=1, description="rows of a part file")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if sum(self.thrown.values()) == 0:
            raise ValueError("nothing to simulate: gammas, protons and all others are 0")
        if self.array_trigger > len(self.array):
            raise ValueError("array_trigger is more than the telescopes of the array")
        if self.telescopes * len(self.array) > 1000:
            raise ValueError("more than 1000 telescopes around a shower")
        for primary, (nucleons, _, _) in PRIMARIES.items():
            if nucleons and self.spectrum_of(primary).energy_min < nucleons * _LEAST_A_NUCLEON and self.thrown[primary]:
                raise ValueError(f"{primary}: energy_min must be {nucleons * _LEAST_A_NUCLEON:g} TeV or more")
        return self

    @property
    def thrown(self) -> dict[str, int]:
        """Number of showers by kind: a key of `PRIMARIES`."""
        return {
            "gamma": self.gammas,
            POINT_GAMMA: self.point_gammas,
            "proton": self.protons,
            "electron": self.electrons,
            "helium": self.helium_nuclei,
            "iron": self.iron_nuclei,
        }

    @property
    def hadrons(self) -> int:
        """Number of showers that need hadronic interactions."""
        return sum(number for primary, number in self.thrown.items() if PRIMARIES[primary][0])

    def spectrum_of(self, primary: str) -> Spectrum:
        """Return the spectrum of a kind of `PRIMARIES`."""
        spectrum: Spectrum = getattr(self, PRIMARIES[primary].particle)
        return spectrum

    @property
    def entropy(self) -> tuple[int, int]:
        """What all random numbers of the production come from."""
        return self.seed, self.run

    def published(self) -> dict[str, Any]:
        """Return the settings as they may be handed out, JSON-like: no address, and no seed that is secret."""
        content = self.model_dump(mode="json", exclude={"seed"} if self.seed_commitment else None)
        return content | {"detector": self.detector.published()}


class ProductionFile(Production):
    """A production as a file has it: the seed may be the word `secret`."""

    seed: int | Literal["secret"] = 1  # type: ignore[assignment]


def load_production(path: Path | None, named: Mapping[str, object]) -> Production:
    """Return the production of a YAML file (or the defaults) with what was named otherwise, not None, put over it.

    Raises
    ------
    NotFoundError, UsageError
        For a file that is missing or wrong, or a value that is not possible.
    """
    values = load_model(path, ProductionFile).model_dump(exclude_unset=True) if path else {}
    values |= {key: value for key, value in named.items() if value is not None}
    if values.get("seed") == SECRET:
        secret = secret_seed()
        values |= {"seed": secret.seed, "seed_commitment": secret.commitment}
    try:
        return Production.model_validate(values)
    except ValidationError as error:
        raise UsageError(faults_of(error)) from None


def faults_of(error: ValidationError) -> str:
    """Return on one line what is wrong with which settings."""
    faults = [f"{'.'.join(map(str, fault['loc'])) or 'settings'}: {fault['msg']}" for fault in error.errors()]
    return "; ".join(fault.replace("Value error, ", "") for fault in faults)
