"""The findings for a person: a line for each hop as it is found, advice below it, a verdict at the end."""

from __future__ import annotations

import textwrap
from typing import TextIO

from seance.doctor.context import DoctorOptions
from seance.doctor.findings import Finding, Hop, Mark, Report

__all__ = ["Shown"]

COLUMNS = 100
INDENT = 11

SIGNS = {Mark.WELL: "✓", Mark.WARNING: "!", Mark.FAILED: "✗", Mark.NOT_TRIED: "·", Mark.NOT_NEEDED: "-"}
PLAIN_SIGNS = {Mark.WELL: "+", Mark.WARNING: "!", Mark.FAILED: "x", Mark.NOT_TRIED: ".", Mark.NOT_NEEDED: "-"}
COLOURS = {Mark.WELL: "32", Mark.WARNING: "33", Mark.FAILED: "31"}


class Shown:
    """Writes to a terminal or a file.

    Args:
        out: Where to.
        orders: What is looked at.
    """

    def __init__(self, out: TextIO, orders: DoctorOptions) -> None:
        self._out = out
        self._orders = orders
        is_utf8 = (getattr(out, "encoding", None) or "").lower().replace("-", "") == "utf8"
        self._signs = SIGNS if is_utf8 else PLAIN_SIGNS
        self._arrow = "→" if is_utf8 else "->"
        self._has_colours = out.isatty()

    def begin(self) -> None:
        """Say what is looked at."""
        what = [self._orders.relay, self._orders.room and f"room {self._orders.room}"]
        if self._orders.local is not None:
            what.append(f"local server {self._orders.local}")
        self._line(f"Looking at {', '.join(one for one in what if one)}")

    def finding(self, finding: Finding) -> None:
        """Show one. What was not tried is told at the end, all together."""
        if finding.mark is Mark.NOT_TRIED:
            return
        sign = self._signs[finding.mark]
        if self._has_colours and finding.mark in COLOURS:
            sign = f"\x1b[{COLOURS[finding.mark]}m{sign}\x1b[0m"
        took = "" if finding.seconds is None else f"  ({_milliseconds(finding.seconds)})"
        self._paragraph(f"  {sign} {finding.hop.value:<7}", finding.sentence + took)
        self._advise(finding.advice)

    def end(self, report: Report) -> None:
        """Show what was not tried, the round trips, and the verdict."""
        failed = report.failed
        left = [one for one in report.findings if one.mark is Mark.NOT_TRIED]
        if left:
            names = ", ".join(one.hop.value for one in left)
            self._paragraph(f"  {self._signs[Mark.NOT_TRIED]} ", f"not tried: {names}")
            self._advise(left[0].advice)
        trips = ", ".join(f"{name} {_milliseconds(seconds)}" for name, seconds in report.round_trips.items())
        if trips:
            self._line(f"Round trips: {trips}.")
        if failed is not None:
            self._line(f"The first hop that fails is {failed.value}: {_MEANT[failed]}.")
        else:
            self._line("Nothing is wrong as far as could be seen." if left else "All is well.")

    def _advise(self, advice: str) -> None:
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


_MEANT = {
    Hop.URL: "the relay's address",
    Hop.DNS: "the relay's name",
    Hop.TCP: "the connection to the relay",
    Hop.TLS: "the relay's certificate",
    Hop.PROXY: "what stands in front of the relay",
    Hop.RELAY: "the relay itself",
    Hop.TOKEN: "the access token",
    Hop.AGENT: "the agent of the room",
    Hop.LOCAL: "the local server behind the agent",
    Hop.TUNNEL: "the tunnel from the relay to the local server",
    Hop.SYNC: "what the local server says through the tunnel",
}


def _milliseconds(seconds: float) -> str:
    milliseconds = seconds * 1000
    return f"{milliseconds:.1f} ms" if milliseconds < 100 else f"{milliseconds:.0f} ms"
