"""What astronomers' programs speak: TAP 1.1 with ADQL, UWS, VOSI, ObsCore and DataLink, over the guarded catalogue."""
