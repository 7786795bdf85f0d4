"""`apbatch skim` for spark-submit: ``spark-submit jobs/skim.py …`` takes the same options."""

from apbatch.cli.main import main

main("skim")
