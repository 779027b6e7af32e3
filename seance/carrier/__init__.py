"""The WebSocket between agent and relay, as a Twisted transport. The one place that knows Autobahn.

``dial`` opens a carrier from the agent's side; ``answer`` takes one on the relay's side, after the
front has read and checked the request. Both put a protocol of yours (``seance.mux.Mux``) at its
end and give it a ``Carrier`` as transport. A ``LastingCarrier`` is a transport over one carrier after
the other, for peers that can resume.
"""

from seance.carrier.address import RelayAddress
from seance.carrier.answer import CarrierAnswerer, negotiated
from seance.carrier.close_codes import CloseCode
from seance.carrier.dial import dial
from seance.carrier.inlet import Inlet
from seance.carrier.lasting import LastingCarrier
from seance.carrier.link_control import RESUMABLE, SUBPROTOCOL
from seance.carrier.pulse import Pulse
from seance.carrier.transport import Carrier

__all__ = [
    "RESUMABLE",
    "SUBPROTOCOL",
    "Carrier",
    "CarrierAnswerer",
    "CloseCode",
    "Inlet",
    "LastingCarrier",
    "Pulse",
    "RelayAddress",
    "dial",
    "negotiated",
]
