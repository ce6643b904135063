"""The probes: each asks one question, with the statistics of the modules beside this package."""
