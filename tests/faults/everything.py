"""A complete exchange in memory: two clients and the local server, scripted, over a carrier that is cut.

``play(cuts)`` runs from the first byte of the agent's upgrade to the last close, and returns what each end
has received. The result without cuts is the reference. The exchange has what a carrier carries in practice:
upgrades, small messages in both directions, a longer answer, a client that connects in the middle, one that
closes, one that is reset.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.protocol import ClientFactory, Factory

from seance.agent.service import Agent
from seance.core.settings import AgentSettings, RelaySettings
from seance.relay.service import Relay
from tests.e2e.wire import switching, upgrade
from tests.ears import HalfEar, pattern
from tests.faults.memory import MemoryReactor, Weather
from tests.rigs import OneByOne

__all__ = ["Outcome", "Theatre", "perform", "play"]

RELAY_PORT, CLIENT_PORT, LOCAL_PORT = 8080, 8081, 1234
LONG_BYTES = 200
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one exchange.

    Attributes:
        digests: SHA-256 of the bytes that each end has received, by the end's name.
        ends: The type of the reason with which each end was lost, by name.
        carried: Bytes of each carrier, both directions together, before the two programs were stopped.
        left: Descriptions of what remains at the end; empty if nothing does.
    """

    digests: dict[str, str]
    ends: dict[str, str]
    carried: tuple[int, ...]
    left: tuple[str, ...] = field(default=())


class Theatre:
    """Relay and agent in memory, and a port for clients.

    Args:
        weather: Faults between agent and relay.
        relay: Non-default fields of the relay's settings; with ``tls_cert`` its agent dials wss://.
        agent: Non-default fields of the agent's settings.
    """

    def __init__(
        self,
        weather: Weather,
        *,
        relay: dict[str, Any] | None = None,
        agent: dict[str, Any] | None = None,
    ) -> None:
        self.reactor = MemoryReactor()
        self.weather = weather
        self.reactor.weather_at(RELAY_PORT, weather)
        self._relay_options = relay or {}
        self._has_tls = "tls_cert" in self._relay_options
        self._killed: list[Relay] = []
        self.locals: list[HalfEar] = []
        self.reactor.listenTCP(LOCAL_PORT, _Locals(self.locals))
        self.start_relay()
        url = f"wss://localhost:{RELAY_PORT}" if self._has_tls else f"ws://127.0.0.1:{RELAY_PORT}"
        places = {"relay": url, "local": f"127.0.0.1:{LOCAL_PORT}"}
        self.agent = Agent(self.reactor, AgentSettings("r", **places, **(agent or {})))
        self.agent.startService()

    def start_relay(self) -> None:
        """Start a relay on the same ports as the one before."""
        # Clients use another port of the same relay, which has no faults.
        ports = (RELAY_PORT,) if self._has_tls else (RELAY_PORT, CLIENT_PORT)
        listen = tuple(f"tcp:{port}:interface=127.0.0.1" for port in ports)
        self.relay = Relay(self.reactor, RelaySettings(listen=listen, **self._relay_options))
        self.relay.startService()
        if self._has_tls:
            self.reactor.listenTCP(CLIENT_PORT, self.relay.front)  # clients use no TLS

    def kill_relay(self) -> None:
        """End the relay as SIGKILL does: its connections are reset, and it sends nothing.

        The object and its timers exist until ``close``, without connections.
        """
        self.reactor.kill(RELAY_PORT, CLIENT_PORT)
        self._killed.append(self.relay)

    def client(self, name: str) -> HalfEar:
        """Return a client that has sent its upgrade; ``join`` also waits for the local server."""
        ear = HalfEar()
        coming = OneByOne()
        coming.coming.append(ear)
        self.reactor.connectTCP("127.0.0.1", CLIENT_PORT, _Dialled(coming))
        self.reactor.pass_until(lambda: ear.transport is not None)
        ear.transport.write(upgrade(f"/c/r/{name}"))
        return ear

    def join(self, name: str) -> tuple[HalfEar, HalfEar]:
        """Return an upgraded client and its connection at the local server."""
        number = len(self.locals)
        client = self.client(name)

        def asked() -> bool:
            assert not client.is_lost, f"{name} was refused: {bytes(client.data)!r}"
            return len(self.locals) > number and b"\r\n\r\n" in self.locals[number].data

        self.reactor.pass_until(asked)
        local = self.locals[number]
        local.data.clear()
        local.transport.write(switching(KEY))
        self.reactor.pass_until(lambda: b"\r\n\r\n" in client.data)
        client.data.clear()
        return client, local

    def close(self) -> tuple[str, ...]:
        """Stop both programs; return descriptions of what remains in them and on the clock."""
        for service in (self.agent, self.relay, *self._killed):
            stopping = service.stopService()
            self.reactor.pass_until(lambda stopping=stopping: stopping.called)  # type: ignore[misc]
        self.reactor.pass_seconds(60)
        left = [f"delayed call: {call}" for call in self.reactor.getDelayedCalls()]
        left += [f"rooms: {self.relay.rooms.room_count}"] if self.relay.rooms.room_count else []
        left += (
            [f"unanswered: {self.relay.front.unanswered_count}"] if self.relay.front.unanswered_count else []
        )
        left += [f"wire: {wire}" for wire in self.weather.wires if any(end.is_connected for end in wire.ends)]
        return tuple(left)


def play(cuts: tuple[int, ...] = ()) -> Outcome:
    """Perform the exchange over carriers that are cut after these numbers of bytes.

    Raises:
        AssertionError: The exchange did not finish.
    """
    random.seed(1)  # for the agent's retry delays
    theatre = Theatre(Weather(cuts))
    ears: dict[str, HalfEar] = {}
    perform(theatre, ears)
    carried = tuple(theatre.weather.carried)
    left = theatre.close()
    return Outcome(
        digests={name: hashlib.sha256(ear.data).hexdigest() for name, ear in ears.items()},
        ends={name: ear.reasons[0].type.__name__ for name, ear in ears.items()},
        carried=carried,
        left=left,
    )


def perform(theatre: Theatre, ears: dict[str, HalfEar]) -> None:
    """Run the script; ``ears`` gets the ends as they connect."""
    reactor = theatre.reactor
    # An agent without a key whose first 101 is lost finds its room reserved for the resume window (45 s).
    reactor.pass_until(lambda: theatre.agent.when_connected().called, at_most_seconds=120)

    def joined(name: str) -> tuple[HalfEar, HalfEar]:
        ears[name], ears[f"{name} at the local server"] = client, local = theatre.join(name)
        return client, local

    def heard(ear: HalfEar, count: int) -> None:
        reactor.pass_until(lambda: len(ear.data) >= count or ear.is_lost)

    ada, at_ada = joined("ada")
    for number in range(3):
        ada.transport.write(pattern(40, number))
        at_ada.transport.write(pattern(30, number + 10))
        heard(at_ada, 40 * (number + 1))
        heard(ada, 30 * (number + 1))
    ben, at_ben = joined("ben")
    at_ben.transport.write(pattern(LONG_BYTES, 20))
    ben.transport.write(pattern(200, 21))
    ada.transport.write(pattern(10, 22))
    heard(ben, LONG_BYTES)
    heard(at_ben, 200)
    heard(at_ada, 130)
    reactor.pass_seconds(1)  # until the acknowledgements have arrived
    ada.transport.write(b"the last word")
    ada.transport.loseConnection()
    reactor.pass_until(lambda: at_ada.told[-1:] == ["read ended"] or at_ada.is_lost)
    at_ada.transport.loseConnection()
    ben.transport.abortConnection()
    reactor.pass_until(lambda: all(ear.is_lost for ear in ears.values()))


class _Locals(Factory):
    """The local server: records each connection; the script sends its answers."""

    noisy = False

    def __init__(self, ears: list[HalfEar]) -> None:
        self._ears = ears

    def buildProtocol(self, addr: object) -> Any:
        self._ears.append(HalfEar())
        return self._ears[-1]


class _Dialled(ClientFactory):
    noisy = False

    def __init__(self, coming: OneByOne) -> None:
        self.buildProtocol = coming.buildProtocol  # type: ignore[method-assign]

    def clientConnectionFailed(self, connector: object, reason: object) -> None:
        raise AssertionError(reason)
