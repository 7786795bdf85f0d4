"""What only the paths of Monte Carlo files say."""

from __future__ import annotations

import pytest

from apbatch.formats.taiga.numbering import primary_of


@pytest.mark.parametrize(
    ("path", "primary"),
    [
        ("taiga607_clean_iact01_gamma.txt", "gamma"),
        ("mc/protons/taiga608_clean_iact01.txt", "proton"),
        ("MC/GammaDiffuse/011014.phs.jsonl.gz", "gamma"),
        ("mc/MCProton/011014.phs.jsonl.gz", "proton"),
        ("gamma2/011014.phs.jsonl.gz", "gamma"),
        ("environment/taiga607_clean_iact01.txt", "unknown"),
        ("polygamma/electronics/taiga607_clean_iact01.txt", "unknown"),
        ("gamma/proton_1.txt", "proton"),
        ("gamma_hadron/proton/taiga607_clean_iact01.txt", "proton"),
        ("gamma_hadron/taiga607_clean_iact01.txt", "unknown"),
        ("site/gamma-vs-proton/proton_clean_1.txt", "proton"),
        ("site/gamma-vs-proton/taiga607_clean_iact01.txt", "unknown"),
        ("iron/gamma-vs-proton/taiga607_clean_iact01.txt", "iron"),
        ("hadron/taiga607_clean_iact01.txt", "unknown"),
    ],
)
def test_a_primary_is_a_whole_word_of_the_nearest_part_of_the_path_that_names_one(path: str, primary: str) -> None:
    assert primary_of(path) == primary
