"""A relay, an agent and a document server, put together on one machine.

The embedded document server (``seance.yserver``) is the local server, the agent attaches it to the
relay, the relay shows the pad (``seance.pad``) at the share link. What two tabs write goes
through the relay and the tunnel as it would from the other end of the world. Nothing here is
needed to run Seance in earnest; it is also the shortest example of how to embed the three.
"""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.application.service import IService
from twisted.internet.defer import Deferred, TimeoutError, maybeDeferred
from twisted.internet.endpoints import quoteStringArgument
from twisted.python.failure import Failure

from seance.errors import ConfigError
from seance.pad.page import make_pad_page
from seance.tunnel.agent import Agent
from seance.tunnel.relay import Relay
from seance.tunnel.settings import AgentSettings, RelaySettings, check_room
from seance.yserver.service import YServer

__all__ = ["DemoSettings", "Trio"]

PORT = 8080

CONNECT_SECONDS = 10.0
"""The agent dials this very process; if that takes longer, something is in the way."""

WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # only where a person asks for it
"""Addresses that mean all of a machine's, and how it reaches itself then."""


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """What the demo can be told.

    Attributes:
        host: The address that the relay listens on; None is loopback, in both families.
        port: Its port; None is 8080, or a free one if that is taken.
        room: The room; None makes one up that nobody can guess.
        store: A file that keeps the documents; None forgets them at the end.
    """

    host: str | None = None
    port: int | None = None
    room: str | None = None
    store: Path | None = None


class Trio:
    """The three of them.

    Args:
        reactor: Twisted's reactor.
        settings: What they were told.

    Raises:
        ConfigError: The room is not a room name.
    """

    def __init__(self, reactor: Any, settings: DemoSettings) -> None:  # noqa: ANN401  # no common type
        self._reactor = reactor
        self.settings = settings
        self.room = check_room(make_room() if settings.room is None else settings.room)
        self.port = 0
        self._running: list[IService] = []

    async def start(self) -> None:
        """Start them; the link works when this returns.

        Raises:
            ConfigError: One cannot be started. Those that were have been stopped again.
        """
        try:
            await self._start()
        except ConfigError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop them, the agent first, so that it can take its leave."""
        while self._running:
            await maybeDeferred(self._running.pop().stopService)

    async def _start(self) -> None:
        server = YServer(self._reactor, store=self.settings.store)
        self._run(server)
        local = await server.when_listening()
        relay = self._start_relay()
        ports = await relay.when_listening()
        self.port = ports[0].getHost().port  # type: ignore[attr-defined]  # it is an IP address
        agent = Agent(
            self._reactor,
            AgentSettings(
                room=self.room,
                relay=f"ws://{self._relay_host()}:{self.port}",
                local=f"127.0.0.1:{local.getHost().port}",  # type: ignore[attr-defined]
            ),
        )
        self._run(agent)
        waiting: Deferred[None] = agent.when_connected()
        waiting.addTimeout(CONNECT_SECONDS, self._reactor)
        await waiting.addErrback(_explain)

    def _start_relay(self) -> Relay:
        if self.settings.port is not None:
            return self._relay_on(self.settings.port)
        try:
            return self._relay_on(PORT)
        except ConfigError:
            return self._relay_on(0)

    def _relay_on(self, port: int) -> Relay:
        host = self.settings.host
        listen = () if host is None else (f"tcp:{port}:interface={quoteStringArgument(host)}",)
        relay = Relay(self._reactor, RelaySettings(listen=listen, port=port, pad=make_pad_page(), open=True))
        self._run(relay)
        return relay

    def _relay_host(self) -> str:
        host = self.settings.host or "127.0.0.1"
        host = WILDCARDS.get(host, host)
        return f"[{host}]" if ":" in host else host

    def _run(self, service: IService) -> None:
        service.startService()
        self._running.append(service)


def make_room() -> str:
    """Return a room name of 80 random bits, made of what is easy to type from a screen."""
    return base64.b32encode(secrets.token_bytes(10)).decode().lower()


def _explain(failure: Failure) -> None:
    failure.trap(TimeoutError)
    raise ConfigError("The agent could not reach the relay, although both are in this process.")
