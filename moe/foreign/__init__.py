"""Models that this project did not train, for probes."""
