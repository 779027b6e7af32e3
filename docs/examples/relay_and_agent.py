"""A relay and an agent in one process: for a small team's server, or for tests of an app.

    python relay_and_agent.py [PORT [LOCAL]]

The relay must listen before the agent is made, because its port is part of the agent's settings.
"""

from __future__ import annotations

import sys

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorCore
from twisted.internet.task import react

from seance import Agent, AgentSettings, Relay, RelaySettings


async def main(reactor: IReactorCore, port: str = "8080", local: str = "localhost:1234") -> None:
    both = MultiService()
    both.startService()
    reactor.addSystemEventTrigger("before", "shutdown", both.stopService)

    relay = Relay(reactor, RelaySettings(port=int(port)))  # loopback only; 0 is any free port
    relay.setServiceParent(both)
    [listening, *_] = await relay.when_listening()
    base = f"ws://localhost:{listening.getHost().port}"

    agent = Agent(reactor, AgentSettings(room="test-room", relay=base, local=local))
    agent.setServiceParent(both)
    await agent.when_connected()

    print(f"{relay.room_count} room is served; clients dial {base}/c/test-room")
    await Deferred()  # until Ctrl-C


if __name__ == "__main__":
    react(main, sys.argv[1:])
