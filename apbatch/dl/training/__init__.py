"""Training: data, loop, ranks, checkpoints."""
