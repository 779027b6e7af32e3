"""yamux streams as Twisted transports, and endpoints on top of them.

``Mux`` is the ``Protocol`` that speaks yamux over whatever transport it is given;
``StreamTransport`` is what a protocol at the end of a stream sees, and it passes for TCP.
``StreamClientEndpoint`` and ``StreamServerEndpoint`` let any Twisted client or server run
through a link unchanged. The rules of yamux itself live in ``seance.yamux``.
"""

from seance.mux.address import StreamAddress
from seance.mux.endpoints import StreamClientEndpoint, StreamPort, StreamServerEndpoint
from seance.mux.protocol import Ending, Mux
from seance.mux.refused import StreamRefused
from seance.mux.stream import StreamTransport

__all__ = [
    "Ending",
    "Mux",
    "StreamAddress",
    "StreamClientEndpoint",
    "StreamPort",
    "StreamRefused",
    "StreamServerEndpoint",
    "StreamTransport",
]
