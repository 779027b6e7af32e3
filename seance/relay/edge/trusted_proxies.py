"""The address of a client: that of its socket, or the one that a trusted proxy reports.

Any client can write ``X-Forwarded-For``, so it is read only from proxies in the configured networks, and from
the right: the last entry was written by the connected proxy, the entry before it by that proxy's peer, and so
on. The first address that is not trusted is the client. The PROXY protocol (``haproxy:`` listeners) is
accepted from the same networks only. A connection over a UNIX socket counts as one from 127.0.0.1.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from twisted.internet.interfaces import ITransport

from seance.errors import ConfigError
from seance.heads import Request, forwarded_entries, read_address
from seance.net import host_of
from seance.relay.edge.admission import LOOPBACK, holder_of

__all__ = ["UNKNOWN", "TrustedProxies", "peer_host"]

UNKNOWN = "unknown"
"""The address of clients for which a proxy on loopback sends no readable address. They are counted together;
with the proxy's own address they would not be counted at all. The word is from RFC 7239."""

SHOWN_CHARACTERS = 60

OTHER_FIELDS = (b"forwarded", b"x-real-ip")
"""Fields that only a proxy sends, and that are not read."""


class TrustedProxies:
    """The networks of trusted proxies.

    Args:
        texts: Addresses or networks in CIDR form.
        on_unreadable: Called with the proxy's address and what it sent, when the address of its client cannot
            be read.

    Raises:
        ConfigError: One of them is no address or network.
    """

    def __init__(
        self, texts: tuple[str, ...], on_unreadable: Callable[[str, str], None] = lambda peer, what: None
    ) -> None:
        self._on_unreadable = on_unreadable
        self._networks: list[IPv4Network | IPv6Network] = []
        for text in texts:
            try:
                self._networks.append(ip_network(text, strict=False))
            except ValueError as error:
                message = f"The trusted proxy {text!r} is not an address or network: {error}."
                raise ConfigError(message, code="trusted_proxy") from error

    def trusts(self, address: str) -> bool:
        """Whether an address is in one of the networks."""
        if not self._networks:
            return False
        try:
            parsed = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(parsed, "ipv4_mapped", None)
        return any((mapped or parsed) in network for network in self._networks)

    def client_of(self, peer: str, request: Request) -> str:
        """Return the client's address.

        If a trusted proxy wrote none that can be read, the proxy's own address is returned, or ``UNKNOWN``
        for one on loopback.

        Args:
            peer: The other end of the socket.
            request: Its request, with or without ``X-Forwarded-For``.
        """
        if not self.trusts(peer):
            return peer
        client = peer
        entries = forwarded_entries(request)
        if not entries and any(request.values(name) for name in OTHER_FIELDS):
            return self._unreadable(client, "sent Forwarded or X-Real-IP, and no X-Forwarded-For")
        for entry in reversed(entries):
            # Each entry read here was written by a trusted proxy: the loop ends at the first other address.
            address = read_address(entry)
            if address is None:
                return self._unreadable(client, f"sent X-Forwarded-For with {entry[:SHOWN_CHARACTERS]!r}")
            client = address
            if not self.trusts(address):
                break
        return client

    def _unreadable(self, proxy: str, what: str) -> str:
        self._on_unreadable(proxy, what)
        return UNKNOWN if holder_of(proxy) == LOOPBACK else proxy


def peer_host(transport: ITransport) -> str:
    """Return the host of a transport's other end; of a UNIX socket that is this machine."""
    host = host_of(transport.getPeer())
    # A listener for both families shows IPv4 addresses mapped into IPv6.
    return read_address(host) or host if host.startswith("::ffff:") else host
