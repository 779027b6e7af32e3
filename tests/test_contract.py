"""The transport contract, run against real TCP and against all transports of this project."""

from __future__ import annotations

from tests.contract import TransportContract
from tests.rigs import CarrierRig, MuxRig, Rig, TcpRig, WireRig


class TestTcp(TransportContract):
    """The reference: if this fails, the contract is wrong."""

    def make_rig(self) -> Rig:
        return TcpRig()


class TestTcpFromTheListeningSide(TransportContract):
    def make_rig(self) -> Rig:
        return TcpRig(flipped=True)


class TestTcpWithImmediateWrites(TransportContract):
    def make_rig(self) -> Rig:
        return TcpRig(is_eager=True)


class TestTcpWithImmediateWritesFromTheListeningSide(TransportContract):
    def make_rig(self) -> Rig:
        return TcpRig(flipped=True, is_eager=True)


class TestWire(TransportContract):
    """Many tests use this transport: if it fails, they prove nothing."""

    def make_rig(self) -> Rig:
        return WireRig()


class TestWireInPieces(TransportContract):
    def make_rig(self) -> Rig:
        return WireRig(chop_bytes=997, seed=1)


class TestStreamOfTheRelay(TransportContract):
    def make_rig(self) -> Rig:
        return MuxRig()


class TestStreamOfTheAgent(TransportContract):
    def make_rig(self) -> Rig:
        return MuxRig(flipped=True)


class TestStreamInPieces(TransportContract):
    def make_rig(self) -> Rig:
        return MuxRig(chop_bytes=997, seed=2, high_water_bytes=8192, room_bytes=8192)


class TestCarrierOfTheAgent(TransportContract):
    def make_rig(self) -> Rig:
        return CarrierRig()


class TestCarrierOfTheRelay(TransportContract):
    def make_rig(self) -> Rig:
        return CarrierRig(flipped=True)


class TestCarrierInPieces(TransportContract):
    def make_rig(self) -> Rig:
        return CarrierRig(chop_bytes=997, seed=3)
