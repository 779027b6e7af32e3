"""Run cases of the Autobahn test suite against a URL and print one line of JSON per verdict.

``autobahn_all`` starts this as a program: kosoku loads its own small Autobahn into the process, which works
only where the installed one has not been imported.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

import kosoku

CASES = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"]


async def run(url: str, cases: list[str]) -> list[kosoku.CaseResult]:
    """Return a result for each case; named cases run one after the other, patterns eight at a time."""
    concurrency = 8 if any("*" in case for case in cases or CASES) else 1
    try:
        return await kosoku.run_fuzzingclient(url, cases or CASES, concurrency=concurrency)
    except kosoku.FailureError as failure:
        results: list[kosoku.CaseResult] = failure.results
        return results


if __name__ == "__main__":
    verdicts = {
        result.case_id: (result.behavior.value, result.behavior_close.value, result.remote_close_code)
        for result in asyncio.run(run(sys.argv[1], sys.argv[2:]))
    }
    print(json.dumps(verdicts), flush=True)
    # Skip the interpreter's exit handlers: kosoku's native part has been seen to abort there.
    os._exit(0)
