"""Images as arrays: order independent of ranks, symmetries of the camera, refusal of broken images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apbatch.camera.geometry import camera_from_positions
from apbatch.camera.grid import from_grid, grid_of, to_grid
from apbatch.camera.instruments.registry import camera_named
from apbatch.dl.training.checkpoint import Checkpoint, read_checkpoint
from apbatch.dl.training.data import Turning, camera_symmetries, load, order_of, parts_of, steps_of, symmetries, turned
from apbatch.errors import FormatError, UsageError

CAMERA = camera_named("TAIGA-IACT01")
MANIFEST = {"camera": CAMERA.name}


def write(folder: Path, pixels: np.ndarray) -> None:
    cells = pa.array([row.astype("<f4").tobytes() for row in pixels], pa.binary())
    table = {"id": [str(number) for number in range(len(pixels))], "image": cells, "gamma": [True] * len(pixels)}
    pq.write_table(pa.table(table), folder / "train.parquet")


def test_pixels_come_back_as_written_and_missing_ones_as_zero(tmp_path: Path) -> None:
    image = np.arange(1, CAMERA.n_pixels + 1, dtype=np.float32)
    image[7] = np.nan
    write(tmp_path, image[None])
    back = from_grid(load(tmp_path, MANIFEST, "train", "none").pixels, CAMERA)
    assert np.array_equal(back[0], np.nan_to_num(image))


def test_images_of_another_camera_are_named(tmp_path: Path) -> None:
    write(tmp_path, np.ones((2, 1440)))
    with pytest.raises(FormatError, match="1440 pixels, TAIGA-IACT01 has 560"):
        load(tmp_path, MANIFEST, "train", "none")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_image_of_nan_or_infinity_is_named(tmp_path: Path, value: float) -> None:
    write(tmp_path, np.array([[1.0] * 560, [value] * 560]))
    with pytest.raises(FormatError, match="the first is 1"):
        load(tmp_path, MANIFEST, "train", "none")


def test_an_unknown_treatment_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'standard'"):
        load(tmp_path, MANIFEST, "train", "standart")


def test_every_step_sees_the_same_images_for_one_two_and_four_ranks() -> None:
    orders = [order_of(103, epoch=3, seed=5, batch=16, parts=parts_of(ranks)) for ranks in (1, 2, 4)]
    assert all(np.array_equal(orders[0], order) for order in orders)


def test_an_epoch_takes_no_image_twice_and_the_next_is_in_another_order() -> None:
    one, two = (order_of(103, epoch=epoch, seed=5, batch=16, parts=2).ravel() for epoch in (0, 1))
    assert len(set(one)) == len(one) == 96
    assert not np.array_equal(one, two)


def test_a_small_set_is_gone_through_several_times_with_every_image_as_often() -> None:
    order = order_of(100, epoch=0, seed=5, batch=20, parts=2, least=300).ravel()
    assert np.array_equal(np.bincount(order), np.full(100, 3))


def test_few_images_make_one_smaller_batch_and_fewer_than_ranks_are_an_error() -> None:
    assert steps_of(5, 64, 2) == (1, 4)
    with pytest.raises(UsageError, match="fewer than 2 ranks"):
        steps_of(1, 64, 2)
    with pytest.raises(UsageError, match="can't be split"):
        steps_of(100, 63, 2)


def test_symmetries_of_the_telescope_move_pixels_as_rotations_and_mirrors_do() -> None:
    """In the camera's own coordinates each symmetry must keep all distances between pixels."""
    camera = camera_named("TAIGA-IACT01")
    grid = grid_of(camera)
    tables = symmetries(grid.occupied)
    assert len(tables) == 12
    cell_to_pixel = np.full(grid.rows * grid.cols + 1, -1)
    cell_to_pixel[grid.place] = np.arange(camera.n_pixels)
    for table in tables:
        source = cell_to_pixel[table[grid.place]]
        both = np.flatnonzero(source >= 0)[::7]
        x, y = camera.x, camera.y
        before = np.hypot(x[both, None] - x[both], y[both, None] - y[both])
        after = np.hypot(x[source[both], None] - x[source[both]], y[source[both], None] - y[source[both]])
        np.testing.assert_allclose(before, after, atol=1e-9)


def test_turning_an_image_moves_its_light_and_keeps_its_sum() -> None:
    camera = camera_named("TAIGA-IACT01")
    grid = grid_of(camera)
    tables = symmetries(grid.occupied)
    middle = np.hypot(camera.x, camera.y) < 1.5
    image = np.where(middle, np.arange(camera.n_pixels), 0).astype(np.float32)[None]
    pixels = np.repeat(to_grid(image, camera), len(tables), axis=0)
    moved = turned(pixels, tables, np.arange(len(tables)))
    np.testing.assert_allclose(moved.sum(axis=(1, 2)), pixels.sum(axis=(1, 2)))
    assert np.array_equal(moved[0], pixels[0])
    assert len({picture.tobytes() for picture in moved}) == len(tables)


def test_pixels_are_turned_before_any_grid_and_on_the_axial_one_as_cells_are() -> None:
    camera = camera_named("TAIGA-IACT01")
    images = np.random.default_rng(4).normal(5, 2, (12, camera.n_pixels)).astype(np.float32)
    which, manifest = np.arange(12), {"camera": camera.name}
    occupied = grid_of(camera).occupied
    # Light that a turn moves off the camera's ragged rim is lost, not seen where there is no pixel.
    cells = np.where(occupied, turned(to_grid(images, camera), symmetries(occupied), which), 0)
    assert np.array_equal(Turning.of(manifest, "none", turn=True)(images, which), cells)
    moved = turned(images, camera_symmetries(camera), which)
    for method in ("shifting", "bilinear", "oversampling"):
        turning = Turning.of(manifest, f"soft:{method}", turn=True)
        assert np.array_equal(turning(images, which), to_grid(moved, camera, method=method))
        still = Turning.of(manifest, f"soft:{method}", turn=False)
        assert np.array_equal(still(images, which * 0), to_grid(images, camera, method=method))


def test_a_camera_of_square_pixels_is_not_turned() -> None:
    row, col = (axis.ravel() for axis in np.indices((5, 8)))
    camera = camera_from_positions("chess", col * 0.2, row * 0.2)
    assert np.array_equal(camera_symmetries(camera), np.arange(camera.n_pixels)[None])


def test_a_camera_without_symmetry_is_left_alone() -> None:
    seen = np.zeros((9, 9), bool)
    seen[0, :7] = seen[1:3, 0] = True
    assert len(symmetries(seen)) == 1


def checkpoint(identity: str = "a") -> Checkpoint:
    arrays = [np.arange(3, dtype=np.float32), np.array(7)]
    return Checkpoint(identity, 4, arrays, arrays, arrays, [{"loss": 0.5}])


def test_a_checkpoint_comes_back_whole(tmp_path: Path) -> None:
    checkpoint().write(tmp_path / "c.npz")
    back = read_checkpoint(tmp_path / "c.npz", "a")
    assert back is not None
    assert (back.epoch, back.curves, back.weights[0].tolist()) == (4, [{"loss": 0.5}], [0, 1, 2])
    assert back.optimizer[1].shape == ()


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    checkpoint("b").write(tmp_path / "c.npz")
    with pytest.raises(UsageError, match="another model"):
        read_checkpoint(tmp_path / "c.npz", "a")


def test_a_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    checkpoint().write(tmp_path / "c.npz")
    content = (tmp_path / "c.npz").read_bytes()
    (tmp_path / "c.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(FormatError, match="damaged"):
        read_checkpoint(tmp_path / "c.npz", "a")
