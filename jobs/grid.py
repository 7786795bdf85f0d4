"""`apbatch grid` for spark-submit: ``spark-submit jobs/grid.py …`` takes the same options."""

from apbatch.cli.main import main

main("grid")
