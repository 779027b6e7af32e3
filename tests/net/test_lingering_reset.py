"""The number of unacknowledged bytes that a lingering reset gets from the kernel."""

from __future__ import annotations

import socket
import struct
from types import SimpleNamespace

from seance.net.lingering_reset import unacknowledged_bytes


def test_a_socket_reset_by_its_peer_is_not_waited_for() -> None:
    """The kernel counts bytes in flight even after a reset, which would delay the end by 30 s."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
        with ours:
            leg = SimpleNamespace(socket=ours)
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            ours.setblocking(False)
            try:
                while ours.send(bytes(65536)):
                    pass
            except BlockingIOError:
                pass
            assert unacknowledged_bytes(leg)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
            assert unacknowledged_bytes(leg) == 0


def test_other_transports_are_not_waited_for() -> None:
    assert unacknowledged_bytes(SimpleNamespace()) == 0
