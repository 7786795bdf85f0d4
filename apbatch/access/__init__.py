"""Access to the merged tree: who may see and read what, and the ways in that all pass the one door."""
