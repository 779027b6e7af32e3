"""The seam between Seance and sockets: what a splice and a carrier ask of a transport.

Not a transport of its own: Twisted's stand behind it, and a faster one may, as long as it passes
``tests/contract.py``. Used by ``seance.tunnel``.
"""

from seance.net.client_tls import ClientTls, TlsEndpoint, is_loopback_host
from seance.net.descriptors import descriptor_limit, raise_descriptor_limit
from seance.net.dialling import Redial
from seance.net.eager import accept_eagerly
from seance.net.files import Lookout, Watched, read_bounded
from seance.net.handover import HandOver, replace_protocol
from seance.net.legs import Leg, end, is_orderly, unsent_bytes
from seance.net.listening import LOOPBACK_HOSTS, has_no_such_address, server_endpoint, why_not_listening
from seance.net.log_limit import LogLimit
from seance.net.occasion import Occasion
from seance.net.peer import PeerCertificate, peer_certificate
from seance.net.proxy_protocol import host_of
from seance.net.server_tls import HandshakeLog, ServerTls
from seance.net.sockets import tune

__all__ = [
    "LOOPBACK_HOSTS",
    "ClientTls",
    "HandOver",
    "HandshakeLog",
    "Leg",
    "LogLimit",
    "Lookout",
    "Occasion",
    "PeerCertificate",
    "Redial",
    "ServerTls",
    "TlsEndpoint",
    "Watched",
    "accept_eagerly",
    "descriptor_limit",
    "end",
    "has_no_such_address",
    "host_of",
    "is_loopback_host",
    "is_orderly",
    "peer_certificate",
    "raise_descriptor_limit",
    "read_bounded",
    "replace_protocol",
    "server_endpoint",
    "tune",
    "unsent_bytes",
    "why_not_listening",
]
