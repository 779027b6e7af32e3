"""What a scenario saw, as one line of JSON: for people and for comparing runs, never for assertions.

The line is printed (pytest shows it with ``-rP`` or ``-s``) and, with ``SEANCE_FAULT_FIGURES`` set to
a file, appended there as well. Names carry their unit; reliability.md 5.3 lists those that are used.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

__all__ = ["FILE_VARIABLE", "Stopwatch", "report", "share"]

FILE_VARIABLE = "SEANCE_FAULT_FIGURES"


def report(scenario: str, **figures: object) -> None:
    """Says what a scenario saw. Floats are cut to milliseconds."""
    rounded = {
        name: round(value, 3) if isinstance(value, float) else value for name, value in figures.items()
    }
    line = json.dumps({"scenario": scenario, **rounded})
    print(line, flush=True)
    file = os.environ.get(FILE_VARIABLE)
    if file:
        with Path(file).open("a", encoding="utf-8") as lines:
            lines.write(line + "\n")


def share(values: list[float], percent: int) -> float | None:
    """The value that ``percent`` of all do not exceed; None if there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] if ordered else None


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began
