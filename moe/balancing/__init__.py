"""Balancing losses: what keeps experts in use. `options` holds their names and settings and imports no torch."""
