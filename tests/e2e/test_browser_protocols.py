"""How Chromium handles our token among its subprotocols, with ``seance.heads`` and stock servers.

A browser that offers subprotocols fails a connection if the answer selects none of them, or one that it did
not offer. Only a browser can prove this. No relay and no agent take part: a few lines of asyncio replace
them, so a failure is a failure of ``seance.heads``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import pytest

from seance.heads import (
    Forwarded,
    LocalResponse,
    PresentedToken,
    Request,
    RequestReader,
    TokenLocation,
    check_upgrade,
    find_token,
    plain_response,
    protocol_to_select,
    request_for_local,
    resolve_target,
    without_token,
)
from tests.heads.tokens import APP, OURS
from tests.pad.browser import Browser, running_browser
from tests.processes import DEADLINE_SECONDS, PEERS, Process, node_modules

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

TOKEN = OURS.decode()
OFFER = ["seance.v1", f"seance.token.{TOKEN}"]

FIRST_OFFER_SERVER = """
import { WebSocketServer } from 'ws'
const server = new WebSocketServer({ host: '127.0.0.1', port: 0 })
server.on('connection', socket => socket.on('message', message => socket.send(String(message))))
server.on('listening', () => console.log(`running on port ${server.address().port}`))
"""
"""``ws`` with its defaults: it selects the first offered subprotocol."""

DIAL = """([address, protocols]) => new Promise(resolve => {
  const socket = new WebSocket(address.replace('http', 'ws'), protocols)
  socket.onopen = () => socket.send('hello')
  socket.onerror = () => resolve({ error: true })
  socket.onmessage = ({ data }) => {
    socket.onclose = () => resolve({ protocol: socket.protocol, data })
    socket.close()
  }
})"""


@dataclass(frozen=True, slots=True)
class Passage:
    """A request that was forwarded: the credentials found in it, and the head that was sent on."""

    presented: PresentedToken
    head: bytes


class RewritingProxy:
    """Rewrites heads as a relay does, in a separate thread; also serves an empty page."""

    def __init__(self) -> None:
        self.local_port = 0
        self.selects = True
        self.passages: list[Passage] = []
        self._listening: Future[int] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._listening.result(DEADLINE_SECONDS)}"

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    async def _run(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._listening.set_result(server.sockets[0].getsockname()[1])
        async with server:
            await self._over.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            heads = RequestReader()
            request = None
            while request is None:
                data = await reader.read(65536)
                if not data:
                    return
                request = heads.receive(data)
            if request.values(b"upgrade"):
                await self._join(request, reader, writer)
            else:
                writer.write(plain_response(200, "<!doctype html>", content_type=b"text/html"))

    async def _join(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        key, route = check_upgrade(request), resolve_target(request.target)
        presented = find_token(request, route)
        answer = LocalResponse(key, select_protocol=protocol_to_select(request) if self.selects else None)
        request, route = without_token(request, route)
        head = request_for_local(request, route.local, Forwarded("127.0.0.1", "http", b"localhost"))
        self.passages.append(Passage(presented, head))
        local_reader, local_writer = await asyncio.open_connection("127.0.0.1", self.local_port)
        with contextlib.closing(local_writer):
            local_writer.write(head)
            while not answer.is_switched:
                data = await local_reader.read(65536)
                writer.write(answer.receive(data) if data else answer.receive_end())
            await asyncio.gather(_copy(reader, local_writer), _copy(local_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
        writer.write_eof()


@pytest.fixture(scope="module")
def first_offer_server() -> Iterator[int]:
    node_modules()
    argv = ["node", "--input-type=module", "--eval", FIRST_OFFER_SERVER]
    with Process(argv, name="ws server", cwd=PEERS) as server:
        yield int(server.when_line(r"running on port (\d+)")[1])


@pytest.fixture(scope="module")
def choosing_server() -> Iterator[int]:
    """Selects ``y.chosen`` if it is offered, and otherwise nothing."""
    node_modules()
    argv = ["node", str(PEERS / "echo_server.mjs")]
    with Process(argv, name="echo server", env={"PORT": "0"}) as server:
        yield int(server.when_line(r"on port (\d+)")[1])


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def module_proxy(browser: Browser) -> Iterator[RewritingProxy]:
    with contextlib.closing(RewritingProxy()) as proxy:
        browser.ask("open", who="ada", url=proxy.url)
        yield proxy


@pytest.fixture
def proxy(module_proxy: RewritingProxy) -> RewritingProxy:
    module_proxy.selects = True
    module_proxy.passages.clear()
    return module_proxy


def dialled(
    browser: Browser, proxy: RewritingProxy, offer: list[str], target: str = "/c/ID/doc"
) -> dict[str, Any]:
    """Let the page open a WebSocket, send a message and close; return the result."""
    arguments = json.dumps([proxy.url + target, offer])
    answer: dict[str, Any] = browser.ask("evaluate", who="ada", expression=f"({DIAL})({arguments})")
    assert len(proxy.passages) == 1
    assert OURS not in proxy.passages[0].head
    assert b"seance." not in proxy.passages[0].head
    return answer


@pytest.mark.parametrize(
    ("offer", "selected"),
    [
        (OFFER, "seance.v1"),
        (OFFER[::-1], "seance.v1"),
        ([*OFFER, "yjs"], "yjs"),
        (["yjs", *OFFER], "yjs"),
        ([OFFER[1], "Yjs.V2", OFFER[0], "yjs"], "Yjs.V2"),
        (["yjs"], "yjs"),
        ([], ""),
    ],
    ids=["token", "token first", "app last", "app first", "among", "app alone", "none"],
)
def test_a_browser_connects_to_a_server_that_selects_the_first_offer(
    browser: Browser, proxy: RewritingProxy, first_offer_server: int, offer: list[str], selected: str
) -> None:
    proxy.local_port = first_offer_server
    assert dialled(browser, proxy, offer) == {"protocol": selected, "data": "hello"}
    expected = PresentedToken(TOKEN, TokenLocation.SUBPROTOCOL) if OFFER[1] in offer else PresentedToken()
    assert proxy.passages[0].presented == expected


@pytest.mark.parametrize(
    ("offer", "selected"),
    [(OFFER, "seance.v1"), ([*OFFER, "yjs"], "seance.v1"), ([*OFFER, "yjs", "y.chosen"], "y.chosen")],
    ids=["token", "app not selected", "app selected"],
)
def test_a_browser_connects_to_a_server_that_selects_a_known_protocol(
    browser: Browser, proxy: RewritingProxy, choosing_server: int, offer: list[str], selected: str
) -> None:
    proxy.local_port = choosing_server
    assert dialled(browser, proxy, offer) == {"protocol": selected, "data": "hello"}


def test_a_browser_fails_if_no_protocol_is_selected(
    browser: Browser, proxy: RewritingProxy, choosing_server: int
) -> None:
    """The reason for the selection, and the proof that the tests above can fail."""
    proxy.local_port, proxy.selects = choosing_server, False
    assert dialled(browser, proxy, OFFER) == {"error": True}


@pytest.mark.parametrize("app", ["token=own", f"access_token={APP.decode()}"])
def test_a_token_in_the_url_is_found_and_the_apps_token_is_forwarded(
    browser: Browser, proxy: RewritingProxy, first_offer_server: int, app: str
) -> None:
    proxy.local_port = first_offer_server
    target = f"/c/ID/doc?{app}&access_token={TOKEN}"
    assert dialled(browser, proxy, [], target) == {"protocol": "", "data": "hello"}
    assert proxy.passages[0].presented == PresentedToken(TOKEN, TokenLocation.QUERY)
    assert proxy.passages[0].head.startswith(f"GET /doc?{app} HTTP/1.1\r\n".encode())
