"""Cameras: those built in, their registry, and tables of pixels from files."""
