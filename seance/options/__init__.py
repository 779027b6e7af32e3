"""The options of ``seance relay`` and ``seance agent``, read from the fields of their settings.

Each option has a flag (``seance.options.flags``), an environment variable and a key in the config file
(``seance.options.config``). The defaults are those of the settings, so a relay that is embedded in a program
has the same defaults as one that is started from a shell.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from seance.core.option_field import OptionInfo, option_info
from seance.core.settings import AgentSettings, RelaySettings
from seance.options import parsers

__all__ = ["OPTIONS", "Option", "Program", "default_in_words", "options_of"]

KIB = 1024
MIB = 1024 * KIB


class Program(enum.Enum):
    """A program with options. The value is the name of its table in a config file."""

    RELAY = "relay"
    AGENT = "agent"

    @property
    def settings(self) -> type[RelaySettings] | type[AgentSettings]:
        """The class of the settings that the options fill."""
        return RelaySettings if self is Program.RELAY else AgentSettings


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a program.

    Attributes:
        program: The program.
        field: Name of the field of the settings.
        default: Default of the field; ``dataclasses.MISSING`` if the option is required.
        info: The description that the field carries.
    """

    program: Program
    field: str
    default: Any
    info: OptionInfo

    @property
    def name(self) -> str:
        """The flag without its leading dashes; also the key in a config file."""
        return self.field.replace("_", "-")

    @property
    def flag(self) -> str:
        """The flag with the placeholder of its value."""
        return f"--{self.name} {self.info.value_type.placeholder}".rstrip()

    @property
    def variables(self) -> tuple[str, ...]:
        """The environment variables; earlier ones take precedence."""
        return (f"SEANCE_{self.field.upper()}", *self.info.aliases)

    @property
    def parse(self) -> Callable[[str], object]:
        """The function that turns text into a value, or raises ``ValueError``."""
        parser: Callable[[str], object] = getattr(parsers, self.info.value_type.parser)
        return parser

    @property
    def is_flag(self) -> bool:
        """Whether the option takes no value on the command line."""
        return not self.info.value_type.placeholder

    @property
    def is_repeatable(self) -> bool:
        """Whether the option can be given several times; the value is then a tuple."""
        return isinstance(self.default, tuple)

    @property
    def is_required(self) -> bool:
        """Whether there is no default."""
        return self.default is dataclasses.MISSING


def _options(program: Program) -> tuple[Option, ...]:
    described = ((field, option_info(field)) for field in dataclasses.fields(program.settings))
    return tuple(Option(program, field.name, field.default, info) for field, info in described if info)


_OPTIONS = {program: _options(program) for program in Program}

OPTIONS = _OPTIONS[Program.RELAY] + _OPTIONS[Program.AGENT]


def options_of(program: Program) -> tuple[Option, ...]:
    """Return the options of a program in the order of the fields, which is the order of the groups."""
    return _OPTIONS[program]


def default_in_words(option: Option) -> str:
    """Return the default as one would type it, ``required``, or an empty string if there is none."""
    default = option.default
    if option.is_required:
        return "required"
    if option.is_flag:
        return "on" if default else "off"
    if option.parse is parsers.byte_count:
        unit, name = (MIB, "MiB") if default % MIB == 0 else (KIB, "KiB")
        return f"{default // unit}{name}" if default % unit == 0 else str(default)
    if option.is_repeatable:
        return " ".join(default)
    return f"{default:g}" if isinstance(default, float) else str(default or "")
