"""The transparency log: append, sign, prove, verify, export."""
