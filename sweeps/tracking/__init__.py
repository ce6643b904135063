"""A run's files in W&B: session, mirror, artifacts, sync. Only this room knows whether W&B is online."""
