"""Files of the FACT telescope."""
