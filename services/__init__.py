"""One folder a service; no service imports another."""
