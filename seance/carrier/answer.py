"""The relay's side of a carrier: answer an upgrade request that was already checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.internet.interfaces import IProtocol, IReactorTime

from seance.carrier.link_control import choose_subprotocol
from seance.carrier.websocket import ServerSocket, check_headers, make_server_factory
from seance.heads import Request

__all__ = ["CarrierAnswerer", "negotiated"]

COPIED_FIELDS = (b"sec-websocket-key", b"sec-websocket-version")


def negotiated(request: Request, *, may_resume: bool) -> str | None:
    """Return the subprotocol for an agent's request; None for a plain agent.

    Args:
        request: The upgrade request.
        may_resume: Whether this relay keeps a link whose carrier is lost.
    """
    offers = b",".join(request.values(b"sec-websocket-protocol")).decode("latin-1").split(",")
    return choose_subprotocol([offer.strip() for offer in offers], may_resume=may_resume)


class CarrierAnswerer:
    """Answers the upgrade requests of agents. A relay has one.

    Args:
        reactor: Provides the time.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._factory = make_server_factory(reactor)

    def answer(
        self,
        request: Request,
        trailing: bytes,
        hand_over: Callable[[IProtocol], None],
        make_protocol: Callable[[str | None], IProtocol],
        *,
        may_resume: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send the 101 and open the carrier.

        Autobahn gets a rebuilt head instead of the client's, because its parser accepts bytes as line ends
        that HTTP does not.

        Args:
            request: A request that passed ``seance.heads.check_upgrade``.
            trailing: Bytes received after the head.
            hand_over: Gives the connection to a protocol.
            make_protocol: Called with the negotiated subprotocol (None: a plain peer) when the
                carrier is open; the returned protocol gets a ``Carrier`` as transport.
            may_resume: As for ``negotiated``.
            headers: Additional header fields of the 101.

        Raises:
            LocalProtocolError: One of ``headers`` is not legal. Nothing was sent.
        """
        check_headers(headers or {})
        socket = ServerSocket(self._reactor, make_protocol)
        socket.answer_headers = headers or {}
        socket.factory = self._factory
        hand_over(socket)
        lines = [
            b"GET /agent HTTP/1.1",
            b"Host: relay",
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            *(name + b": " + value for name in COPIED_FIELDS for value in request.values(name)),
        ]
        subprotocol = negotiated(request, may_resume=may_resume)
        if subprotocol is not None:
            lines.append(b"Sec-WebSocket-Protocol: " + subprotocol.encode())
        socket.dataReceived(b"\r\n".join(lines) + b"\r\n\r\n" + trailing)
