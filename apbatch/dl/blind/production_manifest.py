"""What a production says of itself, for a set made of its images: whether its seed is public, how bright its sky is.

Productions are deterministic, so a public seed gives away the truth of every image.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from apbatch.errors import ApbatchError
from apbatch.sim.production import EXPERIMENT
from apbatch.storage.backends import open_store

#: Beside the folder of the truth: what a production is, and its seed once that was published (`apbatch.sim.seeds`).
_MANIFEST, _REVEALED = "production.json", "seed.json"


def why_seed_is_public(truth: str, experiments: Collection[str]) -> str | None:
    """Return why images can be simulated again by others, or None if nothing says that they can.

    Parameters
    ----------
    truth : str
        URL of the truth, a folder beside the production's manifest.
    experiments : collection of str
        Of the images. Those of other experiments than our simulation are taken to be no one's to repeat.
    """
    if EXPERIMENT not in experiments:
        return None
    settings = _settings(truth)
    if settings is None:
        return f"the manifest of the production ({_MANIFEST}) can't be read, which would say that its seed is secret"
    if not settings.get("seed_commitment"):
        return "the production has no commitment to a secret seed: whoever knows the seed can simulate its images again"
    store = open_store(_folder(truth))
    places = [
        "",
        *(f"{entry.path}/" for entry in store.entries() if entry.is_directory),
    ]  # a production of several runs
    if settings.get("seed") is not None or any(store.info(f"{place}{_REVEALED}") is not None for place in places):
        return "the seed of the production was published: its images can be simulated again"
    return None


def night_sky_of(truth: str) -> float | None:
    """Return the mean light of the night sky in a pixel of a production's images, p.e.; None where it is not known.

    Parameters
    ----------
    truth : str
        URL of the truth, a folder beside the production's manifest.
    """
    detector: Any = (_settings(truth) or {}).get("detector")
    try:
        return float(detector["night_sky"]) * float(detector["integration_window"])
    except (TypeError, KeyError, ValueError):
        return None


def _folder(truth: str) -> str:
    return truth.rstrip("/").rpartition("/")[0]


def _settings(truth: str) -> dict[str, Any] | None:
    """Return the settings of a production as it published them; None if its manifest is missing or damaged."""
    try:
        with open_store(_folder(truth)).open(_MANIFEST) as stream:
            content: Any = json.loads(stream.read())
    except (ApbatchError, OSError, ValueError):
        return None
    settings = content.get("parameters") if isinstance(content, dict) else None
    return settings if isinstance(settings, dict) else {}
