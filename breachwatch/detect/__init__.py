"""Sigma: load, evaluate, correlate; Event to Match."""
