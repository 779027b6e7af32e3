"""The one table of options: what a relay and an agent can be told, by whatever way.

From this table come the flags of ``twistd seance-relay`` and ``seance relay`` (``seance.options.flags``),
the environment variables and the keys of the config file (``seance.options.config``), ``--help``, and the
reference in ``docs/options.md``. The defaults are those of the settings themselves, so that a
program that embeds a relay and a person who starts one get the same relay.

A new option is one field in ``seance.core.settings`` and one line in ``seance.options.relay`` or
``seance.options.agent``.
"""

from __future__ import annotations

from seance.options import values
from seance.options.agent import AGENT_OPTIONS
from seance.options.option import Option, Program
from seance.options.relay import RELAY_OPTIONS

__all__ = ["OPTIONS", "Option", "Program", "default_in_words", "options_of", "reference"]

KIB = 1024
MIB = 1024 * KIB

OPTIONS = RELAY_OPTIONS + AGENT_OPTIONS


def options_of(program: Program) -> tuple[Option, ...]:
    """Returns the options of one program in the order in which help shows them."""
    return tuple(option for option in OPTIONS if option.program is program)


def default_in_words(option: Option) -> str:
    """Returns the default as a person would write it; empty if there is nothing to show."""
    default = option.default
    if option.is_required:
        return "required"
    if option.is_flag:
        return "on" if default else "off"
    if option.parse is values.byte_count and isinstance(default, int):
        unit, name = (MIB, "MiB") if default % MIB == 0 else (KIB, "KiB")
        return f"{default // unit}{name}" if default % unit == 0 else str(default)
    if isinstance(default, tuple):
        return " ".join(default)
    return f"{default:g}" if isinstance(default, float) else str(default or "")


def reference() -> str:
    """Returns ``docs/options.md``: every option, its variable and its default, as Markdown."""
    pages = [_REFERENCE_TOP]
    for program in Program:
        rows = [
            f"## {_TITLES[program]}\n",
            "| flag | variable | default | what it does |",
            "| --- | --- | --- | --- |",
        ]
        for option in options_of(program):
            flag = f"`--{option.name} {option.metavar}`" if option.metavar else f"`--{option.name}`"
            names = " ".join(f"`{name}`" for name in (option.variable, *option.also_from))
            default = default_in_words(option)
            shown = default if default in ("required", "off", "") else f"`{default}`"
            again = " (repeatable)" if option.repeatable else ""
            rows.append(f"| {flag} | {names} | {shown} | {option.help}{again} |")
        pages.append("\n".join(rows) + "\n")
    return "\n".join(pages)


_TITLES = {Program.RELAY: "seance-relay", Program.AGENT: "seance-agent"}

_REFERENCE_TOP = """\
# Options

<!-- Written by `python -m seance.options`; a test compares. -->

`twistd -n seance-relay` and `seance relay` take the same options, and so do `twistd -n seance-agent`
and `seance agent`. What a flag says wins over the environment, the environment over the config file,
and the file over the default.

A config file is TOML, named by `--config FILE` or `SEANCE_CONFIG`. Its keys are the flags without
their dashes in front, in a table for each program:

```toml
[relay]
listen = ["tcp:8080:interface=0.0.0.0"]
pad = true

[agent]
room = "test-room"
relay = "wss://relay.example"
local = "localhost:1234"
```

A flag that is on or off can be switched off again with `--no-` in front (`--no-pad`); in the
environment it is `yes` or `no`. The variable of a repeatable option holds several values with
spaces between them.
A SIZE is a number of bytes, or one with `KiB` or `MiB` behind it. `LOCAL_HOST` and `LOCAL_PORT`
are the two halves of `--local`.

Whatever is wrong with an option is said in one sentence, and the program ends with status 1.
"""
