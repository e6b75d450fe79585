"""Bytes to events in ECS names; one module per log format."""
