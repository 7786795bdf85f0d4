"""apbatch: data of several experiments in place, one searchable tree, images to gamma-ray candidates."""

__version__ = "0.1.0"
