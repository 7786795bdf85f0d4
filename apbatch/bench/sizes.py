"""How much is measured: `smoke` to see that everything works, larger ones for figures to rely on."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from apbatch.errors import UsageError, nearest_word
from apbatch.yamlfile import load_model


class Size(BaseModel):
    """Amounts of one size of benchmark."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)

    repeats: int = Field(ge=1, description="measured rounds, after one warm-up round that is kept apart")
    large_mb: int = Field(ge=1, description="size of the large file, 10⁶ bytes")
    small_files: int = Field(ge=1)
    small_kb: int = Field(ge=1, description="size of each small file, 10³ bytes")
    records: int = Field(ge=100, description="files registered in each catalogue")
    events: int = Field(default=20_000, ge=1000, description="events loaded and searched")
    lookups: int = Field(ge=1, description="single calls in one round of an index operation")
    load_s: float = Field(default=3.0, gt=0, description="one round of requests at a stated rate, s")
    clients_s: float = Field(default=12.0, gt=0, description="how long many clients ask, all rounds together, s")
    images: int = Field(default=2000, ge=100, description="images of one round of a camera operation")


class _Sizes(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    sizes: dict[str, Size]


BUILT_IN = {
    "smoke": Size(repeats=5, large_mb=32, small_files=30, small_kb=20, records=600, lookups=20, images=2000),
    "small": Size(
        repeats=9,
        large_mb=256,
        small_files=500,
        small_kb=20,
        records=20_000,
        lookups=100,
        images=10_000,
        events=400_000,
        load_s=10.0,
        clients_s=60.0,
    ),
}


def size_named(name: str, file: Path | None = None) -> Size:
    """Return the size of that name, from `file` (as `conf/bench.yaml`) or of the built-in ones.

    Raises
    ------
    NotFoundError, UsageError
    """
    sizes = dict(BUILT_IN)
    if file is not None:
        sizes.update(load_model(file, _Sizes).sizes)
    if name not in sizes:
        raise UsageError(
            f"unknown size '{name}'", nearest=nearest_word(name, sizes), remedy=f"known are {', '.join(sizes)}"
        )
    return sizes[name]
