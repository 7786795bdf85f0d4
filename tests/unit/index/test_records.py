"""What a catalogue takes: records and contents are checked before any back-end sees them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from apbatch.formats.reader import Attribute
from apbatch.index.contents import Content
from apbatch.index.records import checked_attributes
from tests.service import record

DECLARED = {"zenith": Attribute("zenith", "number", "zenith angle", "deg")}


@pytest.mark.parametrize("value", [-0.0, np.float64(-0.0), np.float32(-0.0)])
def test_minus_zero_is_zero(value: float) -> None:
    """Back-ends order and compare the two differently: -0.0 would be found by one and not by another."""
    kept = checked_attributes(record(1, attributes={"zenith": value}), DECLARED)["zenith"]
    assert isinstance(kept, float) and math.copysign(1.0, kept) == 1.0


@pytest.mark.parametrize("checksum", ["", "ab" * 31, "ab" * 33, "AB" * 32, "zz" * 32, "ab" * 31 + " b"])
def test_a_content_has_the_checksum_of_a_file(checksum: str) -> None:
    whole = Content("ab" * 32, 0, "1", b"", b"", b"")
    assert whole.flaw() is None
    assert "not a BLAKE3" in (replace(whole, checksum=checksum).flaw() or "")
