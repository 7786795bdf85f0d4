"""Whether images can be simulated again: productions are deterministic, so a public seed gives away their truth."""

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
    folder = truth.rstrip("/").rpartition("/")[0]
    try:
        with open_store(folder).open(_MANIFEST) as stream:
            content: Any = json.loads(stream.read())
    except (ApbatchError, OSError, ValueError):
        return f"the manifest of the production ({_MANIFEST}) can't be read, which would say that its seed is secret"
    settings = content.get("parameters") if isinstance(content, dict) else None
    if not isinstance(settings, dict) or not settings.get("seed_commitment"):
        return "the production has no commitment to a secret seed: whoever knows the seed can simulate its images again"
    store = open_store(folder)
    places = [
        "",
        *(f"{entry.path}/" for entry in store.entries() if entry.is_directory),
    ]  # a production of several runs
    if settings.get("seed") is not None or any(store.info(f"{place}{_REVEALED}") is not None for place in places):
        return "the seed of the production was published: its images can be simulated again"
    return None
