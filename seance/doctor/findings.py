"""What the doctor finds: the hops in their order, one finding for each, and the report of all.

Values only; ``seance.doctor.runner`` makes them, ``seance.doctor.show`` prints them. The numbers and names
here are an interface: scripts look at exit codes and at the JSON (``docs/doctor.md``).
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from seance.heads import redact

__all__ = ["INTERRUPTED", "WRONG_OPTIONS", "Finding", "Hop", "Mark", "Report", "Trouble"]

WRONG_OPTIONS = 2
"""The exit code where the command line does not say what to do."""

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it: 128 and the number of the signal."""


class Hop(enum.Enum):
    """One step of the way, in the order in which they are walked.

    The value is what is shown and written; ``exit_code`` is for scripts.
    """

    URL = "url"
    DNS = "dns"
    TCP = "tcp"
    TLS = "tls"
    PROXY = "proxy"
    RELAY = "relay"
    TOKEN = "token"  # noqa: S105  # a name, and none of a secret
    AGENT = "agent"
    LOCAL = "local"
    TUNNEL = "tunnel"
    SYNC = "sync"

    @property
    def exit_code(self) -> int:
        """The status of a doctor for whom this is the first hop that fails.

        10 for DNS, and one more for each that follows. A URL is an option, and 2 means a wrong one.
        """
        return 9 + list(Hop).index(self) if self is not Hop.URL else WRONG_OPTIONS


class Mark(enum.Enum):
    """How it stands with a hop."""

    WELL = "ok"
    WARNING = "warning"
    FAILED = "failed"
    NOT_TRIED = "not_tried"
    NOT_NEEDED = "not_needed"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found at one hop.

    Attributes:
        hop: Which.
        mark: How it stands.
        sentence: What was found, where.
        advice: What to do about it; empty where there is nothing to do.
        seconds: How long it took; None where nothing was timed.
    """

    hop: Hop
    mark: Mark
    sentence: str
    advice: str = ""
    seconds: float | None = None

    def as_json(self) -> dict[str, object]:
        """Return it as it stands in the JSON."""
        milliseconds = None if self.seconds is None else round(self.seconds * 1000, 2)
        return {
            "hop": self.hop.value,
            "state": self.mark.value,
            "found": self.sentence,
            "advice": self.advice or None,
            "ms": milliseconds,
        }


class Trouble(Exception):  # it is about the patient, and no error of ours
    """A hop fails, and there is no going on from here.

    Args:
        sentence: What was found, where.
        advice: What to do.
        hop: Which hop it is, if it is another than the one that is being tried.
    """

    def __init__(self, sentence: str, advice: str, hop: Hop | None = None) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.advice = advice
        self.hop = hop


@dataclass(slots=True)
class Report:
    """All findings of one walk.

    Attributes:
        hops: Those that this walk is about, in order.
        relay: The relay's address; None where there is none to look at.
        room: The room.
        on_finding: Called with each finding as it is made.
        round_trips: Seconds there and back, under the name of what was timed.
        clock_ahead_seconds: How much this machine's clock is ahead of the relay's; None if it did not say.
    """

    hops: tuple[Hop, ...]
    relay: str | None
    room: str | None
    on_finding: Callable[[Finding], None] = lambda finding: None
    round_trips: dict[str, float] = field(default_factory=dict)
    clock_ahead_seconds: float | None = None
    _findings: dict[Hop, Finding] = field(default_factory=dict)

    def note(self, finding: Finding) -> None:
        """Keep a finding. One about a hop that was looked at before takes the place of the earlier one.

        Findings quote what others say, and not everybody keeps a secret to himself.
        """
        finding = replace(finding, sentence=redact(finding.sentence), advice=redact(finding.advice))
        self._findings[finding.hop] = finding
        self.on_finding(finding)

    def mark(self, hop: Hop) -> Mark:
        """How it stands with a hop so far."""
        return self._findings[hop].mark if hop in self._findings else Mark.NOT_TRIED

    @property
    def findings(self) -> list[Finding]:
        """One for each hop, in order."""
        return [self._findings.get(hop) or Finding(hop, Mark.NOT_TRIED, "not tried") for hop in self.hops]

    @property
    def failed(self) -> Hop | None:
        """The first hop that fails."""
        return next((one.hop for one in self.findings if one.mark is Mark.FAILED), None)

    @property
    def exit_code(self) -> int:
        """0 if nothing fails, else the code of the first hop that does."""
        return 0 if self.failed is None else self.failed.exit_code

    def as_json(self) -> dict[str, object]:
        """Return the whole report as JSON has it; ``docs/doctor.md`` says what is in it."""
        return {
            "ok": self.failed is None,
            "hop": None if self.failed is None else self.failed.value,
            "exit_code": self.exit_code,
            "relay": self.relay,
            "room": self.room,
            "clock_ahead_seconds": self.clock_ahead_seconds,
            "round_trips_ms": {name: round(one * 1000, 2) for name, one in self.round_trips.items()},
            "hops": [one.as_json() for one in self.findings],
        }
