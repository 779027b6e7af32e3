"""`seance bench`: the local server, the loads, the subprocesses, and the output of the figures."""
