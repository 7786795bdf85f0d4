"""`apbatch clean` for spark-submit: ``spark-submit jobs/clean.py …`` takes the same options."""

from apbatch.cli.main import main

main("clean")
