"""Telemetry to Elasticsearch: frames, spool, shipper, indices."""
