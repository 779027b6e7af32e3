"""A tunnel with an admin port in the reactor of the test, and requests with ``httpx`` from a thread."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import httpx
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThread

from seance.admin.port import RelayAdmin
from seance.admin.site import AdminRoute
from seance.core.interfaces import Verifier
from seance.relay.service import Relay
from tests.relay.rig import Player, Rig, reactor, until

__all__ = ["CHANGE", "AdminRig", "Events", "ask_at"]

CHANGE = {"Seance-Admin": "test"}
"""The header field of requests that change something."""


async def ask_at(
    url: str, *, method: str = "GET", headers: dict[str, str] | None = None, **options: Any
) -> httpx.Response:
    """Send one request on a new connection."""

    def ask() -> httpx.Response:
        # verify=False: loading the system's authorities takes longer than the request.
        with httpx.Client(trust_env=False, **{"timeout": 30, "verify": False, **options}) as client:
            return client.request(method, url, headers=headers)

    return await deferToThread(ask)


class AdminRig(Rig):
    """``Rig`` with an admin port."""

    def __init__(
        self,
        *,
        relay: dict[str, Any] | None = None,
        verifier: Verifier | None = None,
        routes: Iterable[AdminRoute] = (),
        **options: Any,
    ) -> None:
        super().__init__(relay={"admin": "tcp:0:interface=127.0.0.1", **(relay or {})}, **options)
        self.admin = RelayAdmin(reactor, self.relay.settings, verifier=verifier, routes=routes)
        self.relay = Relay(reactor, self.relay.settings, verifier=verifier, observer=self.admin.observer)
        self.admin.watch(self.relay)

    async def __aenter__(self) -> AdminRig:
        await super().__aenter__()
        self.admin.startService()
        port: IListeningPort | None = await self.admin.when_listening()
        assert port is not None
        self.admin_number: int = port.getHost().port  # type: ignore[union-attr]
        self.url = f"http://127.0.0.1:{self.admin_number}"
        return self

    async def __aexit__(self, *args: object) -> None:
        for player in self.clients + self.locals:
            if player.lost is None and player.transport is not None:
                player.leg.abortConnection()
        for agent in self._agents:
            await agent.stopService()
        await self.admin.stopService()
        await super().__aexit__(*args)

    async def joined_with(self, token: str, room: str = "r") -> tuple[Player, Player]:
        """Return a client with a token and the local server's side, connected."""
        return await self.joined(f"/client?room={room}&access_token={token}")

    async def ask(self, path: str, method: str = "GET", **options: Any) -> httpx.Response:
        """Send a request to the admin port, with ``CHANGE`` where necessary."""
        headers = {**(CHANGE if method not in ("GET", "HEAD") else {}), **options.pop("headers", {})}
        return await ask_at(self.url + path, method=method, headers=headers, **options)

    async def json(self, path: str) -> Any:
        response = await self.ask(path)
        assert response.status_code == 200, response.text
        return response.json()

    async def events(self, *fields: str, host: str = "localhost") -> Events:
        """Subscribe to the event stream."""
        player = Player()
        self.clients.append(player)
        factory = Factory.forProtocol(lambda: player)  # type: ignore[arg-type]  # any callable does
        factory.noisy = False
        await TCP4ClientEndpoint(reactor, "127.0.0.1", self.admin_number).connect(factory)
        lines = ["GET /api/events HTTP/1.1", f"Host: {host}", *fields]
        player.send("\r\n".join(lines).encode() + b"\r\n\r\n")
        events = Events(player)
        await player.receives(b"\r\n\r\n")
        return events


class Events:
    """A subscriber that parses the stream."""

    def __init__(self, player: Player) -> None:
        self.player = player

    @property
    def status(self) -> int:
        return int(self.player.received.split(b" ", 2)[1])

    def all(self, name: str) -> list[Any]:
        """Return the events of this name."""
        _, _, body = self.player.received.partition(b"\r\n\r\n")
        text = b"".join(_chunks(bytes(body))).decode()
        blocks = [block.split("\n") for block in text.split("\n\n") if block.startswith("event: ")]
        return [json.loads(data[len("data: ") :]) for event, data in blocks if event == f"event: {name}"]

    async def until(self, name: str, **fields: Any) -> Any:
        """Wait for an event with these fields and return it."""

        def found() -> list[Any]:
            return [one for one in self.all(name) if fields.items() <= one.items()]

        await until(lambda: found() or self.player.lost)
        assert found(), f"no {name} with {fields}: {self.player.lost}"
        return found()[-1]


def _chunks(body: bytes) -> Iterable[bytes]:
    while b"\r\n" in body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        if len(body) < length + 2:
            return
        yield body[:length]
        body = body[length + 2 :]
