"""`apbatch quality` for spark-submit: ``spark-submit jobs/quality.py …`` takes the same options."""

from apbatch.cli.main import main

main("quality")
