"""Cuts for scorers that see images alone, as the steps `robustness` and `application` have them.

In the world *point* the study's scores know the direction from the source, and its cuts belong to those scores. A
network, or a box and trees that are fitted without the direction, then need cuts of their own, by the same rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from apbatch.dl.blind.blind_set import BlindSet
from apbatch.dl.files import read_parquet
from apbatch.dl.judging.direction import observed_places
from apbatch.dl.study.rows import choice_of, events_of
from apbatch.dl.study.settings import JudgingSettings
from apbatch.dl.training.data import load_pixels

Pixels = npt.NDArray[np.float32]
Scorer = Callable[[Pixels], npt.NDArray[np.float64]]
#: Method and treatment.
Key = tuple[str, str]


def knows_direction(blind_set: BlindSet) -> bool:
    """Tell whether the study's scores of a set know the direction, and so are not those of images alone."""
    return observed_places(blind_set.files, "validation") is not None


def cuts_of_images(blind_set: BlindSet, judged: Mapping[str, Any], scorers: Mapping[Key, Scorer]) -> dict[Key, float]:
    """Return the cut of each scorer of images: the study's, or one chosen anew where its scores know the direction.

    Parameters
    ----------
    blind_set : BlindSet
    judged : mapping
        Content of ``study.json``.
    scorers : mapping of (method, treatment) to callable
        Each gives images of shape (n_images, n_pixels) scores in 0…1.

    Returns
    -------
    dict of (method, treatment) to float
    """
    if not knows_direction(blind_set):
        cuts = {(row["method"], row["treatment"]): float(row["trainings"][0]["cut"]) for row in judged["rows"]}
        return {key: cuts[key] for key in scorers}
    settings = JudgingSettings.model_validate(
        {name: value for name, value in judged["settings"].items() if name in JudgingSettings.model_fields}
    )
    events = events_of(read_parquet(blind_set.files / "validation.parquet", ["id", "gamma", "shower"]))
    images = load_pixels(blind_set.files, blind_set.manifest, "validation")
    hadrons = int(judged["events"]["test"]["hadrons"])
    return {key: choice_of(scorer(images), events, hadrons, settings).cut for key, scorer in scorers.items()}
