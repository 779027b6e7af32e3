"""The seam between Seance and sockets: what a splice and a carrier ask of a transport.

Not a transport of its own: Twisted's stand behind it, and a faster one may, as long as it passes
``tests/contract.py``. Used by ``seance.tunnel``.
"""

from seance.net.handover import HandOver
from seance.net.legs import Leg, end, is_orderly, unsent_bytes
from seance.net.occasion import Occasion
from seance.net.sockets import descriptor_limit, tune

__all__ = ["HandOver", "Leg", "Occasion", "descriptor_limit", "end", "is_orderly", "tune", "unsent_bytes"]
