"""Measures the files that a client's opening passes, and compares them with docs/architecture.md.

python -m tests.docs.opening        prints the numbers, and the differences from the page

Relay and agent run in this process, without tokens. A profile function records every call in ``seance``,
first from accept to the 101, then for one message and its echo.
"""

from __future__ import annotations

import re
import sys
import threading
from types import FrameType
from typing import Any

from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import ServerConnection, serve

from seance.net.reactor import install
from tests.docs.tree import PAGE
from tests.tools import ROOT

__all__: list[str] = []

PACKAGE = f"{ROOT / 'seance'}/"
HEADING = "## How a client is opened\n"

SETTLE_SECONDS = 0.5
"""The end of the agent's attachment must not be counted."""


class Recorder:
    """Records the files of the package in which a function is called, in the thread that starts it."""

    def __init__(self) -> None:
        self.files: set[str] = set()

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(PACKAGE):
            self.files.add(name.removeprefix(PACKAGE))

    def start(self) -> None:
        self.files = set()
        sys.setprofile(self)

    def stop(self) -> set[str]:
        sys.setprofile(None)
        return self.files


def named_on_page() -> set[str]:
    section = PAGE.read_text("utf-8").partition(HEADING)[2].partition("\n## ")[0]
    return set(re.findall(r"`((?:\w+/)+\w+\.py)`", section))


async def measure(reactor: Any, local_port: int) -> tuple[set[str], set[str]]:
    """Return the files of the opening, and those of a message and its echo."""
    from twisted.internet.task import deferLater
    from twisted.internet.threads import deferToThread

    from seance import Agent, AgentSettings, Relay, RelaySettings

    relay = Relay(reactor, RelaySettings(listen=("tcp:0:interface=127.0.0.1",)))
    relay.startService()
    [listening] = await relay.when_listening()
    address = f"ws://127.0.0.1:{listening.getHost().port}"
    agent = Agent(reactor, AgentSettings(room="r", relay=address, local=f"127.0.0.1:{local_port}"))
    agent.startService()
    await agent.when_connected()
    await deferLater(reactor, SETTLE_SECONDS, lambda: None)
    opened: list[ClientConnection] = []
    recorder = Recorder()
    recorder.start()
    await deferToThread(lambda: opened.append(connect(f"{address}/c/r/doc").__enter__()))
    opening = recorder.stop()
    recorder.start()
    await deferToThread(lambda: (opened[0].send("text"), opened[0].recv()))
    message = recorder.stop()
    await deferToThread(opened[0].close)
    await agent.stopService()
    await relay.stopService()
    return opening, message


def echo(connection: ServerConnection) -> None:
    for message in connection:
        connection.send(message)


def main() -> None:
    install()
    from twisted.internet import reactor
    from twisted.internet.defer import ensureDeferred
    from twisted.internet.task import react

    async def run(reactor: Any) -> None:
        with serve(echo, "127.0.0.1", 0) as local:
            threading.Thread(target=local.serve_forever, daemon=True).start()
            opening, message = await measure(reactor, local.socket.getsockname()[1])
            local.shutdown()
        shared = len(opening & message)
        print(f"{len(opening)} files to the 101, {shared} of which every message passes")
        print("not on the page:", *sorted(opening - named_on_page()))
        print("only on the page:", *sorted(named_on_page() - opening))

    react(lambda reactor: ensureDeferred(run(reactor)), _reactor=reactor)


if __name__ == "__main__":
    main()
