"""DNS, TCP and TLS as separate steps, so that the report can name the one that fails.

The agent uses one endpoint for DNS and TCP, which tries one address after the other and reports the last
error. The doctor tries every address, because an unreachable IPv6 address is a problem even if IPv4 works.
The TLS code is ``seance.net``'s.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, cast

from cryptography import x509
from twisted.internet import error as net_errors
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import IProtocol, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from seance.carrier import RelayAddress
from seance.doctor.findings import HopFailed
from seance.errors import ConfigError, SeanceError
from seance.net import ClientTls, TlsEndpoint

__all__ = [
    "Certificate",
    "ConnectResult",
    "addresses_of",
    "certificate_at",
    "connect_all",
    "describe_error",
    "endpoint_at",
]

MAX_ADDRESSES = 8
"""Number of addresses to try. A name with more belongs to a load balancer with equivalent addresses."""

OTHERS_SECONDS = 1.0
"""Time limit of the remaining addresses once the first has accepted a connection."""

PROXY_VARIABLES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")

REFUSED = "connection refused"
NO_ROUTE = "no route to host"


@dataclass(frozen=True, slots=True)
class ConnectResult:
    """The outcome of connecting to every address.

    Attributes:
        address: The first address that accepted a connection.
        seconds: How long that took; about one round trip.
        errors: The error of each address that failed.
    """

    address: str
    seconds: float
    errors: dict[str, str]


@dataclass(frozen=True, slots=True)
class Certificate:
    """A server's certificate.

    Attributes:
        expires_at: Unix seconds.
        issuer: The name of the authority, on one line.
    """

    expires_at: float
    issuer: str


async def addresses_of(reactor: Any, relay: RelayAddress, timeout_seconds: float) -> list[str]:  # noqa: ANN401  # no common type
    """Look up the relay's name with the system's resolver; an address is returned as it is.

    Raises:
        HopFailed: The name has no address, or the resolver does not answer.
    """
    host = relay.host
    network = "Check that this machine has a network connection and that its name server (/etc/resolv.conf)"
    try:
        return [str(ip_address(host))]
    except ValueError:
        pass
    try:
        found = await _resolve(reactor, host, relay.port).addTimeout(timeout_seconds, reactor)
    except DeferredTimeout as error:
        raise HopFailed(
            f"The name {host} was not resolved within {timeout_seconds:g} s: no name server answers.",
            f"{network} can be reached.",
        ) from error
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise HopFailed(
                f"The name {host} cannot be resolved now: {error.strerror}.",
                f"{network} answers.",
            ) from error
        raise HopFailed(
            f"The name {host} has no address: {error.strerror}.",
            f"Check the spelling. If it is right, the DNS record is missing: dig {host} shows what name "
            "servers answer; a new record takes some minutes to appear everywhere.",
        ) from error
    except (OSError, UnicodeError) as error:
        raise HopFailed(f"The name {host} cannot be resolved: {error}.", "Check the spelling.") from error
    return found[:MAX_ADDRESSES]


def _resolve(reactor: Any, host: str, port: int) -> Deferred[list[str]]:  # noqa: ANN401  # as above
    # Not in the reactor's thread pool: the process waits for its threads at exit, and a lookup without a
    # reachable name server blocks for half a minute.
    found: Deferred[list[str]] = Deferred(lambda _: None)

    def finish(result: object) -> None:
        if not found.called:
            found.callback(cast("list[str]", result))

    def look_up() -> None:
        result: object
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            result = list(dict.fromkeys(str(answer[4][0]) for answer in answers))
        except (OSError, UnicodeError):
            result = Failure()
        reactor.callFromThread(finish, result)

    threading.Thread(target=look_up, name="seance doctor: DNS", daemon=True).start()
    return found


async def connect_all(
    reactor: Any,  # noqa: ANN401  # as above
    addresses: list[str],
    relay: RelayAddress,
    timeout_seconds: float,
) -> ConnectResult:
    """Connect to every address and close the connections.

    Raises:
        HopFailed: No address accepts a connection.
    """
    times: dict[str, float] = {}
    errors: dict[str, str] = {}
    decided: Deferred[None] = Deferred()  # fires when the first has connected, or all have failed

    def connect(address: str) -> Deferred[None]:
        began = time.perf_counter()
        connecting = endpoint_at(reactor, address, relay.port, timeout_seconds).connect(_factory())

        def connected(protocol: IProtocol) -> None:
            times[address] = time.perf_counter() - began
            cast(Any, protocol).transport.abortConnection()
            if not decided.called:
                decided.callback(None)

        def failed(failure: Failure) -> None:
            errors[address] = describe_error(failure.value, timeout_seconds)
            if len(errors) == len(addresses) and not decided.called:
                decided.callback(None)

        connecting.addCallbacks(connected, failed)
        return cast("Deferred[None]", connecting)

    attempts = [connect(address) for address in addresses]
    try:
        await decided
        if times and len(times) + len(errors) < len(addresses):
            # The timeout cancels the remaining attempts; ``describe_error`` reports these as not answered.
            waiting = DeferredList(attempts)
            waiting.addTimeout(OTHERS_SECONDS, reactor, lambda result, _: result)
            await waiting
    finally:
        for attempt in attempts:
            attempt.cancel()
    if not times:
        raise _unreachable(relay, errors)
    first = min(times, key=lambda address: times[address])
    return ConnectResult(first, times[first], errors)


def _unreachable(relay: RelayAddress, errors: dict[str, str]) -> HopFailed:
    details = ", ".join(f"{address} port {relay.port}: {error}" for address, error in errors.items())
    kinds = set(errors.values())
    if kinds == {REFUSED}:
        return HopFailed(
            f"The machine can be reached, but nothing listens on port {relay.port} ({', '.join(errors)}).",
            "Start the relay there (seance relay), or correct the port. By default a relay listens only on "
            "loopback addresses, which other machines cannot reach: set its --listen.",
        )
    if NO_ROUTE in kinds:
        return HopFailed(
            f"This machine has no route to the relay ({details}).",
            "Check the network connection of this machine: cable, Wi-Fi, VPN.",
        )
    return HopFailed(
        f"The relay's address does not answer ({details}).",
        "The machine is down, its address has changed, or a firewall drops the packets. Check that the "
        f"relay's firewall and security group allow TCP port {relay.port}, and that this network allows "
        f"outgoing connections to it.{_about_proxies()}",
    )


def _about_proxies() -> str:
    name = next((name for name in PROXY_VARIABLES if os.environ.get(name)), None)
    return "" if name is None else f" {name} is set, but Seance connects directly and does not use it."


def describe_error(error: BaseException | None, timeout_seconds: float) -> str:
    """Return the cause of a failed connection attempt, in a few words."""
    if isinstance(error, net_errors.ConnectionRefusedError):
        return REFUSED
    if isinstance(error, net_errors.TimeoutError | net_errors.TCPTimedOutError | DeferredTimeout):
        return f"no answer within {timeout_seconds:g} s"
    if isinstance(error, CancelledError | net_errors.UserError | net_errors.ConnectingCancelledError):
        return f"no answer within {OTHERS_SECONDS:g} s"
    if isinstance(error, net_errors.NoRouteError):
        return NO_ROUTE
    text = str(getattr(error, "osError", None) or error or "")
    return " ".join(text.split()).rstrip(".") or type(error).__name__


def _as_cancelled(failure: Failure) -> Failure:
    """Convert Twisted's error for a cancelled connection attempt into ``CancelledError``."""
    if failure.check(net_errors.ConnectingCancelledError):
        raise CancelledError from failure.value
    return failure


async def certificate_at(
    reactor: Any,  # noqa: ANN401  # as above
    address: str,
    relay: RelayAddress,
    tls: ClientTls,
    timeout_seconds: float,
) -> Certificate:
    """Complete a TLS handshake, return the relay's certificate and close the connection.

    Raises:
        HopFailed: The certificate is not accepted, or the handshake fails.
    """
    where = f"the relay at {relay.host_header}"
    endpoint = TlsEndpoint(reactor, endpoint_at(reactor, address, relay.port, timeout_seconds), tls, where)
    connecting = endpoint.connect(_factory())
    connecting.addErrback(_as_cancelled).addTimeout(timeout_seconds, reactor)
    try:
        protocol: Any = await connecting
    except ConfigError as error:
        raise HopFailed(str(error), "Give --tls-ca a file of PEM certificates.") from error
    except DeferredTimeout as error:
        raise HopFailed(
            f"The port accepts connections, but the TLS handshake did not finish within {timeout_seconds:g} "
            "s.",
            "The server may not speak TLS: check whether the URL should begin with ws://. Or a firewall on "
            "the path drops TLS: try another network.",
        ) from error
    except SeanceError as error:
        raise HopFailed(str(error), _advice(error, relay)) from error
    except CancelledError:
        raise
    except Exception as error:
        cause = describe_error(error, timeout_seconds)
        raise HopFailed(
            f"The connection was lost during the TLS handshake: {cause}.", "Try again."
        ) from error
    try:
        certificate = x509.load_der_x509_certificate(protocol.transport.getPeerCertificate())
        return Certificate(certificate.not_valid_after_utc.timestamp(), _issuer(certificate))
    finally:
        protocol.transport.abortConnection()


ADVICE = {
    "certificate_expired": (
        "Replace the certificate; the relay reloads the file. Find out why it was not renewed: see the log "
        "of the renewal, and check that it writes the file that --tls-cert names."
    ),
    "certificate_early": "Set this machine's clock with NTP; or wait, if the certificate is a minute old.",
    "certificate_name": (
        "Use a name of the certificate in --relay, here and for the agent; or give the relay a certificate "
        "for this name. If a web server handles TLS, check which certificate it uses for this name."
    ),
    "certificate_authority": (
        "For a private authority, give its certificate with --tls-ca FILE, here and for the agent. For a "
        "public one, the relay's --tls-cert must hold the whole chain (fullchain.pem of certbot). "
        "Otherwise a proxy on the path intercepts TLS: a company's proxy, or an attacker."
    ),
}
"""Advice for an unaccepted certificate, by the error code of ``seance.net``."""

CLOCK_CODES = ("certificate_expired", "certificate_early")


def _advice(error: SeanceError, relay: RelayAddress) -> str:
    if error.code.startswith("certificate"):
        clock = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        advice = ADVICE.get(error.code, "Replace it; agents and browsers reject it as well.")
        return f"{advice} (This machine's clock says {clock}.)" if error.code in CLOCK_CODES else advice
    return (
        f"Check that the relay at {relay.host_header} (--tls-cert), or a web server in front of it, speaks "
        "TLS. If not, the URL must begin with ws://."
    )


def _issuer(certificate: x509.Certificate) -> str:
    names = certificate.issuer.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)
    names = names or certificate.issuer.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    name = str(names[0].value)[:80] if names else ""
    return name if name.isprintable() and name else "an unnamed authority"


def endpoint_at(reactor: Any, address: str, port: int, timeout_seconds: float) -> IStreamClientEndpoint:  # noqa: ANN401  # as above
    """Return an endpoint that connects to an IP address."""
    kind = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
    endpoint: IStreamClientEndpoint = kind(reactor, address, port, timeout=timeout_seconds)
    return endpoint


def _factory() -> Factory[Protocol]:
    factory: Factory[Protocol] = Factory.forProtocol(Protocol)
    factory.noisy = False
    return factory
