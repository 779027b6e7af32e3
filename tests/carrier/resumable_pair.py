"""Two lasting carriers over one WebSocket after the other, as agent and relay stand towards each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IProtocol
from twisted.internet.task import Clock

from seance.carrier import CarrierAnswerer, CarrierProtocol, RelayAddress, ResumableTransport, dial
from seance.resume import KEPT_BYTES
from tests.ears import Ear
from tests.rigs import ROOM, AgentDoor, ClockRig, OneByOne
from tests.wire import Wire, WireEndpoint

__all__ = ["LastingPair", "LastingRig"]


class LastingPair:
    """The agent's end is near, the relay's far.

    Attributes:
        detached: What either was told when it lost a carrier that may have a successor.
        wires: What the carriers ran over.
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
        self.inlets: list[tuple[str, CarrierProtocol]] = []
        self._shape: dict[str, Any] = {**shape, "latency_seconds": latency_seconds}
        self.near, self.far = (
            ResumableTransport(self.clock, ear, on_detached=self._noting(name), kept_bytes=kept_bytes)
            for name, ear in (("near", self.near_ear), ("far", self.far_ear))
        )

    def _noting(self, name: str) -> Callable[[str], None]:
        return lambda sentence: self.note_detached(name, sentence)

    def note_detached(self, name: str, sentence: str) -> None:
        self.detached.append((name, sentence))

    def connect(self) -> LastingPair:
        """Begins another carrier at both ends; the agent dials when it has none. Next: ``run``."""
        if self.near.carrier is not None:
            self.near.carrier.abortConnection()
            self.until(lambda: not self.near.is_attached)
        ours = self.near.continuity.incoming
        epoch = self.far.begin(ours.count, ours.crc)
        theirs = self.far.continuity.incoming
        field = theirs.count, theirs.crc

        def join_far(inlet: CarrierProtocol) -> None:
            self.inlets.append(("far", inlet))
            self.far.join(inlet, epoch)

        def join_near(inlet: CarrierProtocol) -> None:
            self.inlets.append(("near", inlet))
            self.near.join(inlet, self.near.begin(*field))

        doors = OneByOne()
        doors.coming.append(AgentDoor(CarrierAnswerer(self.clock), lambda _: CarrierProtocol(join_far)))
        endpoint = WireEndpoint(self.clock, doors, **self._shape)
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

    def open(self) -> LastingPair:
        """Begins a carrier and lets it open."""
        before = len(self.inlets)
        self.connect()
        self.until(lambda: len(self.inlets) >= before + 2)
        return self

    def until(self, condition: Callable[[], object], turns: int = 5000) -> None:
        """Lets turns pass, in each of which any end sends or receives once if there is a latency."""
        for _ in range(turns):
            if condition():
                return
            self.clock.advance(self._latency_seconds)
        raise AssertionError(f"what was waited for did not happen in {turns} turns")

    def cut(self) -> None:
        """Cuts what is below the latest carrier."""
        self.wires[-1].near.abortConnection()
        self.wires[-1].far.abortConnection()

    def run(self, turns: int = 50) -> None:
        for _ in range(turns):
            self.clock.advance(self._latency_seconds)

    def pass_time(self, seconds: float, step_seconds: float = 0.05) -> None:
        for _ in range(round(seconds / step_seconds)):
            self.clock.advance(step_seconds)

    def end(self) -> None:
        """Ends both, and looks whether anything is left."""
        for lasting in (self.near, self.far):
            lasting.expire("the test is over")
        for wire in self.wires:
            wire.near.abortConnection()
            wire.far.abortConnection()
        self.run()
        assert self.clock.getDelayedCalls() == []
        for lasting in (self.near, self.far):
            assert lasting.continuity.outgoing.kept_bytes == 0
            assert not lasting.is_attached


class _OverAtOnce(LastingPair):
    """Nobody is waited for: what is cut is over, as the contract has it."""

    def note_detached(self, name: str, sentence: str) -> None:
        super().note_detached(name, sentence)
        (self.near if name == "near" else self.far).expire(sentence)


class LastingRig(ClockRig):
    """For ``tests/contract.py``: what is cut is over at once."""

    can_half_close = False

    async def _connect(self, near: IProtocol, far: IProtocol) -> None:
        pair = _OverAtOnce(near, far, clock=self.clock, **self.shape).connect()
        self.wires += pair.wires
        await self.until(lambda: near.transport or pair.far.continuity.is_over)  # type: ignore[attr-defined]
