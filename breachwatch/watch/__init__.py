"""Sources: files, journal and file integrity give RawLine, FileChange and Gap."""
