"""Whether images can be simulated again: productions are deterministic, so a public seed gives away their truth."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from apbatch.errors import ApbatchError
from apbatch.sim.production import EXPERIMENT
from apbatch.storage.backends import open_url

#: Beside the folder of the truth; its key holds the published hash of a secret seed.
_MANIFEST, COMMITMENT = "production.json", "seed_commitment"


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
    place = f"{truth.rstrip('/').rpartition('/')[0]}/{_MANIFEST}"
    try:
        with open_url(place) as stream:
            content: Any = json.loads(stream.read())
    except (ApbatchError, OSError, ValueError):
        return f"the manifest of the production ({_MANIFEST}) can't be read, which would say that its seed is secret"
    if not isinstance(content, dict) or not isinstance(content.get(COMMITMENT), str):
        return "the production has no commitment to a secret seed: whoever knows the seed can simulate its images again"
    settings = content.get("parameters")
    if isinstance(settings, dict) and settings.get("seed") is not None:
        return "the production names its seed: its images can be simulated again"
    return None
