"""The image chain: steps as pure functions on Arrow batches."""
