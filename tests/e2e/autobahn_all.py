"""All cases of the Autobahn test suite, compression included, direct and through a tunnel.

    python -m tests.e2e.autobahn_all [CASE ...]

The local server is Node's ``ws`` with permessage-deflate. The program starts it with a relay and an agent,
runs the cases of ``kosoku`` both ways (all, or those that match, like ``9.*``), and prints the counts of
verdicts and the cases that differ. Such a case runs again both ways by itself, because the suite has timeouts
that a busy machine can miss. Exit status 0 if no case differs. All cases take about half an hour;
``test_autobahn_suite`` runs the core cases.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter

from tests.processes import running_agent, running_node, running_relay
from tests.tools import ROOT

__all__ = ["Verdict", "main", "verdicts"]

Verdict = tuple[str, str, int | None]
"""The verdict on the exchange, the verdict on the closing handshake, and the peer's close code."""


def verdicts(url: str, *cases: str, timeout_seconds: float = 500) -> dict[str, Verdict]:
    """Run cases against a server, by default the core ones, and return the verdict on each."""
    # In another process: kosoku contains its own Autobahn, which conflicts with the installed one.
    command = [sys.executable, "-m", "tests.e2e.autobahn_client", url, *cases]
    run = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_seconds, check=False
    )
    assert run.returncode == 0, run.stderr
    return {case: tuple(verdict) for case, verdict in json.loads(run.stdout.splitlines()[-1]).items()}


def main(*cases: str) -> int:
    """Run the cases, print the figures, and return the exit status."""
    with (
        running_node("echo_server.mjs", ready="running at", env={"PORT": "0", "DEFLATE": "1"}) as server,
        running_relay() as relay,
        running_agent(relay, "autobahn", local_port=int(server.output.rsplit(" ", 1)[1])) as _,
    ):
        urls = (f"ws://127.0.0.1:{server.output.rsplit(' ', 1)[1]}", relay.client_url("autobahn"))
        results = []
        for name, url in zip(("direct", "tunnel"), urls, strict=True):
            began = time.monotonic()
            results.append(verdicts(url, *(cases or ("*",)), timeout_seconds=3600))
            counts = Counter(verdict[0] for verdict in results[-1].values())
            print(f"{name}: {len(results[-1])} cases, {dict(counts)}, {time.monotonic() - began:.0f} s")
        direct, through = results
        differing = [case for case in direct if through.get(case) != direct[case]]
        for case in differing:
            again = [verdicts(url, case) for url in urls]
            print(f"{case}: {direct[case]} and {through.get(case)}; again {again[0]} and {again[1]}")
            if again[0] == again[1]:
                through[case] = direct[case]
    count = sum(through.get(case) != direct[case] for case in direct)
    print(f"{count} of {len(direct)} cases differ")
    return int(count > 0 or not direct)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
