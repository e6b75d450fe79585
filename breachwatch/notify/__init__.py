"""Audience, templates, campaigns, outbox and channels."""
