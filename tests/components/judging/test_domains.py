"""Whether images of two origins can be told apart: by what they look like, and not by how bright they are."""

from __future__ import annotations

import numpy as np

from apbatch.dl.study.domains import FEWEST, told_apart


def images(number: int, seed: int, wider: float = 1.0, brighter: float = 1.0) -> dict[str, np.ndarray]:
    """Return image parameters whose shapes grow with the size, as those of showers do."""
    random = np.random.default_rng(seed)
    size = brighter * 60 * np.exp(random.exponential(0.8, number))
    grown = (size / 100) ** 0.2
    columns = {"width": 0.1 * wider * grown, "length": 0.2 * grown, "con1": 0.3 / grown, "con2": 0.5 / grown}
    columns |= {"n_pixels": 8 * grown, "n_islands": 1 + 0 * grown}
    noisy = {name: values * random.lognormal(0, 0.15, number) for name, values in columns.items()}
    return {**noisy, "size": size, "skewness": random.normal(0, 1, number), "kurtosis": random.normal(3, 1, number)}


def test_images_of_one_law_are_not_told_apart_though_one_kind_is_brighter() -> None:
    result = told_apart(images(900, 1), images(700, 2, brighter=1.6))
    assert result is not None and result["images"] >= 300
    assert result["low"] < 0.5 < result["high"]


def test_images_that_are_wider_are_told_apart() -> None:
    result = told_apart(images(900, 1), images(700, 2, wider=1.25))
    assert result is not None and result["low"] > 0.7


def test_too_few_images_say_nothing() -> None:
    assert told_apart(images(900, 1), images(FEWEST // 2, 2)) is None
    assert told_apart(images(900, 1), images(0, 2)) is None


def test_images_without_a_size_are_left_out_and_those_without_a_width_say_nothing_else() -> None:
    broken = images(700, 2)
    for name in ("width", "length", "size"):
        broken[name] = np.where(np.arange(700) % 3 == 0, np.nan if name == "size" else 0.0, broken[name])
    result = told_apart(images(900, 1), broken)
    assert result is not None and result["low"] < 0.5 < result["high"]
