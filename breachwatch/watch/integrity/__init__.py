"""File integrity: kernel hints say where to look, the difference to a sealed baseline is the verdict."""

from breachwatch.watch.integrity.examiner import Options
from breachwatch.watch.integrity.watcher import Integrity

__all__ = ["Integrity", "Options"]
