"""Checks the order of the events of one session."""

from __future__ import annotations

from seance.yamux import (
    DataReceived,
    EndSent,
    Event,
    StreamAborted,
    StreamAcknowledged,
    StreamClosed,
    StreamEnded,
    StreamOpened,
    StreamWritable,
)

__all__ = ["EventRules"]


class EventRules:
    """Checks that the events of each stream come in the order that ``seance/yamux/events.py`` describes."""

    def __init__(self) -> None:
        self.over: set[int] = set()
        self.begun: set[int] = set()
        self.ended: set[int] = set()
        self.sent_end: set[int] = set()

    def cut(self, stream_id: int) -> None:
        self.over.add(stream_id)

    def note(self, event: Event) -> None:
        stream_id = getattr(event, "stream_id", None)
        if stream_id is None:
            return
        assert stream_id not in self.over, f"{event} follows the last event"
        if isinstance(event, StreamOpened | StreamAcknowledged):
            assert stream_id not in self.begun, f"{event} comes once"
            self.begun.add(stream_id)
        elif isinstance(event, DataReceived):
            assert event.data, "never empty"
            assert stream_id in self.begun
            assert stream_id not in self.ended, "no data after the end"
        elif isinstance(event, StreamEnded):
            assert stream_id in self.begun
            assert stream_id not in self.ended, f"{event} comes once"
            self.ended.add(stream_id)
        elif isinstance(event, EndSent):
            assert stream_id not in self.sent_end, f"{event} comes once"
            self.sent_end.add(stream_id)
        elif isinstance(event, StreamWritable):
            assert stream_id not in self.sent_end
        elif isinstance(event, StreamClosed):
            assert stream_id in self.ended & self.sent_end, "both halves have ended"
            self.over.add(stream_id)
        elif isinstance(event, StreamAborted):
            self.over.add(stream_id)
