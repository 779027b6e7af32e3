"""The reason of ``connectionLost`` for a stream that the peer never accepted."""

from __future__ import annotations

from twisted.internet.error import ConnectionLost

__all__ = ["StreamRefused"]


class StreamRefused(ConnectionLost):
    """The peer reset the stream, or the timeout expired, before the peer accepted the stream."""
