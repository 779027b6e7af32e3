"""``seance bench``: compare a tunnel on this machine with the direct connection.

For users: it takes less than a minute and shows ratios. Developers compare with the Go yardstick with
``make bench`` (``benchmarks/``). ``loads`` has the clients, ``local_server`` their server, ``subprocesses``
starts the programs, ``comparison`` runs the loads and ``output`` shows the figures. ``seance check`` uses
all of these.
"""

from __future__ import annotations

from seance.bench.command import main

__all__ = ["main"]
