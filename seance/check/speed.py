"""The fourth check: latency and throughput, against the direct connection where there is one.

Figures are no verdict: how quick is quick enough depends on the line between. What fails is what would keep
people from working: a load that does not come to its end, an echo that a person would wait for, a document
that takes longer than Yjs clients wait (they give a connection up after 30 s without a whole message).
"""

from __future__ import annotations

from collections.abc import Callable

from seance.bench.comparison import Comparison, Effort, compare
from seance.bench.loads import LOADS
from seance.check.report import Check
from seance.check.stage import Stage
from seance.check.trial import attempt, expect

__all__ = ["check_speed"]

ECHO_SECONDS = 1.0
DOCUMENT_BYTES = 5_000_000
DOCUMENT_SECONDS = 30.0

MEASURING_SECONDS = 300.0


async def check_speed(stage: Stage, effort: Effort, say: Callable[[str], None]) -> Check:
    """Run the loads of ``seance bench`` on the stage."""
    check = Check("speed", "Latency and throughput, against the direct connection")
    figures: dict[str, Comparison] = {}

    async def measure() -> str:
        figures["found"] = await compare(stage.reactor, stage.sides, effort, say)
        words = "both ways" if stage.direct is not None else "through the tunnel; past it there is no way"
        return f"{len(LOADS)} loads came to their end, {words}."

    check.parts.append(
        await attempt(stage.reactor, "loads", "loads", measure, timeout_seconds=MEASURING_SECONDS)
    )
    found = figures.get("found")
    if found is None:
        return check
    check.figures = found

    async def echo() -> str:
        seconds = _of(found, "echo", "p99_seconds")
        sentence = f"99 % of the echoes are back within {seconds * 1e3:.1f} ms"
        expect(seconds <= ECHO_SECONDS, f"{sentence}: too long to write together.")
        return f"{sentence}."

    async def document() -> str:
        rate = _of(found, "bulk", "bytes_per_second")
        seconds = DOCUMENT_BYTES / max(rate, 1)
        sentence = f"A document of 5 MB would take {seconds:.2f} s"
        expect(seconds <= DOCUMENT_SECONDS, f"{sentence}; Yjs clients give up after {DOCUMENT_SECONDS:g} s.")
        return f"{sentence}."

    check.parts.append(await attempt(stage.reactor, "echo", "echo", echo))
    check.parts.append(await attempt(stage.reactor, "document", "a big document", document))
    return check


def _of(found: Comparison, name: str, figure: str) -> float:
    load = next(load for load in LOADS if load.name == name)
    return float(getattr(found.of(load, "tunnel"), figure) or 0.0)
