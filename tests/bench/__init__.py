"""`seance bench`: frames, dialling, the local server, the loads, and what shows the figures."""
