"""`apbatch mirror --spark` for spark-submit: ``spark-submit jobs/mirror.py …`` takes the same options."""

from apbatch.cli.main import main

main("mirror", "--spark")
