"""Two resumable transports over one WebSocket after the other, as an agent and a relay have them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IProtocol
from twisted.internet.task import Clock

from seance.carrier import CarrierAnswerer, CarrierProtocol, RelayAddress, ResumableTransport, dial
from seance.resume import KEPT_BYTES
from tests.ears import Ear
from tests.rigs import ROOM, AgentFrontend, ClockRig, OneByOne
from tests.wire import Wire, WireEndpoint

__all__ = ["LastingRig", "ResumablePair"]


class ResumablePair:
    """The agent's end is near, the relay's far.

    Attributes:
        detached: The end and the reason of each lost carrier that may have a successor.
        wires: The wires of the carriers.
    """

    def __init__(
        self,
        near: Any = None,
        far: Any = None,
        *,
        clock: Clock | None = None,
        kept_bytes: int = KEPT_BYTES,
        latency_seconds: float = 0.0,
        **shape: int,
    ) -> None:
        self.clock = clock or Clock()
        self._latency_seconds = latency_seconds
        self.near_ear: Any = near or Ear()
        self.far_ear: Any = far or Ear()
        self.detached: list[tuple[str, str]] = []
        self.wires: list[Wire] = []
        self.carrier_protocols: list[tuple[str, CarrierProtocol]] = []
        self._shape: dict[str, Any] = {**shape, "latency_seconds": latency_seconds}
        self.near, self.far = (
            ResumableTransport(self.clock, ear, on_detached=self._noting(name), kept_bytes=kept_bytes)
            for name, ear in (("near", self.near_ear), ("far", self.far_ear))
        )

    def _noting(self, name: str) -> Callable[[str], None]:
        return lambda sentence: self.note_detached(name, sentence)

    def note_detached(self, name: str, sentence: str) -> None:
        self.detached.append((name, sentence))

    def connect(self) -> ResumablePair:
        """Start another carrier at both ends. Call ``run`` next."""
        if self.near.carrier is not None:
            self.near.carrier.abortConnection()
            self.until(lambda: not self.near.is_attached)
        ours = self.near.continuity.incoming
        epoch = self.far.begin(ours.count, ours.crc)
        theirs = self.far.continuity.incoming
        field = theirs.count, theirs.crc

        def join_far(carrier_protocol: CarrierProtocol) -> None:
            self.carrier_protocols.append(("far", carrier_protocol))
            self.far.join(carrier_protocol, epoch)

        def join_near(carrier_protocol: CarrierProtocol) -> None:
            self.carrier_protocols.append(("near", carrier_protocol))
            self.near.join(carrier_protocol, self.near.begin(*field))

        relay_factory = OneByOne()
        relay_factory.coming.append(
            AgentFrontend(CarrierAnswerer(self.clock), lambda _: CarrierProtocol(join_far))
        )
        endpoint = WireEndpoint(self.clock, relay_factory, **self._shape)
        address = RelayAddress.from_url("ws://127.0.0.1:1")
        dial(
            self.clock,
            address,
            ROOM,
            lambda _: CarrierProtocol(join_near),
            deadline_seconds=5,
            endpoint=endpoint,
        ).addErrback(lambda failure: None)
        self.wires += endpoint.wires
        return self

    def open(self) -> ResumablePair:
        """Start a carrier and wait until it is open."""
        before = len(self.carrier_protocols)
        self.connect()
        self.until(lambda: len(self.carrier_protocols) >= before + 2)
        return self

    def until(self, condition: Callable[[], object], turns: int = 5000) -> None:
        """Run turns; with a latency, each end sends or receives once per turn."""
        for _ in range(turns):
            if condition():
                return
            self.clock.advance(self._latency_seconds)
        raise AssertionError(f"the awaited condition did not occur in {turns} turns")

    def cut(self) -> None:
        """Cut the wire of the latest carrier."""
        self.wires[-1].near.abortConnection()
        self.wires[-1].far.abortConnection()

    def run(self, turns: int = 50) -> None:
        for _ in range(turns):
            self.clock.advance(self._latency_seconds)

    def pass_time(self, seconds: float, step_seconds: float = 0.05) -> None:
        for _ in range(round(seconds / step_seconds)):
            self.clock.advance(step_seconds)

    def end(self) -> None:
        """End both, and check that nothing is left."""
        for resumable in (self.near, self.far):
            resumable.expire("the test is over")
        for wire in self.wires:
            wire.near.abortConnection()
            wire.far.abortConnection()
        self.run()
        assert self.clock.getDelayedCalls() == []
        for resumable in (self.near, self.far):
            assert resumable.continuity.outgoing.kept_bytes == 0
            assert not resumable.is_attached


class _OverAtOnce(ResumablePair):
    """A cut carrier ends the transport immediately, as the contract requires."""

    def note_detached(self, name: str, sentence: str) -> None:
        super().note_detached(name, sentence)
        (self.near if name == "near" else self.far).expire(sentence)


class LastingRig(ClockRig):
    """For ``tests/contract.py``: a cut ends the transport immediately."""

    can_half_close = False

    async def _connect(self, near: IProtocol, far: IProtocol) -> None:
        pair = _OverAtOnce(near, far, clock=self.clock, **self.shape).connect()
        self.wires += pair.wires
        await self.until(lambda: near.transport or pair.far.continuity.is_over)  # type: ignore[attr-defined]
