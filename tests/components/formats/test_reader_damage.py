"""Every reader on damaged files: a campaign from a seed; ``APBATCH_DAMAGE`` sets how many variants of each file."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.conftest import DATA
from tests.damage import KINDS, damaged, read_all
from tests.unit.formats.test_formats_corsika import without_lengths
from tests.unit.formats.test_formats_parquet import write_images, write_truth
from tests.unit.formats.test_formats_taiga_raw import record

#: How many variants of each file are read: a full campaign has thousands.
VARIANTS = int(os.environ.get("APBATCH_DAMAGE", "8"))
#: Seconds of processor time that no variant takes: a busy machine spends no more of it.
LIMIT_S = 30


def first_lines(path: Path, size: int) -> bytes:
    content = path.read_bytes()[:size]
    return content[: content.rfind(b"\n") + 1]


def photon_stream() -> bytes:
    content = gzip.decompress((DATA / "fact_images/011014.phs.jsonl.gz").read_bytes())[:120_000]
    return content[: content.rfind(b"\n") + 1]


def kascade_table() -> bytes:
    h5py = pytest.importorskip("h5py")
    names = ("run_id", "event_id", "timestamp", "nanoseconds", "energy", "zenith", "azimuth")
    rows = np.zeros(500, [(name, "f8" if name in names[4:] else "i8") for name in names])
    rows["run_id"], rows["event_id"], rows["timestamp"] = 6402, np.arange(500), 1_207_904_712 + np.arange(500)
    rows["energy"], rows["zenith"] = 1e15, 0.3
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file.create_dataset("events", data=rows, chunks=(100,), compression="gzip", fletcher32=True)
    return stream.getvalue()


def parquet(write: Callable[[Path], object], folder: Path) -> bytes:
    write(folder / "a.parquet")
    table = pq.read_table(folder / "a.parquet")
    pq.write_table(table, folder / "b.parquet", row_group_size=10, write_page_checksum=True)
    return (folder / "b.parquet").read_bytes()


#: Name and content by format; those that read real data are skipped without it.
FILES: dict[str, tuple[str, Callable[[Path], bytes]]] = {
    "taiga-raw": ("28107007.001", lambda _: b"".join(record(number, board=6) for number in range(200))),
    "taiga-raw, gzip": ("28107007.001.gz", lambda _: gzip.compress(b"".join(record(n) for n in range(200)))),
    "taiga-mc": ("taiga607_x.txt", lambda _: first_lines(next(DATA.glob("taiga_mc/*.txt")), 40_000)),
    "taiga-mc, bzip2": (
        "taiga607_x.txt.bz2",
        lambda _: bz2.compress(first_lines(next(DATA.glob("taiga_mc/*.txt")), 40_000)),
    ),
    "taiga-mc-hillas": ("taiga607_x.csv", lambda _: first_lines(next(DATA.glob("taiga_mc/*.csv")), 40_000)),
    "uci-magic": ("magic04.data", lambda _: first_lines(DATA / "uci_magic/magic04.data", 20_000)),
    "kascade": ("kascade.dat", lambda _: (DATA / "kascade/kascade.dat").read_bytes()),
    "kascade as HDF5": ("events.h5", lambda _: kascade_table()),
    "hisparc": ("events.h5", lambda _: (DATA / "airshower/hisparc_process_events.h5").read_bytes()),
    "fact-hillas": ("gamma.hdf5", lambda _: (DATA / "fact_hillas/gamma.hdf5").read_bytes()),
    "fact-photons": ("x.phs.jsonl", lambda _: photon_stream()),
    "fact-photons, gzip": ("x.phs.jsonl.gz", lambda _: gzip.compress(photon_stream())),
    "fact-photons, bzip2": ("x.phs.jsonl.bz2", lambda _: bz2.compress(photon_stream())),
    "magic": (
        "20131004_M1_05029747.003_Y_MagicCrab-W0.40+035.root",
        lambda _: next(DATA.glob("magic_real/*.root")).read_bytes(),
    ),
    "simtel, gzip": ("a.simtel.gz", lambda _: (DATA / "simtel/n_hv_disabled.simtel.gz").read_bytes()),
    "simtel": (
        "a.simtel",
        lambda _: gzip.decompress((DATA / "simtel/n_hv_disabled.simtel.gz").read_bytes()),
    ),
    "corsika": ("corsika757", lambda _: (DATA / "corsika/corsika757_particle").read_bytes()),
    "corsika, blocks alone": ("DAT000001", lambda _: without_lengths(DATA / "corsika/corsika757_particle")),
    "corsika, IACT": ("one_shower.dat", lambda _: (DATA / "corsika/one_shower.dat").read_bytes()),
    "apbatch-images": ("a.parquet", lambda folder: parquet(lambda path: write_images(path, 40), folder)),
    "apbatch-truth": ("a.parquet", lambda folder: parquet(write_truth, folder)),
}


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    def late(*_: object) -> None:
        raise TimeoutError(f"more than {seconds} s")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@pytest.mark.parametrize("format", FILES)
def test_damaged_files_are_read_as_far_as_they_go_or_refused(format: str, tmp_path: Path) -> None:
    name, make = FILES[format]
    try:
        content = make(tmp_path)
    except (FileNotFoundError, StopIteration):
        pytest.skip(f"real data are missing: no folder {DATA} (set APBATCH_TEST_DATA)")
    whole = read_all(name, content)
    assert whole.format == format.split(",")[0].split(" as ")[0]
    assert whole.events and whole.images in (None, whole.events)
    for seed in range(VARIANTS):
        kind, variant = damaged(content, np.random.default_rng([seed, 17]))
        what = f"{format}, {kind}, seed {seed}"
        with limited(LIMIT_S):
            reading = read_all(name, variant)
        assert (reading.events or 0) <= whole.events, what  # no kind of damage repeats events
        if reading.images is not None:
            assert reading.images == (reading.events or 0), what  # what is announced is what can be read


def test_every_kind_of_damage_is_drawn() -> None:
    kinds = {damaged(bytes(range(256)) * 8, np.random.default_rng([seed, 17]))[0] for seed in range(100)}
    assert len(kinds) == len(KINDS)
