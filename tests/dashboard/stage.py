"""A real relay with an admin port, agents and clients, for the dashboard and ``seance status``."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from tests.attacks.parties import EchoServer
from tests.e2e.wire import Wire, upgrade
from tests.pad.browser import Browser
from tests.processes import AgentProcess, RelayProcess, running_agent, running_relay, until

__all__ = ["ADMIN", "Page", "Stage", "admin_url", "running_stage"]

ADMIN = ("--admin", "tcp:0:interface=127.0.0.1")


class Stage:
    """A relay and a local server; create it with ``running_stage``, which closes everything at the end."""

    def __init__(self, relay: RelayProcess, local: EchoServer, stack: ExitStack) -> None:
        self.relay = relay
        self.url = admin_url(relay)
        self.local = local
        self._stack = stack

    def host(self, room: str, *options: str, local_port: int | None = None) -> AgentProcess:
        """Start an agent for a room; the local server is the echo server by default."""
        port = local_port or self.local.port
        return self._stack.enter_context(running_agent(self.relay, room, *options, local_port=port))

    def join(self, room: str, fields: bytes = b"") -> Wire:
        """Connect a client to a room."""
        client = self._stack.enter_context(Wire.dial(("127.0.0.1", self.relay.port)))
        client.send(upgrade(f"/client?room={room}", fields))
        assert client.read_head().status == 101
        return client

    def refused(self, room: str = "no-agent") -> int:
        """Send an upgrade that is refused; return the status."""
        with Wire.dial(("127.0.0.1", self.relay.port)) as client:
            client.send(upgrade(f"/client?room={room}"))
            return client.read_head().status


class Page:
    """An open dashboard in the browser."""

    def __init__(self, browser: Browser, who: str) -> None:
        self._browser = browser
        self.who = who

    def ask(self, question: str, **rest: Any) -> Any:
        """See ``tests/pad/browser.mjs``."""
        return self._browser.ask(question, who=self.who, **rest)

    def is_(self, expression: str) -> Any:
        """Evaluate a JavaScript expression."""
        return self.ask("evaluate", expression=expression)

    def text(self, selector: str) -> str:
        """Return the text of an element."""
        return str(self.is_(f"document.querySelector({selector!r})?.innerText ?? ''"))

    def when(self, expression: str) -> None:
        """Wait until an expression holds."""
        until(expression, lambda: bool(self.is_(expression)))

    def when_text(self, selector: str, pattern: str) -> str:
        """Wait until the text of an element matches, and return it."""
        until(
            f"{selector} is {pattern}, not {self.text(selector)!r}",
            lambda: re.fullmatch(pattern, self.text(selector), re.DOTALL) is not None,
        )
        return self.text(selector)


def admin_url(relay: RelayProcess) -> str:
    """Return the URL of the relay's admin port from its log."""
    return relay.when_line(r"Admin pages: (https?://\S+)")[1]


@contextlib.contextmanager
def running_stage(*options: str) -> Iterator[Stage]:
    """Run a relay and a local server."""
    with running_relay(*ADMIN, *options) as relay, EchoServer() as local, ExitStack() as stack:
        yield Stage(relay, local, stack)
