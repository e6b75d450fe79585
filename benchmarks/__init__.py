"""Figures beside the peer or the physical limit; run by hand, never timed in CI."""
