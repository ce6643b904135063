"""A launched sweep and who holds which cell: protocol, database, leases, steering, W&B's server."""
