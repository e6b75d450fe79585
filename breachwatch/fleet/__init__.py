"""Telemetry to Elasticsearch: documents, indices, client, shipper."""
