"""An agent in a situation, for the tests of this folder."""

from tests.sweeps.agents.situations import clock, folder, situation, workers

__all__ = ["clock", "folder", "situation", "workers"]
