"""What a check came to: values, as text for people and as JSON for programs.

A check has parts, and it has passed when all of them have. A part that could not be tried is not passed:
the report is there to be believed. The JSON is described by ``docs/check.schema.json``, and a test holds the
two together.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from seance import __version__
from seance.bench.comparison import Comparison
from seance.bench.table import table

__all__ = ["FORMAT", "Check", "Part", "Report"]

FORMAT = 1
"""Grows when a program that read the JSON before would misread it now."""

WIDTH = 22


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that was tried.

    Attributes:
        name: For programs: lower case, underscores.
        words: For people.
        passed: Whether it was as it should be.
        sentence: What was seen; of a failed part, what was wrong and what to do.
        seconds: How long it took.
    """

    name: str
    words: str
    passed: bool
    sentence: str
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {
            "name": self.name,
            "words": self.words,
            "passed": self.passed,
            "sentence": self.sentence,
            "seconds": round(self.seconds, 3),
        }


@dataclass(slots=True)
class Check:
    """One of the four checks.

    Attributes:
        name: ``"clients"``, ``"yjs"``, ``"fidelity"`` or ``"speed"``.
        words: For people.
        parts: What was tried.
        figures: Of the speed.
    """

    name: str
    words: str
    parts: list[Part] = field(default_factory=list)
    figures: Comparison | None = None

    @property
    def passed(self) -> bool:
        """Whether something was tried and all of it was as it should be."""
        return bool(self.parts) and all(part.passed for part in self.parts)

    def as_json(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {
            "name": self.name,
            "words": self.words,
            "passed": self.passed,
            "parts": [part.as_json() for part in self.parts],
            "figures": None if self.figures is None else self.figures.as_json(),
        }


@dataclass(slots=True)
class Report:
    """The whole.

    Attributes:
        relay: Where the tunnel is, without anything secret.
        room: Its room.
        notes: What the reader should know about how it was done.
        checks: What was checked.
        seconds: How long all of it took.
    """

    relay: str
    room: str
    notes: list[str] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether something was checked and all of it passed."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """Return what JSON can hold."""
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
        """Return it for a person."""
        lines = [f"Tunnel: {self.relay}, room {self.room}"]
        lines += [f"  {note}" for note in self.notes]
        for check in self.checks:
            lines += ["", f"{_verdict(check.passed)}  {check.words}"]
            lines += [
                f"  {_verdict(part.passed)}  {part.words.ljust(WIDTH)}  {part.sentence}"
                for part in check.parts
            ]
            if check.figures is not None:
                lines += ["", *(f"  {line}".rstrip() for line in table(check.figures).splitlines())]
        return "\n".join([*lines, "", self._last_line()]) + "\n"

    def _last_line(self) -> str:
        failed = [
            f"{check.name}.{part.name}" for check in self.checks for part in check.parts if not part.passed
        ]
        if self.passed:
            return f"All checks passed, in {self.seconds:.0f} s."
        return f"FAILED, after {self.seconds:.0f} s: {', '.join(failed) or 'nothing was checked'}."


def _verdict(passed: bool) -> str:
    return "ok    " if passed else "FAILED"
