"""A launched sweep and who holds which of its cells: queues by name, their database, leases, steering, W&B's server."""
