"""A process with pycrdt clients, controlled over standard input and output as ``peer.mjs`` is.

It supports the requests that the tests send to a Python client. The clients are the stock ``Provider`` over
the stock ``HttpxWebsocket``; neither reconnects by itself.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import sys
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from httpx_ws import aconnect_ws
from pycrdt import Doc, Map, Provider, Text
from pycrdt.websocket.websocket import HttpxWebsocket

if TYPE_CHECKING:
    from collections.abc import Callable

LARGEST_MESSAGE_BYTES = 64 * 1024 * 1024


class Client:
    """One document and its connection; ``open`` returns when the provider runs."""

    def __init__(self) -> None:
        self.doc: Doc[Any] = Doc()
        self.text = self.doc.get("text", type=Text)
        self.map = self.doc.get("map", type=Map)
        self.left = asyncio.Event()
        self.synced: asyncio.Event | Any = asyncio.Event()
        self.running: asyncio.Task[None] | None = None

    async def open(self, url: str, doc: str, params: dict[str, str] | None = None) -> None:
        query = "&".join(f"{name}={value}" for name, value in (params or {}).items())
        target = f"{url}/{doc}" + (f"?{query}" if query else "")
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.running = asyncio.create_task(self._run(target, started))
        await started

    async def _run(self, target: str, started: asyncio.Future[None]) -> None:
        try:
            async with AsyncExitStack() as stack:
                connecting: Any = aconnect_ws(target, max_message_size_bytes=LARGEST_MESSAGE_BYTES)
                websocket = await stack.enter_async_context(connecting)
                channel = HttpxWebsocket(websocket, urlsplit(target).path)
                provider = await stack.enter_async_context(Provider(self.doc, channel))
                self.synced = provider.synced
                started.set_result(None)
                await self.left.wait()
        except Exception as error:
            if started.done():
                raise
            started.set_exception(error)

    def state(self) -> dict[str, Any]:
        update = self.doc.get_update()
        return {
            "sha256": hashlib.sha256(update).hexdigest(),
            "bytes": len(update),
            "length": len(self.text),
        }


class Peer:
    """Answers one request at a time, each by the method of its name."""

    def __init__(self) -> None:
        self.clients: dict[str, Client] = {}

    async def answer(self, question: dict[str, Any]) -> Any:
        rest = {key: value for key, value in question.items() if key not in {"id", "do"}}
        if not question["do"].startswith("when_"):
            del rest["seconds"]
        return await getattr(self, f"do_{question['do']}")(**rest)

    async def do_open(self, name: str, kind: str, **options: Any) -> None:
        if kind != "pycrdt":
            msg = f"no such kind of client: {kind}"
            raise ValueError(msg)
        client = Client()
        await client.open(**options)
        self.clients[name] = client

    async def do_leave(self, name: str) -> None:
        client = self.clients.pop(name)
        client.left.set()
        if client.running is not None:
            await client.running

    async def do_insert(self, name: str, text: str, at: int = 0) -> None:
        self.clients[name].text.insert(at, text)

    async def do_edits(self, names: list[str], count: int, seed: int = 1) -> None:
        for step in range(count):
            for name in names:
                client = self.clients[name]
                if step % 4 == 3:
                    del client.text[0:2]
                else:
                    client.text.insert(seed * step % (len(client.text) + 1), f"{name}{step} ")
                client.map[f"key{step % 20}"] = f"{name}{step}"
            await asyncio.sleep(0)

    async def do_text(self, name: str) -> str:
        return str(self.clients[name].text)

    async def do_state(self, name: str) -> dict[str, Any]:
        return self.clients[name].state()

    async def do_update(self, name: str) -> str:
        return base64.b64encode(self.clients[name].doc.get_update()).decode()

    async def do_read_update(self, update: str) -> dict[str, Any]:
        reader = Client()
        reader.doc.apply_update(base64.b64decode(update))
        return reader.state()

    async def do_when_synced(self, name: str, seconds: float) -> dict[str, int]:
        return await until(f"{name} synced", seconds, lambda: self.clients[name].synced.is_set())

    async def do_when_length(self, name: str, length: int, seconds: float) -> dict[str, int]:
        what = f"{name} holds {length} characters"
        return await until(what, seconds, lambda: len(self.clients[name].text) == length)

    async def do_when_text(self, name: str, part: str, seconds: float) -> dict[str, int]:
        return await until(f"{name} reads {part}", seconds, lambda: part in str(self.clients[name].text))

    async def do_when_equal(self, names: list[str], seconds: float) -> dict[str, Any]:
        def states() -> set[str]:
            return {self.clients[name].state()["sha256"] for name in names}

        waited = await until(f"{names} equal", seconds, lambda: len(states()) == 1)
        return {**waited, **self.clients[names[0]].state()}


async def until(what: str, seconds: float, holds: Callable[[], bool]) -> dict[str, int]:
    """Wait until ``holds()``, for at most ``seconds``; return the duration."""
    start = time.monotonic()
    while not holds():
        if time.monotonic() - start > seconds:
            msg = f"after {seconds} s still not: {what}"
            raise TimeoutError(msg)
        await asyncio.sleep(0.002)
    return {"ms": round((time.monotonic() - start) * 1000)}


def say(answer: dict[str, Any]) -> None:
    """Write one line of the protocol."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def main() -> None:
    """Answer requests until standard input ends."""
    peer = Peer()
    say({"ready": True})
    while line := await asyncio.to_thread(sys.stdin.readline):
        question = json.loads(line)
        try:
            say({"id": question["id"], "ok": await peer.answer(question)})
        except Exception as error:
            say({"id": question["id"], "error": repr(error)})


if __name__ == "__main__":
    asyncio.run(main())
