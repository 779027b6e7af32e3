"""The address of one end of a stream, for ``getHost`` and ``getPeer``."""

from __future__ import annotations

from dataclasses import dataclass

from twisted.internet.interfaces import IAddress
from zope.interface import implementer

__all__ = ["StreamAddress"]


@implementer(IAddress)
@dataclass(frozen=True, slots=True)
class StreamAddress:
    """One end of a yamux stream.

    Attributes:
        link: The carrier's own address, for display.
        stream_id: The yamux stream, or 0 for a listening port without a stream.
    """

    link: str
    stream_id: int
