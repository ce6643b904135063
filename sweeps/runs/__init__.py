"""A run's folder and a sweep's folder: every file name is spelled here, once."""
