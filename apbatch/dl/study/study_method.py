"""A method of a finished study on images of one's own: the study's networks, trees, box, and their means.

The study saved its networks. Box and trees are fitted again on the training images of its blind set and must then give
the validation images the scores that were frozen; trees take seconds to minutes. A mean is the one that the validation
set chose. Where a method was trained several times, the score is the mean of its trainings, as in the study's table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from apbatch.camera.instruments.registry import camera_named
from apbatch.dl.blind import blind_set as blind
from apbatch.dl.files import read_json, read_parquet, sha256
from apbatch.dl.judging import box_cuts, rivals
from apbatch.dl.judging.box_cuts import BoxCut
from apbatch.dl.judging.direction import observed_places
from apbatch.dl.judging.rivals import Rival
from apbatch.dl.judging.score_means import ScoreMean, choose_mean
from apbatch.dl.networks.scoring import PackedNetwork, Pixels
from apbatch.dl.networks.treatment import check_images_alone, parameters, treatment_named
from apbatch.dl.study.methods import BOX, method_of, training_name
from apbatch.dl.study.trainings import networks, scores_of
from apbatch.dl.training.data import load_pixels
from apbatch.errors import UsageError, VerificationError, nearest_word
from apbatch.progress import say
from apbatch.provenance import digest

Floats = npt.NDArray[np.float64]
#: How far scores of a method that was fitted again may be from those that were frozen.
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class FittedMethod:
    """A box or trees that can be sent to a worker.

    Attributes
    ----------
    fitted : BoxCut or Rival
        It sees image parameters.
    """

    fitted: BoxCut | Rival = field(repr=False)

    def scores(self, columns: Mapping[str, Floats]) -> Floats:
        """Return scores in 0…1, shape (n_images,), from columns of image parameters."""
        if isinstance(self.fitted, BoxCut):
            return self.fitted.score(box_cuts.features(columns))
        return rivals.score(self.fitted, columns)


@dataclass(frozen=True)
class MethodScorer:
    """A method of a study, all of its trainings, as it is sent to a worker.

    Attributes
    ----------
    camera, treatment : str
        Of the images.
    trainings : tuple
        Of each training, its members: one, or those of a mean.
    means : tuple of ScoreMean
        Of each training; empty where the method is no mean.
    """

    camera: str
    treatment: str
    trainings: tuple[tuple[PackedNetwork | FittedMethod, ...], ...]
    means: tuple[ScoreMean, ...] = ()

    def scores(self, images: Pixels) -> Floats:
        """Return scores in 0…1, shape (n_images,), the higher the more like a gamma.

        Parameters
        ----------
        images : ndarray of float32, shape (n_images, n_pixels)
            p.e., not cleaned.
        """
        if not len(images):
            return np.empty(0)
        members = [member for training in self.trainings for member in training]
        columns = {}
        if any(isinstance(member, FittedMethod) for member in members):
            columns = parameters(images, camera_named(self.camera), self.treatment)
        each = [
            [m.scores(columns) if isinstance(m, FittedMethod) else m.scores(images) for m in training]
            for training in self.trainings
        ]
        if self.means:
            scores = [mean.of(own) for mean, own in zip(self.means, each, strict=True)]
        else:
            scores = [own[0] for own in each]
        return np.asarray(np.mean(scores, axis=0))


class StudyMethod:
    """A method of a study, found and checked; `scorer` makes what scores.

    Parameters
    ----------
    study : pathlib.Path
        Output of the step `study` of a job.
    method : str, optional
        Such as ``halo-net``, or the name of a mean; by default the only mean.
    treatment : str, optional
        Of the images; needed if the method has several.

    Attributes
    ----------
    camera, identity, record
        As of `apbatch.dl.spark_scoring.ScoreSource`.

    Raises
    ------
    NotFoundError, FormatError, VerificationError
        If there is no study, or its blind set or its scores are not those of its trainings.
    UsageError
        If the study has no such method, or its gammas come from one source: their scores know where it was observed.
    """

    def __init__(self, study: Path, method: str | None = None, treatment: str | None = None) -> None:
        self._study = study
        settings = read_json(study / "study.json")["settings"]
        means = {name: tuple(members) for name, members in settings.get("means", {}).items()}
        self._frozen = read_parquet(study / "scores.parquet", ["method", "treatment", "split", "id", "score"])
        self._names = self._trainings(method, treatment, means)
        self._members = means.get(self._method, (self._method,))
        files = {(name, which, seed): place for name, which, seed, place in networks(study)}
        content = read_json(next(iter(files.values())).parent.parent / "trained.json")
        self._set = Path(content["spec"]["data"])
        manifest = blind.read_manifest(self._set)
        if manifest["files"] != content["files"]:
            raise VerificationError("the blind set is not the one that the study was trained on", where=str(self._set))
        if observed_places(self._set, "train") is not None:
            raise UsageError(
                "the study is of gammas from one source: its scores need the place of that source in each image",
                where=str(study),
                remedy="score with a study of diffuse gammas, or with one network by --training",
            )
        self._manifest = manifest
        self._networks = {
            (member, seed): files[member, self._treatment, seed]
            for member in self._members
            for seed in self._names
            if (member, self._treatment, seed) in files
        }
        self.camera = str(manifest["camera"])
        hashes = {f"{member}#{seed}": sha256(place) for (member, seed), place in self._networks.items()}
        self.identity = digest([self._method, self._treatment, sha256(study / "scores.parquet"), hashes])
        self.record: dict[str, Any] = {
            "model": self._method,
            "treatment": self._treatment,
            "members": list(self._members),
            "trainings": len(self._names),
            "networks_sha256": hashes,
            "scores_sha256": sha256(study / "scores.parquet"),
            "study": str(study),
        }

    def _trainings(
        self, method: str | None, treatment: str | None, means: dict[str, tuple[str, ...]]
    ) -> dict[int, str]:
        """Settle method and treatment; return the names of the trainings in the table of scores, by their number."""
        pairs = pc.unique(pc.binary_join_element_wise(self._frozen["method"], self._frozen["treatment"], "\x1f"))
        compared = [pair.split("\x1f") for pair in sorted(pairs.to_pylist())]
        methods = sorted({method_of(name)[0] for name, _ in compared})
        if method is None and len(means) != 1:
            raise UsageError(f"the study has {', '.join(methods)}", where=str(self._study), remedy="name a --method")
        self._method = method or next(iter(means))
        if self._method not in methods:
            raise UsageError(
                f"the study has no method '{self._method}'",
                where=str(self._study),
                nearest=nearest_word(self._method, methods),
                remedy=f"it has {', '.join(methods)}",
            )
        treatments = sorted({which for name, which in compared if method_of(name)[0] == self._method})
        if treatment is None and len(treatments) != 1:
            raise UsageError(
                f"'{self._method}' has scores for {', '.join(treatments)}",
                where=str(self._study),
                remedy="name a --treatment",
            )
        self._treatment = treatment or treatments[0]
        if self._treatment not in treatments:
            raise UsageError(
                f"'{self._method}' has no scores for '{self._treatment}', only for {', '.join(treatments)}",
                where=str(self._study),
            )
        check_images_alone(treatment_named(self._treatment), str(self._study))
        return {
            method_of(name)[1]: name
            for name, which in compared
            if method_of(name)[0] == self._method and which == self._treatment
        }

    def scorer(self) -> MethodScorer:
        """Open the networks, fit the rest again, and put the means together.

        Raises
        ------
        FormatError
            If a network is damaged.
        VerificationError
            If what was fitted again does not give the frozen scores.
        """
        validation = read_parquet(self._set / "validation.parquet", ["id", "gamma"])
        ids, gamma = validation["id"].combine_chunks(), _flags(validation["gamma"])
        fitted = dict(self._fitted_again(ids))
        trainings, means = [], []
        for seed in self._names:
            trainings.append(
                tuple(
                    fitted[member, seed]
                    if (member, seed) in fitted
                    else PackedNetwork(self._networks[member, seed].read_bytes(), self._treatment, self.camera)
                    for member in self._members
                )
            )
            if len(self._members) > 1:
                means.append(choose_mean([self._frozen_scores(member, seed, ids) for member in self._members], gamma))
        return MethodScorer(self.camera, self._treatment, tuple(trainings), tuple(means))

    def _frozen_scores(self, member: str, seed: int, ids: Any) -> Floats:
        """Return the frozen scores of the validation images by a training of a member."""
        name = BOX if member == BOX else training_name(member, seed)
        return scores_of(self._frozen, name, self._treatment, "validation", ids)

    def _fitted_again(self, ids: Any) -> Iterator[tuple[tuple[str, int], FittedMethod]]:
        """Yield the members that are no networks, fitted as the study did, after a look at their validation scores."""
        again = [
            (member, seed) for seed in self._names for member in self._members if (member, seed) not in self._networks
        ]
        if not again:
            return
        camera = camera_named(self.camera)
        sky = treatment_named(self._treatment).sky  # the study added it to the set's images
        columns = {
            split: parameters(load_pixels(self._set, self._manifest, split, sky), camera, self._treatment)
            for split in ("train", "validation")
        }
        gamma = _flags(read_parquet(self._set / "train.parquet", ["gamma"])["gamma"])
        for member, seed in again:
            say(f"fitting {member}, {seed}")
            fit: BoxCut | Rival = (
                box_cuts.fit(box_cuts.features(columns["train"]), gamma)
                if member == BOX
                else rivals.fit(member, columns["train"], gamma, seed)
            )
            method = FittedMethod(fit)
            away = np.abs(method.scores(columns["validation"]) - self._frozen_scores(member, seed, ids))
            if not away.max(initial=0.0) <= _TOLERANCE:
                raise VerificationError(
                    f"'{member}' fitted again gives scores of validation images that are up to {away.max():.2g} from "
                    "those of the study",
                    where=str(self._study),
                    remedy="install the version of scikit-learn that the study ran with",
                )
            yield (member, seed), method


def _flags(column: Any) -> npt.NDArray[np.bool_]:
    return np.asarray(column.to_numpy(zero_copy_only=False), bool)
