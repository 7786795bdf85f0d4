"""Exports of a part of the merged tree: in other forms, for other programs."""
