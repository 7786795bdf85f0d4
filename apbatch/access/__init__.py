"""Merged tree, policy, mount, export (to come)."""
