"""The interface that a stream transport uses of its multiplexer.

``Mux`` implements it. It keeps ``stream.py`` independent of ``protocol.py``, so a test can drive one stream
without a carrier.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

    from seance.yamux import Session

__all__ = ["StreamOwner"]


class StreamOwner(Protocol):
    """The multiplexer of a stream.

    Attributes:
        session: The yamux session.
        link: The address of the carrier, for display; empty before there is one.
        linger_seconds: How long a closed stream waits for the peer's end, or a reset for the data before it.
        high_water_bytes: Queued bytes above which a stream pauses its producer.
        call_later: ``IReactorTime.callLater``.
    """

    session: Session
    link: str
    linger_seconds: float
    high_water_bytes: int
    call_later: Callable[..., IDelayedCall]

    @property
    def is_clock_paused(self) -> bool:
        """Whether the carrier is disconnected."""

    def flush_soon(self) -> None:
        """Send the frames of the session at the end of this turn of the reactor."""

    def forget(self, stream: Any) -> None:  # noqa: ANN401  # the stream transport
        """Remove a stream that is gone."""
