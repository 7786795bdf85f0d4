"""The catalogue and its query language."""
