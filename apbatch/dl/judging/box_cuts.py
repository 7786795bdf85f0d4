"""The simple two-dimensional technique: a box of cuts on scaled width and length.

Width and length grow with the size of an image, so each is taken relative to gammas of the same size:
``(width - mean(log size)) / rms(log size)``. Mean and rms come from training gammas, the box from training images.
Where gammas come from one source, a cut on alpha, the angle between the image and the source, is chosen with the box.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from apbatch.errors import UsageError

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
#: Borders that a box may have, in rms from the mean of gammas.
_EDGES = np.array([-np.inf, *np.arange(-2.5, 0, 0.25), *np.arange(0, 3.01, 0.2), *np.arange(3.5, 6.1, 0.5), np.inf])
#: Largest angles to the source that a box may allow, deg.
_ALPHAS = (4.0, 6.0, 8.0, 10.0, 12.0, 15.0, 18.0, 22.0, 27.0, 35.0, 45.0, 60.0, 90.0)
#: An angle outside of the box by so much counts like one rms of width, deg.
_ALPHA_UNIT = 5.0


@dataclass(frozen=True)
class Features:
    """Size (p.e.), width and length (deg) of images, each of shape (n_images,); alpha (deg) where there is a source."""

    size: Floats
    width: Floats
    length: Floats
    alpha: Floats | None = None

    def select(self, rows: Flags) -> Features:
        """Return the features of some of the images."""
        alpha = None if self.alpha is None else self.alpha[rows]
        return Features(self.size[rows], self.width[rows], self.length[rows], alpha)

    @property
    def lit(self) -> Flags:
        """Which images have light left after their cleaning, hence an ellipse."""
        return np.asarray((self.size > 0) & np.isfinite(self.width) & np.isfinite(self.length))


@dataclass(frozen=True)
class _Profile:
    """Mean and rms of a parameter against log10(size), by interpolation between bins of equal numbers."""

    log_size: Floats
    mean: Floats
    rms: Floats

    @classmethod
    def of(cls, size: Floats, values: Floats) -> _Profile:
        log_size = np.log10(size)
        n_bins = int(np.clip(len(size) // 40, 1, 10))
        rows = np.array_split(np.argsort(log_size, kind="stable"), n_bins)
        middles = np.array([log_size[row].mean() for row in rows])
        means = np.array([values[row].mean() for row in rows])
        spreads = np.array([max(values[row].std(), 1e-9) for row in rows])
        return cls(middles, means, spreads)

    def scaled(self, size: Floats, values: Floats) -> Floats:
        at = np.log10(size)
        mean, rms = (np.interp(at, self.log_size, table) for table in (self.mean, self.rms))
        return np.asarray((values - mean) / rms)


@dataclass(frozen=True)
class BoxCut:
    """The fitted technique.

    Attributes
    ----------
    profiles : tuple
        Mean and rms of width and of length against log10(size).
    width_range, length_range : (float, float)
        The box, in rms from the mean of gammas of the same size; may be infinite on a side.
    quality : float
        Q on the training images: optimistic, for information.
    alpha_max : float, optional
        Largest angle between the image and the source, deg; None where gammas come from anywhere.
    """

    profiles: tuple[_Profile, _Profile]
    width_range: tuple[float, float]
    length_range: tuple[float, float]
    quality: float
    alpha_max: float | None = None

    def scaled(self, images: Features) -> tuple[Floats, Floats]:
        """Return scaled width and length."""
        of_width, of_length = self.profiles
        return of_width.scaled(images.size, images.width), of_length.scaled(images.size, images.length)

    def score(self, images: Features) -> Floats:
        """Return a score in 0…1, the higher the more like a gamma; the box is at 0.5, similar boxes around it.

        An image that its cleaning left without light is in no box: its score is 0.
        """
        lit = images.lit
        images = images.select(lit)
        width, length = self.scaled(images)
        outside = np.maximum(_distance(width, self.width_range), _distance(length, self.length_range))
        if self.alpha_max is not None and images.alpha is not None:
            outside = np.maximum(outside, (_angles(images.alpha) - self.alpha_max) / _ALPHA_UNIT)
        scores = np.zeros(len(lit))
        scores[lit] = 1 / (1 + np.exp(np.clip(outside, -50, 50)))
        return scores


def _angles(alpha: Floats) -> Floats:
    """Return angles; an image without an axis points anywhere, so it is at the far end."""
    return np.nan_to_num(alpha, nan=90.0)


def _distance(values: Floats, border: tuple[float, float]) -> Floats:
    """Signed distance from an interval, negative inside."""
    return np.maximum(border[0] - values, values - border[1])


def fit(images: Features, gamma: Flags, efficiency_min: float = 0.2, hadrons_min: int = 20) -> BoxCut:
    """Fit the technique.

    Parameters
    ----------
    images : Features
        Of the training set.
    gamma : ndarray of bool, shape (n_images,)
    efficiency_min : float
        Boxes that keep fewer gammas are not considered.
    hadrons_min : int
        Boxes that keep fewer hadrons are not considered: their Q would be chance.

    Raises
    ------
    UsageError
        If a class is missing.
    """
    images, gamma = images.select(images.lit), gamma[images.lit]
    if not gamma.any() or gamma.all():
        raise UsageError("cuts need gammas and hadrons to be fitted on")
    size = images.size[gamma]
    profiles = _Profile.of(size, images.width[gamma]), _Profile.of(size, images.length[gamma])
    width, length = (
        profile.scaled(images.size, values)
        for profile, values in zip(profiles, (images.width, images.length), strict=True)
    )
    low, high = np.triu_indices(len(_EDGES), 1)
    best = BoxCut(profiles, (-np.inf, np.inf), (-np.inf, np.inf), -1.0)
    for alpha_max in (None,) if images.alpha is None else _ALPHAS:
        inside = np.ones(len(gamma), bool)
        if alpha_max is not None and images.alpha is not None:
            inside = _angles(images.alpha) <= alpha_max
        below = [_counts_below(width[rows & inside], length[rows & inside]) for rows in (gamma, ~gamma)]
        passed = [
            counts[np.ix_(high, high)]
            - counts[np.ix_(low, high)]
            - counts[np.ix_(high, low)]
            + counts[np.ix_(low, low)]
            for counts in below
        ]
        efficiency, leaking = passed[0] / gamma.sum(), passed[1] / (~gamma).sum()
        allowed = (efficiency >= efficiency_min) & (passed[1] >= min(hadrons_min, (~gamma).sum()))
        with np.errstate(divide="ignore", invalid="ignore"):
            quality = np.where(allowed, efficiency / np.sqrt(leaking), 0.0)
        in_width, in_length = np.unravel_index(int(quality.argmax()), quality.shape)
        if quality[in_width, in_length] > best.quality:
            best = BoxCut(
                profiles=profiles,
                width_range=(float(_EDGES[low[in_width]]), float(_EDGES[high[in_width]])),
                length_range=(float(_EDGES[low[in_length]]), float(_EDGES[high[in_length]])),
                quality=float(quality[in_width, in_length]),
                alpha_max=alpha_max,
            )
    return best


def features(columns: Mapping[str, Floats], *, direction: bool = False) -> Features:
    """Return what the technique looks at, from columns of image parameters; ``alpha`` too if there is a `direction`."""
    return Features(columns["size"], columns["width"], columns["length"], columns["alpha"] if direction else None)


def fit_and_score(
    train: Mapping[str, Floats],
    gamma: Flags,
    others: Mapping[str, Mapping[str, Floats]],
    *,
    direction: bool = False,
) -> dict[str, Floats]:
    """Fit the box on the training images and score others, as `apbatch.dl.judging.rivals.fit_and_score` does.

    Parameters
    ----------
    train : mapping of str to ndarray, shape (n_images,)
        Columns of image parameters.
    gamma : ndarray of bool, shape (n_images,)
    others : mapping
        By name of the split, columns of image parameters.
    direction : bool
        Whether the angle alpha is cut on as well.
    """
    box = fit(features(train, direction=direction), gamma)
    return {split: box.score(features(columns, direction=direction)) for split, columns in others.items()}


def _counts_below(width: Floats, length: Floats) -> Floats:
    """Return how many points lie below each pair of edges, shape (n_edges, n_edges)."""
    last = len(_EDGES) - 1
    at = [np.clip(np.searchsorted(_EDGES, values, side="right"), 1, last) for values in (width, length)]
    counts = np.zeros((len(_EDGES), len(_EDGES)))
    np.add.at(counts, (at[0], at[1]), 1)
    return counts.cumsum(axis=0).cumsum(axis=1)
