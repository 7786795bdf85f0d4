"""Every test of showers begins from the same random numbers of the compiled functions, which have their own state."""

from __future__ import annotations

import pytest

from apbatch.sim.electromagnetic import seed_kernels


@pytest.fixture(autouse=True)
def _seeded_kernels() -> None:
    seed_kernels(20181)
