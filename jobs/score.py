"""`apbatch score` for spark-submit: ``spark-submit jobs/score.py …`` takes the same options."""

from apbatch.cli.main import main

main("score")
