"""The command line of one program, made from the table of options.

``usage.Options`` is what twistd asks for; ``seance relay`` and ``seance agent`` use the same
classes. Parsing ends with ``settings`` filled, or with one sentence on stderr and status 1:
twistd by itself would print all of its help before the sentence.

Subclassed by ``seance.relay_tap`` and ``seance.agent_tap``, and nowhere else.
"""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, ClassVar, Generic, TypeVar

from twisted.application.reactors import NoSuchReactor, installReactor
from twisted.logger import ILogObserver, Logger
from twisted.python import usage

from seance import __version__
from seance.core.settings import AgentSettings, RelaySettings
from seance.errors import ConfigError
from seance.logs.format import LoggedServices, log_for_twistd
from seance.options import Option, Program, default_in_words, options_of
from seance.options.paths import with_absolute_paths

__all__ = ["TableOptions"]

OURS = "seance"
"""Name of our reactor for ``twistd --reactor`` and ``SEANCE_REACTOR``."""

TWISTD_PID_FILE = "twistd.pid"
"""What ``twistd`` writes if it is not told otherwise."""

Settings = TypeVar("Settings", bound=RelaySettings | AgentSettings)

HELP_COLUMNS = 100
FLAG_COLUMNS = 30


class TableOptions(usage.Options, Generic[Settings]):
    """The flags of one program, as ``usage.Options``.

    Call ``parseOptions``; then ``settings`` is what the program is told.

    Attributes:
        settings: The frozen settings, once the options are parsed.
        command: How the program was called, for sentences and help.
    """

    program: ClassVar[Program]
    longdesc: ClassVar[str]
    _log = Logger()

    def __init_subclass__(cls, program: Program) -> None:
        """Gives the subclass one ``opt_`` method for each option, which is how Twisted finds them."""
        cls.program = program
        for option in options_of(program):
            for name, method in _setters(option).items():
                setattr(cls, f"opt_{name.replace('-', '_')}", method)

    def __init__(self) -> None:
        self.settings: Settings
        self.command = f"seance-{self.program.value}"
        self._given: dict[str, list[str]] = {}
        self._make_observer: Callable[[], ILogObserver] | None = None
        super().__init__()

    def make_settings(self, flags: Mapping[str, Sequence[str]], environment: Mapping[str, str]) -> Settings:
        """Returns what the flags and the environment come to; the subclass knows how.

        Raises:
            ConfigError: Something is wrong, in one sentence.
        """
        raise NotImplementedError

    @property
    def speaks_on_stdout(self) -> bool:
        """Whether stdout is for something else than the log, once the options are parsed."""
        return isinstance(self.settings, AgentSettings) and self.settings.status_json

    def make_services(self) -> LoggedServices:
        """Returns what the program's services are put into; call it once the options are parsed."""
        return LoggedServices(self._make_observer)

    def note(self, name: str, text: str) -> None:
        """Keeps what the command line said; called by the ``opt_`` methods."""
        self._given.setdefault(name, []).append(text)

    def opt_config(self, path: str) -> None:
        """Read a TOML file."""
        self.note("config", path)

    def opt_version(self) -> None:
        """Say the version and end."""
        sys.stdout.write(f"seance-tunnel {__version__}\n")
        raise SystemExit(0)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parses the command line.

        Raises:
            SystemExit: With one sentence, which Python prints to stderr, and status 1.
        """
        try:
            # First, because checking an endpoint option imports the reactor.
            _install_reactor(os.environ.get("SEANCE_REACTOR", ""))
            super().parseOptions(options)
        except usage.UsageError as error:
            sentence = str(error).rstrip(".")
            raise SystemExit(
                f"{self.command}: {sentence}; {self.command} --help lists the options."
            ) from error
        except ConfigError as error:
            raise SystemExit(f"{self.command}: {error.sentence}") from error

    def parseArgs(self, *arguments: str) -> None:
        """Refuses what is not an option."""
        if arguments:
            msg = f"{arguments[0]!r} is not an option"
            raise usage.UsageError(msg)

    def postOptions(self) -> None:
        """Makes the settings, and has what goes wrong while starting said as plainly."""
        self.settings = self.make_settings(self._given, os.environ)
        if self.parent is not None:
            if self.parent.get("rundir", ".") != ".":
                # twistd changes the directory between here and the start of the services.
                self.settings = with_absolute_paths(self.settings, self.program, os.getcwd())
            log = log_for_twistd(self.parent, self.settings.log_format, to_stderr=self.speaks_on_stdout)
            self._make_observer = log
            self._write_no_pid_file()
            self._say_config_errors_of_twistd()

    def _write_no_pid_file(self) -> None:
        """In the foreground nobody needs a pid file, and two programs in one folder cannot share it."""
        parent = self.parent
        if parent is not None and parent.get("nodaemon") and parent.get("pidfile") == TWISTD_PID_FILE:
            parent["pidfile"] = ""

    def getSynopsis(self) -> str:
        """Returns the first line of the help."""
        return f"Usage: {self.command} [options]\n"

    def getUsage(self, width: int | None = None) -> str:
        """Returns the options with their defaults and environment variables."""
        lines = [_help_lines("--config FILE", "read a TOML file", "SEANCE_CONFIG")]
        for option in options_of(self.program):
            again = " (repeatable)" if option.repeatable else ""
            notes = [default_in_words(option), option.variable, *option.also_from]
            flag = f"--{option.name} {option.metavar}".rstrip()
            lines.append(_help_lines(flag, option.help + again, ", ".join(note for note in notes if note)))
        lines.append(_help_lines("--version", "say the version and end"))
        lines.append(_help_lines("--help", "show this and end"))
        return f"{self.longdesc}\n\nOptions:\n{''.join(lines)}"

    def _say_config_errors_of_twistd(self) -> None:
        """Has a ConfigError of ``startService`` end twistd with its sentence instead of a traceback.

        A port in use shows only while the service starts. twistd then cleans up (its pid file, the
        parent that waits) and lets the exception go on, so the interpreter's last word on an exception
        is the place to turn it into a sentence; leaving with SystemExit would skip that cleaning.
        """
        usual = sys.excepthook

        def say(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
            if not isinstance(error, ConfigError):
                usual(kind, error, traceback)
                return
            # sys.stderr is Twisted's log by now. A daemon has no other place to say it.
            self._log.error("{sentence}", sentence=error.sentence, event="config.refused")
            if sys.__stderr__ is not None:
                sys.__stderr__.write(f"{self.command}: {error.sentence}\n")

        sys.excepthook = say


def _install_reactor(name: str) -> None:
    """Install the reactor ``name``, by default ours on Linux (decision 17), unless the process has one.

    ``twistd --reactor NAME`` installs NAME before it parses the options of the service, so that choice stays.

    Raises:
        ConfigError: No reactor has this name.
    """
    if "twisted.internet.reactor" in sys.modules:
        return
    if name in ("", OURS):
        if name or sys.platform.startswith("linux"):
            # Imported directly: a frozen program has no plugins, and looking for them takes time.
            from seance.net.reactor import install  # noqa: PLC0415

            install()
        return
    try:
        installReactor(name)
    except NoSuchReactor as error:
        sentence = f"SEANCE_REACTOR names {name!r}, which is none of twistd --help-reactors."
        raise ConfigError(sentence, code="reactor") from error


def _setters(option: Option) -> dict[str, Callable[..., None]]:
    """Returns the methods by which ``usage.Options`` tells us of one option."""

    def take(self: TableOptions[Any], text: str) -> None:
        self.note(option.name, text)

    def switch_on(self: TableOptions[Any]) -> None:
        self.note(option.name, "yes")

    def switch_off(self: TableOptions[Any]) -> None:
        self.note(option.name, "no")

    return (
        {option.name: switch_on, f"no-{option.name}": switch_off} if option.is_flag else {option.name: take}
    )


def _help_lines(flag: str, text: str, notes: str = "") -> str:
    body = f"{text} [{notes}]" if notes else text
    indent = " " * FLAG_COLUMNS
    gap = f"\n{indent}" if len(flag) + 4 > FLAG_COLUMNS else " " * (FLAG_COLUMNS - len(flag) - 2)
    wrapped = textwrap.fill(body, HELP_COLUMNS - FLAG_COLUMNS, break_on_hyphens=False).replace(
        "\n", f"\n{indent}"
    )
    return f"  {flag}{gap}{wrapped}\n"
