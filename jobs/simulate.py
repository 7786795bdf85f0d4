"""`apbatch simulate` for spark-submit: ``spark-submit jobs/simulate.py …`` takes the same options."""

from apbatch.cli.main import main

main("simulate")
