"""Files of sim_telarray."""
