"""Electrons' steps: nothing in an image may depend on their length."""

from __future__ import annotations

import numpy as np

from apbatch.sim.validation import steps


def test_light_width_and_length_do_not_depend_on_the_length_of_steps() -> None:
    usual, fine = steps.measure(1.0, 24, 3), steps.measure(0.25, 24, 4)
    off = usual.mean / fine.mean - 1.0
    # Errors of four groups each scatter by a quarter themselves: those of a quantity are taken together.
    error = np.sqrt(((usual.error**2 + fine.error**2) / fine.mean**2).mean(axis=1, keepdims=True))
    assert (np.abs(off) < steps.AIM + 4.0 * error).all()
    # A step that gave all its light before it is scattered had 15 to 20 % more at 120 m, and images 6 % too narrow.
    near_the_edge = np.abs(off[:, 3:5].mean(axis=1))
    assert (near_the_edge < [0.02, 0.03, 0.03]).all()
