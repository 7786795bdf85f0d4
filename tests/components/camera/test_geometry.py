"""Cameras: the TAIGA rule against the collaboration's tables, others against ctapipe."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from apbatch.camera.geometry import camera_from_positions
from apbatch.camera.instruments.files import camera_from_camgeom, camera_from_table
from apbatch.camera.instruments.registry import camera_named, cameras
from apbatch.camera.instruments.taiga import DEG_PER_CM
from apbatch.errors import FormatError, NotFoundError


def test_the_rule_gives_the_positions_of_the_pixel_table_in_its_order(data: Path) -> None:
    camera = camera_named("TAIGA-IACT01")
    table = np.loadtxt(data / "taiga_geom" / "RowColClust560_fix_375.txt")
    assert camera.n_pixels == len(table) == 560
    assert np.array_equal(camera.cluster, table[:, 2])
    assert np.abs(camera.x / DEG_PER_CM - table[:, 3]).max() < 0.01
    assert np.abs(camera.y / DEG_PER_CM - table[:, 4]).max() < 0.01


@pytest.mark.parametrize("telescope", [1, 2])
def test_channels_places_and_neighbours_agree_with_the_neighbour_table(data: Path, telescope: int) -> None:
    camera = camera_named(f"TAIGA-IACT0{telescope}")
    keys = list(zip(camera.cluster.tolist(), camera.number.tolist(), strict=True))
    lines = (data / "taiga_geom" / f"neighbour_clean_experiment_iact{telescope}_375.txt").read_text().splitlines()
    assert len(lines) == camera.n_pixels
    for row, line in enumerate(lines):
        words = line.split()
        pixel = keys.index((int(words[0]), int(words[1])))
        assert pixel == row or (telescope, words[0]) == (2, "18")  # where the table counts in another order
        place = camera.x[pixel] / DEG_PER_CM, camera.y[pixel] / DEG_PER_CM
        assert place == pytest.approx((float(words[2]), float(words[3])), abs=0.01)
        wanted = {(int(words[i]), int(words[i + 1])) for i in range(5, 5 + 2 * int(words[4]), 2)}
        assert {keys[i] for i in camera.neighbours[pixel] if i >= 0} == wanted, line


def test_the_camera_of_2017_has_the_coordinates_measured_then(data: Path) -> None:
    camera = camera_named("TAIGA-IACT01-2017")
    table = np.loadtxt(data / "taiga_raw" / "xy_turn_2017n.txt")
    pixel = camera.index(table[:, 0].astype(int), table[:, 5].astype(int))
    assert sorted(pixel.tolist()) == list(range(560))
    assert np.abs(camera.x[pixel] / DEG_PER_CM - table[:, 3]).max() < 0.01
    assert np.abs(camera.y[pixel] / DEG_PER_CM - table[:, 4]).max() < 0.01


def test_both_orientations_have_the_same_pixel_order() -> None:
    one, other = camera_named("TAIGA-IACT01"), camera_named("TAIGA-IACT01-2017")
    assert np.array_equal(one.cluster, other.cluster)
    assert np.array_equal(one.number, other.number)


@pytest.mark.parametrize("name", ["TAIGA-IACT01", "TAIGA-IACT01-2017", "TAIGA-IACT02"])
def test_axial_coordinates_found_from_positions_give_the_same_neighbours(name: str) -> None:
    camera = camera_named(name)
    found = camera_from_positions("again", camera.x, camera.y)
    assert found.pitch == pytest.approx(3 * DEG_PER_CM)
    assert np.array_equal(found.neighbours, camera.neighbours)


def test_neighbours_lie_one_pitch_apart() -> None:
    camera = camera_named("TAIGA-IACT01-2017")
    pixel, slot = np.nonzero(camera.neighbours >= 0)
    other = camera.neighbours[pixel, slot]
    distance = np.hypot(camera.x[pixel] - camera.x[other], camera.y[pixel] - camera.y[other])
    assert np.allclose(distance, camera.pitch)


def test_a_pixel_that_does_not_exist_has_no_index() -> None:
    assert camera_named("TAIGA-IACT01").index(np.array([1, 17, 23]), np.array([4, 4, 4])).tolist() == [0, -1, -1]


def test_shared_cameras_can_not_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        camera_named("TAIGA-IACT01").x[0] = 1


def test_an_unknown_camera_names_the_nearest_known_one() -> None:
    assert "TAIGA-IACT01" in cameras()
    with pytest.raises(NotFoundError) as caught:
        camera_named("TAIGA-IACT1")
    assert caught.value.nearest == "TAIGA-IACT01"


@pytest.mark.parametrize("turn", [0.0, 30.0, -44.0])
def test_square_pixels_have_columns_rows_and_four_neighbours(turn: float) -> None:
    row, column = (axis.ravel() for axis in np.mgrid[:6, :8])
    angle = np.radians(turn)
    x, y = column * np.cos(angle) - row * np.sin(angle), column * np.sin(angle) + row * np.cos(angle)
    camera = camera_from_positions("square", x, y)
    assert camera.lattice == "square"
    assert camera.pitch == pytest.approx(1.0)
    assert np.array_equal(camera.q, column) and np.array_equal(camera.r, row)
    step = np.abs(column[:, None] - column) + np.abs(row[:, None] - row)
    for pixel in range(48):
        assert (
            camera.neighbours[pixel, camera.neighbours[pixel] >= 0].tolist()
            == np.flatnonzero(step[pixel] == 1).tolist()
        )
    assert camera.edge.sum() == 24


def test_gaps_between_square_modules_are_bridged_and_missing_columns_counted() -> None:
    column = np.array([0, 1, 2, 3, 6, 7])
    place = np.array([0, 1, 2.3, 3.3, 6.6, 7.6])
    x, y = np.repeat(place, 4), np.tile(np.arange(4.0), 6)
    assert camera_from_positions("modules", x, y).q.reshape(6, 4)[:, 0].tolist() == column.tolist()


def test_pixels_on_no_lattice_are_refused() -> None:
    random = np.random.default_rng(1)
    with pytest.raises(FormatError, match="lattice"):
        camera_from_positions("random", *random.uniform(0, 10, (2, 300)))


@pytest.mark.parametrize(
    "places",
    [np.array([[1.0, 2, 3], [0, 0, 0]]), np.array([[1e308, -1e308, 0], [0, 1e308, -1e308]]), np.ones((2, 900))],
)
def test_senseless_positions_are_refused(places: np.ndarray) -> None:
    with pytest.raises(FormatError), np.errstate(over="ignore", invalid="ignore"):
        camera_from_positions("senseless", *places)


def test_two_pixels_on_one_place_are_refused() -> None:
    camera = camera_named("TAIGA-IACT01")
    with pytest.raises(FormatError, match="same place"):
        camera_from_positions("double", np.append(camera.x, camera.x[5]), np.append(camera.y, camera.y[5]))


@pytest.mark.parametrize(
    ("file", "camera"),
    [
        ("taiga_geom/RowColClust560_fix_375.txt", "TAIGA-IACT01"),
        ("taiga_geom/neighbour_clean_corsica_iact1_375.txt", "TAIGA-IACT01"),
        ("taiga_geom/neighbour_clean_experiment_iact1_375.txt", "TAIGA-IACT01"),
        ("taiga_raw/PMT_coordinates.txt", "TAIGA-IACT01-2017"),
        ("taiga_raw/xy_turn_2017n.txt", "TAIGA-IACT01-2017"),
    ],
)
def test_every_kind_of_pixel_table_gives_the_camera(data: Path, file: str, camera: str) -> None:
    found, rule = camera_from_table(data / file), camera_named(camera)
    assert np.allclose(found.x, rule.x, atol=0.01 * DEG_PER_CM)
    assert np.array_equal(found.cluster, rule.cluster)
    assert np.array_equal(found.neighbours, rule.neighbours)


def test_a_table_of_the_second_telescope_gives_its_595_pixels_and_their_neighbours(data: Path) -> None:
    camera = camera_from_table(data / "taiga_geom" / "neighbour_clean_corsica_iact2_375.txt")
    lines = (data / "taiga_geom" / "neighbour_clean_corsica_iact2_375.txt").read_text().splitlines()
    for pixel, line in enumerate(lines):
        assert sorted(int(word) for word in line.split()[7:] if word != "-1") == [
            i for i in camera.neighbours[pixel].tolist() if i >= 0
        ]
    assert camera.n_pixels == 595


@pytest.mark.parametrize("name", ["FACT", "LSTCam", "VERITAS", "HESS-I", "DigiCam", "CHEC", "ASTRICam", "SCTCam"])
def test_neighbours_of_other_cameras_agree_with_ctapipe(data: Path, name: str) -> None:
    instrument = pytest.importorskip("ctapipe.instrument")
    path = data / "camgeom" / f"{name}.camgeom.fits.gz"
    camera = camera_from_camgeom(path, focal_length=10.0)
    matrix = instrument.CameraGeometry.from_table(str(path)).neighbor_matrix_sparse.toarray()
    ours = np.zeros_like(matrix)
    pixel, slot = np.nonzero(camera.neighbours >= 0)
    ours[pixel, camera.neighbours[pixel, slot]] = True
    assert np.array_equal(ours, matrix)
    assert camera.lattice == ("square" if name in ("CHEC", "ASTRICam", "SCTCam") else "hexagonal")


def test_a_camera_with_pixels_of_two_sizes_is_refused(data: Path) -> None:
    with pytest.raises(FormatError, match="not on one hexagonal lattice"):
        camera_from_camgeom(data / "camgeom" / "Whipple490.camgeom.fits.gz", focal_length=7.3)


def test_a_line_that_does_not_fit_the_table_is_named(tmp_path: Path, data: Path) -> None:
    lines = (data / "taiga_geom" / "RowColClust560_fix_375.txt").read_text().splitlines()
    lines[99] = "1 2 3 4 5 6"
    path = tmp_path / "table.txt"
    path.write_text("\n".join(lines))
    with pytest.raises(FormatError) as caught:
        camera_from_table(path)
    assert caught.value.where == f"{path}:100"


@pytest.mark.parametrize(("name", "tolerance_m"), [("FACT", 5e-5), ("MAGICCam", 2e-5)])
def test_rules_of_other_cameras_give_ctapipes_positions_in_its_order(data: Path, name: str, tolerance_m: float) -> None:
    from astropy.io import fits

    with fits.open(data / "camgeom" / f"{name}.camgeom.fits.gz") as file:
        x, y = (np.array(file[1].data[axis], float) for axis in ("pix_x", "pix_y"))
    camera = camera_named(name)
    assert camera.focal_length is not None
    scale = camera.focal_length * np.radians(1)
    assert np.abs(camera.x * scale - x).max() < tolerance_m
    assert np.abs(camera.y * scale - y).max() < tolerance_m


def test_pixels_of_fact_are_in_the_order_of_its_map(data: Path) -> None:
    with (data / "fact_images" / "pixel-map.csv").open() as file:
        rows = sorted(csv.DictReader(file), key=lambda row: int(row["CHID"]))
    camera = camera_named("FACT")
    assert [(int(row["board"]), int(row["patch"])) for row in rows] == [
        (cluster // 4 % 10, cluster % 4) for cluster in (camera.cluster - 1).tolist()
    ]
