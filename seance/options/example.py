"""``deploy/relay.toml`` and ``deploy/agent.toml``: a config file with every option in it, asleep.

A person copies one and wakes the lines that are needed. An option without a default shows what stands for
its value, in capitals; every other line, woken, changes nothing. The files are written from the table of
options, so that none is missing, and a test reads them back.
"""

from __future__ import annotations

import json
import textwrap

from seance.options import Option, Program, default_in_words, options_of

__all__ = ["example"]

_WIDTH = 100

_TOP = """\
# Every option of `seance {program}`, each at its default; one with a value in capitals has none. Take the "#"
# away from what you want to say.
#
# Written by `python -m seance.options {program}`; what they mean together is in docs/operations.md and
# docs/security.md, and a flag or an environment variable wins over what stands here.

[{program}]
"""


def example(program: Program) -> str:
    """Returns the config file of one program; only what has to be said is awake in it."""
    return "\n".join(
        [_TOP.format(program=program.value), *(_entry(option) for option in options_of(program))]
    )


def _entry(option: Option) -> str:
    lines = [f"# {line}" for line in textwrap.wrap(option.help, _WIDTH)]
    sleeps = "" if option.is_required else "#"
    return "\n".join([*lines, f"{sleeps}{option.name} = {_value(option)}", ""])


def _value(option: Option) -> str:
    if option.is_flag:
        return "true" if option.default else "false"
    default = "" if option.is_required else default_in_words(option)
    if isinstance(option.default, int | float) and default.replace(".", "").isdecimal():
        return default
    shown = json.dumps(default or option.metavar)
    return f"[{shown}]" if option.repeatable else shown
