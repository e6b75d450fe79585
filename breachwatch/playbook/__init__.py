"""Playbooks: read, planned, simulated. They return actions and perform none."""
