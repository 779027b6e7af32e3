"""The hops in order, the finding for each, and the report.

Values only; ``seance.doctor.runner`` makes them and ``seance.doctor.text_output`` prints them. The exit codes
and the JSON are an interface for scripts (``docs/doctor.md``).
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from seance.heads import redact

__all__ = ["WRONG_OPTIONS", "DoctorReport", "Finding", "Hop", "HopFailed", "HopStatus"]

WRONG_OPTIONS = 2
"""The exit code for invalid options."""


class Hop(enum.Enum):
    """One step of the path, in the order of the checks. The value is the name in the output and in JSON."""

    URL = "url"
    DNS = "dns"
    TCP = "tcp"
    TLS = "tls"
    PROXY = "proxy"
    RELAY = "relay"
    TOKEN = "token"  # noqa: S105  # a name, not a secret
    AGENT = "agent"
    LOCAL = "local"
    TUNNEL = "tunnel"
    SYNC = "sync"

    @property
    def exit_code(self) -> int:
        """The exit code if this is the first hop that fails: 10 for DNS, then counting up.

        The URL is an option, so an invalid one has the code of invalid options.
        """
        return 9 + list(Hop).index(self) if self is not Hop.URL else WRONG_OPTIONS


class HopStatus(enum.Enum):
    """The result of the check of one hop. The value is the name in JSON."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    NOT_TRIED = "not_tried"
    NOT_NEEDED = "not_needed"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result for one hop.

    Attributes:
        hop: The hop.
        status: The result of the check.
        message: The result in one sentence.
        advice: The remedy; empty if none is needed.
        seconds: How long the check took; None if it was not timed.
    """

    hop: Hop
    status: HopStatus
    message: str
    advice: str = ""
    seconds: float | None = None

    def as_json(self) -> dict[str, object]:
        """Return the object for the JSON report."""
        milliseconds = None if self.seconds is None else round(self.seconds * 1000, 2)
        return {
            "hop": self.hop.value,
            "state": self.status.value,
            "found": self.message,
            "advice": self.advice or None,
            "ms": milliseconds,
        }


class HopFailed(Exception):  # a result, not an error of the program
    """A hop fails, so that the checks end.

    Args:
        message: The fault in one sentence.
        advice: The remedy.
        hop: The hop that fails, if it is not the one that is being checked.
    """

    def __init__(self, message: str, advice: str, hop: Hop | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice
        self.hop = hop


@dataclass(slots=True)
class DoctorReport:
    """The findings of one run.

    Attributes:
        hops: The hops to check, in order.
        relay: The relay's URL; None without one.
        room: The room; None without one.
        on_finding: Called with each finding immediately.
        round_trips: Round-trip times in seconds; the keys are ``tcp``, ``local`` and ``tunnel``.
        clock_ahead_seconds: Clock of this machine minus clock of the relay; None if the relay sent no
            ``Date``.
    """

    hops: tuple[Hop, ...]
    relay: str | None
    room: str | None
    on_finding: Callable[[Finding], None] = lambda finding: None
    round_trips: dict[str, float] = field(default_factory=dict)
    clock_ahead_seconds: float | None = None
    _findings: dict[Hop, Finding] = field(default_factory=dict)

    def add(self, finding: Finding) -> None:
        """Add a finding, or replace the earlier one for the same hop.

        Secrets are redacted, because findings quote text of other servers.
        """
        finding = replace(finding, message=redact(finding.message), advice=redact(finding.advice))
        self._findings[finding.hop] = finding
        self.on_finding(finding)

    @property
    def findings(self) -> list[Finding]:
        """One finding for each hop, in order."""
        return [
            self._findings.get(hop) or Finding(hop, HopStatus.NOT_TRIED, "not tried") for hop in self.hops
        ]

    @property
    def failed(self) -> Hop | None:
        """The first hop that fails."""
        return next((finding.hop for finding in self.findings if finding.status is HopStatus.FAILED), None)

    @property
    def exit_code(self) -> int:
        """0 if no hop fails, otherwise the code of the first hop that fails."""
        return 0 if self.failed is None else self.failed.exit_code

    def as_json(self) -> dict[str, object]:
        """Return the report as the JSON object that ``docs/doctor.md`` describes."""
        return {
            "ok": self.failed is None,
            "hop": None if self.failed is None else self.failed.value,
            "exit_code": self.exit_code,
            "relay": self.relay,
            "room": self.room,
            "clock_ahead_seconds": self.clock_ahead_seconds,
            "round_trips_ms": {name: round(trip * 1000, 2) for name, trip in self.round_trips.items()},
            "hops": [finding.as_json() for finding in self.findings],
        }
