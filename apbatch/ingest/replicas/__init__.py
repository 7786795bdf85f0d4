"""Replicas: verified copies of registered files in stores, rules that want them, and whether they are still right."""
