"""One option: what it is called, how its text is read, and whom it tells.

The options themselves are in ``seance.options.relay`` and ``seance.options.agent``; ``seance.options`` has
both, and says what can be done with them.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from dataclasses import dataclass

from seance.core.settings import AgentSettings, RelaySettings

__all__ = ["Option", "Program"]


class Program(enum.Enum):
    """Who is told. The value is the name of the table in a config file."""

    RELAY = "relay"
    AGENT = "agent"

    @property
    def settings(self) -> type[RelaySettings] | type[AgentSettings]:
        """The class of settings that the options of this program fill."""
        return RelaySettings if self is Program.RELAY else AgentSettings


@dataclass(frozen=True, slots=True)
class Option:
    """One thing that can be told.

    Attributes:
        program: Who is told.
        name: The flag without its dashes; also the key in a config file.
        metavar: What stands for the value in help; empty for a flag that is on or off.
        parse: Turns text into a value of the settings, or raises ValueError with half a sentence.
        help: What it does, as the rest of a sentence, without a full stop.
        repeatable: May be given several times; the value is then a tuple.
        also_from: Environment variables of the original that mean the same.
    """

    program: Program
    name: str
    metavar: str
    parse: Callable[[str], object]
    help: str
    repeatable: bool = False
    also_from: tuple[str, ...] = ()

    @property
    def field(self) -> str:
        """The field of the settings that this option fills."""
        return self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        """The environment variable of this option."""
        return f"SEANCE_{self.field.upper()}"

    @property
    def is_flag(self) -> bool:
        """Whether the option takes no value on the command line."""
        return not self.metavar

    @property
    def is_required(self) -> bool:
        """Whether there is no default."""
        return self.default is dataclasses.MISSING

    @property
    def default(self) -> object:
        """What holds when nobody says anything; ``dataclasses.MISSING`` if somebody must."""
        return {one.name: one.default for one in dataclasses.fields(self.program.settings)}[self.field]
