"""The only place that wires stages."""
