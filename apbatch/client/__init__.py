"""The Python face of the catalogue: one class, local or against a server."""
