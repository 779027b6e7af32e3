"""`seance check`: its trials without faults, with planted ones, and through a real tunnel."""
