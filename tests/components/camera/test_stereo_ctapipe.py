"""Stereo reconstruction against ctapipe's HillasReconstructor: its algebra, and simulated events of CTA."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apbatch.camera.pointing import camera_vectors, separation, to_angles
from apbatch.camera.stereo import FOUND, Images, reconstruct

reco = pytest.importorskip("ctapipe.reco")

FILES = ("gamma_prod6_tel_event_header_v4.simtel.zst", "history_meta_75.simtel.zst")


def test_directions_are_those_of_its_estimate():
    random = np.random.default_rng(11)
    n = 400
    event = np.sort(random.integers(0, 80, n))
    images = Images(
        event, random.uniform(-2, 2, n), random.uniform(-2, 2, n), random.uniform(-90, 90, n),
        random.uniform(50, 5000, n), random.uniform(0.1, 0.4, n), random.uniform(0.03, 0.1, n),
        np.full(n, 70.0), np.full(n, 180.0), *random.uniform(-200, 200, (3, n)),
    )  # fmt: skip
    found = reconstruct(images, axes="vertical")
    psi = np.radians(images.psi)
    sight = camera_vectors(images.cog_x, images.cog_y, 70.0, 180.0, axes="vertical")
    along = camera_vectors(images.cog_x + np.cos(psi), images.cog_y + np.sin(psi), 70.0, 180.0, axes="vertical")
    normal = np.cross(sight, along)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    weight = images.size * images.length / images.width
    assert (found.reason == FOUND).sum() > 60
    for row in np.flatnonzero(found.reason == FOUND):
        mine = event == found.event[row]
        direction, spread = reco.HillasReconstructor.estimate_direction(normal[mine], weight[mine])
        altitude, azimuth = to_angles(direction)
        assert separation(found.altitude[row], found.azimuth[row], altitude, azimuth) < 1e-9
        assert found.uncertainty[row] == pytest.approx(spread.to_value("deg"), abs=1e-5)


def processed(path: Path) -> tuple[Any, Any, Any]:
    """Return the reconstructor, the only event of a file and its result, from true numbers of photo-electrons."""
    from ctapipe.containers import ImageParametersContainer, MorphologyContainer
    from ctapipe.coordinates import TelescopeFrame
    from ctapipe.image import hillas_parameters, tailcuts_clean
    from ctapipe.io import EventSource

    with warnings.catch_warnings(), EventSource(path, focal_length_choice="EQUIVALENT") as source:
        warnings.simplefilter("ignore")
        event = next(iter(source))
        subarray = source.subarray
        for number, telescope in event.simulation.tel.items():
            camera = subarray.tel[number].camera.geometry.transform_to(TelescopeFrame())
            image = telescope.true_image.astype(float)
            mask = tailcuts_clean(camera, image, picture_thresh=6, boundary_thresh=3)
            if mask.sum() < 4:
                continue
            hillas = hillas_parameters(camera[mask], image[mask])
            if hillas.intensity > 50 and hillas.width.value > 0:  # one useless image makes the event invalid there
                event.dl1.tel[number].parameters = ImageParametersContainer(
                    hillas=hillas, morphology=MorphologyContainer(n_pixels=int(mask.sum()))
                )
        reconstructor = reco.HillasReconstructor(subarray)
        reconstructor(event)
        return reconstructor, event, event.dl2.stereo.geometry["HillasReconstructor"]


@pytest.mark.parametrize("name", FILES)
def test_a_simulated_event_is_reconstructed_alike(data: Path, name: str):
    reconstructor, event, wanted = processed(data / "simtel" / name)
    assert wanted.is_valid
    telescopes = list(event.dl1.tel)
    places = reconstructor.subarray.tel_coords[reconstructor.subarray.tel_index_array[telescopes]]
    hillas = [event.dl1.tel[number].parameters.hillas for number in telescopes]
    pointing = [event.monitoring.tel[number].pointing for number in telescopes]
    column = {
        key: np.array([getattr(one, key).to_value("deg") for one in hillas])
        for key in ("fov_lon", "fov_lat", "psi", "length", "width")
    }
    # Its normals are as long as the radius of the camera.
    radius = np.array([reconstructor._cam_radius_deg[number] for number in telescopes])
    images = Images(
        np.zeros(len(telescopes), int),
        column["fov_lon"],
        column["fov_lat"],
        column["psi"],
        np.array([one.intensity for one in hillas]) * radius,
        column["length"],
        column["width"],
        *(np.array([getattr(one, axis).to_value("deg") for one in pointing]) for axis in ("altitude", "azimuth")),
        *places.cartesian.xyz.to_value("m"),
    )
    found = reconstruct(images, projection="offsets")
    assert found.n_images.tolist() == [len(telescopes)]
    assert separation(found.altitude, found.azimuth, wanted.alt.to_value("deg"), wanted.az.to_value("deg"))[0] < 1e-4
    # Planes that are nearly parallel cross somewhere: there the length of the step along the axis is seen.
    assert found.uncertainty[0] == pytest.approx(wanted.alt_uncert.to_value("deg"), rel=0.02)
    above = reconstructor.subarray.reference_location.geodetic.height.to_value("m")
    assert found.h_max[0] == pytest.approx(wanted.h_max.to_value("m") - above, abs=1)
    away = np.hypot(found.core_x[0] - wanted.core_x.to_value("m"), found.core_y[0] - wanted.core_y.to_value("m"))
    assert away < 0.5  # the showers came from less than half a degree off the axis
