"""The command itself: options in, a running demo, an exit status out.

Not built on ``seance.config``: the demo's few options are for a person at a terminal who tries
Seance for the first time, so there is no config file and no environment to consider.
"""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from seance.arguments import Parser, checked, port_number
from seance.errors import ConfigError
from seance.hangup import stop_on_hangup
from seance.heads import redact
from seance.net import use_daemon_lookups
from seance.terminal import show_trouble_only

if TYPE_CHECKING:
    from seance.demo.trio import DemoSettings, Trio

__all__ = ["main"]

COMMAND = "seance demo"

EXTRAS = ("pycrdt", "segno")
"""What ``seance-tunnel[demo]`` installs."""


def main(arguments: Sequence[str]) -> int:
    """Runs ``seance demo`` until a signal ends it; returns the exit status.

    Raises:
        SystemExit: An option is wrong, or only the help was wanted.
    """
    parsed = _parser().parse_args(list(arguments))
    missing = [name for name in EXTRAS if find_spec(name) is None]
    if missing:
        need = f"the demo needs {' and '.join(missing)}: pip install 'seance-tunnel[demo]'"
        sys.stderr.write(f"{COMMAND}: {need}\n")
        return 1
    # Imported on use: the extras may be missing, and whoever asks for help needs no reactor.
    from twisted.internet import reactor  # noqa: PLC0415

    from seance.demo.trio import DemoSettings, Trio  # noqa: PLC0415

    use_daemon_lookups(reactor)
    settings = DemoSettings(parsed.host, parsed.port, parsed.room, parsed.store)
    try:
        trio = Trio(reactor, settings)
    except ConfigError as error:
        sys.stderr.write(f"{COMMAND}: {error.sentence}\n")
        return 1
    show_trouble_only()
    return _Run(reactor, trio, with_code=not parsed.no_qr).status()


class _Run:
    """One run of the reactor."""

    def __init__(self, reactor: Any, trio: Trio, *, with_code: bool) -> None:  # noqa: ANN401  # no common type
        self._reactor = reactor
        self._trio = trio
        self._with_code = with_code
        self._status = 0
        self._starting: Deferred[None] | None = None

    def status(self) -> int:
        """Runs the reactor to its end."""
        self._reactor.callWhenRunning(self._start)
        self._reactor.callWhenRunning(stop_on_hangup, self._reactor)
        self._reactor.addSystemEventTrigger("before", "shutdown", self._stop)
        self._reactor.run()
        return self._status

    def _start(self) -> None:
        self._starting = Deferred.fromCoroutine(self._trio.start())
        self._starting.addCallback(self._greet).addErrback(self._give_up)

    def _greet(self, _: None) -> None:
        _say_welcome(self._trio.settings, self._trio.port, self._trio.room, self._with_code)

    def _give_up(self, failure: Failure) -> None:
        if self._starting is None:
            return
        self._status = 1
        if isinstance(failure.value, ConfigError):
            sys.stderr.write(f"{COMMAND}: {failure.value.sentence}\n")
        else:
            sys.stderr.write(redact(failure.getTraceback()))
        self._reactor.stop()

    def _stop(self) -> Deferred[None]:
        # A person who presses Ctrl-C twice does not want to wait for the rest of the leave-taking.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        starting, self._starting = self._starting, None
        if starting is not None:
            starting.cancel()
        return Deferred.fromCoroutine(self._trio.stop())


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
        "demo", "Runs a relay, an agent and a shared text editor on this machine and prints a link."
    )
    add = parser.add_argument
    port, host = checked(port_number), checked(_host)
    add("--store", metavar="FILE", type=Path, help="keep the text in FILE (default: forget it at the end)")
    add("--port", metavar="N", type=port, help="the relay's port (default: 8080, or a free one)")
    add("--host", metavar="ADDRESS", type=host, help="the relay's address; 0.0.0.0 opens it to your network")
    add("--room", metavar="NAME", help="the room in the link (default: one that nobody can guess)")
    add("--no-qr", action="store_true", help="do not show the link as a QR code")
    return parser


def _host(text: str) -> str:
    host = text.removeprefix("[").removesuffix("]")
    if not host or any(character in host for character in "/@% "):
        msg = f"{text!r} is not an address; write one of this machine's, or 0.0.0.0 for all of them"
        raise ValueError(msg)
    return host
