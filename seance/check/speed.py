"""The fourth check: latency and throughput, compared with the direct connection if there is one.

The required speed depends on the network in between, so there are only three limits: every load finishes,
an echo is fast enough for typing together, and a document arrives before Yjs clients give up (after 30 s
without a complete message).
"""

from __future__ import annotations

from collections.abc import Callable

from seance.bench.comparison import Comparison, Effort, compare
from seance.bench.loads import LOADS
from seance.check.check_case import expect, run_case
from seance.check.environment import Environment
from seance.check.report import CheckResult

__all__ = ["check_speed"]

ECHO_SECONDS = 1.0
DOCUMENT_BYTES = 5_000_000
DOCUMENT_SECONDS = 30.0

LOADS_SECONDS = 300.0


async def check_speed(
    environment: Environment, effort: Effort, progress: Callable[[str], None]
) -> CheckResult:
    """Run the loads of ``seance bench``."""
    check = CheckResult("speed", "Latency and throughput, compared with the direct connection")
    found = Comparison(effort, ())

    async def loads() -> str:
        nonlocal found
        found = check.figures = await compare(environment.reactor, environment.targets, effort, progress)
        ways = "directly and through the tunnel" if environment.direct is not None else "through the tunnel"
        return f"{len(LOADS)} loads finished, {ways}."

    async def echo() -> str:
        seconds = found.figure("echo", "tunnel", "p99_seconds") or 0.0
        message = f"99 % of the echoes take at most {seconds * 1e3:.1f} ms"
        expect(seconds <= ECHO_SECONDS, f"{message}: too slow for typing together.")
        return f"{message}."

    async def document() -> str:
        rate = found.figure("bulk", "tunnel", "bytes_per_second") or 0.0
        seconds = DOCUMENT_BYTES / max(rate, 1)
        message = f"A document of 5 MB would take {seconds:.2f} s"
        expect(seconds <= DOCUMENT_SECONDS, f"{message}; Yjs clients give up after {DOCUMENT_SECONDS:g} s.")
        return f"{message}."

    for name, words, case in (
        ("loads", "loads", loads),
        ("echo", "echo", echo),
        ("document", "a big document", document),
    ):
        part = await run_case(environment.reactor, name, words, case, timeout_seconds=LOADS_SECONDS)
        check.parts.append(part)
        if check.figures is None:
            break
    return check
