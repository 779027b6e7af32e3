"""The Autobahn test suite gives the same verdict through the tunnel as it gives directly, case by case.

``kosoku`` runs Autobahn's own cases as a fuzzing client. Groups 1 to 7 and 10 are the core of RFC 6455:
framing, pings, reserved bits, opcodes, fragmentation, UTF-8, closing, fragmentation by the sender. The
server under test is the echo server of the tests; whether *it* is perfect does not matter here, that it
looks the same from afar does.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.processes import running_node
from tests.tools import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.conftest import TunnelMaker

CASE_COUNT = 247

Verdict = tuple[str, str, int | None]


@pytest.fixture
def echo_port() -> Iterator[int]:
    """The ws package, which keeps to the letter of RFC 6455."""
    with running_node("echo_server.mjs", ready="running at", env={"PORT": "0"}) as server:
        yield int(server.output.rsplit(" ", 1)[1])


def verdicts(url: str, *cases: str) -> dict[str, Verdict]:
    """Each case's verdict on the exchange, on the closing handshake, and the peer's close code."""
    # A process of its own: kosoku brings an Autobahn of its own, which must not meet the real one.
    command = [sys.executable, "-m", "tests.e2e.autobahn_client", url, *cases]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)
    assert run.returncode == 0, run.stderr
    return {case: tuple(verdict) for case, verdict in json.loads(run.stdout.splitlines()[-1]).items()}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_all_247_core_cases_have_the_verdict_of_a_direct_run(echo_port: int, tunnel: TunnelMaker) -> None:
    shared = tunnel(echo_port)
    direct = verdicts(shared.direct_url)
    through = verdicts(shared.client_url)
    assert len(direct) == CASE_COUNT
    differing = [case for case in direct if through.get(case) != direct[case]]
    if differing:
        # The suite has time-outs of its own, and on a loaded machine one may pass on either way: what
        # differs is asked again, both ways, one case at a time, and then has to agree.
        print(f"asked again: { {case: (direct[case], through.get(case)) for case in differing} }")
        direct |= verdicts(shared.direct_url, *differing)
        through |= verdicts(shared.client_url, *differing)
    assert through == direct
    assert {verdict[0] for verdict in through.values()} <= {"OK", "NON-STRICT", "INFORMATIONAL"}
    assert {verdict[1] for verdict in through.values()} <= {"OK", "INFORMATIONAL"}
