"""Our session on a TCP connection to a running hashicorp/yamux, without a reactor.

The other end is ``tests/go/peer``, which reads commands from its standard input. While the test waits for a
reply or an event, one loop serves the socket and the peer's output.
"""

from __future__ import annotations

import json
import selectors
import socket
import subprocess
import time
from collections.abc import Callable
from typing import Self

from seance.yamux import DataReceived, Event, Limits, StreamEnded, StreamOpened
from tests.built import go_program
from tests.interop.player import Player
from tests.interop.wire import Step, check_sending_rules, opposite

__all__ = ["Live"]

DEADLINE_SECONDS = 30.0
"""Timeout of each step of a test; the peer's own timeout is 20 s."""


class Live(Player):
    """A player connected to a hashicorp/yamux in the other role. Use it in a ``with`` block.

    Args:
        role: Our role.
        limits: Our session's limits.
        window_bytes: The peer's ``MaxStreamWindowSize``.
        backlog: The peer's ``AcceptBacklog``.
    """

    def __init__(
        self,
        role: str,
        limits: Limits | None = None,
        *,
        window_bytes: int = 256 * 1024,
        backlog: int = 256,
    ) -> None:
        super().__init__(role, limits or Limits())
        self.echoes = False
        """Whether to echo the data of streams that the peer opens from now on."""
        self.echoed: set[int] = set()
        self._unsent = bytearray()
        self._ready = selectors.DefaultSelector()
        options = {"role": opposite(role), "window": window_bytes, "backlog": backlog}
        with socket.create_server(("127.0.0.1", 0)) as port:
            port.settimeout(DEADLINE_SECONDS)
            options["connect"] = f"127.0.0.1:{port.getsockname()[1]}"
            argv = [str(go_program("peer")), *(f"-{name}={value}" for name, value in options.items())]
            self._peer = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self._socket, _ = port.accept()
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answers = bytearray()
        assert self._peer.stdout is not None
        self._ready.register(self._peer.stdout, selectors.EVENT_READ)
        self._ready.register(self._socket, selectors.EVENT_READ)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ready.close()
        self._socket.close()
        self._peer.kill()
        self._peer.communicate()
        check_sending_rules(self.frames())

    # The peer

    def order(self, what: str, stream: int = 0, count: int = 0) -> Step:
        """Send a command to the peer, and serve the connection until it has succeeded."""
        answer = self.try_order(what, stream, count)
        assert "outcome" not in answer, f"the peer failed: {answer}"
        return answer

    def try_order(self, what: str, stream: int = 0, count: int = 0) -> Step:
        """As ``order``, but the caller checks the result."""
        self._write_order(what, stream, count)
        self.wait_for(lambda: b"\n" in self._answers)
        return self._take_answer()

    def order_unheard(self, what: str) -> Step:
        """Send a command to the peer while we neither read nor write the connection."""
        self._write_order(what)
        while b"\n" not in self._answers:
            self._answers += self._read_answer()
        return self._take_answer()

    def _write_order(self, what: str, stream: int = 0, count: int = 0) -> None:
        assert self._peer.stdin is not None
        self._peer.stdin.write(json.dumps({"what": what, "stream": stream, "count": count}).encode() + b"\n")
        self._peer.stdin.flush()

    def _take_answer(self) -> Step:
        line, _, self._answers = self._answers.partition(b"\n")
        answer: Step = json.loads(line)
        return answer

    def settle(self) -> None:
        """Return when the peer has read everything that we sent: it answers pings in order."""
        self.wait_for(lambda: self.session.ping(self.now))  # none can be sent while another is in flight
        before = self.pings_answered()
        self.wait_for(lambda: self.pings_answered() > before)

    def take_until(self, stream: int, condition: Callable[[], bool]) -> None:
        """Consume the data of a stream, and so give credit, until ``condition`` is true."""

        def take_and_ask() -> bool:
            count = len(self.data_of(stream)) - self.taken_bytes[stream]
            self.session.data_taken(stream, count)
            self.taken_bytes[stream] += count
            return condition()

        self.wait_for(take_and_ask)

    # The wire

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Serve the connection until ``condition`` is true."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        self._serve(0)
        while not condition():
            assert time.monotonic() < deadline, f"timeout:\n{self.session.describe()}"
            self._serve(0.1)

    def _serve(self, patience_seconds: float) -> None:
        self._send()
        for key, _ in self._ready.select(patience_seconds):
            if key.fileobj is self._socket:
                self._receive()
            else:
                self._answers += self._read_answer()
        self._send()

    def _read_answer(self) -> bytes:
        assert self._peer.stdout is not None
        text = self._peer.stdout.read1(65536)  # type: ignore[attr-defined]  # it is buffered
        assert text, f"the peer ended with {self._peer.wait()}"
        return bytes(text)

    def _receive(self) -> None:
        self.now = time.monotonic()
        try:
            text = self._socket.recv(65536)
        except BlockingIOError:
            return
        assert text, "the peer closed the connection"
        self.session.receive_data(text, self.now)

    def handle_events(self) -> bytes:
        """Handle all events, and send all messages."""
        fresh = super().handle_events()
        self._unsent += fresh
        return fresh

    def _send(self) -> None:
        self.handle_events()
        while self._unsent:
            try:
                sent = self._socket.send(self._unsent)
            except BlockingIOError:
                break
            del self._unsent[:sent]
        interest = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)
        self._ready.modify(self._socket, interest)

    def record_event(self, event: Event) -> None:
        """Echo received data if requested."""
        super().record_event(event)
        if isinstance(event, StreamOpened) and self.echoes:
            self.echoed.add(event.stream_id)
            self.session.accept_stream(event.stream_id)
        elif isinstance(event, DataReceived) and event.stream_id in self.echoed:
            self.session.send_data(event.stream_id, event.data)
            self.session.data_taken(event.stream_id, len(event.data))
        elif isinstance(event, StreamEnded) and event.stream_id in self.echoed:
            self.session.end_stream(event.stream_id)
