"""Figures from arrays; knows no run."""
