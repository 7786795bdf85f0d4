"""Training images read from Parquet while the network works, for sets that do not fit into memory.

Row groups are dealt out to the parts of a batch (`data.parts_of`), so that each rank reads only its own and
one rank and two see the same batches. Within a part, an epoch goes through the row groups in a new order, a window of
them at a time: images of a window are shuffled, and the next window is read, checked and cleaned by a thread while the
network works on this one.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from apbatch.camera.instruments.registry import camera_named
from apbatch.dl.blind.image_selection import IMAGE
from apbatch.dl.files import read_parquet
from apbatch.dl.networks.night_sky import under_brighter_sky
from apbatch.dl.networks.treatment import treatment_named
from apbatch.dl.training.data import Floats, checked_pixels, cleaned_pixels, on_grid
from apbatch.dl.training.prefetch import ahead
from apbatch.errors import FormatError, UsageError

Ints = npt.NDArray[np.int64]
_Pieces = Generator[tuple[Floats, Ints], None, None]
#: Row groups in a window: what is in memory twice, and within which images are shuffled.
WINDOW = 4


class Shards:
    """The training images of a blind set, on disk.

    Parameters
    ----------
    files : pathlib.Path
        The folder ``set`` of a blind analysis.
    manifest : dict
    treatment : str
        A treatment of the images.

    Attributes
    ----------
    rows : list of (int, int)
        First and last row (exclusive) of each row group.
    """

    def __init__(self, files: Path, manifest: dict[str, Any], treatment: str) -> None:
        self._place = files / "train.parquet"
        self._manifest, self._rule = manifest, treatment_named(treatment)
        if self._rule.planes:
            raise UsageError(
                f"a training on '{treatment}' takes its images from memory", where=str(files), remedy="stream: false"
            )
        footer = pq.read_metadata(self._place)
        ends = np.cumsum([footer.row_group(group).num_rows for group in range(footer.num_row_groups)])
        self.rows = [(int(end - start), int(end)) for end, start in zip(ends, np.diff(ends, prepend=0), strict=True)]
        self.ids = read_parquet(self._place, ["id"])["id"].to_pylist()

    def read(self, group: int) -> Floats:
        """Return the images of one row group: the camera's pixels after cleaning, shape (n_images, n_pixels).

        Raises
        ------
        FormatError
            If it is damaged or an image is broken.
        """
        try:
            with pq.ParquetFile(self._place, page_checksum_verification=True) as file:
                table = file.read_row_group(group, columns=[IMAGE])
        except (pa.ArrowException, OSError) as error:
            raise FormatError(f"row group {group} is not readable: {error}", where=str(self._place)) from error
        start, stop = self.rows[group]
        flat = checked_pixels(table[IMAGE], self.ids[start:stop], self._place)
        camera = camera_named(self._manifest["camera"])
        if flat.shape[1] != camera.n_pixels:
            raise FormatError(f"images of {flat.shape[1]} pixels, not of {camera.name}", where=str(self._place))
        flat = under_brighter_sky(flat, self.ids[start:stop], self._rule.sky)
        return cleaned_pixels(flat, camera, self._rule.cleaning)

    def grids(self, values: Floats) -> Floats:
        """Return images as `read` gives them on their grid, shape (n_images, rows, cols)."""
        return on_grid(values, camera_named(self._manifest["camera"]), self._rule.grid)

    def deal(self, parts: int) -> list[list[int]]:
        """Deal the row groups out to parts, the largest first, each to the part that has fewest images.

        Raises
        ------
        UsageError
            If there are fewer row groups than parts.
        """
        if len(self.rows) < parts:
            raise UsageError(
                f"{len(self.rows)} row groups can't be dealt out to {parts} parts",
                where=str(self._place),
                remedy="make the set with smaller row groups, or train from memory",
            )
        hands: list[list[int]] = [[] for _ in range(parts)]
        sizes = [0] * parts
        for group in sorted(
            range(len(self.rows)), key=lambda group: (self.rows[group][0] - self.rows[group][1], group)
        ):
            part = int(np.argmin(sizes))
            hands[part].append(group)
            sizes[part] += self.rows[group][1] - self.rows[group][0]
        return hands

    def steps(self, batch: int, parts: int) -> int:
        """Return the steps of an epoch: as many as the part with fewest images can fill, equal for all ranks."""
        share = batch // parts
        sizes = [sum(self.rows[group][1] - self.rows[group][0] for group in groups) for groups in self.deal(parts)]
        steps = min(sizes) // share
        if share == 0 or steps == 0:
            raise UsageError(f"{min(sizes)} images of a part do not fill its share of a batch of {batch}")
        return steps

    def batches(
        self, epoch: int, seed: int, batch: int, parts: int, mine: range
    ) -> Iterator[tuple[Floats, Ints, Ints]]:
        """Yield the batches of an epoch for the parts of one rank: images, rows of the set, places in the whole batch.

        Parameters
        ----------
        epoch : int
        seed : int
        batch : int
            Images in a step over all ranks, a multiple of `parts`.
        parts : int
            From `apbatch.dl.training.data.parts_of`.
        mine : range
            Numbers of the parts that this rank holds.
        """
        share, hands = batch // parts, self.deal(parts)
        streams = [self._images(hands[part], np.random.default_rng([seed, epoch, 1, part]), share) for part in mine]
        places = np.concatenate([np.arange(part * share, (part + 1) * share) for part in mine])
        for _ in range(self.steps(batch, parts)):
            pieces = [next(stream) for stream in streams]
            yield np.concatenate([piece[0] for piece in pieces]), np.concatenate([p[1] for p in pieces]), places
        for stream in streams:
            stream.close()

    def _images(self, groups: list[int], random: np.random.Generator, share: int) -> _Pieces:
        """Yield `share` images at a time of the row groups of one part."""
        order = random.permutation(np.array(groups))
        windows = [order[start : start + WINDOW].tolist() for start in range(0, len(order), WINDOW)]
        left: tuple[Floats, Ints] | None = None
        for pixels, rows in ahead(self._window(window) for window in windows):
            shuffled = random.permutation(len(rows))
            pixels, rows = pixels[shuffled], rows[shuffled]
            if left is not None:
                pixels, rows = np.concatenate([left[0], pixels]), np.concatenate([left[1], rows])
            whole = len(rows) // share * share
            for start in range(0, whole, share):
                yield pixels[start : start + share], rows[start : start + share]
            left = pixels[whole:], rows[whole:]

    def _window(self, groups: list[int]) -> tuple[Floats, Ints]:
        """Return the images of some row groups and their rows."""
        pixels = np.concatenate([self.read(group) for group in groups])
        return pixels, np.concatenate([np.arange(*self.rows[group]) for group in groups])
