"""The events that a relay or an agent reports to its observer, and the values of their fields.

Metrics, the admin API and the log use the same values. A test compares the lists with the source and with
docs/metrics.md.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Protocol

__all__ = [
    "CLIENT_REASONS",
    "LIMITS",
    "LINK_REASONS",
    "RESUMPTIONS",
    "Client",
    "ClientAnswered",
    "ClientBegan",
    "ClientEnded",
    "ClientJoined",
    "ClientWaiting",
    "Event",
    "LimitHit",
    "LinkChange",
    "LinkChanged",
    "Refused",
    "ResumptionEnded",
]

CLIENT_REASONS = (
    "ended",
    "near_gone",
    "far_gone",
    "half_close_timeout",
    "stalled",
    "sent_away",
    "seen_off",
    "left_early",
    "refused",
    "answered",
    "broken",
)
"""Why a client ended. ``left_early``: it disconnected before the 101; ``refused``: it got a refusal instead;
``answered``: the local server sent another response than 101; ``broken``: that response was incomplete."""

LINK_REASONS = ("left", "cut", "failed", "desync", "expired", "replaced", "sent_away", "no_memory")
"""Why a link ended."""

RESUMPTIONS = ("resumed", "resumed_early", "unknown", "gap", "flaps", "expired", "no_memory")
"""Outcomes of a lost carrier. ``resumed_early``: the agent resumed before the relay had noticed the loss."""

LIMITS = ("connections", "unanswered", "unanswered_of_address", "resume_bytes", "stalled", "window_budget")
"""Limits that are enforced without a response to the client. The others cause a refusal."""


class LinkChange(enum.Enum):
    """A change of a link. ``LOST`` is its end; only a link with resumption can be ``DETACHED``."""

    ATTACHED = "attached"
    DETACHED = "detached"
    RESUMED = "resumed"
    LOST = "lost"


class Client(Protocol):
    """A client in an event. All events of a client have the same object."""

    @property
    def room(self) -> str:
        """The name of its room."""

    @property
    def received_bytes(self) -> int:
        """Bytes that it has sent after its request head."""

    @property
    def sent_bytes(self) -> int:
        """Bytes written to it after the 101. An agent counts the response head of the local server too."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A connection or an upgrade request was refused; ``code`` is that of the ``Refusal``."""

    code: str


@dataclass(frozen=True, slots=True)
class LimitHit:
    """A limit that is enforced without a response was reached; ``limit`` is one of ``LIMITS``."""

    limit: str


@dataclass(frozen=True, slots=True)
class ClientWaiting:
    """A client has started to wait for the agent of ``room``."""

    room: str


@dataclass(frozen=True, slots=True)
class ClientBegan:
    """A stream was opened for ``client``. A ``ClientEnded`` always follows."""

    client: Client


@dataclass(frozen=True, slots=True)
class ClientJoined:
    """``client`` was spliced, ``seconds`` after its stream was opened.

    A relay reports this at the 101, an agent when the local server has accepted the connection.
    """

    client: Client
    seconds: float


@dataclass(frozen=True, slots=True)
class ClientAnswered:
    """The first byte after the 101 has arrived, ``seconds`` after the stream of ``client`` was opened.

    Agents do not report this.
    """

    client: Client
    seconds: float


@dataclass(frozen=True, slots=True)
class ClientEnded:
    """``client`` has ended, with or without a ``ClientJoined``. Its byte counts are final.

    ``reason`` is one of ``CLIENT_REASONS``, ``seconds`` the time since its stream was opened.
    """

    client: Client
    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class LinkChanged:
    """The link of ``room`` has changed; for ``LOST``, ``reason`` is one of ``LINK_REASONS``."""

    room: str
    change: LinkChange
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ResumptionEnded:
    """An agent has resumed its session, or has not; ``outcome`` is one of ``RESUMPTIONS``. Only on relays."""

    outcome: str


Event = (
    Refused
    | LimitHit
    | ClientWaiting
    | ClientBegan
    | ClientJoined
    | ClientAnswered
    | ClientEnded
    | LinkChanged
    | ResumptionEnded
)
