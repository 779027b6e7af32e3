"""The options of a run, and the results that later checks need from earlier ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from seance.carrier import RelayAddress
from seance.core.interfaces import TokenRole
from seance.core.local_address import LocalAddress
from seance.doctor.findings import DoctorReport, Finding, Hop, HopStatus
from seance.doctor.http_client import HttpServer, ServerResponse
from seance.doctor.tokens import ParsedToken
from seance.wsclient import WsConnection

__all__ = ["DOCUMENT", "Context", "DoctorOptions", "ok"]

DOCUMENT = "seance-doctor"
"""The default document. Users do not edit a document of this name, and the doctor leaves it empty."""

RELAY_HOPS = (Hop.URL, Hop.DNS, Hop.TCP, Hop.TLS, Hop.PROXY, Hop.RELAY)
ROOM_HOPS = (Hop.TOKEN, Hop.AGENT, Hop.LOCAL, Hop.TUNNEL, Hop.SYNC)


@dataclass(frozen=True, slots=True)
class DoctorOptions:
    """What to check.

    Attributes:
        relay: The relay's URL; None to check only the local server.
        room: The room; None to check only the relay.
        local: The address of the local server, to check it directly as well.
        token_files: Files with a client's token, an agent's token, or one of each.
        ca_file: PEM file of the only trusted authorities; None for the system's.
        document: The document to request through the tunnel.
        timeout_seconds: The time limit of each hop.
    """

    relay: str | None
    room: str | None = None
    local: str | None = None
    token_files: tuple[str, ...] = ()
    ca_file: str | None = None
    document: str = DOCUMENT
    timeout_seconds: float = 20.0

    @property
    def hops(self) -> tuple[Hop, ...]:
        """The hops to check, in order."""
        relay_hops = RELAY_HOPS if self.relay is not None else ()
        if self.relay is not None and self.room is not None:
            return (*relay_hops, *ROOM_HOPS)
        return (*relay_hops, Hop.LOCAL) if self.local is not None else relay_hops


@dataclass(slots=True)
class Context:
    """The state of a run, filled by one check after the other.

    Attributes:
        reactor: Twisted's reactor.
        options: What to check.
        report: Collects the findings; checks also record round trips and the clock difference in it.
        relay: The relay's address; None without one.
        local: The local server's address; None without one.
        addresses: The IP addresses of the relay's name.
        address: The first of them that accepted a connection.
        server: Where to send requests to the relay; set by the TLS check.
        health: The response to ``/health``.
        tokens: The tokens by role.
        status: The response to the status request of the room; None if the token does not permit the request.
        connection: The WebSocket through the tunnel, from when it is open until the sync check takes it.
        opened_seconds: How long opening it took.
    """

    reactor: Any  # Twisted's reactors have no common type
    options: DoctorOptions
    report: DoctorReport
    relay: RelayAddress | None = None
    local: LocalAddress | None = None
    addresses: list[str] = field(default_factory=list)
    address: str = ""
    server: HttpServer | None = None
    health: ServerResponse | None = None
    tokens: dict[TokenRole, ParsedToken] = field(default_factory=dict)
    status: ServerResponse | None = None
    connection: WsConnection | None = None
    opened_seconds: float = 0.0

    @property
    def timeout_seconds(self) -> float:
        """The time limit of each hop."""
        return self.options.timeout_seconds

    @property
    def require_relay(self) -> RelayAddress:
        """The relay's address, for checks that run only with a relay."""
        assert self.relay is not None, "this check needs a relay"
        return self.relay

    @property
    def require_server(self) -> HttpServer:
        """Where to send requests, for checks after the TLS check."""
        assert self.server is not None, "the TLS check sets this"
        return self.server


def ok(hop: Hop, message: str, seconds: float | None = None) -> Finding:
    """Return a finding without a problem."""
    return Finding(hop, HopStatus.OK, message, seconds=seconds)
