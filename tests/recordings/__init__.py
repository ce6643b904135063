"""Recordings of what an earlier version did, and the scripts that made them."""
