"""Tests of ``seance demo``."""
