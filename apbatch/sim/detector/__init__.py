"""The detector: optics, camera, electronics, trigger, and its raw files."""
