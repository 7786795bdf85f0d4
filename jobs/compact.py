"""`apbatch compact` for spark-submit: ``spark-submit jobs/compact.py …`` takes the same options."""

from apbatch.cli.main import main

main("compact")
