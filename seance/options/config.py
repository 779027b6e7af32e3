"""Makes the settings of a relay or an agent from flags, environment variables and a config file.

Precedence, highest first: flag, ``SEANCE_<OPTION>``, the option's other environment variables, the TOML file,
the default. Every error is a ``ConfigError`` with one message that names the source, the value and what to
write instead. The callers pass the environment; nothing here reads ``os.environ``.
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
from seance.options.parsers import BARE_PORT

__all__ = ["CONFIG_VARIABLE", "agent_settings", "relay_settings"]

CONFIG_VARIABLE = "SEANCE_CONFIG"
"""Names the config file if ``--config`` is not given."""

MAX_FILE_BYTES = 1024 * 1024

Flags = Mapping[str, Sequence[str]]
"""The flags of a command line: option name to its values, in order."""


@dataclass(frozen=True, slots=True)
class RawValue:
    """The value of an option before it is parsed.

    Attributes:
        texts: The value, or several values of a repeatable option.
        source: The flag, variable or line of the file, for error messages.
    """

    texts: tuple[str, ...]
    source: str


def relay_settings(flags: Flags, environment: Mapping[str, str]) -> RelaySettings:
    """Return the settings of a relay.

    Args:
        flags: The flags; ``config`` names the config file.
        environment: The environment variables.

    Raises:
        ConfigError: A value is invalid, or the config file cannot be read.
    """
    values = _parsed_values(Program.RELAY, flags, environment)
    if values.pop("pad", False):
        values["pad"] = _pad_page()
    listen = values.get("listen", ())
    if isinstance(listen, tuple) and any(BARE_PORT.fullmatch(one) for one in listen):
        if len(listen) > 1:
            raise ConfigError(
                "--listen: a bare port means both loopback addresses and cannot be combined with other "
                "endpoints; write 127.0.0.1:PORT and [::1]:PORT instead."
            )
        values.update(listen=(), port=int(listen[0]))
    return RelaySettings(**values)  # type: ignore[arg-type]  # the parsers return the fields' types


def agent_settings(flags: Flags, environment: Mapping[str, str]) -> AgentSettings:
    """Return the settings of an agent; see ``relay_settings``."""
    return AgentSettings(**_parsed_values(Program.AGENT, flags, environment))  # type: ignore[arg-type]  # as above


def _parsed_values(program: Program, flags: Flags, environment: Mapping[str, str]) -> dict[str, object]:
    """Return the fields of the settings that have a value in some source."""
    table = _table_from_file(program, flags, environment)
    values: dict[str, object] = {}
    for option in options_of(program):
        raw = _from_flags(option, flags) or _from_environment(option, environment) or table.get(option.name)
        if raw is not None:
            values[option.field] = _parsed(option, raw)
        elif option.is_required:
            raise ConfigError(
                f"--{option.name} is missing: set the {option.info.help} with {option.flag}, the environment "
                f"variable {option.variables[0]}, or {option.name} in [{program.value}] of a config file."
            )
    return values


def _parsed(option: Option, raw: RawValue) -> object:
    try:
        parsed = [option.parse(text) for text in raw.texts]
    except ValueError as error:
        raise ConfigError(f"{raw.source}: {error}.") from error
    return tuple(parsed) if option.is_repeatable else parsed[-1]


def _from_flags(option: Option, flags: Flags) -> RawValue | None:
    texts = flags.get(option.name)
    return RawValue(tuple(texts), f"--{option.name}") if texts else None


def _from_environment(option: Option, environment: Mapping[str, str]) -> RawValue | None:
    """Return the value in the environment. An empty variable counts as unset."""
    names = [name for name in option.variables if _variable(environment, name)]
    if not names:
        return None
    if names[0] in ("LOCAL_HOST", "LOCAL_PORT"):
        return _from_host_and_port(option, environment, " and ".join(names))
    text = _variable(environment, names[0])
    return RawValue(tuple(text.split()) if option.is_repeatable else (text,), names[0])


def _variable(environment: Mapping[str, str], name: str) -> str:
    """Return a variable without the line end and the byte order mark that a file may have put into it."""
    return environment.get(name, "").strip().removeprefix("\ufeff")


def _from_host_and_port(option: Option, environment: Mapping[str, str], source: str) -> RawValue:
    default_host, _, default_port = str(option.default).rpartition(":")
    host = _variable(environment, "LOCAL_HOST") or default_host
    port = _variable(environment, "LOCAL_PORT") or default_port
    return RawValue((f"[{host}]:{port}" if ":" in host else f"{host}:{port}",), source)


def _table_from_file(program: Program, flags: Flags, environment: Mapping[str, str]) -> dict[str, RawValue]:
    """Return the program's table of the config file. The names in the other table are checked as well."""
    path = (flags.get("config") or [_variable(environment, CONFIG_VARIABLE)])[-1]
    if not path:
        return {}
    try:
        content = tomllib.loads(read_bounded(Path(path), MAX_FILE_BYTES)[0].decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"--config: {path} cannot be read ({error.strerror}); name a TOML file.") from error
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError too
        raise ConfigError(
            f"--config: {path} is not TOML ({error}); see docs/options.md for an example."
        ) from error
    programs = {one.value: one for one in Program}
    for name, table in content.items():
        if name not in programs or not isinstance(table, dict):
            raise ConfigError(
                f"--config: {path} has {name!r} at top level; only [relay] and [agent] are allowed."
            )
        known = {option.name for option in options_of(programs[name])}
        for key in table:
            if key not in known:
                raise ConfigError(
                    f"--config: {path} has {key!r} in [{name}], which is not an option of the {name}; "
                    f"seance {name} --help-all lists the options."
                )
    values = content.get(program.value, {})
    return {
        option.name: _from_file(option, values[option.name], path)
        for option in options_of(program)
        if option.name in values
    }


def _from_file(option: Option, value: object, path: str) -> RawValue:
    source = f"{option.name} in [{option.program.value}] of {path}"
    values = value if option.is_repeatable and isinstance(value, list) else [value]
    for one in values:
        if isinstance(one, bool) is not option.is_flag or not isinstance(one, str | int | float):
            allowed = "true or false" if option.is_flag else "a string or a number"
            raise ConfigError(f"{source}: {one!r} is not valid; write {allowed}.")
    return RawValue(tuple(str(one) for one in values), source)


def _pad_page() -> object:
    # Imported on use: the page is half a megabyte, which a relay without --pad does not need.
    from seance.pad.page import make_pad_page  # noqa: PLC0415

    return make_pad_page()
