"""Trees and forest on image parameters."""

from __future__ import annotations

import numpy as np
import pytest

from apbatch.camera.halo import halo
from apbatch.camera.instruments.registry import camera_named
from apbatch.dl.judging import rivals
from apbatch.dl.judging.q_factor import roc
from apbatch.errors import UsageError


def images(n: int, seed: int, contrast: float = 1.0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    random = np.random.default_rng(seed)
    gamma = random.random(n) < 0.5
    size = 60 * np.exp(random.exponential(1, n))
    wide = np.where(gamma, 0, contrast)
    columns = {
        "size": size,
        "width": 0.15 * (1 + 0.15 * random.normal(size=n) + 0.2 * wide),
        "length": 0.3 * (1 + 0.15 * random.normal(size=n) + 0.2 * wide),
        "skewness": np.where(random.random(n) < 0.1, np.nan, random.normal(size=n)),
    }
    return columns, gamma


@pytest.mark.parametrize("method", ["trees", "forest"])
def test_it_separates_what_differs_and_nothing_else(method: str) -> None:
    for contrast, low, high in ((1.5, 0.8, 1.0), (0.0, 0.4, 0.6)):
        train, gamma = images(1500, 1, contrast)
        test, truth = images(800, 2, contrast)
        scores = rivals.fit_and_score(method, train, gamma, {"test": test})["test"]
        assert ((scores >= 0) & (scores <= 1)).all()
        assert low < roc(scores, truth)[2] <= high


def test_the_same_seed_gives_the_same_scores() -> None:
    train, gamma = images(600, 1)
    first, again = (rivals.fit_and_score("trees", train, gamma, {"x": train}, seed=4)["x"] for _ in range(2))
    assert np.array_equal(first, again)


def test_truth_times_and_numbers_are_no_features() -> None:
    train, _ = images(50, 1)
    with_more = {**train, "true_energy": np.ones(50), "time": np.ones(50), "event": np.ones(50), "gamma": np.ones(50)}
    assert rivals.matrix(train).shape == rivals.matrix(with_more).shape


def test_a_missing_class_is_an_error() -> None:
    train, gamma = images(50, 1)
    with pytest.raises(UsageError, match="gammas and hadrons"):
        rivals.fit_and_score("trees", train, np.ones_like(gamma), {})


def test_an_unknown_method_is_an_error_with_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        rivals.classifier("tree", 1)
    assert caught.value.nearest == "trees"


def test_energy_is_estimated_from_size() -> None:
    columns, _ = images(2000, 3)
    energy = columns["size"] / 30
    found = rivals.estimate_energy(columns, energy, {"x": columns})["x"]
    assert np.std(np.log(found / energy)) < 0.1


def halo_images(n: int, seed: int, faint: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Parameters of equal ellipses on noise; hadrons have some faint pixels far from theirs."""
    camera = camera_named("TAIGA-IACT01")
    random = np.random.default_rng(seed)
    gamma = random.random(n) < 0.5
    pixels = random.normal(0, 1.5, (n, camera.n_pixels))
    for image, hadron in zip(pixels, ~gamma, strict=True):
        x, y = random.uniform(-1.5, 1.5, 2)
        image += random.poisson(60 * np.exp(-0.5 * (((camera.x - x) / 0.7) ** 2 + ((camera.y - y) / 0.35) ** 2)))
        far = np.flatnonzero(np.hypot(camera.x - x, camera.y - y) > 1.5)
        image[random.choice(far, faint * hadron, replace=False)] += 5
    return halo(pixels.astype(np.float32), camera), gamma


def test_the_halo_trees_see_faint_light_outside_of_the_ellipse_and_nothing_where_there_is_none() -> None:
    for faint, low, high in ((10, 0.85, 1.0), (0, 0.4, 0.6)):
        train, gamma = halo_images(500, 1, faint)
        test, truth = halo_images(400, 2, faint)
        scores = rivals.fit_and_score("halo-trees", train, gamma, {"test": test})["test"]
        assert low < roc(scores, truth)[2] <= high


def test_further_features_are_taken_by_name_of_each_cleaning_by_the_halo_trees() -> None:
    columns, _ = halo_images(30, 1, 4)
    plain = rivals.features_of("halo-trees", columns)
    more = rivals.features_of("halo-trees", columns, ("alpha", "miss"))
    assert more.shape[1] == plain.shape[1] + 8
    assert any(np.array_equal(column, columns["alpha_10"].astype(np.float32), equal_nan=True) for column in more.T)
    with pytest.raises(UsageError) as caught:
        rivals.features_of("halo-trees", columns, ("alfa",))
    assert caught.value.nearest == "alpha"


def test_the_halo_is_in_uncleaned_images_only() -> None:
    assert rivals.takes("halo-trees", "none") and rivals.takes("trees", "soft")
    assert not rivals.takes("halo-trees", "soft")
    with pytest.raises(UsageError, match="no halo parameter"):
        rivals.features_of("halo-trees", images(20, 1)[0])
