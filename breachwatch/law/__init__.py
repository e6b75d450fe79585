"""Regimes as data, and the duties that follow from them. Not legal advice."""

from breachwatch.law.duties import duties
from breachwatch.law.schema import Regime, load_regimes

__all__ = ["Regime", "duties", "load_regimes"]
