"""Processes that do the work: agent, worker, crew, devices, W&B's agent, cluster jobs."""
