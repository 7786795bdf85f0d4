"""What all servers share: listening, draining on a signal, health, metrics."""
