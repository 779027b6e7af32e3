"""A program that shares its local server with an agent inside the process, without twistd.

    python embed_agent.py [RELAY]

It prints the agent's state until Ctrl-C, which stops the agent in order. With the key of this machine's
agents it is the same agent as one that twistd runs here, and takes over its room.
"""

from __future__ import annotations

import sys

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorCore
from twisted.internet.task import react

from seance import Agent, AgentSettings, AgentStatus, agent_identity


def show(status: AgentStatus) -> None:
    """Print the state; a desktop app would update its window."""
    print(f"{status.state.value}: {status.sentence}")


async def main(reactor: IReactorCore, relay: str = "ws://localhost:8080") -> None:
    settings = AgentSettings(room="test-room", relay=relay, local="localhost:1234")
    agent = Agent(reactor, settings, identity=agent_identity())
    agent.on_status(show)
    agent.startService()
    reactor.addSystemEventTrigger("before", "shutdown", agent.stopService)
    await agent.when_connected()
    print(f"Share this: {relay}/c/test-room")
    await Deferred()  # the app's own work, until Ctrl-C


if __name__ == "__main__":
    react(main, sys.argv[1:])
