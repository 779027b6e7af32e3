"""Takes the screenshots of the dashboard for the documentation: ``python -m tests.dashboard.screenshot``.

Not a test: run it when the page has changed, and check the result. It runs for the time that the plots
show; the first argument sets a shorter time in seconds.
"""

from __future__ import annotations

import asyncio
import math
import random
import signal
import sys
import time

from tests.dashboard.stage import Page, Stage, running_stage
from tests.e2e.wire import switching, upgrade
from tests.pad.browser import running_browser
from tests.processes import AgentProcess
from tests.tools import ROOT

PICTURES = ROOT / "docs" / "images"

SECONDS = 190.0
TURN_SECONDS = 0.2

ROOMS = {"field-notes": 14, "book-club": 9, "score-of-act-2": 6, "budget-2027": 3, "lab-protocol": 2}
"""Maximum number of clients by room."""

VIEWS = {
    "dashboard.png": {"colorScheme": "light", "viewport": {"width": 1280, "height": 1262}},
    "dashboard-dark.png": {"colorScheme": "dark", "viewport": {"width": 1280, "height": 1262}},
}


class BroadcastServer(asyncio.Protocol):
    """A local server that forwards each message to all other clients, as document servers do."""

    def __init__(self, members: set[asyncio.Transport]) -> None:
        self._members = members
        self._is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._is_open:
            for other in self._members - {self._transport}:
                other.write(data)
        else:  # the agent writes the head in one piece
            key = data.lower().partition(b"sec-websocket-key: ")[2].partition(b"\r\n")[0]
            start = data.lower().index(b"sec-websocket-key: ") + len(b"sec-websocket-key: ")
            self._transport.write(switching(data[start : start + len(key)]))
            self._is_open = True
            self._members.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._members.discard(self._transport)


class Clients:
    """Clients that connect, write in bursts and disconnect."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._chance = random.Random(7)
        self._clients: dict[str, list[asyncio.Transport]] = {room: [] for room in ROOMS}

    async def turn(self, at: float) -> None:
        """Connect, write and disconnect for one interval; ``at`` goes from 0 to 1."""
        for number, (room, limit) in enumerate(ROOMS.items()):
            clients = self._clients[room]
            wanted = round(limit * min(1.0, 0.35 + 0.8 * at + 0.18 * math.sin(9 * at + number)))
            if len(clients) < wanted:
                clients.append(await self._join(room))
            elif len(clients) > wanted:
                clients.pop().close()
            wave = max(0.0, math.sin(31 * at + 1.7 * number)) ** 2 * (0.4 + 0.6 * math.sin(5 * at) ** 2)
            for client in clients:
                if self._chance.random() < 0.15 + 0.5 * wave:
                    client.write(bytes(int(60 + 900 * wave * self._chance.random())))
        if self._chance.random() < 0.03 + 0.25 * (math.sin(13 * at) > 0.93):
            self._stage.refused(*self._chance.choice(((), (), ("budget-2028",), ("not a room",))))

    async def _join(self, room: str) -> asyncio.Transport:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(asyncio.Protocol, "127.0.0.1", self._stage.relay.port)
        transport.write(upgrade(f"/client?room={room}"))
        return transport


async def live(stage: Stage, seconds: float) -> dict[str, AgentProcess]:
    """Run agents and clients; one agent is disconnected at the end."""
    loop = asyncio.get_running_loop()
    agents = {}
    for room in ROOMS:
        members: set[asyncio.Transport] = set()
        server = await loop.create_server(lambda members=members: BroadcastServer(members), "127.0.0.1", 0)  # type: ignore[misc]
        agents[room] = stage.host(room, local_port=server.sockets[0].getsockname()[1])
    clients = Clients(stage)
    began = time.monotonic()
    plan = [
        (seconds - 60, "score-of-act-2", signal.SIGSTOP),
        (seconds - 46, "score-of-act-2", signal.SIGCONT),
        (seconds - 14, "budget-2027", signal.SIGSTOP),
    ]
    while (passed := time.monotonic() - began) < seconds:
        while plan and passed > plan[0][0]:
            _, room, number = plan.pop(0)
            agents[room].signal(number)  # simulates a lost network
        await clients.turn(passed / seconds)
        await asyncio.sleep(TURN_SECONDS)
    return agents


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    with running_stage() as stage, running_browser() as browser:
        for name, options in VIEWS.items():
            browser.ask("open", who=name, url=stage.url, deviceScaleFactor=1.5, **options)
        loop = asyncio.new_event_loop()
        agents = loop.run_until_complete(live(stage, seconds))
        for name in VIEWS:
            page = Page(browser, name)
            page.ask("click", on="[data-room='lab-protocol'] button")
            page.when("document.querySelectorAll('.clients li').length > 1")
            page.is_("document.activeElement.blur()")
            page.is_("scrollTo(0, 0)")
            page.ask("screenshot", path=str(PICTURES / name))
            print(f"{name}: {(PICTURES / name).stat().st_size} bytes, trouble {page.ask('notes')['trouble']}")
        for agent in agents.values():
            agent.signal(signal.SIGCONT)


if __name__ == "__main__":
    main()
