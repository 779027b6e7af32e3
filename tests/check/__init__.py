"""`seance check`: its cases without faults, with faulty proxies, and through a real tunnel."""
