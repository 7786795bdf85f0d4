"""The study: several trainings of several methods on one blind set."""
