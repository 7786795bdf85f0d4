"""The rows of a study's table: one a method and treatment, with its scores, its cuts and the resamples of its Q."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from apbatch.dl.judging.observation import Choice, choose, hadrons_needed
from apbatch.dl.judging.q_factor import Flags, Floats, curve
from apbatch.dl.judging.resampling import Resamples
from apbatch.dl.study.methods import MEAN, METHODS, method_of
from apbatch.dl.study.settings import JudgingSettings
from apbatch.errors import FormatError

#: Share of the events that a cut keeps if it cuts nothing worth the name.
_NEXT_TO_ALL = 0.99


@dataclass(frozen=True)
class Events:
    """One split: labels, showers, and rows of ids."""

    place: dict[str, int]
    gamma: Flags
    shower: npt.NDArray[np.int64]


@dataclass
class Row:
    """One method with one treatment: scores of each training, cuts, and the joined resamples of Q.

    Q is `quoted` if the cut of every training leaves enough hadrons of the test set.
    """

    method: str
    treatment: str
    validation: list[Floats]
    test: list[Floats]
    cuts: list[float]
    passed: list[Flags]
    quoted: bool
    quality: Floats
    validation_quality: float

    @property
    def cuts_nothing(self) -> bool:
        """Whether every training's cut keeps next to every event, so that Q is about 1: a rival of straw."""
        return all(float(passed.mean()) >= _NEXT_TO_ALL for passed in self.passed)


def events_of(table: pa.Table) -> Events:
    """Return the events of a table with the columns id, gamma and shower."""
    ids = table["id"].to_pylist()
    gamma = np.asarray(table["gamma"].to_numpy(zero_copy_only=False), bool)
    return Events({name: row for row, name in enumerate(ids)}, gamma, np.asarray(table["shower"].to_numpy(), np.int64))


def rows_of(scores: pa.Table, events: dict[str, Events], draws: Resamples, settings: JudgingSettings) -> list[Row]:
    """Return the rows of a table of scores, in the order of the methods; every cut is chosen on the validation set.

    Parameters
    ----------
    scores : pa.Table
        Columns method, treatment, split, id, score.
    events : dict
        By split, ``validation`` and ``test``.
    draws : Resamples
        Of the test set.
    settings : JudgingSettings

    Raises
    ------
    FormatError
        If an event has no score in 0…1.
    """
    return [
        _row(method, treatment, trainings, events, draws, settings)
        for (method, treatment), trainings in _grouped(scores, events).items()
    ]


def _grouped(scores: pa.Table, events: dict[str, Events]) -> dict[tuple[str, str], dict[str, list[Floats]]]:
    """Return for each method and treatment the scores of its trainings, in the order of the events.

    Where a network, or trees, were trained several times, the mean of the scores is one more method, named with a plus.
    """
    groups: dict[tuple[str, str], dict[str, list[Floats]]] = {}
    label = pc.binary_join_element_wise(scores["method"], scores["treatment"], "\x1f")
    for name in sorted(pc.unique(label).to_pylist(), key=_order):
        method, treatment = name.split("\x1f")
        mine = scores.filter(pc.equal(label, name))
        trainings = groups.setdefault((method_of(method)[0], treatment), {"validation": [], "test": []})
        for split, table in events.items():
            part = mine.filter(pc.equal(mine["split"], split))
            values = np.full(len(table.gamma), np.nan)
            values[[table.place[key] for key in part["id"].to_pylist()]] = part["score"].to_numpy()
            if np.nanmin(values) < 0 or np.nanmax(values) > 1 or np.isnan(values).any():
                raise FormatError(f"scores of '{method}', '{treatment}' are not one in 0…1 for each event")
            trainings[split].append(values)
    means = {
        (method + MEAN, treatment): {split: [np.mean(values, axis=0)] for split, values in trainings.items()}
        for (method, treatment), trainings in groups.items()
        if len(trainings["test"]) > 1
    }
    return groups | means


def _order(name: str) -> tuple[int, str, int, str]:
    method, treatment = name.split("\x1f")
    base, training = method_of(method)
    names = list(METHODS)
    return (names.index(base) if base in names else len(names), base, training, treatment)


def choice_of(scores: Floats, validation: Events, hadrons: int, settings: JudgingSettings) -> Choice:
    """Choose a cut on the validation set, such that it leaves enough hadrons of the test set.

    Parameters
    ----------
    scores : ndarray of shape (n_validation,)
        0…1, high for gammas.
    validation : Events
    hadrons : int
        How many the test set has.
    settings : JudgingSettings
    """
    hadron = ~validation.gamma
    share = float(hadron.sum() / hadrons)
    least = hadrons_needed(scores[hadron], validation.shower[hadron], share, settings.hadrons_min)
    return choose(scores, validation.gamma, settings.observation, least, settings.efficiency_min)


def _row(
    method: str,
    treatment: str,
    trainings: dict[str, list[Floats]],
    events: dict[str, Events],
    draws: Resamples,
    settings: JudgingSettings,
) -> Row:
    validation, test = events["validation"], events["test"]
    hadrons = int((~test.gamma).sum())
    cuts, passed, joined, qualities = [], [], [], []
    for of_validation, of_test in zip(trainings["validation"], trainings["test"], strict=True):
        choice = choice_of(of_validation, validation, hadrons, settings)
        cuts.append(choice.cut)
        passed.append(of_test > choice.cut)
        joined.append(draws.q_factors(passed[-1]))
        qualities.append(float(curve(of_validation, validation.gamma).quality[choice.at]))
    return Row(
        method,
        treatment,
        trainings["validation"],
        trainings["test"],
        cuts,
        passed,
        min(int((flags & ~test.gamma).sum()) for flags in passed) >= settings.hadrons_min,
        draws.over_seeds(joined),
        float(np.mean(qualities)),
    )
