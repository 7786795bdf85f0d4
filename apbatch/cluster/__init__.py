"""Development servers: start, health, stop."""
