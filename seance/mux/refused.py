"""The reason of ``connectionLost`` for a stream that the peer never accepted."""

from __future__ import annotations

from twisted.internet.error import ConnectionLost

__all__ = ["StreamRefused"]


class StreamRefused(ConnectionLost):
    """The peer reset the stream, or did not answer in time, without a frame that accepts it."""
