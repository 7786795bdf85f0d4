"""The Spark session and what its workers are given."""
