"""Alembic's folder: how the hub's schema came to be."""
