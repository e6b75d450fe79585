"""Grouping, lifecycle and severity: Match to Incident."""
