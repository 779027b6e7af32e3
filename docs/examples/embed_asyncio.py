"""An asyncio app that shares its own WebSocket server through an agent in the same process.

    pip install websockets
    python embed_asyncio.py [RELAY]

asyncio's tasks and Twisted's reactor run on one event loop. A coroutine waits for a Deferred with
``asFuture``; Twisted waits for a coroutine with ``Deferred.fromFuture``.
"""

from __future__ import annotations

import asyncio
import sys

from twisted.internet import asyncioreactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorCore
from twisted.internet.task import react
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from seance import Agent, AgentSettings


async def echo(socket: ServerConnection) -> None:
    """Serve one connection, in place of the app's own document server."""
    async for message in socket:
        await socket.send(message)


async def app(reactor: IReactorCore, relay: str) -> None:
    loop = asyncio.get_running_loop()
    async with serve(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        settings = AgentSettings(room="test-room", relay=relay, local=f"127.0.0.1:{port}")
        agent = Agent(reactor, settings)
        agent.startService()
        await agent.when_connected().asFuture(loop)
        print(agent.status.sentence)
        async with connect(f"{relay}/c/test-room") as socket:
            await socket.send("Hello through the tunnel.")
            print(await socket.recv())
        await agent.stopService().asFuture(loop)
        print(agent.status.sentence)


def main(reactor: IReactorCore, relay: str = "ws://localhost:8080") -> Deferred[None]:
    return Deferred.fromFuture(asyncio.get_event_loop().create_task(app(reactor, relay)))


if __name__ == "__main__":
    # Before the first import of the reactor. Importing seance does not import it.
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    asyncioreactor.install(loop)
    react(main, sys.argv[1:])
