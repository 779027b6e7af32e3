"""Run ``seance`` commands as processes, and check how they handle a wrong option."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.processes import Process, environment

__all__ = ["check_one_sentence", "started"]


def started(command: str, *options: str, may_show_tokens: bool = False, **more: str) -> Process:
    """Start ``seance COMMAND`` as a process; ``more`` is added to its environment."""
    argv = [sys.executable, "-m", "seance", command, *options]
    env = {**environment(), **more}
    return Process(argv, name=command, env=env, may_show_tokens=may_show_tokens)


def check_one_sentence(
    main: Callable[[Sequence[str]], Any],
    command: str,
    options: Sequence[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Check that these options end it with status 1 and one line on stderr, which contains the message."""
    with pytest.raises(SystemExit) as ended:
        main(options)
    assert ended.value.code == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"seance {command}: ")
    assert sentence in said.err
    assert said.err.count("\n") == 1
