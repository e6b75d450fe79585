"""The detection engine beside what people use instead."""
