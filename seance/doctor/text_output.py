"""Prints the findings for a person: one line per hop immediately, advice below it, a summary at the end."""

from __future__ import annotations

import textwrap
from typing import TextIO

from seance.doctor.context import DoctorOptions
from seance.doctor.findings import DoctorReport, Finding, Hop, HopStatus

__all__ = ["TextOutput"]

COLUMNS = 100
INDENT = 11

SIGNS = {
    HopStatus.OK: "✓",
    HopStatus.WARNING: "!",
    HopStatus.FAILED: "✗",
    HopStatus.NOT_TRIED: "·",
    HopStatus.NOT_NEEDED: "-",
}
ASCII_SIGNS = {**SIGNS, HopStatus.OK: "+", HopStatus.FAILED: "x", HopStatus.NOT_TRIED: "."}
COLOURS = {HopStatus.OK: "32", HopStatus.WARNING: "33", HopStatus.FAILED: "31"}


class TextOutput:
    """Writes findings to a terminal or a file.

    Args:
        out: The stream to write to.
        options: The options of the run.
    """

    def __init__(self, out: TextIO, options: DoctorOptions) -> None:
        self._out = out
        self._options = options
        is_utf8 = (getattr(out, "encoding", None) or "").lower().replace("-", "") == "utf8"
        self._signs = SIGNS if is_utf8 else ASCII_SIGNS
        self._arrow = "→" if is_utf8 else "->"
        self._has_colours = out.isatty()

    def begin(self) -> None:
        """Print what is checked."""
        subjects = [self._options.relay, self._options.room and f"room {self._options.room}"]
        if self._options.local is not None:
            subjects.append(f"local server {self._options.local}")
        self._line(f"Checking {', '.join(subject for subject in subjects if subject)}")

    def finding(self, finding: Finding) -> None:
        """Print one finding. Hops that were not tried are listed together at the end."""
        if finding.status is HopStatus.NOT_TRIED:
            return
        sign = self._signs[finding.status]
        if self._has_colours and finding.status in COLOURS:
            sign = f"\x1b[{COLOURS[finding.status]}m{sign}\x1b[0m"
        duration = "" if finding.seconds is None else f"  ({_milliseconds(finding.seconds)})"
        self._paragraph(f"  {sign} {finding.hop.value:<7}", finding.message + duration)
        self._advice(finding.advice)

    def end(self, report: DoctorReport) -> None:
        """Print the hops that were not tried, the round trips and the summary."""
        failed = report.failed
        left = [finding for finding in report.findings if finding.status is HopStatus.NOT_TRIED]
        if left:
            names = ", ".join(finding.hop.value for finding in left)
            self._paragraph(f"  {self._signs[HopStatus.NOT_TRIED]} ", f"not tried: {names}")
            self._advice(left[0].advice)
        trips = ", ".join(f"{name} {_milliseconds(seconds)}" for name, seconds in report.round_trips.items())
        if trips:
            self._line(f"Round trips: {trips}.")
        if failed is not None:
            self._line(f"The first hop that fails is {failed.value}: {_DESCRIPTIONS[failed]}.")
        else:
            self._line("No problem was found in the hops that were tried." if left else "All checks passed.")

    def _advice(self, advice: str) -> None:
        if advice:
            self._paragraph(f"{self._arrow} ".rjust(INDENT), advice)

    def _paragraph(self, head: str, text: str) -> None:
        first, *others = textwrap.wrap(text, COLUMNS - INDENT, break_long_words=False, break_on_hyphens=False)
        self._line(head + first)
        for line in others:
            self._line(" " * INDENT + line)

    def _line(self, text: str) -> None:
        self._out.write(text + "\n")
        self._out.flush()


_DESCRIPTIONS = {
    Hop.URL: "the relay's address",
    Hop.DNS: "the relay's name",
    Hop.TCP: "the connection to the relay",
    Hop.TLS: "the relay's certificate",
    Hop.PROXY: "the proxy in front of the relay, or another server at this address",
    Hop.RELAY: "the relay itself",
    Hop.TOKEN: "the access token",
    Hop.AGENT: "the agent of the room",
    Hop.LOCAL: "the local server behind the agent",
    Hop.TUNNEL: "the tunnel from the relay to the local server",
    Hop.SYNC: "the response of the local server through the tunnel",
}


def _milliseconds(seconds: float) -> str:
    milliseconds = seconds * 1000
    return f"{milliseconds:.1f} ms" if milliseconds < 100 else f"{milliseconds:.0f} ms"
