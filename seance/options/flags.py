"""The command line of a relay or an agent, generated from the options.

twistd needs a ``usage.Options``; ``seance relay`` and ``seance agent`` use the same classes, which
``seance.relay_tap`` and ``seance.agent_tap`` derive from ``ProgramOptions``. An invalid option ends the
program with one message on stderr and status 1; twistd itself would print its whole help before the message.
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

__all__ = ["ProgramOptions"]

REACTOR_NAME = "seance"
"""Name of our reactor for ``twistd --reactor`` and the variable ``SEANCE_REACTOR``."""

TWISTD_PID_FILE = "twistd.pid"
"""The default of ``twistd --pidfile``."""

Settings = TypeVar("Settings", bound=RelaySettings | AgentSettings)

HELP_COLUMNS = 100
FLAG_COLUMNS = 30


class ProgramOptions(usage.Options, Generic[Settings]):
    """The flags of one program, as ``usage.Options``.

    Attributes:
        settings: The settings, after ``parseOptions``.
        command: The command as it was typed, for messages and help.
    """

    program: ClassVar[Program]
    longdesc: ClassVar[str]
    _log = Logger()

    def __init_subclass__(cls, program: Program) -> None:
        """Add an ``opt_`` method for each flag; Twisted finds the flags by these methods."""
        cls.program = program
        for option in options_of(program):
            for name, method in _opt_methods(option).items():
                setattr(cls, f"opt_{name.replace('-', '_')}", method)

    def __init__(self) -> None:
        self.settings: Settings
        self.command = f"seance-{self.program.value}"
        self._flags: dict[str, list[str]] = {}
        self._show_all = False
        self._make_observer: Callable[[], ILogObserver] | None = None
        super().__init__()

    def make_settings(self, flags: Mapping[str, Sequence[str]], environment: Mapping[str, str]) -> Settings:
        """Return the settings; implemented by the subclass.

        Raises:
            ConfigError: See ``seance.options.config``.
        """
        raise NotImplementedError

    @property
    def logs_to_stderr(self) -> bool:
        """Whether the log goes to stderr because stdout has status lines; after ``parseOptions``."""
        return isinstance(self.settings, AgentSettings) and self.settings.status_json

    def make_services(self) -> LoggedServices:
        """Return the parent for the services of the program; call it after ``parseOptions``."""
        return LoggedServices(self._make_observer)

    def add_flag(self, name: str, text: str) -> None:
        """Store the value of a flag; called by the ``opt_`` methods."""
        self._flags.setdefault(name, []).append(text)

    def opt_config(self, path: str) -> None:
        """Read a config file (TOML)."""
        self.add_flag("config", path)

    def opt_help_all(self) -> None:
        """Print help for all options and exit."""
        self._show_all = True
        self.opt_help()

    def opt_version(self) -> None:
        """Print the version and exit."""
        sys.stdout.write(f"seance-tunnel {__version__}\n")
        raise SystemExit(0)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse the command line and make the settings.

        Raises:
            SystemExit: An option is invalid. Python prints the message to stderr and exits with status 1.
        """
        try:
            # Before parsing, because the parser of an endpoint imports the reactor.
            _install_reactor(os.environ.get("SEANCE_REACTOR", ""))
            super().parseOptions(options)
        except usage.UsageError as error:
            message = str(error).rstrip(".")
            raise SystemExit(
                f"{self.command}: {message}; {self.command} --help-all lists the options."
            ) from error
        except ConfigError as error:
            raise SystemExit(f"{self.command}: {error.message}") from error

    def parseArgs(self, *arguments: str) -> None:
        """Reject positional arguments."""
        if arguments:
            msg = f"{arguments[0]!r} is not an option"
            raise usage.UsageError(msg)

    def postOptions(self) -> None:
        """Make the settings; under twistd also prepare the log, the pid file and error messages."""
        self.settings = self.make_settings(self._flags, os.environ)
        if self.parent is not None:
            if self.parent.get("rundir", ".") != ".":
                # twistd changes the directory between here and the start of the services.
                self.settings = with_absolute_paths(self.settings, self.program, os.getcwd())
            self._make_observer = log_for_twistd(
                self.parent, self.settings.log_format, to_stderr=self.logs_to_stderr
            )
            if self.parent.get("nodaemon") and self.parent.get("pidfile") == TWISTD_PID_FILE:
                # Two programs that run in the foreground of one folder cannot share a pid file.
                self.parent["pidfile"] = ""
            self._report_config_errors_of_twistd()

    def getSynopsis(self) -> str:
        """Return the first line of the help."""
        return f"Usage: {self.command} [options]\n"

    def getUsage(self, width: int | None = None) -> str:
        """Return the common options, or with ``--help-all`` all options in groups."""
        options = options_of(self.program)
        shown = [option for option in options if option.info.is_common or self._show_all]
        parts = [f"{self.longdesc}\n", "" if self._show_all else "\nOptions:\n"]
        for option in shown:
            if self._show_all and option.info.group:
                parts.append(f"\n{option.info.group}:\n")
            again = " (repeatable)" if option.is_repeatable else ""
            variables = option.variables if self._show_all else ()
            notes = ", ".join(filter(None, (default_in_words(option), *variables)))
            parts.append(
                _help_lines(option.flag, f"{option.info.help}{again}{f' [{notes}]' if notes else ''}")
            )
        parts += [
            "\nGeneral:\n" if self._show_all else "",
            _help_lines("--config FILE", "read a config file (TOML) [SEANCE_CONFIG]"),
            _help_lines("--version", "print the version"),
            _help_lines("--help", "print the most used options"),
            _help_lines("--help-all", f"print all {len(options)} options and their environment variables"),
        ]
        return "".join(parts)

    def _report_config_errors_of_twistd(self) -> None:
        """Make twistd report a ``ConfigError`` of ``startService`` as a message instead of a traceback.

        Some errors, such as a port in use, occur only while the service starts. twistd then cleans up (pid
        file, waiting parent process) and lets the exception propagate. ``sys.excepthook`` therefore prints
        the message: ``SystemExit`` would skip the cleanup.
        """
        previous = sys.excepthook

        def report(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
            if not isinstance(error, ConfigError):
                previous(kind, error, traceback)
                return
            # sys.stderr is Twisted's log now. A daemon has no other output than the log.
            self._log.error("{sentence}", sentence=error.message, event="config.refused")
            if sys.__stderr__ is not None:
                sys.__stderr__.write(f"{self.command}: {error.message}\n")

        sys.excepthook = report


def _install_reactor(name: str) -> None:
    """Install the reactor ``name`` if the process has none; by default ours on Linux (decision 17).

    ``twistd --reactor NAME`` installs NAME before it parses the options of the service, so NAME is kept.

    Raises:
        ConfigError: No reactor has this name.
    """
    if "twisted.internet.reactor" in sys.modules:
        return
    if name in ("", REACTOR_NAME):
        if name or sys.platform.startswith("linux"):
            # Imported directly: a frozen program has no plugins, and searching for plugins takes time.
            from seance.net.reactor import install  # noqa: PLC0415

            install()
        return
    try:
        installReactor(name)
    except NoSuchReactor as error:
        message = f"SEANCE_REACTOR: {name!r} is not a reactor; twistd --help-reactors lists the reactors."
        raise ConfigError(message, code="reactor") from error


def _opt_methods(option: Option) -> dict[str, Callable[..., None]]:
    """Return the methods that ``usage.Options`` calls for the flags of an option, by flag."""

    def set_value(self: ProgramOptions[Any], text: str) -> None:
        self.add_flag(option.name, text)

    def turn_on(self: ProgramOptions[Any]) -> None:
        self.add_flag(option.name, "yes")

    def turn_off(self: ProgramOptions[Any]) -> None:
        self.add_flag(option.name, "no")

    if option.is_flag:
        return {option.name: turn_on, f"no-{option.name}": turn_off}
    return {option.name: set_value}


def _help_lines(flag: str, text: str) -> str:
    indent = " " * FLAG_COLUMNS
    gap = f"\n{indent}" if len(flag) + 4 > FLAG_COLUMNS else " " * (FLAG_COLUMNS - len(flag) - 2)
    body = f"\n{indent}".join(textwrap.wrap(text, HELP_COLUMNS - FLAG_COLUMNS, break_on_hyphens=False))
    return f"  {flag}{gap}{body}\n"
