"""The results of a check, as text and as JSON.

A check passes if all of its parts pass; a part that could not be tried has failed. The JSON is described by
``docs/check.schema.json``, and a test compares the two.
"""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from seance import __version__
from seance.bench.comparison import Comparison
from seance.bench.output import table

__all__ = ["FORMAT", "CheckReport", "CheckResult", "Part"]

FORMAT = 1
"""Increases when a program that read the JSON before would misread it."""

NAME_WIDTH = 22


@dataclass(frozen=True, slots=True)
class Part:
    """The result of one case. The fields are those of the JSON.

    Attributes:
        name: Its name for programs: lower case, underscores.
        words: Its name for people.
        passed: Whether it passed.
        sentence: The observation; for a failed part, the fault and what to do.
        seconds: How long it took.
    """

    name: str
    words: str
    passed: bool
    sentence: str
    seconds: float = 0.0


@dataclass(slots=True)
class CheckResult:
    """The result of one of the four checks.

    Attributes:
        name: ``"clients"``, ``"yjs"``, ``"fidelity"`` or ``"speed"``.
        words: Its name for people.
        parts: The results of its cases.
        figures: The measurements of ``"speed"``.
    """

    name: str
    words: str
    parts: list[Part] = field(default_factory=list)
    figures: Comparison | None = None

    @property
    def passed(self) -> bool:
        """Whether there are parts and all of them passed."""
        return bool(self.parts) and all(part.passed for part in self.parts)

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "name": self.name,
            "words": self.words,
            "passed": self.passed,
            "parts": [asdict(part) for part in self.parts],
            "figures": None if self.figures is None else self.figures.as_json(),
        }


@dataclass(slots=True)
class CheckReport:
    """The results of all checks.

    Attributes:
        relay: The relay's address, without query and token.
        room: The room.
        notes: Remarks on how the tunnel was checked.
        checks: The checks in order.
        seconds: How long all of it took.
    """

    relay: str
    room: str
    notes: list[str] = field(default_factory=list)
    checks: list[CheckResult] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether there are checks and all of them passed."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "format": FORMAT,
            "version": __version__,
            "python": platform.python_version(),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "relay": self.relay,
            "room": self.room,
            "notes": self.notes,
            "passed": self.passed,
            "seconds": round(self.seconds, 3),
            "checks": [check.as_json() for check in self.checks],
        }

    def as_text(self) -> str:
        """Return the report for people."""
        lines = [f"Tunnel: {self.relay}, room {self.room}", *(f"  {note}" for note in self.notes)]
        failed = []
        for check in self.checks:
            lines += ["", f"{_verdict(check.passed)}  {check.words}"]
            for part in check.parts:
                lines.append(f"  {_verdict(part.passed)}  {part.words:{NAME_WIDTH}}  {part.sentence}")
                if not part.passed:
                    failed.append(f"{check.name}.{part.name}")
            if check.figures is not None:
                lines += ["", *(f"  {line}".rstrip() for line in table(check.figures).splitlines())]
        last = f"All checks passed, in {self.seconds:.0f} s."
        if not self.passed:
            last = f"FAILED, after {self.seconds:.0f} s: {', '.join(failed) or 'nothing was checked'}."
        return "\n".join([*lines, "", last]) + "\n"


def _verdict(passed: bool) -> str:
    return "ok    " if passed else "FAILED"
