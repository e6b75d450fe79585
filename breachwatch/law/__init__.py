"""Regimes: incident facts to duties with due times."""
