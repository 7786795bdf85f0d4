"""TAIGA's Monte Carlo as the collaboration hands it on: cleaned images as text, and the table of their parameters.

Sums: ``pe``, of all amplitudes; ``energy``, of all images, TeV; ``showers``, how many.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from apbatch.camera.cleaning import clean
from apbatch.camera.cleaning_rule import Cleaning
from apbatch.camera.hillas import hillas
from apbatch.camera.instruments.registry import camera_named
from apbatch.camera.instruments.taiga import DEG_PER_CM, IACT01
from apbatch.formats.taiga.monte_carlo import TaigaMcReader
from apbatch.formats.taiga.parameter_table import TaigaHillasReader
from apbatch.sample.contents import Contents
from apbatch.sample.showers import draw_showers, generator

FOLDER = "taiga_mc"
RUN = 901
IMAGES, TABLE = f"taiga{RUN}_clean_iact01_14_7fix_gamma.txt", f"taiga{RUN}_hillas_iact01_14_7fix_gamma.csv"
CLEANING = Cleaning("tailcuts", 14.0, 7.0)
#: Showers, each thrown several times onto the array.
_SHOWERS, _USES = 60, 3
_COLUMNS = (
    "clean_number,event_number,axis_scatter,numb_pix,energy,size,Xc[0],Yc[0],con2,length[0],width[0],dist[0],"
    "source_x,source_y,x_ground,y_ground,num_islands"
)


def write(folder: Path, seed: int) -> list[Contents]:
    """Write the files into `folder` / ``taiga_mc``; return what they hold."""
    random, camera = generator(seed, FOLDER), camera_named(IACT01)
    root = folder / FOLDER
    root.mkdir()
    showers = draw_showers(camera, _SHOWERS * _USES, random)
    shower, use = np.divmod(np.arange(_SHOWERS * _USES), _USES)
    energy = showers.energy[shower * _USES]  # every use is of the same shower
    images = showers.photons + random.normal(0.0, 1.0, showers.photons.shape)
    images = np.round(images, 3).astype(np.float32)
    mask = clean(images, camera, CLEANING)
    lit = mask.sum(axis=1) >= 3
    parameters = hillas(images, camera, mask)
    x, y, number = camera.x / DEG_PER_CM, camera.y / DEG_PER_CM, camera.number // 2
    text, table = [], [_COLUMNS]
    written = 0.0
    for place, image in enumerate(np.flatnonzero(lit).tolist()):
        pixels = np.flatnonzero(mask[image])
        source = showers.source_x[image] / DEG_PER_CM, showers.source_y[image] / DEG_PER_CM
        core = showers.core_x[image], showers.core_y[image]
        text.append(
            f"{place:6d}{shower[image] + 1:7d}{use[image] + 1:6d}{len(pixels):6d}{energy[image]:13.4f}"
            f"{source[0]:13.5f}{source[1]:13.5f}{core[0]:13.2f}{core[1]:13.2f}{0.0:13.1f}{0.0:13.1f}"
        )
        for pixel in pixels.tolist():
            amplitude = f"{images[image, pixel]:.3f}"
            written += float(amplitude)
            text.append(f"{camera.cluster[pixel]:d}{number[pixel]:10d}{x[pixel]:11.4f}{y[pixel]:11.4f}{amplitude:>12}")
        row = {name: float(values[image]) for name, values in parameters.items()}
        table.append(
            f"{place},{shower[image] + 1},{use[image] + 1},{len(pixels)},{energy[image]:.4f},{row['size']:.3f},"
            f"{row['cog_x']:.6f},{row['cog_y']:.6f},{row['con2']:.6f},{row['length']:.6f},{row['width']:.6f},"
            f"{row['distance']:.6f},{showers.source_x[image]:.4f},{showers.source_y[image]:.4f},"
            f"{core[0]:.2f},{core[1]:.2f},{row['n_islands']:.0f}"
        )
    (root / IMAGES).write_text("\n".join(text) + "\n", encoding="ascii")
    (root / TABLE).write_text("\n".join(table) + "\n", encoding="ascii")
    sums = {
        "pe": round(written, 3),
        "energy": round(float(energy[lit].sum()), 4),
        "showers": len(np.unique(shower[lit])),
    }
    return [
        Contents(f"{FOLDER}/{IMAGES}", TaigaMcReader.name, int(lit.sum()), RUN, telescope=1, sums=sums),
        Contents(f"{FOLDER}/{TABLE}", TaigaHillasReader.name, int(lit.sum()), RUN, telescope=1, sums=sums),
    ]
