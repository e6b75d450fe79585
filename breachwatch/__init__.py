"""BreachWatch: from the first suspicious log line to the last customer told, with a proof others can check."""

__version__ = "0.1.0"
