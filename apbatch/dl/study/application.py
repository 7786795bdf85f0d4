"""The study's networks on images that they were not made for: real events, another Monte Carlo, another camera.

Nothing is trained here: the first training of each network scores, its cut is the study's; where the study's scores
know the direction, the network has a cut of its own (`apbatch.dl.study.image_cuts`). Real events of a run that is
mostly noise have to be recognised as such: few should pass selection and cut. Gammas of another Monte Carlo should be
kept as often as ours; whether they look like ours is said by `apbatch.dl.study.domains`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from apbatch.camera.geometry import CameraGeometry
from apbatch.camera.instruments.registry import camera_named
from apbatch.datasets import dataset
from apbatch.dl.blind import blind_set as blind
from apbatch.dl.blind import protocol
from apbatch.dl.files import read_json, read_parquet, write_json
from apbatch.dl.networks.scoring import Network, Pixels
from apbatch.dl.networks.treatment import is_plain, parameters
from apbatch.dl.study.disturbance import onto_camera
from apbatch.dl.study.domains import told_apart
from apbatch.dl.study.image_cuts import cuts_of_images, knows_direction
from apbatch.dl.study.methods import title_of
from apbatch.dl.study.trainings import networks
from apbatch.dl.training.data import load_pixels
from apbatch.errors import FormatError
from apbatch.formats.images import from_binary
from apbatch.progress import say

#: Edges of size, p.e. after the standard cleaning, in which other gammas are compared with ours.
_SIZES = (60.0, 120.0, 250.0, 500.0, 1000.0, 1e6)
_BINS = np.linspace(0, 1, 21)
#: Images, evenly spaced, that stand for all of a dataset where the selection plays no part.
_MOST = 20_000


def apply(folder: Path, study: Path, datasets: dict[str, str], output: Path) -> Path:
    """Score datasets of images with the networks of a study.

    Parameters
    ----------
    folder : pathlib.Path
        The blind analysis of the study, unsealed.
    study : pathlib.Path
        Output of the study.
    datasets : dict
        By a name for people, URLs of datasets of images, as the step `clean` makes them, of any camera.
    output : pathlib.Path
        File for the numbers.

    Raises
    ------
    FormatError, NotFoundError
        For a dataset that can't be read.
    """
    blind_set = blind.open_set(folder)
    camera = camera_named(blind_set.manifest["camera"])
    settings = blind_set.manifest["settings"]
    trained = [entry for entry in networks(study) if is_plain(entry[1])]
    first = min(seed for _, _, seed, _ in trained)
    scorers = {
        (name, treatment): Network(place, treatment, camera)
        for name, treatment, seed, place in trained
        if seed == first
    }
    scores_of = {key: network.scores for key, network in scorers.items()}
    cuts = cuts_of_images(blind_set, read_json(study / "study.json"), scores_of)
    own = {key: _Own.of(network, blind_set, cuts[key]) for key, network in scorers.items()}
    gammas = load_pixels(blind_set.files, blind_set.manifest, "test")[_test_gammas(blind_set)]
    our_shape = parameters(gammas, camera, "standard")
    entries: list[dict[str, Any]] = []
    for name, url in datasets.items():
        say(f"application: {name}")
        images, source = read_images(url)
        moved = images if source.name == camera.name else onto_camera(images, source, camera)
        measured = np.isfinite(moved).any(axis=1)
        shape = parameters(moved, camera, "standard")
        passes = (shape["size"] > settings["size_min"]) & (shape["n_pixels"] >= settings["pixels_min"])
        # No light outside of the cleaned image, no night sky: only networks of cleaned images can judge. A pixel that
        # was not measured, as most are where single clusters of a camera were read out, tells nothing.
        finite = np.isfinite(images)
        lit = (finite & (images != 0)).sum(axis=1) / np.maximum(finite.sum(axis=1), 1)
        cleaned_already = bool(len(lit) and np.median(lit) < 0.5)
        entry: dict[str, Any] = {
            "name": name,
            "camera": source.name,
            "images": len(images),
            "measured": int(measured.sum()),
            "measured_pixels": float(np.median(finite.mean(axis=1))) if len(finite) else None,
            "cleaned_already": cleaned_already,
            "selected": int(passes.sum()),
            "size": np.quantile(shape["size"], [0.05, 0.5, 0.95]).tolist() if len(images) else None,
            "told_apart": told_apart(our_shape, {key: column[passes] for key, column in shape.items()}),
            "networks": [],
        }
        for (model, treatment), network in scorers.items():
            if cleaned_already and treatment == "none":
                continue
            cut = cuts[model, treatment]
            entry["networks"].append(
                {
                    "title": title_of(model),
                    "treatment": treatment,
                    "cut": cut,
                    **_shares_above(network, moved, passes, shape["size"], cut, own[model, treatment]),
                }
            )
        entries.append(entry)
    write_json(
        output,
        {
            "selection": settings,
            "without_direction": knows_direction(blind_set),
            "sizes": list(_SIZES),
            "bins": _BINS.tolist(),
            "datasets": entries,
        },
    )
    return output


def _shares_above(
    network: Network,
    images: Pixels,
    passes: npt.NDArray[np.bool_],
    size: npt.NDArray[np.float64],
    cut: float,
    own: _Own,
) -> dict[str, Any]:
    """Return how many images of all, and of those that pass the selection, score above the cut."""
    among = np.zeros(len(images), bool)
    among[np.linspace(0, len(images) - 1, min(len(images), _MOST)).astype(int)] = True
    scores = np.full(len(images), np.nan)
    scores[among | passes] = network.scores(np.nan_to_num(images[among | passes]))
    ours = own.gammas > cut
    by_size = []
    for low, high in itertools.pairwise(_SIZES):
        mine, theirs = (own.size >= low) & (own.size < high), passes & (size >= low) & (size < high)
        by_size.append(
            {
                "images": int(theirs.sum()),
                "kept": float((scores[theirs] > cut).mean()) if theirs.any() else None,
                "own_images": int(mine.sum()),
                "own_kept": float(ours[mine].mean()) if mine.any() else None,
            }
        )
    return {
        "kept_of_all": float((scores[among] > cut).mean()) if among.any() else None,
        "kept_of_selected": float((scores[passes] > cut).mean()) if passes.any() else None,
        "candidates": int((passes & (scores > cut)).sum()),
        "histogram": np.histogram(scores[among], _BINS)[0].tolist(),
        "histogram_selected": np.histogram(scores[passes], _BINS)[0].tolist(),
        "own_hadrons_kept": own.hadrons_kept,
        "histogram_own": np.histogram(own.gammas, _BINS)[0].tolist(),
        "by_size": by_size,
    }


@dataclass(frozen=True)
class _Own:
    """Our own test events by one network: scores of gammas, their size, and the share of hadrons above the cut."""

    gammas: npt.NDArray[np.float64]
    size: npt.NDArray[np.float64]
    hadrons_kept: float

    @classmethod
    def of(cls, network: Network, blind_set: blind.BlindSet, cut: float) -> _Own:
        gamma = _test_gammas(blind_set)
        images = load_pixels(blind_set.files, blind_set.manifest, "test")
        scores = network.scores(images)
        size = parameters(images[gamma], network.camera, "standard")["size"]
        return cls(scores[gamma], size, float((scores[~gamma] > cut).mean()))


def _test_gammas(blind_set: blind.BlindSet) -> npt.NDArray[np.bool_]:
    """Tell which images of the opened test set are gammas, in the order of the set."""
    named = {row["id"] for row in protocol.open_labels(blind_set).labels.to_pylist() if row["gamma"]}
    return np.array(
        [name in named for name in read_parquet(blind_set.files / "test.parquet", ["id"])["id"].to_pylist()]
    )


def read_images(url: str) -> tuple[Pixels, CameraGeometry]:
    """Read a dataset of images into memory, with its camera.

    Raises
    ------
    FormatError
        If it is no dataset of images, or they are not of the camera that it names.
    """
    sidecar = dataset.info(url)
    if sidecar.get("kind") != "images":
        raise FormatError("not a dataset of images", where=url)
    camera = camera_named(str(sidecar["camera"]))
    flat = np.asarray(from_binary(dataset.read_table(url, ["image"])["image"]), np.float32)
    if len(flat) and flat.shape[1] != camera.n_pixels:
        raise FormatError(f"images of {flat.shape[1]} pixels, {camera.name} has {camera.n_pixels}", where=url)
    return flat.reshape(-1, camera.n_pixels), camera
