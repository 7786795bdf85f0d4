"""What a job reads: sources, selections, splits, events, plans."""
