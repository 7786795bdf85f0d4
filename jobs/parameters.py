"""`apbatch parameters` for spark-submit: ``spark-submit jobs/parameters.py …`` takes the same options."""

from apbatch.cli.main import main

main("parameters")
