"""Run a job description under spark-submit: ``spark-submit jobs/run.py jobs/gamma_hadron.yaml [--config FILE]``."""

import sys

from apbatch.cli.main import main

sys.argv[1:1] = ["run"]
main()
