"""Pieces of a production: made by any process, written whole, never made twice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from apbatch.formats.images import to_binary
from apbatch.localfiles import written_whole
from apbatch.sim.interactions import Bank, Events, load_bank, load_first, run_generator
from apbatch.sim.primaries import nuclear, primaries
from apbatch.sim.settings import PRIMARIES, Production
from apbatch.sim.shower import FirstInteraction, Simulator

#: First interactions a generator process makes: enough to forget its start, few enough to lose.
_SHOWERS_A_BLOCK = 1000
#: Columns of a chunk: the image, and the truth it will be parted from.
CHUNK_SCHEMA = pa.schema(
    [
        ("image", pa.binary()),
        ("peak_time", pa.binary()),
        ("use", pa.int32()),
        ("telescope", pa.int32()),
        ("source_x", pa.float64()),
        ("source_y", pa.float64()),
        ("shower", pa.int64()),
        ("kind", pa.string()),
        ("primary", pa.string()),
        ("true_energy", pa.float64()),
        ("true_core_x", pa.float64()),
        ("true_core_y", pa.float64()),
        ("true_zenith", pa.float64()),
        ("true_azimuth", pa.float64()),
        ("true_source_x", pa.float64()),
        ("true_source_y", pa.float64()),
        ("true_h_first", pa.float64()),
    ]
)


@dataclass(frozen=True)
class ProductionPlan:
    """How a production is cut: which showers a chunk has, where files lie.

    Attributes
    ----------
    settings : Production
        The production.
    folder : Path
        Working folder.
    """

    settings: Production
    folder: Path

    @property
    def showers(self) -> int:
        """Number of showers."""
        return sum(self.settings.thrown.values())

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return -(-self.showers // self.settings.showers_per_chunk)

    def range_of(self, chunk: int) -> range:
        """Return the numbers of the showers in a chunk."""
        size = self.settings.showers_per_chunk
        return range(chunk * size, min((chunk + 1) * size, self.showers))

    def file_of(self, chunk: int) -> Path:
        """Return the file of a chunk."""
        return self.folder / "chunks" / f"{chunk:06d}.arrow"

    def block_file(self, block: int) -> Path:
        """Return the file of a block of first interactions."""
        return self.folder / "first" / f"{block:06d}.npz"

    def blocks(self) -> dict[int, list[int]]:
        """Return the showers whose first interactions each block has: hadrons in order of their number."""
        hadrons = [shower for shower, kind in enumerate(primaries(self.settings)) if PRIMARIES[kind].nucleons]
        return {
            block: hadrons[start : start + _SHOWERS_A_BLOCK]
            for block, start in enumerate(range(0, len(hadrons), _SHOWERS_A_BLOCK))
        }


def make_block(plan: ProductionPlan, block: int, showers: list[int]) -> None:
    """Make the first interactions of some hadrons at their exact energies, seeded by the block's number.

    Parameters
    ----------
    plan : ProductionPlan
    block : int
        Number of the block, which seeds it.
    showers : list of int
        Numbers of the block's hadronic showers.
    """
    settings = plan.settings
    kinds = primaries(settings)
    nuclei = [nuclear(settings, shower, kinds[shower]) for shower in showers]
    seed = int(np.random.SeedSequence([*settings.entropy, 4, block]).generate_state(1)[0] >> 1)
    request = [
        {"nucleons": one.nucleons, "charge": one.charge, "energy": one.energy, "wounded": one.wounded} for one in nuclei
    ]
    run_generator({"what": "first", "showers": request, "seed": seed}, plan.block_file(block))


class Worker:
    """Makes chunks: one in each process, with the tables, the bank and the kernels loaded once."""

    def __init__(self, plan: ProductionPlan) -> None:
        self.plan = plan
        self.kinds = primaries(plan.settings)
        bank: Bank | None = load_bank(plan.settings.banks, 1) if plan.settings.hadrons else None
        self.simulator = Simulator(plan.settings, bank)
        self.where = {
            shower: (block, index) for block, row in plan.blocks().items() for index, shower in enumerate(row)
        }
        self._block = -1
        self._events: Events | None = None
        self._counts, self._sections = np.empty(0, np.int64), np.empty(0)

    def first_of(self, shower: int) -> FirstInteraction | None:
        """Return the first interaction of a shower; None for a gamma or an electron."""
        if shower not in self.where:
            return None
        block, index = self.where[shower]
        if block != self._block:
            self._events, self._counts, self._sections = load_first(self.plan.block_file(block))
            self._block = block
        assert self._events is not None
        number = int(self._counts[index])
        start = int(self._counts[:index].sum())
        offset = self._events.offset[start : start + number + 1]
        rows = slice(offset[0], offset[-1])
        event = Events(
            offset - offset[0], self._events.code[rows], self._events.charge[rows], self._events.momentum[rows]
        )
        primary = nuclear(self.plan.settings, shower, self.kinds[shower])
        return FirstInteraction(event, float(self._sections[index]), primary)

    def make(self, chunk: int) -> int:
        """Make a chunk unless it is there; return the number of its showers."""
        target = self.plan.file_of(chunk)
        numbers = self.plan.range_of(chunk)
        if not target.is_file():
            batches = [self._shower(number) for number in numbers]
            with (
                written_whole(target) as partial,
                pa.OSFile(str(partial), "wb") as sink,
                pa.ipc.new_file(sink, CHUNK_SCHEMA) as writer,
            ):
                for batch in batches:
                    writer.write_batch(batch)
        return len(numbers)

    def _shower(self, number: int) -> pa.RecordBatch:
        outcome = self.simulator.run(number, self.kinds[number], self.first_of(number))
        thrown, rows = outcome.thrown, len(outcome.telescope)
        places = thrown.telescopes[outcome.telescope]
        use, telescope = np.divmod(outcome.telescope, len(self.plan.settings.array))
        north, west, up = -thrown.direction
        azimuth = float(np.degrees(np.arctan2(west, north)) % 360.0)
        columns = [
            to_binary(outcome.images) if rows else pa.array([], pa.binary()),
            to_binary(outcome.times) if rows else pa.array([], pa.binary()),
            pa.array(use.astype(np.int32)),
            pa.array((telescope + 1).astype(np.int32)),
            pa.array(np.full(rows, thrown.tracked[0])),
            pa.array(np.full(rows, thrown.tracked[1])),
            pa.array(np.full(rows, number, np.int64)),
            pa.array([thrown.primary] * rows, pa.string()),
            pa.array([PRIMARIES[thrown.primary].particle] * rows, pa.string()),
            pa.array(np.full(rows, thrown.energy / 1000.0)),
            pa.array(-places[:, 0]),
            pa.array(-places[:, 1]),
            pa.array(np.full(rows, float(np.degrees(np.arccos(up))))),
            pa.array(np.full(rows, azimuth)),
            pa.array(np.full(rows, thrown.source[0])),
            pa.array(np.full(rows, thrown.source[1])),
            pa.array(np.full(rows, outcome.first_height)),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=CHUNK_SCHEMA)
