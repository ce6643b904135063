"""Objectives: what a model is trained to do with its embedding. `options` holds settings and names, without torch."""
