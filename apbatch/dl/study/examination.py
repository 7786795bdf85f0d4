"""What disturbs a trained network, and what it looks at: after the labels are open, on the test images."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt

from apbatch.camera.instruments.registry import camera_named
from apbatch.dl.blind import blind_set as blind
from apbatch.dl.blind import protocol
from apbatch.dl.files import read_json, read_parquet, write_json
from apbatch.dl.judging import box_cuts, rivals
from apbatch.dl.judging.resampling import Resamples, compare
from apbatch.dl.networks.scoring import Network, Pixels
from apbatch.dl.networks.treatment import cleaned, is_plain, parameters
from apbatch.dl.study.disturbance import standard_disturbances
from apbatch.dl.study.image_cuts import Scorer, cuts_of_images, knows_direction
from apbatch.dl.study.methods import BOX, title_of
from apbatch.dl.study.trainings import networks
from apbatch.dl.training.data import load_pixels
from apbatch.progress import say

Floats = npt.NDArray[np.float64]


def robustness(
    folder: Path, study: Path, output: Path, models: tuple[str, ...] | None = None, most: int = 20_000
) -> Path:
    """Score disturbed test images with the first training of each network, the trees and the simple technique.

    The events are those selected before, and the cut is the one of the undisturbed images: what is seen is what an
    observer would get who does not know. In the world *point* all of them do without the direction and have cuts of
    their own (`apbatch.dl.study.image_cuts`).

    Parameters
    ----------
    folder : pathlib.Path
        The blind analysis, unsealed.
    study : pathlib.Path
        Output of the study.
    output : pathlib.Path
        File for the numbers.
    models : tuple of str, optional
        Only these networks.
    most : int
        Test images used at most.
    """
    blind_set = blind.open_set(folder)
    camera = camera_named(blind_set.manifest["camera"])
    judged = read_json(study / "study.json")
    labels = {row["id"]: row for row in protocol.open_labels(blind_set).labels.to_pylist()}
    ids = read_parquet(blind_set.files / "test.parquet", ["id"])["id"].to_pylist()[:most]
    images = load_pixels(blind_set.files, blind_set.manifest, "test")[:most]
    gamma = np.array([labels[name]["gamma"] for name in ids])
    draws = Resamples(gamma, np.array([labels[name]["shower"] for name in ids], np.int64), 300)
    scorers = _scorers(blind_set, study, models, {(row["method"], row["treatment"]) for row in judged["rows"]})
    cuts = cuts_of_images(blind_set, judged, scorers)
    entries = []
    plain = {}
    for key, scorer in scorers.items():
        passed = scorer(images) > cuts[key]
        plain[key] = (passed, draws.q_factors(passed))
    for disturbance in standard_disturbances():
        say(f"robustness: {disturbance.kind}, {disturbance.label}")
        disturbed = disturbance.apply(images, camera)
        for (method, treatment), scorer in scorers.items():
            before, quality = plain[method, treatment]
            passed = scorer(disturbed) > cuts[method, treatment]
            now = draws.q_factors(passed)
            change = compare(now, quality)
            entries.append(
                {
                    "kind": disturbance.kind,
                    "label": disturbance.label,
                    "strength": disturbance.strength,
                    "method": method,
                    "title": title_of(method),
                    "treatment": treatment,
                    "quality": float(now[0]) if np.isfinite(now[0]) else None,
                    "before": float(quality[0]) if np.isfinite(quality[0]) else None,
                    "ratio": None if change is None else asdict(change.ratio),
                    "gamma_efficiency": float(passed[gamma].mean()),
                    "gamma_efficiency_before": float(before[gamma].mean()),
                    "hadron_efficiency": float(passed[~gamma].mean()),
                    "hadron_efficiency_before": float(before[~gamma].mean()),
                }
            )
    write_json(output, {"images": len(ids), "without_direction": knows_direction(blind_set), "entries": entries})
    return output


def _scorers(
    blind_set: blind.BlindSet, study: Path, models: tuple[str, ...] | None, judged: set[tuple[str, str]]
) -> dict[tuple[str, str], Scorer]:
    """Return the first training of each network, and of box and trees where they were `judged`."""
    camera = camera_named(blind_set.manifest["camera"])
    trained = [entry for entry in networks(study) if is_plain(entry[1])]
    first = min(seed for _, _, seed, _ in trained)
    scorers: dict[tuple[str, str], Scorer] = {
        (name, treatment): Network(place, treatment, camera).scores
        for name, treatment, seed, place in trained
        if seed == first and (models is None or name in models)
    }
    train = load_pixels(blind_set.files, blind_set.manifest, "train")
    gamma = np.asarray(
        read_parquet(blind_set.files / "train.parquet", ["gamma"])["gamma"].to_numpy(zero_copy_only=False)
    )
    for treatment in dict.fromkeys(treatment for _, treatment in list(scorers)):
        columns = parameters(train, camera, treatment)
        for rival, fitted in ((BOX, _box), ("trees", _trees)):
            if (rival, treatment) in judged:
                scorers[rival, treatment] = fitted(columns, gamma, treatment, blind_set)
    return scorers


def _box(columns: dict[str, Floats], gamma: npt.NDArray[np.bool_], treatment: str, blind_set: blind.BlindSet) -> Scorer:
    camera = camera_named(blind_set.manifest["camera"])
    box = box_cuts.fit(box_cuts.features(columns), gamma)

    def score(images: Pixels) -> Floats:
        values = parameters(images, camera, treatment)
        usable = (values["size"] > 0) & np.isfinite(values["width"])
        size, width, length = (np.where(usable, values[name], 1.0) for name in ("size", "width", "length"))
        # Without light left there is nothing to be called a gamma.
        return np.where(usable, box.score(box_cuts.Features(size, width, length)), 0.0)

    return score


def _trees(
    columns: dict[str, Floats], gamma: npt.NDArray[np.bool_], treatment: str, blind_set: blind.BlindSet
) -> Scorer:
    camera = camera_named(blind_set.manifest["camera"])
    fitted = rivals.fit("trees", columns, gamma, seed=1)

    def score(images: Pixels) -> Floats:
        return rivals.score(fitted, parameters(images, camera, treatment))

    return score


def saliency(folder: Path, study: Path, output: Path, each: int = 2) -> Path:
    """Find which pixels matter to the best networks: how the logit changes when a pixel and its neighbours go dark.

    Occlusion asks the network itself, image by image, and needs no derivatives of any back-end. Positive: the light
    there speaks for a gamma.

    Parameters
    ----------
    folder : pathlib.Path
        The blind analysis, unsealed.
    study : pathlib.Path
        Output of the study.
    output : pathlib.Path
        File for the maps; images are chosen by their rank in size within a class, not by looks.
    each : int
        Images of a class.
    """
    blind_set = blind.open_set(folder)
    camera = camera_named(blind_set.manifest["camera"])
    labels = {row["id"]: row for row in protocol.open_labels(blind_set).labels.to_pylist()}
    ids = read_parquet(blind_set.files / "test.parquet", ["id"])["id"].to_pylist()
    images = load_pixels(blind_set.files, blind_set.manifest, "test")
    gamma = np.array([labels[name]["gamma"] for name in ids])
    light = np.nansum(np.where(images > 7, images, 0), axis=1)
    rows = []
    for kind in (True, False):
        of = np.flatnonzero(gamma == kind)
        of = of[np.argsort(light[of], kind="stable")]
        rows += [int(of[int(at * (len(of) - 1))]) for at in np.linspace(0.7, 0.95, each)]
    trained = [entry for entry in networks(study) if is_plain(entry[1])]
    judged = {
        (row["method"], row["treatment"]): row["quality_validation"] or 0
        for row in read_json(study / "study.json")["rows"]
    }
    maps = []
    for cleaning in dict.fromkeys(treatment for _, treatment, _, _ in trained):
        name, treatment, _, place = max(
            (entry for entry in trained if entry[1] == cleaning), key=lambda entry: judged.get(entry[:2], 0)
        )
        network = Network(place, treatment, camera)
        for row in rows:
            image = np.nan_to_num(images[row])
            mask = cleaned(image[None], camera, treatment)
            light_only = image if mask is None else np.where(mask[0], image, 0)
            changed = occluded(light_only, camera.neighbours)
            # The mask of the whole image stays: only light is taken away, the cleaning is not done again.
            logits = network.outputs_of_grids(_on_grid(network, np.concatenate([light_only[None], changed])))[:, 0]
            maps.append(
                {
                    "model": name,
                    "title": title_of(name),
                    "treatment": treatment,
                    "gamma": bool(gamma[row]),
                    "score": float(1 / (1 + np.exp(-logits[0]))),
                    "energy": labels[ids[row]].get("energy"),
                    "image": [round(float(value), 2) for value in light_only],
                    "change": [round(float(value), 4) for value in logits[0] - logits[1:]],
                }
            )
    write_json(output, {"camera": camera.name, "maps": maps})
    return output


def occluded(image: npt.NDArray[np.float32], neighbours: npt.NDArray[np.int64]) -> Pixels:
    """Return copies of an image, shape (n_pixels, n_pixels): in the i-th, pixel i and its neighbours are dark."""
    copies = np.tile(image.astype(np.float32), (len(image), 1))
    for pixel, near in enumerate(neighbours):
        copies[pixel, pixel] = 0
        copies[pixel, near[near >= 0]] = 0
    return copies


def _on_grid(network: Network, images: Pixels) -> Pixels:
    from apbatch.camera.grid import to_grid

    return to_grid(images, network.camera, None, network.treatment.grid)
