"""The end of data on each kind of leg, and the two kinds of loss."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import task
from twisted.internet.endpoints import SSL4ServerEndpoint, TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.ssl import optionsForClientTLS
from twisted.python.failure import Failure

from seance.net import end, is_orderly, round_trip_seconds, unsent_bytes
from tests.certificates import make_certificate
from tests.ears import HalfEar, PushSource
from tests.rigs import CarrierRig, MuxRig, OneByOne, Rig, TcpRig, WireRig


@pytest.mark.parametrize("make_rig", [TcpRig, WireRig, MuxRig])
@pytest_twisted.ensureDeferred
async def test_the_end_of_data_leaves_the_other_direction_open(make_rig: Callable[[], Rig]) -> None:
    rig = make_rig()
    near, far = HalfEar(), HalfEar()
    await rig.connect(near, far)
    near.transport.registerProducer(PushSource(near.transport, b""), True)
    near.transport.write(b"question")
    end(near.transport)
    await rig.until(lambda: "read ended" in far.told)
    assert far.data == b"question"
    far.transport.write(b"answer")
    end(far.transport)
    await rig.until(lambda: "read ended" in near.told)
    assert near.data == b"answer"
    near.transport.loseConnection()
    far.transport.loseConnection()
    await rig.until(lambda: near.is_lost and far.is_lost)
    assert is_orderly(near.reasons[0])
    assert is_orderly(far.reasons[0])
    await rig.stop()


@pytest_twisted.ensureDeferred
async def test_a_leg_without_half_close_is_closed_completely() -> None:
    rig = CarrierRig()
    near, far = HalfEar(), HalfEar()
    await rig.connect(near, far)
    near.transport.registerProducer(PushSource(near.transport, b""), True)
    near.transport.write(b"all")
    assert unsent_bytes(near.transport) > len(b"all"), "the bytes of the transport below count"
    end(near.transport)
    await rig.until(lambda: near.is_lost and far.is_lost)
    assert far.data == b"all"
    assert is_orderly(near.reasons[0])
    assert is_orderly(far.reasons[0])
    await rig.stop()


@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")
@pytest_twisted.ensureDeferred
async def test_a_tls_leg_is_closed_completely_without_loss() -> None:
    from twisted.internet import reactor as global_reactor

    reactor: Any = global_reactor
    certificate = make_certificate("localhost")
    near, far = HalfEar(), HalfEar()
    server, client = OneByOne(), OneByOne()
    server.coming.append(far)
    client.coming.append(near)
    listening: Any = SSL4ServerEndpoint(reactor, 0, certificate.options(), interface="127.0.0.1")
    port = await listening.listen(server)
    endpoint: Any = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
    await wrapClientTLS(optionsForClientTLS("localhost", trustRoot=certificate), endpoint).connect(client)
    near.transport.registerProducer(PushSource(near.transport, b""), True)
    near.transport.write(b"all of it")
    while unsent_bytes(near.transport):
        await task.deferLater(reactor, 0.001)
    end(near.transport)
    while not (near.is_lost and far.is_lost):
        await task.deferLater(reactor, 0.001)
    assert far.data == b"all of it"
    assert is_orderly(near.reasons[0])
    assert is_orderly(far.reasons[0])
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_unsent_bytes_of_a_leg_are_counted() -> None:
    rig = TcpRig()
    near, far = HalfEar(), HalfEar()
    await rig.connect(near, far)
    far.transport.pauseProducing()
    near.transport.write(b"x" * 1_000_000)
    assert unsent_bytes(near.transport) == 1_000_000
    await rig.settle()
    assert 0 < unsent_bytes(near.transport) < 1_000_000
    far.transport.resumeProducing()
    await rig.until(lambda: len(far.data) == 1_000_000)
    assert unsent_bytes(near.transport) == 0
    await rig.stop()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionDone(), True),
        (ConnectionLost(), False),
        (ConnectionAborted(), False),
        (ZeroDivisionError(), False),
    ],
)
def test_only_an_end_of_both_directions_is_orderly(error: Exception, expected: bool) -> None:
    assert is_orderly(Failure(error)) is expected


@pytest_twisted.ensureDeferred
async def test_the_round_trip_of_a_leg_comes_from_the_kernel() -> None:
    rig = TcpRig()
    near, far = HalfEar(), HalfEar()
    await rig.connect(near, far)
    known = round_trip_seconds(near.transport)
    assert 0.0 < known < 1.0 if sys.platform == "linux" else known == 0.0
    assert round_trip_seconds(object()) == 0.0, "there is no socket"
    near.transport.abortConnection()
    await rig.until(lambda: near.is_lost and far.is_lost)
    assert round_trip_seconds(near.transport) == 0.0, "closed"
    await rig.stop()
