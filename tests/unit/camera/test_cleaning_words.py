"""One vocabulary of cleanings for command lines, job descriptions and Python."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from apbatch.camera.cleaning_rule import Cleaning, Method
from apbatch.camera.cleaning_words import METHODS, WORDS, cleaning_of, words_of
from apbatch.cli.analysis.cleaning_options import cleaning_in
from apbatch.cli.main import application
from apbatch.errors import ApbatchError
from apbatch.provenance import digest
from apbatch.workflow.image_steps import Clean, CleaningWords, Grid, Parameters

CASES: list[tuple[dict[str, Any], Cleaning]] = [
    ({}, Cleaning("tailcuts", 14, 7)),
    ({"cleaning": "soft"}, Cleaning("tailcuts", 7, 3.5)),
    ({"cleaning": "tailcuts-10-5-n2", "largest_island": True}, Cleaning("tailcuts", 10, 5, 2, largest_island=True)),
    ({"picture": "10 pe", "boundary": "5 p.e."}, Cleaning("tailcuts", 10, 5)),
    ({"picture": "4 sigma", "boundary": "2 sigma"}, Cleaning("sigma", 4, 2)),
    ({"cleaning": "sigma", "picture": 4, "boundary": "2", "min_neighbours": 1}, Cleaning("sigma", 4, 2, 1)),
    ({"cleaning": "soft", "time_limit": "5 ns"}, Cleaning("time-neighbours", 7, 3.5, time_limit=5)),
    (
        {"cleaning": "sigma-4-2", "time_limit": 2, "time_neighbours": 2, "keep_isolated": True},
        Cleaning("sigma", 4, 2, keep_isolated=True, time_limit=2, time_neighbours=2),
    ),
]


def test_the_methods_are_those_of_the_rule() -> None:
    assert get_args(Method) == METHODS
    assert set(CleaningWords.model_fields) == set(WORDS)


@pytest.mark.parametrize(("words", "wanted"), CASES)
def test_words_mean_the_same_in_python_in_a_job_and_on_a_command_line(words: dict[str, Any], wanted: Cleaning) -> None:
    assert cleaning_of(**words) == wanted
    assert (Clean(**words).rule or cleaning_of()) == wanted
    line = ["--input", "x", "--output", "y"]
    for word, value in words.items():
        line += [f"--{word.replace('_', '-')}", *([] if value is True else [str(value)])]
    for name in ("clean", "parameters", "grid"):
        given = application().commands[name].make_context(name, list(line)).params
        assert (cleaning_in(**{word: given[word] for word in WORDS}) or cleaning_of()) == wanted


@pytest.mark.parametrize(("words", "wanted"), CASES)
def test_equal_cleanings_have_equal_words_which_give_them_again(words: dict[str, Any], wanted: Cleaning) -> None:
    assert words_of(cleaning_of(**words)) == words_of(wanted)
    assert cleaning_of(**words_of(wanted)) == wanted  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"cleaning": "softt"}, "did you mean 'soft'"),
        ({"cleaning": "sgima"}, "did you mean 'sigma'"),
        ({"picture": "4 sigam", "boundary": 2}, "did you mean 'sigma'"),
        ({"picture": "14 deg"}, "'deg' can't be converted to 'pe'"),
        ({"picture": "4 sigma", "boundary": "7 pe"}, "both in the same unit"),
        ({"picture": "4 sigma"}, "needs both levels"),
        ({"cleaning": "sigma", "picture": "14 pe", "boundary": "7 pe"}, "are in sigma, not in pe"),
        ({"cleaning": "tailcuts", "picture": "4 sigma", "boundary": "2 sigma"}, "are in pe, not in sigma"),
        ({"cleaning": "time-neighbours"}, "needs a limit"),
        ({"time_limit": "5 m"}, "can't be converted to 'ns'"),
        ({"time_neighbours": 2}, "need a time limit"),
        ({"picture": 7, "boundary": 14}, "no two levels"),
        ({"picture": "bright"}, "a number in pe is wanted"),
    ],
)
def test_what_makes_no_sense_is_told_with_the_nearest_word(words: dict[str, Any], message: str) -> None:
    with pytest.raises(ApbatchError, match=message):
        cleaning_of(**words)
    with pytest.raises(ValueError, match=message):
        Clean(**words)


def test_addresses_of_work_done_before_stay() -> None:
    before = {"picture": 14.0, "boundary": 7.0, "min_neighbours": 0}
    assert digest(Clean().parameters()) == digest(Clean(cleaning="standard").parameters()) == digest(before)
    assert digest(Clean(picture="10 pe", min_neighbours=1).parameters()) == digest(
        {"picture": 10.0, "boundary": 7.0, "min_neighbours": 1}
    )
    assert digest(Parameters().parameters()) == digest({"register_events": True})
    assert digest(Grid().parameters()) == digest({"method": "axial"})
    assert Clean(bad_pixels="mend").parameters() != before
    assert Parameters(extras=True).parameters() != Parameters().parameters()
    assert Grid(cleaning="soft").parameters() != Grid().parameters()


@pytest.mark.parametrize(
    ("words", "message"),
    [({"bad_pixels": "mand"}, "did you mean 'mend'"), ({"bad_kinds": ["det"]}, "did you mean 'dead'")],
)
def test_treatments_of_bad_pixels_name_the_nearest(words: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Clean(**words)
