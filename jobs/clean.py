"""Read, calibrate and clean camera images: ``spark-submit jobs/clean.py --select QUERY --output URL``.

With ``--parameters URL`` and ``--grids URL`` these datasets are made in the same pass over the pixels.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from apbatch.camera.cleaning_words import cleaning_of
from apbatch.camera.grid import METHODS
from apbatch.config import Settings
from apbatch.errors import UsageError, nearest_word
from apbatch.index.backends import open_catalogue
from apbatch.index.events.upgrade import events_of
from apbatch.quality.monitor import KEEP, KINDS, USUAL, BadPixels
from apbatch.spark import pipeline, submit
from apbatch.spark.inputs.plan import check_sources
from apbatch.spark.inputs.selection import parse_select, selected_sources
from apbatch.spark.inputs.sources import Source, sources_at
from apbatch.storage.backends import split_url

_KINDS = ("hdfs", "webhdfs", "afs", "local")

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def options() -> argparse.ArgumentParser:
    """Return the options of the program."""
    found = submit.parser("clean", "Read, calibrate and clean camera images with Spark.")
    inputs = found.add_mutually_exclusive_group(required=True)
    inputs.add_argument(
        "--select",
        metavar="QUERY",
        help="registered files, such as \"format = 'taiga-raw'\", "
        "or events, such as \"experiment = 'TAIGA' and cleaning = 'tailcuts-14-7' and width < 0.2 deg\"",
    )
    inputs.add_argument("--input", nargs="+", metavar="URL", help="files or folders that need not be registered")
    found.add_argument(
        "--from",
        dest="prefer",
        metavar="PLACE",
        default="auto",
        help="where selected files are read: site; auto, a mirror in the settings' store where there is one "
        "(default); mirror, only there; hdfs, webhdfs, afs, local or the URL of a store: only replicas there",
    )
    found.add_argument("--camera", help="with --input: camera of raw files")
    found.add_argument("--factors", metavar="FILE", help="with --input: table of conversion factors of raw files")
    submit.add_cleaning(found)
    found.add_argument(
        "--bad-pixels",
        metavar="TREATMENT",
        default=KEEP,
        help="pixels whose noise is not as the others': keep (default), mend by their neighbours, mark as missing",
    )
    found.add_argument("--bad-kinds", nargs="+", metavar="KIND", default=USUAL, help=f"of {', '.join(KINDS)}")
    found.add_argument("--parameters", metavar="URL", help="dataset of image parameters to write in the same pass")
    submit.add_families(found)
    found.add_argument("--grids", metavar="URL", help="dataset of images on a grid to write in the same pass")
    found.add_argument("--method", default=METHODS[0], choices=METHODS, help="of the grid (default: axial)")
    return found


def sources(arguments: argparse.Namespace, settings: Settings) -> list[Source]:
    """Return the files to read."""
    if arguments.input:
        return sources_at(arguments.input, camera=arguments.camera, factors=arguments.factors)
    with open_catalogue(settings.catalogue) as catalogue, events_of(settings) as events:
        return selected_sources(
            catalogue,
            events,
            parse_select(catalogue, events, arguments.select),
            prefer=_preferred(arguments.prefer, settings),
            only_preferred=arguments.prefer not in ("auto", "site"),
        )


def _preferred(place: str, settings: Settings) -> str | None:
    if place == "site":
        return None
    if place in ("auto", "mirror"):
        # Any folder of the store's file system will do: `apbatch mirror` may have been given another one.
        return split_url(settings.store)[0]
    if "://" not in place and place not in _KINDS:
        raise UsageError(
            f"'--from {place}' is no place",
            nearest=nearest_word(place, ("auto", "site", "mirror", *_KINDS)),
            remedy=f"auto, site, mirror, {', '.join(_KINDS)}, or the URL of a store",
        )
    return place


def work(spark: Callable[[], SparkSession], arguments: argparse.Namespace, settings: Settings) -> pipeline.StepSummary:
    """Run the step."""
    cleaning = submit.cleaning_in(arguments) or cleaning_of()  # refuses what makes no sense before any work
    bad_pixels = BadPixels(arguments.bad_pixels, tuple(arguments.bad_kinds))
    more = submit.families_in(arguments)
    if more and not arguments.parameters:
        raise UsageError(f"--{more[0]} are image parameters", remedy="give --parameters URL")
    files = sources(arguments, settings)
    check_sources(cleaning, files)
    outputs = {"images": arguments.output, "parameters": arguments.parameters, "grids": arguments.grids}
    return pipeline.images(
        spark(),
        files,
        {role: url for role, url in outputs.items() if url is not None},
        cleaning,
        bad_pixels=bad_pixels,
        method=arguments.method,
        more=more,
    )


if __name__ == "__main__":
    submit.main(options(), work)
