"""Settings: TOML file, BREACHWATCH_* environment and secret files, frozen after loading."""
