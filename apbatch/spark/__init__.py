"""Spark: session, image steps, jobs."""
