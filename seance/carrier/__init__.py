"""The WebSocket between agent and relay, as a Twisted transport. The one place that knows Autobahn.

``dial`` opens a carrier from the agent's side; ``answer`` takes one on the relay's side, after the
front has read and checked the request. Both put a protocol of yours (``seance.mux.Mux``) at its
end and give it a ``Carrier`` as transport. A ``ResumableTransport`` is a transport over one carrier after
the other, for peers that can resume.
"""

from seance.carrier.address import RelayAddress
from seance.carrier.answer import CarrierAnswerer, negotiated
from seance.carrier.close_codes import CloseCode
from seance.carrier.dial import dial
from seance.carrier.link_control import RESUMABLE, SUBPROTOCOL
from seance.carrier.protocol import CarrierProtocol
from seance.carrier.pulse import Pulse
from seance.carrier.resumable_transport import ResumableTransport
from seance.carrier.transport import Carrier

__all__ = [
    "RESUMABLE",
    "SUBPROTOCOL",
    "Carrier",
    "CarrierAnswerer",
    "CarrierProtocol",
    "CloseCode",
    "Pulse",
    "RelayAddress",
    "ResumableTransport",
    "dial",
    "negotiated",
]
