"""Cherenkov light of one straight step, drawn only where it meets a telescope (forced sampling).

A photon made at the distance s along the step lies on a ring of radius r = z(s) tan(theta) where it passes the
telescope, z being the way from there to the foot of the perpendicular from the telescope (length b) on the line. It
meets a sphere of radius R round the mirror if r^2 + b^2 - 2 r b cos(phi) < R^2. So only a range of s and, there, of
phi has to be looked at, and the number of photons in that range is Poisson: nothing is weighted.
"""

from __future__ import annotations

import math

import numpy as np

from apbatch.sim.atmosphere import REFRACTIVITY
from apbatch.sim.detector.optics import focus
from apbatch.sim.kernel import inner
from apbatch.sim.scene import EMITTED, OVERFLOW, PROFILE_STEP, Record, Scene
from apbatch.sim.stream import uniform

_LIGHT = 0.299792458  # m/ns


@inner
def emit(
    scene: Scene,
    record: Record,
    x: float,
    y: float,
    z: float,
    ux: float,
    uy: float,
    uz: float,
    length: float,
    rho: float,
    inverse_gamma2: float,
    path: float,
    x_depth: float,
    charge2: float,
) -> None:
    """Draw the photo-electrons of a step of a charged particle.

    Parameters
    ----------
    scene, record : Scene, Record
        Telescopes; storage.
    x, y, z, ux, uy, uz : float
        Start, m, and direction (uz < 0 downward).
    length : float
        Of the step, m.
    rho : float
        Density half-way, g/cm3.
    inverse_gamma2 : float
        1/gamma^2 of the particle.
    path : float
        Way gone by the shower front so far, m.
    x_depth : float
        Vertical depth half-way, g/cm2.
    charge2 : float
        Square of the particle's charge.
    """
    sin2 = 2.0 * REFRACTIVITY * rho - inverse_gamma2
    if sin2 <= 0.0:
        return
    tangent = math.sqrt(sin2 / (1.0 - sin2))
    middle = (z + 0.5 * length * uz) / scene.light_step
    cell = int(middle)
    if cell < 0 or cell >= scene.light.size - 1:
        return
    share = middle - cell
    density = (scene.light[cell] * (1.0 - share) + scene.light[cell + 1] * share) * sin2 * charge2
    photons = density * length
    record.tally[EMITTED] += photons
    level = int(x_depth / PROFILE_STEP)
    if level < record.light.size:
        record.light[level] += photons
    radius = scene.radius
    for telescope in range(scene.telescopes.shape[0]):
        dx = scene.telescopes[telescope, 0] - x
        dy = scene.telescopes[telescope, 1] - y
        dz = scene.telescopes[telescope, 2] - z
        along = dx * ux + dy * uy + dz * uz
        b2 = dx * dx + dy * dy + dz * dz - along * along
        outer = along * tangent + radius
        if outer <= 0.0 or b2 > outer * outer:
            continue
        inner = (along - length) * tangent - radius
        if inner > 0.0 and b2 < inner * inner:
            continue
        b = math.sqrt(max(b2, 1e-6))
        first = max(0.0, along - (b + radius) / tangent)
        last = min(length, along - max(b - radius, 0.0) / tangent)
        if last <= first:
            continue
        s = first + (last - first) * uniform(record.stream)
        ring = max((along - s) * tangent, 1e-6)
        cosine = (ring * ring + b * b - radius * radius) / (2.0 * ring * b)
        if cosine >= 1.0:
            continue
        widest = math.pi if cosine <= -1.0 else math.acos(cosine)
        mean = density * (last - first) * widest / math.pi
        number = np.random.poisson(mean) if mean > 0.02 else (1 if uniform(record.stream) < mean else 0)
        if number == 0:
            continue
        # Unit vectors across the track: e towards the telescope, f = u x e.
        ex, ey, ez = (dx - along * ux) / b, (dy - along * uy) / b, (dz - along * uz) / b
        fx, fy, fz = uy * ez - uz * ey, uz * ex - ux * ez, ux * ey - uy * ex
        cos_theta = 1.0 / math.sqrt(1.0 + tangent * tangent)
        sin_theta = tangent * cos_theta
        for _ in range(number):
            phi = widest * (2.0 * uniform(record.stream) - 1.0)
            a, c = sin_theta * math.cos(phi), sin_theta * math.sin(phi)
            wx = cos_theta * ux + a * ex + c * fx
            wy = cos_theta * uy + a * ey + c * fy
            wz = cos_theta * uz + a * ez + c * fz
            u, v, late = focus(scene, wx, wy, wz)
            if late < 0.0:
                continue
            half = scene.pixel_at.shape[0] // 2
            column = int(math.floor(u / scene.lut_step + 0.5)) + half
            row = int(math.floor(v / scene.lut_step + 0.5)) + half
            if column < 0 or row < 0 or column >= scene.pixel_at.shape[0] or row >= scene.pixel_at.shape[1]:
                continue
            pixel = scene.pixel_at[column, row]
            if pixel < 0:
                continue
            index = record.number[0]
            if index >= record.pixel.size:
                record.tally[OVERFLOW] = 1.0
                return
            # Delay of the light in air: the integral of n - 1 is the depth passed times the refractivity per density.
            way = (along - s) / cos_theta
            delay = 0.01 * REFRACTIVITY * (scene.ground_depth - x_depth) / max(0.1, -wz)
            record.pixel[index] = telescope * scene.n_pixels + pixel
            record.time[index] = (path + s + way + delay + late) / _LIGHT
            record.number[0] = index + 1
