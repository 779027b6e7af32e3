"""The transport contract for resumable transports."""

from __future__ import annotations

from tests.carrier.resumable_pair import LastingRig
from tests.contract import TransportContract
from tests.rigs import Rig


class TestLastingCarrierOfTheAgent(TransportContract):
    def make_rig(self) -> Rig:
        return LastingRig()


class TestLastingCarrierOfTheRelay(TransportContract):
    def make_rig(self) -> Rig:
        return LastingRig(flipped=True)


class TestLastingCarrierInPieces(TransportContract):
    def make_rig(self) -> Rig:
        return LastingRig(chop_bytes=997, seed=4)
