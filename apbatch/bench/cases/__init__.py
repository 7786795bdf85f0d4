"""Benchmark cases, one module a suite, and the peers they are measured against."""
