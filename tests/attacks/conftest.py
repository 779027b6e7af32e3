"""Print the number of fuzz inputs at the end of a run."""

from __future__ import annotations

import pytest

__all__ = ["FuzzCount", "fuzz_count", "pytest_terminal_summary"]

FuzzCount = dict[str, int]
"""Number of inputs so far for each fuzzed parser."""

_COUNT = pytest.StashKey[FuzzCount]()


@pytest.fixture
def fuzz_count(pytestconfig: pytest.Config) -> FuzzCount:
    """The counts of this run; tests add to them."""
    return pytestconfig.stash.setdefault(_COUNT, {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the counts."""
    count = config.stash.get(_COUNT, {})
    if count:
        parts = ", ".join(f"{name} {inputs:,}" for name, inputs in count.items())
        terminalreporter.write_line(f"fuzzed with {sum(count.values()):,} inputs: {parts}")
