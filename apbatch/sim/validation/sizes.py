"""How much a validation simulates."""

from __future__ import annotations

from dataclasses import dataclass

from apbatch.errors import UsageError, nearest_word


@dataclass(frozen=True)
class Size:
    """Numbers of showers.

    Attributes
    ----------
    taiga : int
        Showers of the collaboration's table that are simulated again.
    taiga_energy : float
        The highest of their energies, TeV.
    fact_gammas, fact_protons : int
        Showers with energies from FACT's tables.
    profiles : int
        Showers of each profile.
    muons : int
    edge : int
        Showers of each kind about its lowest energy.
    beams : int
        Beams of photons for each length of steps.
    """

    taiga: int
    taiga_energy: float
    fact_gammas: int
    fact_protons: int
    profiles: int
    muons: int
    edge: int = 0
    beams: int = 4


SIZES = {
    "smoke": Size(
        taiga=25, taiga_energy=60.0, fact_gammas=80, fact_protons=80, profiles=8, muons=60, edge=150, beams=8
    ),
    "small": Size(
        taiga=200, taiga_energy=200.0, fact_gammas=500, fact_protons=500, profiles=40, muons=300, edge=1500, beams=40
    ),
    "full": Size(
        taiga=2204, taiga_energy=200.0, fact_gammas=1000, fact_protons=1000, profiles=200, muons=1000, edge=10000
    ),
}


def size_named(name: str) -> Size:
    """Return a size by its name.

    Raises
    ------
    UsageError
    """
    if name not in SIZES:
        raise UsageError(f"no size '{name}'", nearest=nearest_word(name, SIZES), remedy=f"one of {', '.join(SIZES)}")
    return SIZES[name]
