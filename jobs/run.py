"""`apbatch run` for spark-submit: ``spark-submit jobs/run.py …`` takes the same options."""

from apbatch.cli.main import main

main("run")
