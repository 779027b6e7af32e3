"""``seance bench``: what a tunnel costs on this machine, against the direct connection.

A benchmark for users: it runs in under a minute and shows ratios. Developers compare with the yardstick by
``make bench`` instead (``benchmarks/``). From the pieces to the whole: ``frames`` and ``dialling`` (a
WebSocket client that does as little as it can), ``local_server``, ``children`` (the processes), ``loads``,
``comparison``, and what shows it, ``table`` and ``plot``. ``seance check`` builds on all of these.
"""

from __future__ import annotations

from seance.bench.command import main

__all__ = ["main"]
