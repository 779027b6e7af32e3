"""yamux streams as Twisted transports, and endpoints that use them.

``Mux`` is the ``Protocol`` that speaks yamux over any transport. ``StreamTransport`` is the transport of a
protocol at the end of a stream, and behaves like TCP. With ``StreamClientEndpoint`` and
``StreamServerEndpoint``, any Twisted client or server runs through a link unchanged. The yamux protocol
itself is in ``seance.yamux``.
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
