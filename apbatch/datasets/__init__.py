"""Datasets: folders of Parquet part files with a sidecar, written exactly once."""
