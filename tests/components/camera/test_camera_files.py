"""Tables of pixels that are cut, lie about their size, or hold something else: a clear error, at once."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from apbatch.camera.instruments.files import camera_from_camgeom, camera_from_table
from apbatch.errors import ApbatchError, FormatError, NotFoundError, UsageError


def camgeom(path: Path, unit: str = "m", kind: str = "hex", **columns: np.ndarray) -> bytes:
    """Write a table of seven hexagons as ctapipe does, and return its content."""
    angle = np.radians(60.0 * np.arange(6))
    places = {"pix_x": np.append(0, 0.05 * np.cos(angle)), "pix_y": np.append(0, 0.05 * np.sin(angle))} | columns
    table = fits.BinTableHDU.from_columns(
        [fits.Column("pix_id", "J", array=np.arange(7))]
        + [
            fits.Column(name, "D" if values.ndim == 1 else f"{values.shape[1]}D", unit=unit, array=values)
            for name, values in places.items()
        ]
    )
    table.header["CAM_ID"], table.header["PIX_TYPE"] = "SevenCam", kind
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path)
    return path.read_bytes()


def test_a_whole_table_is_a_camera_compressed_or_not(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    content = camgeom(path)
    camera = camera_from_camgeom(path, focal_length=5.0)
    assert (camera.name, camera.n_pixels) == ("SevenCam", 7)
    assert camera.pitch == pytest.approx(np.degrees(0.05 / 5.0), rel=1e-6)
    (tmp_path / "a.fits.gz").write_bytes(gzip.compress(content))
    assert camera_from_camgeom(tmp_path / "a.fits.gz", focal_length=5.0).n_pixels == 7


@pytest.mark.parametrize("rows", ["10000000000", "9000", "-1", "0", "9" * 60])
def test_a_count_that_lies_is_refused_at_once(tmp_path: Path, rows: str) -> None:
    path = tmp_path / "a.fits"
    content = camgeom(path)
    path.write_bytes(content.replace(b"NAXIS2  =                    7", f"NAXIS2  = {rows:>20}".encode()[:30]))
    assert path.read_bytes() != content
    with pytest.raises(FormatError, match="no ctapipe camera geometry"):
        camera_from_camgeom(path, focal_length=5.0)


@pytest.mark.parametrize(
    "change", [{"unit": "s"}, {"pix_x": np.zeros((7, 2))}, {"pix_x": np.full(7, np.nan)}, {"kind": "star"}]
)
def test_columns_that_are_no_places_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "a.fits"
    camgeom(path, **change)  # type: ignore[arg-type] # of several kinds
    with pytest.raises((FormatError, UsageError), match=r"geometry|places|positions|pixels"):
        camera_from_camgeom(path, focal_length=5.0)


def test_damaged_tables_are_refused_or_still_a_camera(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    content, draw, refused = camgeom(path), np.random.default_rng(4), 0
    for cut in [0, 100, *draw.integers(0, len(content), 20).tolist()]:
        bad = bytearray(content[:cut] if cut % 2 else content)
        for place in draw.integers(0, max(len(bad), 1), 30).tolist():
            bad[place : place + 1] = bytes([int(draw.integers(256))])
        path.write_bytes(bad)
        try:
            assert camera_from_camgeom(path, focal_length=5.0).n_pixels <= 7
        except ApbatchError as error:
            refused += 1
            assert "a.fits" in str(error)
    assert refused > 5


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(bytes(80 << 20), 1))
    (tmp_path / "cut.gz").write_bytes(gzip.compress(np.random.default_rng(5).bytes(2000))[:900])
    os.mkfifo(tmp_path / "pipe")
    for read in (camera_from_camgeom, camera_from_table):
        with pytest.raises(FormatError, match="more than 64 MB"):
            read(tmp_path / "bomb.gz")
        with pytest.raises(FormatError, match="can't be read"):
            read(tmp_path / "cut.gz")
        for name in ("none", "pipe", "."):
            with pytest.raises(NotFoundError):
                read(tmp_path / name)


@pytest.mark.parametrize("focal_length", [0.0, -1.0, np.inf, np.nan])
def test_a_senseless_focal_length_is_refused(tmp_path: Path, focal_length: float) -> None:
    camgeom(tmp_path / "a.fits")
    with pytest.raises(UsageError, match="focal length"):
        camera_from_camgeom(tmp_path / "a.fits", focal_length=focal_length)


@pytest.mark.parametrize("cluster", ["1e300", "-5", "nan"])
def test_a_cluster_of_no_number_is_named_with_its_line(tmp_path: Path, cluster: str) -> None:
    path = tmp_path / "rows.txt"
    path.write_text(f"1 1 1 0.0 0.0\n1 2 {cluster} 3.0 0.0\n")
    with pytest.raises(FormatError, match=r"rows\.txt:2"):
        camera_from_table(path)
