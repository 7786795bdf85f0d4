"""One module a file format, found by plug-in."""
