"""The fast reject refuses with the same bytes as the full request path, and refuses nothing else."""

from __future__ import annotations

import socket
import struct
from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from seance.core.interfaces import Grant, Page, TokenRole
from seance.core.settings import RelaySettings
from seance.relay import refusals
from seance.relay.edge import fast_reject
from seance.relay.edge.fast_reject import MAX_HEAD_BYTES, FastReject, upgrade_of
from seance.relay.service import Relay
from tests.relay.rig import Player, Rig, request, turn, until
from tests.relay.test_active_grants import JWT, TokenRig, Verifier, bearer

UNKNOWN = request("/c/unknown/doc")


class AgentLink:
    """As much of one as is looked at here."""

    is_attached = True
    is_resuming = False


class Transport(StringTransport):
    """A connection as far as a refusal looks at it."""

    def unregisterProducer(self) -> None:
        """Nothing is registered."""


def token(name: str) -> str:
    """Looks like one of ours."""
    return JWT + name


def grants() -> dict[str, Grant]:
    """The grants of the tokens in these tests."""
    of_all = Grant(TokenRole.CLIENT, ("*",), 0.0)
    return {
        token("good"): of_all,
        token("bounded"): replace(of_all, max_clients=1),
        token("page"): replace(of_all, origins=("https://app.example",)),
    }


@pytest.fixture(autouse=True)
def shortest_retry_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways answer with the same ``Retry-After``."""
    monkeypatch.setattr(refusals, "randint", lambda least, most: least)


def make_relay(*, has_keys: bool = False, **settings: Any) -> Relay:
    """A relay on a clock, with one room that has an agent and one that had."""
    verifier = Verifier(grants()) if has_keys else None
    relay = Relay(Clock(), RelaySettings(**settings), verifier=verifier)
    for room in ("known", "gone"):
        link = cast(Any, AgentLink())
        relay.rooms._table.claim(room, link)
    relay.rooms._table.release("gone", link)
    return relay


def long_way(relay: Relay, head: bytes, address: str) -> bytes:
    """Return the bytes that ``Frontend`` answers immediately."""
    frontend = relay.front.buildProtocol(None)
    transport = Transport(peerAddress=IPv4Address("TCP", address, 1))
    frontend.makeConnection(transport)
    if not transport.disconnecting:
        frontend.dataReceived(head)
    answer = cast(bytes, transport.value())
    frontend.connectionLost()
    return answer


class Way:
    """Return the bytes of the fast reject, or of the frontend if the request is passed on."""

    def __init__(self, **settings: Any) -> None:
        self.relay = make_relay(**settings)
        self.fast_reject = FastReject(cast(socket.socket, None), self.relay.front)
        self.refused_count = 0

    def go(self, head: bytes, address: str) -> bytes:
        answer = self.fast_reject._answer_to(head[:MAX_HEAD_BYTES], address)
        if answer is None:
            return long_way(self.relay, head, address)
        self.refused_count += 1
        return answer


# Random heads

ROOMS = ["unknown", "other", "gone", "a" * 128, "a" * 129, "", ".", "a%7E", "a b"]
TARGETS = st.one_of(
    st.sampled_from(
        ["/c/{}", "/c/{}/", "/c/{}/doc?x=1", "/client?room={}", "/client/d?y&room={}", "/agent?room={}"]
    ),
    st.sampled_from(
        ["/client?room={}/doc", "/client?room={}&t=1/doc", "/c/{}/status", "/health", "/{}", "/c/{}#x"]
    ),
)
FIELDS = [
    b"Host: relay.example",
    b"Connection: Upgrade",
    b"connection: keep-alive, upgrade",
    b"Upgrade: websocket",
    b"Upgrade: h2c",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Version: 8",
    b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==",
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==",
    b"Sec-WebSocket-Key: short",
    b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg== ",
    b"Origin: https://app.example",
    b"Origin: https://evil.example",
    b"Accept: text/html",
    b"Content-Length: 0",
    b"Content-Length: 5",
    b"Transfer-Encoding: chunked",
    b"X-Forwarded-For: 1.2.3.4",
    b"X-Bad\x00: 1",
    b" folded",
    b"Sec-WebSocket-Protocol: seance.v1, seance.token.x",
    b"Cookie: " + b"c" * 1500,
    *(f"Authorization: Bearer {token(name)}".encode() for name in ("good", "good", "bounded", "page", "bad")),
]
SOUND = [FIELDS[0], FIELDS[1], FIELDS[3], FIELDS[5], FIELDS[7]]


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """Strategy for valid heads, nearly valid ones and others."""
    target = draw(TARGETS).format(draw(st.sampled_from(ROOMS)))
    method, version = (
        draw(st.sampled_from(["GET"] * 8 + ["POST", "HEAD", "get"])),
        draw(st.sampled_from(["1.1"] * 8 + ["1.0", "2"])),
    )
    fields = draw(st.permutations(SOUND + draw(st.lists(st.sampled_from(FIELDS), max_size=3))))
    dropped = draw(st.integers(0, 40))
    if dropped < len(fields):
        fields = fields[:dropped] + fields[dropped + 1 :]
    head = b"\r\n".join([f"{method} {target} HTTP/{version}".encode(), *fields, b"", b""])
    if draw(st.integers(0, 5)) == 0:
        at = draw(st.integers(0, len(head)))
        head = head[:at] + draw(st.binary(max_size=3)) + head[at + draw(st.integers(0, 3)) :]
    return head + draw(st.sampled_from([b""] * 4 + [b"early", UNKNOWN]))


ADDRESSES = st.sampled_from(["127.0.0.1", "192.0.2.1", "192.0.2.2", "2001:db8::1"])
SETTINGS = st.sampled_from(
    [
        {},
        {"upgrades_per_room": 1},
        {"upgrades_per_address": 1},
        {"connections_per_address": 0},
        {"origins": ("https://app.example",)},
        {"trusted_proxy": ("192.0.2.1",)},
        {"head_bytes": 200},
        {"connections": 1, "reserved_connections": 0},
        {"connections": 0, "reserved_connections": 1},
        {"pad": Page(b"page")},
        {"has_keys": True},
        {"has_keys": True},
        {"parked": 0},
        {"parked_per_room": 0, "upgrades_per_room": 1},
        {"parked_per_room": 0, "has_keys": True},
        {"has_keys": True, "upgrades_per_address": 1},
        {"has_keys": True, "upgrades_per_room": 1},
        {"has_keys": True, "origins": ("https://app.example",), "trusted_proxy": ("192.0.2.1",)},
    ]
)


@given(SETTINGS, st.lists(st.tuples(heads(), ADDRESSES), min_size=1, max_size=14))
@example({"upgrades_per_room": 1}, [(UNKNOWN, "192.0.2.1")] * 14)
@example({"upgrades_per_address": 1}, [(UNKNOWN, "192.0.2.1")] * 14)
@example(
    {"origins": ("https://app.example",)},
    [(request("/c/unknown", "Origin: https://evil.example"), "192.0.2.1")],
)
@example(
    {"trusted_proxy": ("192.0.2.1",), "upgrades_per_address": 1},
    [(request("/c/unknown", f"X-Forwarded-For: 192.0.3.{number}"), "192.0.2.1") for number in range(14)],
)
@example({"parked": 0}, [(request("/c/gone"), "192.0.2.1")])
@example(
    {"has_keys": True, "upgrades_per_address": 1},
    [(request("/c/unknown", bearer(token("bounded"))), "192.0.2.1")] * 14,
)
@example(
    {"has_keys": True, "upgrades_per_room": 1},
    [(request("/c/unknown", bearer(token(name))), "192.0.2.1") for name in ["bad"] * 14 + ["good"] * 14],
)
def test_every_answer_equals_that_of_the_full_path(
    settings: dict[str, Any], asked: list[tuple[bytes, str]]
) -> None:
    """One relay has a fast reject, the other has none; both get the same requests in the same order."""
    way, other = Way(**settings), make_relay(**settings)
    for head, address in asked:
        assert way.go(head, address) == long_way(other, head, address)
    assert way.relay.front.admission.open_count == other.front.admission.open_count == 0


@pytest.mark.parametrize("head", [UNKNOWN, request("/client?room=unknown", "Cookie: a=b", "X-Y: z")])
def test_an_upgrade_for_an_unknown_room_is_refused_fast(head: bytes) -> None:
    way = Way()
    assert way.go(head, "192.0.2.1").startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert way.refused_count == 1


@pytest.mark.parametrize("bound", ["parked", "parked_per_room"])
@pytest.mark.parametrize("is_kept", [False, True])
def test_a_room_with_a_full_wait_queue_is_refused_fast(
    bound: str, is_kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its agent has disconnected, or has lost its carrier."""
    monkeypatch.setattr(AgentLink, "is_resuming", is_kept)
    way = Way(**{bound: 1})
    room = request("/c/known" if is_kept else "/c/gone")
    assert way.fast_reject._answer_to(room, "192.0.2.1") is None
    waiting = way.relay.rooms.wait_queue.when_back("known" if is_kept else "gone")
    answer = way.go(room, "192.0.2.1")
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert answer == long_way(way.relay, room, "192.0.2.1")
    assert way.refused_count == 1
    waiting.addErrback(lambda _: None).cancel()
    assert way.fast_reject._answer_to(room, "192.0.2.1") is None


@pytest.mark.parametrize(
    "head",
    [
        UNKNOWN[:-1],
        UNKNOWN + b"early",
        request("/c/gone"),
        request("/c/known"),
        request("/agent?room=unknown"),
        request("/nowhere"),
        b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n",
        b"",
        request("/c/unknown", "Cookie: " + "c" * MAX_HEAD_BYTES),
    ],
)
def test_every_other_request_is_passed_on(head: bytes) -> None:
    assert Way().fast_reject._answer_to(head[:MAX_HEAD_BYTES], "192.0.2.1") is None


PRESENTED = {name: request("/c/unknown", bearer(token(name))) for name in ("good", "bad", "bounded")}


@pytest.mark.parametrize(
    ("head", "status"), [(UNKNOWN, 401), (PRESENTED["bad"], 401), (PRESENTED["good"], 404)]
)
def test_a_relay_with_keys_refuses_fast_too(head: bytes, status: int) -> None:
    way = Way(has_keys=True)
    for _ in range(3):
        assert way.go(head, "192.0.2.1").startswith(f"HTTP/1.1 {status} ".encode())
    assert way.refused_count == 3


def test_a_valid_token_is_verified_once_and_required_each_time() -> None:
    way = Way(has_keys=True)
    verifier = cast(Verifier, way.relay.context.verifier)
    for _ in range(3):
        assert b" 404 " in way.go(PRESENTED["good"], "192.0.2.1")
    assert len(verifier.asked) == 1
    del verifier.grants[token("good")]
    assert b" 401 " in way.go(PRESENTED["good"], "192.0.2.1")
    verifier.grants.update(grants())
    assert b" 404 " in way.go(PRESENTED["good"], "192.0.2.1")


def test_a_token_with_a_connection_limit_is_passed_on() -> None:
    assert Way(has_keys=True).fast_reject._answer_to(PRESENTED["bounded"], "192.0.2.1") is None


def test_a_token_that_needs_a_fetch_is_passed_on_without_waiting() -> None:
    way = Way(has_keys=True)
    cancelled: list[object] = []
    cast(Verifier, way.relay.context.verifier).waiting = Deferred(cancelled.append)
    assert way.fast_reject._answer_to(PRESENTED["good"], "192.0.2.1") is None
    assert len(cancelled) == 1
    assert way.relay.front.admission.open_count == 0


def test_a_stopping_relay_passes_all_requests_on() -> None:
    way = Way()
    way.relay.front.is_draining = True
    assert way.fast_reject._answer_to(UNKNOWN, "192.0.2.1") is None


def test_the_cache_ignores_only_the_websocket_key(monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[bytes] = []
    monkeypatch.setattr(fast_reject, "upgrade_of", lambda head: judged.append(head) or upgrade_of(head))
    way = Way()
    other_key = UNKNOWN.replace(b"Key: MDEy", b"Key: AAAA")
    assert other_key != UNKNOWN
    for head in (UNKNOWN, other_key, UNKNOWN, other_key):
        way.go(head, "192.0.2.1")
    assert judged == [UNKNOWN]
    way.go(UNKNOWN.replace(b"Version: 13", b"Version: 14"), "192.0.2.1")
    assert len(judged) == 2
    assert way.refused_count == 4


def test_the_number_of_cached_verdicts_is_limited_and_the_oldest_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fast_reject, "MAX_CACHED", 2)
    way = Way()
    for room in ("one", "two", "three"):
        way.go(request(f"/c/{room}"), "192.0.2.1")
    assert [one.room for one in way.fast_reject._upgrades.values() if one] == ["two", "three"]


def test_a_room_that_gets_an_agent_is_passed_on() -> None:
    way = Way()
    assert b"404" in way.go(UNKNOWN, "192.0.2.1")
    way.relay.rooms._table.claim("unknown", cast(Any, AgentLink()))
    assert way.fast_reject._answer_to(UNKNOWN, "192.0.2.1") is None


# Over sockets


needs_linux = pytest.mark.skipif(not hasattr(socket, "TCP_DEFER_ACCEPT"), reason="needs Linux")


class CountingRig(Rig):
    """A rig that counts the connections that reach the frontend."""

    def __init__(self, **options: Any) -> None:
        super().__init__(with_agent=False, **options)
        self.front_count = 0
        build = self.relay.front.buildProtocol

        def count(address: Any) -> Any:
            self.front_count += 1
            return build(address)

        self.relay.front.buildProtocol = count  # type: ignore[method-assign]

    @property
    def fast_reject(self) -> FastReject:
        return cast(FastReject, cast(Any, self.relay._listeners._ports[0]).socket)


async def refused(rig: Rig, sent: bytes = UNKNOWN) -> Player:
    player = await rig.connect(sent)
    await player.ends()
    return player


@needs_linux
@ensureDeferred
async def test_a_refused_client_gets_the_whole_answer_without_the_frontend() -> None:
    async with CountingRig() as rig:
        players = [await refused(rig) for _ in range(5)]
        assert {bytes(player.received) for player in players} == {
            long_way(make_relay(), UNKNOWN, "192.0.2.1")
        }
        assert rig.front_count == 0
        assert rig.relay.front.admission.open_count == 0


@needs_linux
@ensureDeferred
async def test_a_head_in_pieces_and_a_health_check_reach_the_frontend() -> None:
    async with CountingRig() as rig:
        player = await rig.connect(UNKNOWN[:10])
        await until(lambda: rig.front_count == 1)
        player.send(UNKNOWN[10:])
        await player.ends()
        assert player.received.startswith(b"HTTP/1.1 404")
        assert (await refused(rig, b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n")).received.endswith(b"OK")
        assert rig.front_count == 2


@needs_linux
@ensureDeferred
async def test_later_bytes_of_a_refused_client_do_not_destroy_its_answer() -> None:
    async with CountingRig() as rig:
        player = await rig.connect(UNKNOWN)
        player.leg.pauseProducing()
        await until(lambda: rig.fast_reject._held)
        player.send(b"early bird")
        await turn(0.05)
        player.leg.resumeProducing()
        await player.ends()
        assert player.received.endswith(b"Room not found (agent not connected)\n")


@needs_linux
@ensureDeferred
async def test_answered_connections_are_closed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_reject, "HELD_SECONDS", 0.05)
    async with CountingRig() as rig:
        for _ in range(3):
            await refused(rig)
        await until(lambda: not rig.fast_reject._held)
        await refused(rig)
        await until(lambda: not rig.fast_reject._held)
        assert rig.fast_reject._timer is None


@needs_linux
@ensureDeferred
async def test_the_number_of_answered_connections_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_reject, "MAX_HELD", 2)
    async with CountingRig() as rig:
        for _ in range(5):
            await refused(rig)
        assert len(rig.fast_reject._held) == 2


@needs_linux
@ensureDeferred
async def test_many_refusals_do_not_delay_other_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_reject, "MAX_REJECTS_PER_TURN", 2)
    async with CountingRig() as rig:
        players = [await rig.connect(UNKNOWN) for _ in range(7)]
        for player in players:
            await player.ends()
            assert player.received.startswith(b"HTTP/1.1 404")


@needs_linux
@ensureDeferred
async def test_a_client_that_disconnects_before_its_answer_causes_no_error() -> None:
    async with CountingRig() as rig:
        port = cast(Any, rig.relay._listeners._ports[0])
        port.stopReading()
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", rig.port)) as hasty:
                hasty.send(UNKNOWN)
                hasty.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        port.startReading()
        assert (await refused(rig)).received.startswith(b"HTTP/1.1 404")


@needs_linux
@ensureDeferred
async def test_a_client_without_a_valid_token_gets_401() -> None:
    async with TokenRig(Verifier({})) as rig:
        player = await refused(rig)
        assert player.received.startswith(b"HTTP/1.1 401")
        assert player.received.endswith(b"This token is not good.\n")


@needs_linux
@ensureDeferred
async def test_wrapped_listeners_have_no_fast_reject() -> None:
    listen = ("tcp:0:interface=127.0.0.1", "haproxy:tcp:0:interface=127.0.0.1")
    async with CountingRig(relay={"listen": listen}) as rig:
        plain, wrapped = cast(Any, rig.relay._listeners._ports)
        assert isinstance(plain.socket, FastReject)
        assert not isinstance(getattr(wrapped, "socket", None), FastReject)


def test_a_port_other_than_tcp_is_unchanged() -> None:
    relay = make_relay()

    class Port:
        factory = relay.front

    port = Port()
    FastReject.install(port, relay.front)
    with socket.socket(socket.AF_UNIX) as listener:
        port.socket = listener  # type: ignore[attr-defined]
        FastReject.install(port, relay.front)
        assert port.socket is listener  # type: ignore[attr-defined]
