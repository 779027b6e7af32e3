"""Where the end of a stream is, for ``getHost`` and ``getPeer``."""

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
        link: What the carrier's own address was, for people.
        stream_id: The yamux stream, or 0 for the listening side before a stream exists.
    """

    link: str
    stream_id: int
