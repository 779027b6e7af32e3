"""Runs a service in the foreground until a signal stops it, for ``seance relay`` and ``seance agent``.

It does the same as ``twistd -n`` without a pid file. The log goes to stdout, or to stderr if stdout has
status lines. SIGINT and SIGTERM stop the service in order; the exit status is then 0.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from twisted.application.service import IService
from twisted.logger import Logger, globalLogBeginner

from seance.cli.stop_on_signal import end_at_next_signal
from seance.errors import ConfigError
from seance.logs.format import in_background, log_observer
from seance.logs.redacting import redact_logs
from seance.options.flags import ProgramOptions

__all__ = ["run_in_foreground"]

_log = Logger()

AnyOptions = TypeVar("AnyOptions", bound=ProgramOptions)  # type: ignore[type-arg]  # of any settings


def run_in_foreground(
    command: str,
    options: AnyOptions,
    make_service: Callable[[AnyOptions], IService],
    arguments: Sequence[str],
) -> int:
    """Parse the options, start the service and run the reactor until it is stopped.

    Args:
        command: The command as it was typed, for messages and help.
        options: Options that are not parsed yet.
        make_service: Makes the service from the parsed options.
        arguments: The command line after the command.

    Returns:
        The exit status: 0 after a signal, 1 if the service could not start.

    Raises:
        SystemExit: An option is invalid; the message goes to stderr and the status is 1.
    """
    options.command = command
    options.parseOptions(list(arguments))
    from twisted.internet import reactor  # noqa: PLC0415

    out = sys.stderr if options.logs_to_stderr else sys.stdout
    if isinstance(out, io.TextIOWrapper):
        # A character that the terminal cannot encode must not end a relay.
        out.reconfigure(errors="backslashreplace")
    log_format = options.settings.log_format
    redact_logs()  # before the observer that writes, because observers run in order
    observer = log_observer(log_format, in_background(out, log_format))
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    try:
        service = make_service(options)
    except ConfigError as error:
        _report(command, error)
        return 1
    status = [0]

    def start() -> None:
        try:
            service.privilegedStartService()
            service.startService()
        except Exception as error:
            status[:] = [1]
            reactor.stop()
            if not isinstance(error, ConfigError):
                raise
            _report(command, error)
        else:
            reactor.addSystemEventTrigger("before", "shutdown", service.stopService)

    # Start only when the reactor runs. Its signal handlers are then installed, so a process that has read the
    # first line of the log can stop this one in order.
    reactor.callWhenRunning(start)
    reactor.addSystemEventTrigger("before", "shutdown", end_at_next_signal)
    reactor.run()
    return status[0]


def _report(command: str, error: ConfigError) -> None:
    """Write why the service does not start to the log and to stderr."""
    _log.error("{sentence}", sentence=error.message, event="config.refused")
    sys.stderr.write(f"{command}: {error.message}\n")
