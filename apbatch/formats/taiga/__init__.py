"""Files of the TAIGA experiment."""
