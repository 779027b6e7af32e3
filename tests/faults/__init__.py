"""Faults on purpose: what relay, agent and the people behind them go through when something breaks.

Each scenario makes one thing fail in a way that can be repeated (a seed, a byte count, a signal), says in
a line of JSON what it saw (``tests.faults.figures``), and asserts what must hold whatever the machine's
speed. The tools, from the inside out: ``memory`` (both programs on a clock, without a socket),
``cutter`` (a cutting proxy between real processes), ``conversations`` (clients that notice a single lost or
doubled message), ``namespaces`` and ``emulator`` (two machines with a bad line between them).
"""
