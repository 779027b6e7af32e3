"""The command ``seance demo``.

It is not built on ``seance.options.config``: its few options are for a person who tries Seance for the first
time, so it reads no configuration file and no environment variables.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from seance.cli.arguments import Parser, checked, port_number
from seance.cli.reload_on_sighup import stop_on_hangup
from seance.cli.stop_on_signal import end_at_next_signal
from seance.cli.terminal import show_warnings_only
from seance.errors import ConfigError
from seance.heads import redact
from seance.net import use_daemon_lookups

if TYPE_CHECKING:
    from seance.demo.stack import DemoSettings, DemoStack

__all__ = ["main"]

COMMAND = "seance demo"

EXTRAS = ("pycrdt", "segno")
"""The packages that ``seance-tunnel[demo]`` installs."""


def main(arguments: Sequence[str]) -> int:
    """Run ``seance demo`` until a signal ends it, and return the exit status.

    Raises:
        SystemExit: An option is wrong, or ``--help`` was given.
    """
    parsed = _parser().parse_args(list(arguments))
    missing = [name for name in EXTRAS if find_spec(name) is None]
    if missing:
        need = f"the demo needs {' and '.join(missing)}: pip install 'seance-tunnel[demo]'"
        sys.stderr.write(f"{COMMAND}: {need}\n")
        return 1
    # Imported here, because the extras may be missing and --help needs no reactor.
    from twisted.internet import reactor  # noqa: PLC0415

    from seance.demo.stack import DemoSettings, DemoStack  # noqa: PLC0415

    use_daemon_lookups(reactor)
    settings = DemoSettings(parsed.host, parsed.port, parsed.room, parsed.store)
    try:
        stack = DemoStack(reactor, settings)
    except ConfigError as error:
        sys.stderr.write(f"{COMMAND}: {error.message}\n")
        return 1
    show_warnings_only()
    return _Run(reactor, stack, with_code=not parsed.no_qr).status()


class _Run:
    """One run of the reactor."""

    def __init__(self, reactor: Any, stack: DemoStack, *, with_code: bool) -> None:  # noqa: ANN401  # no common type
        self._reactor = reactor
        self._stack = stack
        self._with_code = with_code
        self._status = 0
        self._starting: Deferred[None] | None = None

    def status(self) -> int:
        """Run the reactor until it stops, and return the exit status."""
        self._reactor.callWhenRunning(self._start)
        self._reactor.callWhenRunning(stop_on_hangup, self._reactor)
        self._reactor.addSystemEventTrigger("before", "shutdown", self._stop)
        self._reactor.run()
        return self._status

    def _start(self) -> None:
        self._starting = Deferred.fromCoroutine(self._stack.start())
        self._starting.addCallback(self._greet).addErrback(self._give_up)

    def _greet(self, _: None) -> None:
        _say_welcome(self._stack.settings, self._stack.port, self._stack.room, self._with_code)

    def _give_up(self, failure: Failure) -> None:
        if self._starting is None:
            return
        self._status = 1
        if isinstance(failure.value, ConfigError):
            sys.stderr.write(f"{COMMAND}: {failure.value.message}\n")
        else:
            sys.stderr.write(redact(failure.getTraceback()))
        self._reactor.stop()

    def _stop(self) -> Deferred[None]:
        # A second Ctrl-C ends the process immediately.
        end_at_next_signal()
        starting, self._starting = self._starting, None
        if starting is not None:
            starting.cancel()
        return Deferred.fromCoroutine(self._stack.stop())


def _say_welcome(settings: DemoSettings, port: int, room: str, with_code: bool) -> None:
    from seance.demo.welcome import share_link, welcome  # noqa: PLC0415  # needs an extra

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    can_show_blocks = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "") == "utf8"
    text = welcome(
        settings,
        share_link(settings, port, room),
        port,
        with_code=with_code and can_show_blocks,
        is_terminal=sys.stdout.isatty(),
    )
    sys.stdout.write(text)
    sys.stdout.flush()


def _parser() -> Parser:
    parser = Parser(
        "demo", "Run a relay, an agent and a shared text editor on this machine and print a link."
    )
    add = parser.add_argument
    port, host = checked(port_number), checked(_host)
    add("--store", metavar="FILE", type=Path, help="keep the text in FILE (default: until the demo ends)")
    add("--port", metavar="N", type=port, help="the relay's port (default: 8080, or a free one)")
    add("--host", metavar="ADDRESS", type=host, help="the relay's address; 0.0.0.0 opens it to your network")
    add("--room", metavar="NAME", help="the room in the link (default: a random name)")
    add("--no-qr", action="store_true", help="do not show the link as a QR code")
    return parser


def _host(text: str) -> str:
    host = text.removeprefix("[").removesuffix("]")
    if not host or any(character in host for character in "/@% "):
        msg = f"{text!r} is not an address; write one of this machine's, or 0.0.0.0 for all of them"
        raise ValueError(msg)
    return host
