"""What a walk is told, and what it gathers: each hop finds here what those before it have found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from seance.carrier import RelayAddress
from seance.core.interfaces import TokenRole
from seance.core.local_address import LocalAddress
from seance.doctor.asking import Answer, Way
from seance.doctor.findings import Finding, Hop, Mark, Report
from seance.doctor.tokens import Paper
from seance.wsclient import WsConnection

__all__ = ["DOCUMENT", "Context", "DoctorOptions", "well"]

DOCUMENT = "seance-doctor"
"""The document that is asked after: one that nobody edits. It stays empty."""

HOPS_OF_RELAY = (Hop.URL, Hop.DNS, Hop.TCP, Hop.TLS, Hop.PROXY, Hop.RELAY)
HOPS_OF_ROOM = (Hop.TOKEN, Hop.AGENT, Hop.LOCAL, Hop.TUNNEL, Hop.SYNC)


@dataclass(frozen=True, slots=True)
class DoctorOptions:
    """What to look at.

    Attributes:
        relay: The relay's URL; None to look at the local server alone.
        room: The room; None to look at the relay alone.
        local: The local server, to be asked directly as well.
        token_files: Files with tokens: a client's, an agent's, or both.
        ca_file: The only authorities to believe.
        document: What is asked for behind the tunnel.
        timeout_seconds: For each hop.
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
        """The hops that such a walk is about, in order."""
        of_relay = HOPS_OF_RELAY if self.relay is not None else ()
        if self.relay is not None and self.room is not None:
            return (*of_relay, *HOPS_OF_ROOM)
        return (*of_relay, Hop.LOCAL) if self.local is not None else of_relay


@dataclass(slots=True)
class Context:
    """What is known so far.

    Attributes:
        reactor: Twisted's reactor.
        orders: What to look at.
        report: Where round trips are noted, besides the findings.
        relay: The relay's address; None without one.
        local: The local server's; None without one.
        addresses: What the relay's name stands for.
        address: The one that takes connections.
        way: How to ask the relay.
        health: What it has answered to that question.
        papers: The tokens, by role.
        status: What it says of the room; None where nobody may ask.
        talk: The WebSocket through the tunnel, once it is open.
        opened_seconds: What opening it took.
    """

    reactor: Any  # Twisted's reactors have no common type
    orders: DoctorOptions
    report: Report
    relay: RelayAddress | None = None
    local: LocalAddress | None = None
    addresses: list[str] = field(default_factory=list)
    address: str = ""
    way: Way | None = None
    health: Answer | None = None
    papers: dict[TokenRole, Paper] = field(default_factory=dict)
    status: Answer | None = None
    talk: WsConnection | None = None
    opened_seconds: float = 0.0

    @property
    def timeout_seconds(self) -> float:
        """For each hop."""
        return self.orders.timeout_seconds

    @property
    def its_relay(self) -> RelayAddress:
        """The relay's address, for the hops that are there only with one."""
        assert self.relay is not None, "there are no such hops without a relay"
        return self.relay

    @property
    def its_way(self) -> Way:
        """How to ask the relay, for the hops behind TLS."""
        assert self.way is not None, "the hop before has made it"
        return self.way


def well(hop: Hop, sentence: str, seconds: float | None = None) -> Finding:
    """Return the finding that all is as it should be."""
    return Finding(hop, Mark.WELL, sentence, seconds=seconds)
