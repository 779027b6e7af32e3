"""Fault injection: the behaviour of relay, agent, clients and local server when a part fails.

Each scenario makes one part fail in a repeatable way (a seed, a byte count, a signal), prints its figures as
a line of JSON (``tests.faults.figures``), and asserts what must hold on a machine of any speed. The tools:
``memory`` (both programs on a clock, without sockets), ``cutter`` (a proxy between real processes that cuts
connections), ``conversations`` (clients that detect each lost or duplicated message), ``namespaces`` and
``emulator`` (two machines with a bad line between them).
"""
