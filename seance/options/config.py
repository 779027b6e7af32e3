"""From flags, environment and config file to frozen settings: who wins, and what is refused.

The order is flag, environment (``SEANCE_<OPTION>`` before the names of the original), TOML file,
default. Every refusal is a ``ConfigError`` of one sentence that says where the wrong value came
from, what is wrong with it and what to write instead. The options themselves are in
``seance.options``; this file knows none of them by name, but for the two that the original
had split and the two whose value is made here.

``seance.options.flags`` calls ``relay_settings`` and ``agent_settings``; nothing here reads ``os.environ``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from seance.core.settings import AgentSettings, RelaySettings
from seance.errors import ConfigError
from seance.net import read_bounded
from seance.options import Option, Program, options_of
from seance.options.values import BARE_PORT

__all__ = ["CONFIG_VARIABLE", "agent_settings", "relay_settings"]

CONFIG_VARIABLE = "SEANCE_CONFIG"
"""Names the config file where ``--config`` is not given."""

LONGEST_FILE_BYTES = 1024 * 1024

Flags = Mapping[str, Sequence[str]]
"""What the command line said: option name to the texts given, in order."""


@dataclass(frozen=True, slots=True)
class Found:
    """What one source says about one option."""

    texts: tuple[str, ...]
    origin: str


def relay_settings(flags: Flags, environment: Mapping[str, str]) -> RelaySettings:
    """Returns what a relay is told.

    Args:
        flags: What the command line said, by option name; ``config`` names the file.
        environment: The environment variables.

    Raises:
        ConfigError: Something is wrong, in one sentence.
    """
    told = _told(Program.RELAY, flags, environment)
    if told.pop("pad", False):
        told["pad"] = _pad_page()
    listen = told.get("listen", ())
    if isinstance(listen, tuple) and any(BARE_PORT.fullmatch(one) for one in listen):
        if len(listen) > 1:
            msg = (
                "--listen: a bare port stands for both loopback addresses and cannot stand beside other "
                "endpoints; write 127.0.0.1:PORT and [::1]:PORT instead."
            )
            raise ConfigError(msg)
        told.update(listen=(), port=int(listen[0]))
    return RelaySettings(**told)  # type: ignore[arg-type]  # the table and a test see to the types


def agent_settings(flags: Flags, environment: Mapping[str, str]) -> AgentSettings:
    """Returns what an agent is told; see ``relay_settings``."""
    return AgentSettings(**_told(Program.AGENT, flags, environment))  # type: ignore[arg-type]  # as above


def _told(program: Program, flags: Flags, environment: Mapping[str, str]) -> dict[str, object]:
    """Returns the fields of the settings that somebody said something about."""
    table = _table_from_file(program, flags, environment)
    told: dict[str, object] = {}
    for option in options_of(program):
        found = _from_flags(option, flags) or _from_environment(option, environment) or table.get(option.name)
        if found is not None:
            told[option.field] = _value(option, found)
        elif option.is_required:
            msg = (
                f"--{option.name} is missing: say {option.help} with --{option.name} {option.metavar}, with "
                f"the environment variable {option.variable}, or with {option.name} in [{program.value}] of "
                "a config file."
            )
            raise ConfigError(msg)
    return told


def _value(option: Option, found: Found) -> object:
    try:
        parsed = [option.parse(text) for text in found.texts]
    except ValueError as error:
        msg = f"{found.origin}: {error}."
        raise ConfigError(msg) from error
    return tuple(parsed) if option.repeatable else parsed[-1]


def _from_flags(option: Option, flags: Flags) -> Found | None:
    texts = flags.get(option.name)
    return Found(tuple(texts), f"--{option.name}") if texts else None


def _from_environment(option: Option, environment: Mapping[str, str]) -> Found | None:
    """An empty variable counts as none, as it is the only way to unset one in many places."""
    said = [name for name in (option.variable, *option.also_from) if _variable(environment, name)]
    if not said:
        return None
    if said[0] in ("LOCAL_HOST", "LOCAL_PORT"):
        return _from_original_halves(option, environment, " and ".join(said))
    text = _variable(environment, said[0])
    return Found(tuple(text.split()) if option.repeatable else (text,), said[0])


def _variable(environment: Mapping[str, str], name: str) -> str:
    """Return a variable without the line end and the byte order mark that a file may have put into it."""
    return environment.get(name, "").strip().removeprefix("\ufeff")


def _from_original_halves(option: Option, environment: Mapping[str, str], origin: str) -> Found:
    default_host, _, default_port = str(option.default).rpartition(":")
    host = _variable(environment, "LOCAL_HOST") or default_host
    port = _variable(environment, "LOCAL_PORT") or default_port
    return Found((f"[{host}]:{port}" if ":" in host else f"{host}:{port}",), origin)


def _table_from_file(program: Program, flags: Flags, environment: Mapping[str, str]) -> dict[str, Found]:
    """Returns what the config file says to one program; what it says to others is checked for spelling."""
    path = (flags.get("config") or [_variable(environment, CONFIG_VARIABLE)])[-1]
    if not path:
        return {}
    try:
        content = tomllib.loads(read_bounded(Path(path), LONGEST_FILE_BYTES)[0].decode("utf-8"))
    except OSError as error:
        msg = f"--config: {path} cannot be read ({error.strerror}); name a TOML file."
        raise ConfigError(msg) from error
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError too
        msg = f"--config: {path} is not TOML ({error}); see docs/options.md for an example."
        raise ConfigError(msg) from error
    tables = {one.value: one for one in Program}
    for name, table in content.items():
        if name not in tables or not isinstance(table, dict):
            msg = (
                f"--config: {path} has {name!r} at its top; it may hold the tables [relay] and [agent] only."
            )
            raise ConfigError(msg)
        known = {option.name for option in options_of(tables[name])}
        for key in table:
            if key not in known:
                msg = (
                    f"--config: {path} has {key!r} in [{name}], which is no option of the {name}; "
                    f"seance {name} --help lists them."
                )
                raise ConfigError(msg)
    mine = content.get(program.value, {})
    return {
        option.name: _found_in_file(option, mine[option.name], path)
        for option in options_of(program)
        if option.name in mine
    }


def _found_in_file(option: Option, value: object, path: str) -> Found:
    origin = f"{option.name} in [{option.program.value}] of {path}"
    one_by_one = value if option.repeatable and isinstance(value, list) else [value]
    for one in one_by_one:
        if isinstance(one, bool) is not option.is_flag or not isinstance(one, str | int | float):
            wanted = "true or false" if option.is_flag else "a string or a number"
            msg = f"{origin}: {one!r} will not do; write {wanted}."
            raise ConfigError(msg)
    return Found(tuple(str(one) for one in one_by_one), origin)


def _pad_page() -> object:
    # Imported on use: the page is half a megabyte that a relay without --pad never needs.
    from seance.pad.page import make_pad_page  # noqa: PLC0415

    return make_pad_page()
