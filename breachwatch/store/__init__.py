"""The storage ports on SQLite and PostgreSQL. The only place with SQL."""
