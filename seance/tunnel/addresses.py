"""Where a client really is: its socket's address, or what a trusted proxy says.

Anybody can write ``X-Forwarded-For``. It is read only behind the networks that the operator named,
and from the right: the last entry was written by the proxy we are talking to, the one before it by
whoever that proxy talked to, and so on, until one is not trusted: that is the client. PROXY
protocol (``haproxy:`` listeners) is believed from the same networks and from no other. Who comes by a UNIX
socket comes from 127.0.0.1: a proxy in front of us, or the machine's own people.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from twisted.internet.interfaces import ITransport
from twisted.protocols.haproxy._wrapper import HAProxyProtocolWrapper
from twisted.protocols.policies import ProtocolWrapper

from seance.errors import ConfigError
from seance.heads import Request

__all__ = ["TrustedProxies", "is_wrapped_by_stranger", "peer_host"]


class TrustedProxies:
    """The networks whose word counts.

    Args:
        texts: Addresses or networks in CIDR form.

    Raises:
        ConfigError: One of them is neither.
    """

    def __init__(self, texts: tuple[str, ...]) -> None:
        self._networks: list[IPv4Network | IPv6Network] = []
        for text in texts:
            try:
                self._networks.append(ip_network(text, strict=False))
            except ValueError as error:
                sentence = f"The trusted proxy {text!r} is not an address or network: {error}."
                raise ConfigError(sentence, code="trusted_proxy") from error

    def trusts(self, address: str) -> bool:
        """Whether an address is one of theirs."""
        try:
            parsed = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(parsed, "ipv4_mapped", None)
        return any((mapped or parsed) in network for network in self._networks)

    def client_of(self, peer: str, request: Request) -> str:
        """Return the client's address.

        Args:
            peer: The other end of the socket.
            request: Its request, with or without ``X-Forwarded-For``.
        """
        if not self.trusts(peer):
            return peer
        client = peer
        hops = b",".join(request.values(b"x-forwarded-for")).decode("latin-1").split(",")
        for hop in reversed(hops):
            address = hop.strip()
            try:
                ip_address(address)
            except ValueError:
                break
            client = address
            if not self.trusts(address):
                break
        return client


def peer_host(transport: ITransport) -> str:
    """Return the host of a transport's other end; of a UNIX socket that is this machine."""
    return str(getattr(transport.getPeer(), "host", "127.0.0.1"))


def is_wrapped_by_stranger(transport: object, proxies: TrustedProxies) -> bool:
    """Whether this is a PROXY protocol connection from somebody who is not a trusted proxy."""
    # Under TLS, if there is TLS: a proxy's header comes before the handshake that it passes on.
    while isinstance(transport, ProtocolWrapper) and not isinstance(transport, HAProxyProtocolWrapper):
        transport = transport.transport
    if not isinstance(transport, HAProxyProtocolWrapper):
        return False
    return transport.transport is None or not proxies.trusts(peer_host(transport.transport))
