"""`apbatch train` for spark-submit: ``spark-submit jobs/train.py …`` takes the same options."""

from apbatch.cli.main import main

main("train")
