"""Benchmark cases, their runner and the report."""
