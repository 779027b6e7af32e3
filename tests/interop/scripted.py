"""Peers controlled byte by byte: a local server of sockets, and a relay that sends fixed frames."""

from __future__ import annotations

import socket
import struct
import threading

from websockets.sync.server import ServerConnection, serve
from websockets.typing import Subprotocol

from seance.heads import accept_for_key
from tests.yamux.frame_bytes import WireFrame, read_frames

__all__ = ["TIMEOUT_SECONDS", "RawLocal", "ScriptedRelay", "read_head", "read_to_the_end", "reset"]

TIMEOUT_SECONDS = 20.0


class RawLocal:
    """A local server of sockets: it answers the upgrade, and the test does the rest."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.settimeout(TIMEOUT_SECONDS)
        self.port: int = self._listening.getsockname()[1]

    def accept(self) -> socket.socket:
        connection, _ = self._listening.accept()
        connection.settimeout(TIMEOUT_SECONDS)
        head = read_head(connection)
        key = next(
            line[19:] for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key: ")
        )
        connection.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept_for_key(key) + b"\r\n\r\n"
        )
        return connection

    def close(self) -> None:
        self._listening.close()


def read_head(connection: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        assert byte, f"the connection ended in its head: {head!r}"
        head += byte
    return head


def read_to_the_end(connection: socket.socket) -> bytes:
    pieces = []
    while piece := connection.recv(1 << 18):
        pieces.append(piece)
    return b"".join(pieces)


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class ScriptedRelay:
    """A relay that sends frames of the test and keeps the agent's frames."""

    def __init__(self, said: list[bytes] | list[str]) -> None:
        self._said = said
        self.frames: list[WireFrame] = []
        self.closed: tuple[int, str] | None = None
        self._server = serve(self._serve, "127.0.0.1", 0, subprotocols=[Subprotocol("seance.link.v1")])
        self.url = f"ws://127.0.0.1:{self._server.socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def _serve(self, agent: ServerConnection) -> None:
        heard = b""
        for message in self._said:
            agent.send(message)
        try:
            for message in agent:
                assert isinstance(message, bytes)
                heard += message
                frames, rest = read_frames(heard)
                assert rest == b"", "whole frames in each message"
                self.frames = frames
        finally:
            if agent.close_code is not None:
                self.closed = (agent.close_code, agent.close_reason or "")

    def __enter__(self) -> ScriptedRelay:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
