"""A relay, an agent and a document server in one process.

The document server (``seance.yserver``) is the local server, the agent connects it to the relay, and the
relay serves the pad (``seance.pad``) at the share link. Text written in two tabs goes through relay and
tunnel, as it would between two machines. This module is also an example of how to embed the three.
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

from seance.agent.service import Agent
from seance.core.settings import AgentSettings, RelaySettings, check_room
from seance.errors import ConfigError
from seance.pad.page import make_pad_page
from seance.relay.service import Relay
from seance.yserver.service import YServer

__all__ = ["DemoSettings", "DemoStack"]

PORT = 8080

CONNECT_SECONDS = 10.0
"""Timeout of the agent's first connection, which is to this process."""

WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # only if a person asks for it
"""Addresses that mean all addresses of a machine, and the one by which it reaches itself."""


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """Settings of the demo.

    Attributes:
        host: The address that the relay listens on; None is loopback, in both address families.
        port: Its port; None is 8080, or a free one if that is taken.
        room: The name of the room; None makes a random one.
        store: A file that keeps the documents; None keeps them until the demo ends.
    """

    host: str | None = None
    port: int | None = None
    room: str | None = None
    store: Path | None = None


class DemoStack:
    """The document server, the relay and the agent.

    Raises:
        ConfigError: ``settings.room`` is not a room name.
    """

    def __init__(self, reactor: Any, settings: DemoSettings) -> None:  # noqa: ANN401  # no common type
        self._reactor = reactor
        self.settings = settings
        self.room = check_room(make_room() if settings.room is None else settings.room)
        self.port = 0
        self._running: list[IService] = []

    async def start(self) -> None:
        """Start the services and wait until the share link works.

        Raises:
            ConfigError: A service cannot be started; the others have been stopped again.
        """
        try:
            await self._start()
        except ConfigError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop the services, the agent first, so that it can close its link."""
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
    """Return a room name of 80 random bits, in characters that are easy to type from a screen."""
    return base64.b32encode(secrets.token_bytes(10)).decode().lower()


def _explain(failure: Failure) -> None:
    failure.trap(TimeoutError)
    raise ConfigError("The agent could not reach the relay, although both are in this process.")
