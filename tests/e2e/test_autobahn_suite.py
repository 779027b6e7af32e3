"""The Autobahn test suite gives the same verdict through the tunnel as it gives directly, case by case.

``kosoku`` runs Autobahn's own cases as a fuzzing client. Groups 1 to 7 and 10 are the core of RFC 6455:
framing, pings, reserved bits, opcodes, fragmentation, UTF-8, closing, fragmentation by the sender. The
server under test is the echo server of the tests; whether *it* is perfect does not matter here, that it
looks the same from afar does.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import kosoku
import pytest

from tests.processes import running_node

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kosoku._kosoku import CaseResult

    from tests.e2e.conftest import TunnelMaker

CASES = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"]
CASE_COUNT = 247

Verdict = tuple[str, str, int | None]


@pytest.fixture
def echo_port() -> Iterator[int]:
    """The ws package, which keeps to the letter of RFC 6455."""
    with running_node("echo_server.mjs", ready="running at", env={"PORT": "0"}) as server:
        yield int(server.output.rsplit(" ", 1)[1])


def verdicts(url: str) -> dict[str, Verdict]:
    """Each case's verdict on the exchange, on the closing handshake, and the peer's close code."""

    async def run() -> list[CaseResult]:
        try:
            return await kosoku.run_fuzzingclient(url, CASES, concurrency=8)
        except kosoku.FailureError as failure:
            results: list[CaseResult] = failure.results
            return results

    # A thread of its own: the reactor of the suite may itself run on an asyncio loop in this one.
    with ThreadPoolExecutor(1) as pool:
        results = pool.submit(asyncio.run, run()).result()
    return {
        result.case_id: (result.behavior.value, result.behavior_close.value, result.remote_close_code)
        for result in results
    }


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_all_247_core_cases_have_the_verdict_of_a_direct_run(echo_port: int, tunnel: TunnelMaker) -> None:
    shared = tunnel(echo_port)
    direct = verdicts(shared.direct_url)
    through = verdicts(shared.client_url)
    assert len(direct) == CASE_COUNT
    assert through == direct
    assert {verdict[0] for verdict in through.values()} <= {"OK", "NON-STRICT", "INFORMATIONAL"}
    assert {verdict[1] for verdict in through.values()} <= {"OK", "INFORMATIONAL"}
