"""Quality of runs: channel monitors, rates, summaries, their report."""
