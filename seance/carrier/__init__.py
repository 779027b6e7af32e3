"""The WebSocket between agent and relay, as a Twisted transport. The one place that knows Autobahn.

``dial`` opens a carrier from the agent's side; ``answer`` takes one on the relay's side, after the
front has read and checked the request. Both put a protocol of yours (``seance.mux.Mux``) at its
end and give it a ``Carrier`` as transport.
"""

from seance.carrier.address import RelayAddress
from seance.carrier.answer import CarrierAnswerer
from seance.carrier.dial import dial
from seance.carrier.link_control import SUBPROTOCOL
from seance.carrier.transport import Carrier

__all__ = ["SUBPROTOCOL", "Carrier", "CarrierAnswerer", "RelayAddress", "dial"]
