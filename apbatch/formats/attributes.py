"""Attributes that several formats have: declared once, so that one name has one type and one unit everywhere."""

from __future__ import annotations

from apbatch.formats.reader import Attribute

ENERGY_MIN = Attribute("energy_min", "number", "Smallest energy of the primaries in the file.", "TeV")
ENERGY_MAX = Attribute("energy_max", "number", "Largest energy of the primaries in the file.", "TeV")
ZENITH_MIN = Attribute("zenith_min", "number", "Smallest zenith angle in the file.", "deg")
ZENITH_MAX = Attribute("zenith_max", "number", "Largest zenith angle in the file.", "deg")
EVENT_FIRST = Attribute("event_first", "integer", "Smallest event number in the file.")
EVENT_LAST = Attribute("event_last", "integer", "Largest event number in the file.")
SHOWERS = Attribute("showers", "integer", "Number of different simulated showers.")
PRIMARY = Attribute("primary", "string", "Primary particle, or particles separated by commas.")
#: One direction for a file; what a cone search and ObsCore take (`apbatch.formats.sky`).
POINTING_RA = Attribute("pointing_ra", "number", "Right ascension to which the telescope points (ICRS).", "deg")
POINTING_DEC = Attribute("pointing_dec", "number", "Declination to which the telescope points (ICRS).", "deg")
CAMERA = Attribute("camera", "string", "Name of the camera of the images.")
#: Triggers that are no showers: they are counted, and are neither events nor images.
PEDESTALS = Attribute("pedestals", "integer", "Pedestal triggers in the file, which are no images.")
CALIBRATIONS = Attribute("calibrations", "integer", "Calibration triggers, such as light pulses, which are no images.")

#: eV in a TeV.
EV_PER_TEV = 1e12
