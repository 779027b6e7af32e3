"""The figures of a scenario as one line of JSON, for readers and for comparing runs, never for assertions.

The line is printed (pytest shows it with ``-rP`` or ``-s``) and also appended to the file in
``SEANCE_FAULT_FIGURES``, if that is set. Names contain their unit.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

__all__ = ["FILE_VARIABLE", "Stopwatch", "report", "share"]

FILE_VARIABLE = "SEANCE_FAULT_FIGURES"


def report(scenario: str, **figures: object) -> None:
    """Print the figures of a scenario, with floats rounded to three digits."""
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
    """Return the value that ``percent`` of all values do not exceed; None if there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] if ordered else None


class Stopwatch:
    """Measures the seconds since it was made."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began
