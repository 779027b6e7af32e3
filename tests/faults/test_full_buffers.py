"""The buffer for a lost carrier is bounded: when it is full the sources pause, and no byte is dropped.

Large transfers in both directions, buffers far smaller than the windows of a stream, and a carrier that goes
silent or is cut in the middle; on a clock (``tests/faults/everything.py``).
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Authority
from tests.ears import HalfEar, PushSource, pattern
from tests.faults.everything import Theatre
from tests.faults.figures import report
from tests.faults.memory import Weather

KIB = 1024
KEPT_BYTES = 64 * KIB
MUCH = pattern(2048 * KIB)
TLS_HANDSHAKE = b"\x16\x03"
ONE_MESSAGE_BYTES = 256 * KIB
"""The bound is checked when a message is written, so one message may exceed it."""


def staged(weather: Weather, secrecy: Authority | None) -> tuple[Theatre, HalfEar, HalfEar]:
    """Start a transfer from a client and one from the local server; with ``secrecy``, the agent dials wss://."""
    random.seed(4)
    relay: dict[str, Any] = {"resume_bytes": KEPT_BYTES}
    agent = dict(relay)
    if secrecy is not None:
        relay["tls_cert"] = str(secrecy.issue("localhost").both)
        agent["tls_ca"] = str(secrecy.file)
    theatre = Theatre(weather, relay=relay, agent=agent)
    theatre.reactor.pass_until(lambda: theatre.agent.when_connected().called)
    assert weather.wires[0].near.written[0].startswith(b"GET " if secrecy is None else TLS_HANDSHAKE)
    client, local = theatre.join("ada")
    for ear in (client, local):
        PushSource(ear.transport, MUCH).start()
    return theatre, client, local


def kept_by(theatre: Theatre) -> list[int]:
    """Return the bytes that relay and agent have buffered for each other."""
    relay_link: Any = theatre.agent._relay_link
    [link] = theatre.relay.rooms._table
    return [link.kept_bytes, relay_link.kept_bytes]


def finish(theatre: Theatre, client: HalfEar, local: HalfEar) -> None:
    theatre.reactor.pass_until(lambda: len(client.data) >= len(MUCH) and len(local.data) >= len(MUCH))
    assert client.data == MUCH
    assert local.data == MUCH
    client.transport.loseConnection()
    theatre.reactor.pass_until(lambda: "read ended" in local.told)
    local.transport.loseConnection()
    theatre.reactor.pass_until(lambda: client.is_lost and local.is_lost)
    assert theatre.close() == ()


@pytest.fixture(params=["ws", "wss"])
def secrecy(request: pytest.FixtureRequest, tmp_path: Path) -> Authority | None:
    return Authority(tmp_path) if request.param == "wss" else None


def test_silence_fills_the_buffers_up_to_their_bound(secrecy: Authority | None) -> None:
    weather = Weather()
    theatre, client, local = staged(weather, secrecy)
    theatre.reactor.pass_until(lambda: len(client.data) > 200 * KIB and len(local.data) > 200 * KIB)
    weather.is_quiet = True
    peaks = [0, 0]
    for _ in range(12):
        theatre.reactor.pass_seconds(1)
        peaks = [max(pair) for pair in zip(peaks, kept_by(theatre), strict=True)]
    assert not client.is_lost
    report("R4 silence under load", kept_peak_bytes=peaks, carriers=len(weather.wires))
    assert max(peaks) <= KEPT_BYTES + ONE_MESSAGE_BYTES
    assert min(peaks) >= KEPT_BYTES // 2, "the bound was not reached"
    weather.clear()
    finish(theatre, client, local)
    assert len(weather.wires) > 1


@pytest.mark.parametrize("seed", range(2))
def test_cuts_under_load_lose_nothing(seed: int, secrecy: Authority | None) -> None:
    """Each carrier passes some hundred KiB, so most cuts come while the buffers are full or are replayed."""
    dice = random.Random(seed)
    cuts = tuple(dice.randrange(20 * KIB, 900 * KIB) for _ in range(5))
    weather = Weather(cuts)
    theatre, client, local = staged(weather, secrecy)
    finish(theatre, client, local)
    report("R4 cuts under load", seed=seed, carriers=len(weather.wires))
    assert len(weather.wires) > len(cuts) // 2
