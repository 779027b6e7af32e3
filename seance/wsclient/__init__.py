"""The WebSocket client of ``seance doctor``, ``check`` and ``bench``.

``dial`` opens a connection or reports why it cannot, ``WsConnection`` sends and receives single frames, and
``frames`` is their codec. The agent dials the relay with ``seance.carrier``, which uses Autobahn.
"""

from __future__ import annotations

from seance.wsclient.connection import WsConnection
from seance.wsclient.dial import HttpResponse, Reactor, Target, dial, exchange

__all__ = ["HttpResponse", "Reactor", "Target", "WsConnection", "dial", "exchange"]
