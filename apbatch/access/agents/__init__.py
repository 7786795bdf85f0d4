"""A site's bytes over HTTP: agents beside sites, gateways that merge them, and what reads from both."""
