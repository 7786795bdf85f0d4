"""Make the pictures of the documentation: ``python docs/pictures.py PRODUCTION``, then commit ``docs/_static``.

PRODUCTION is a folder of the Monte Carlo with ``images`` and ``truth`` of gammas and protons; 2,000 images are enough.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from apbatch.camera.cleaning import PRESETS, clean
from apbatch.camera.grid import to_grid
from apbatch.camera.hillas import hillas
from apbatch.dl.judging import box_cuts
from apbatch.dl.judging.plots import camera_picture
from apbatch.dl.judging.q_factor import curve
from apbatch.formats.images import IMAGE_KEY, camera_in, from_binary

STATIC = Path(__file__).resolve().parent / "_static"
CLEANING = "soft"


def load(folder: Path) -> pa.Table:
    """Read a folder of part files, ordered by the images' key."""
    table = pa.concat_tables(pq.read_table(path) for path in sorted(folder.glob("part-*.parquet")))
    return table.sort_by([(name, "ascending") for name in IMAGE_KEY])


def main(production: Path) -> None:
    """Draw one gamma before and after cleaning and on the square grid, and Q against the cut of the box technique."""
    images, truth = load(production / "images"), load(production / "truth")
    camera = camera_in(images.schema)
    pixels = np.asarray(from_binary(images["image"].combine_chunks()), np.float32)
    gamma = np.array([primary == "gamma" for primary in truth["primary"].to_pylist()])
    mask = clean(pixels, camera, PRESETS[CLEANING])
    columns = hillas(pixels, camera, mask)
    inside = np.hypot(columns["cog_x"], columns["cog_y"]) < 2.5  # deg: not cut by the camera's edge
    gammas = np.flatnonzero(gamma & inside & (columns["width"] > 0))
    event = gammas[np.argsort(columns["size"][gammas], kind="stable")[int(0.95 * (len(gammas) - 1))]]

    figure, panels = plt.subplots(1, 4, figsize=(11.0, 2.9), gridspec_kw={"width_ratios": [1, 1, 1, 1.25]})
    top = float(np.log10(1 + np.nanmax(pixels[event])))
    cleaned = np.where(mask[event], pixels[event], np.float32(0))
    for axes, image, title in zip(panels, (pixels[event], cleaned), ("a gamma, as recorded", "cleaned"), strict=False):
        camera_picture(axes, image, camera, top)
        axes.set_title(title, fontsize=9)
    grid = to_grid(pixels[event : event + 1], camera)[0]
    panels[2].imshow(np.log10(1 + np.maximum(grid, 0)), origin="lower", cmap="magma", vmin=0, vmax=top)
    panels[2].set_title("as recorded, on a square grid", fontsize=9)
    panels[2].set_axis_off()

    half = np.asarray(truth["shower"].to_numpy()) % 2 == 0  # all images of a shower are on one side
    train, test = ({name: values[part] for name, values in columns.items()} for part in (half, ~half))
    box = box_cuts.fit(box_cuts.features(train), gamma[half])
    points = curve(box.score(box_cuts.features(test)), gamma[~half])
    usable = points.hadrons >= 5
    low, high = (points.quality[usable] + sign * points.error[usable] for sign in (-1, 1))
    panels[3].fill_between(points.cuts[usable], low, high, color="#0072b2", alpha=0.2, linewidth=0)
    panels[3].plot(points.cuts[usable], points.quality[usable], color="#0072b2", linewidth=1.2)
    panels[3].axhline(1, color="#999", linewidth=0.8, linestyle=":")
    panels[3].set_title("quality factor Q against the cut", fontsize=9)
    panels[3].tick_params(labelsize=7)
    panels[3].spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    STATIC.mkdir(exist_ok=True)
    figure.savefig(STATIC / "product.png", dpi=100)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
