"""`apbatch stereo` for spark-submit: ``spark-submit jobs/stereo.py …`` takes the same options."""

from apbatch.cli.main import main

main("stereo")
