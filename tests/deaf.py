"""A port at which a connection is neither accepted nor refused.

Addresses without a host (RFC 5737) do not have this effect on every machine: some refuse immediately.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

__all__ = ["deaf_port"]

MORE_THAN_ENOUGH = 4


@contextmanager
def deaf_port(host: str = "127.0.0.1") -> Iterator[int]:
    """Provide a listening port with a full queue: the kernel drops further connections."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind((host, 0))
        listening.listen(0)
        for _ in range(MORE_THAN_ENOUGH):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]
