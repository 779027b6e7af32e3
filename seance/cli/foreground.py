"""Runs one service in this process, in the foreground, until a signal ends it.

What ``twistd -n`` does, without a pid file and without twistd: the log goes to stdout (to stderr, where
stdout is for something else), SIGINT and SIGTERM stop the service in order, and the exit status is then 0.
``seance relay`` and ``seance agent`` end up here; programs that embed Seance have a reactor of their own
and do not.
"""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from twisted.application.service import IService
from twisted.logger import Logger, globalLogBeginner

from seance.errors import ConfigError
from seance.logs.format import in_background, log_observer
from seance.logs.redacting import redact_logs
from seance.options.flags import ProgramOptions

__all__ = ["run_in_foreground"]

_log = Logger()

AnyOptions = TypeVar("AnyOptions", bound=ProgramOptions)  # type: ignore[type-arg]  # of whatever settings


def run_in_foreground(
    command: str,
    options: AnyOptions,
    make_service: Callable[[AnyOptions], IService],
    arguments: Sequence[str],
) -> int:
    """Parses the options, starts the service and runs the reactor until it is stopped.

    Args:
        command: What the person typed, for sentences and help.
        options: Fresh options of the service.
        make_service: Makes the service from the parsed options.
        arguments: The command line after the command.

    Returns:
        The exit status: 0 after a signal, 1 if the service could not start.

    Raises:
        SystemExit: An option is wrong; its sentence goes to stderr and the status is 1.
    """
    options.command = command
    options.parseOptions(list(arguments))
    from twisted.internet import reactor  # noqa: PLC0415

    out = sys.stderr if options.logs_to_stderr else sys.stdout
    if isinstance(out, io.TextIOWrapper):
        # The log speaks to people, and a terminal that lacks a sign must not end a relay.
        out.reconfigure(errors="backslashreplace")
    log_format = options.settings.log_format
    redact_logs()  # before what writes, which is added now
    observer = log_observer(log_format, in_background(out, log_format))
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    try:
        service = make_service(options)
    except ConfigError as error:
        _refuse(command, error)
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
            _refuse(command, error)
        else:
            reactor.addSystemEventTrigger("before", "shutdown", service.stopService)

    # Once the reactor runs, and not before: a signal is then already one of the reactor's, so that
    # whoever has read the first line of the log can end us in order.
    reactor.callWhenRunning(start)
    reactor.addSystemEventTrigger("before", "shutdown", _let_a_second_signal_kill)
    reactor.run()
    return status[0]


def _refuse(command: str, error: ConfigError) -> None:
    """Say why nothing starts: to whoever reads the log, and to the person who typed the command."""
    _log.error("{sentence}", sentence=error.sentence, event="config.refused")
    sys.stderr.write(f"{command}: {error.sentence}\n")


def _let_a_second_signal_kill() -> None:
    """A person who presses Ctrl-C twice does not want to wait for the rest of the leave-taking."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
