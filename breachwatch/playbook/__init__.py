"""Schema, lint and plan: Incident to Action (data, not effects)."""
