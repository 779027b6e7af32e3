"""The WebSocket between agent and relay, as a Twisted transport. This package hides Autobahn from the rest.

``dial`` opens a carrier from the agent's side. ``CarrierAnswerer`` accepts one on the relay's side, after the
frontend has read and checked the request. Both connect a protocol of the caller (``seance.mux.Mux``) to a
``Carrier`` transport. For peers that can resume, a ``ResumableTransport`` lasts longer than its carriers:
when one is lost, the next one takes its place.
"""

from seance.carrier.address import RelayAddress
from seance.carrier.answer import CarrierAnswerer, negotiated
from seance.carrier.carrier_heartbeat import CarrierHeartbeat
from seance.carrier.close_codes import CloseCode
from seance.carrier.dial import dial
from seance.carrier.link_control import RESUMABLE, SUBPROTOCOL
from seance.carrier.protocol import CarrierProtocol
from seance.carrier.resumable_transport import ResumableTransport
from seance.carrier.transport import Carrier

__all__ = [
    "RESUMABLE",
    "SUBPROTOCOL",
    "Carrier",
    "CarrierAnswerer",
    "CarrierHeartbeat",
    "CarrierProtocol",
    "CloseCode",
    "RelayAddress",
    "ResumableTransport",
    "dial",
    "negotiated",
]
