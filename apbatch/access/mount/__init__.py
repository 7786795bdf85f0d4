"""The merged tree as a file system."""
