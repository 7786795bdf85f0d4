"""A small site of every format that can honestly be written, with contents known beforehand."""
