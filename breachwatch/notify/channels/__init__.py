"""Ways out. To add one: a file here and a line in the registry of `breachwatch.notify.channels.registry`."""
