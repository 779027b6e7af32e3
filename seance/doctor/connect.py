"""From a name to a connection: DNS, TCP, TLS, each by itself, so that each can be named when it fails.

An agent leaves the first two to one endpoint that tries address after address and tells of the last error
alone. Here every address is tried, because "IPv6 leads nowhere" is worth a line even where IPv4 works.
TLS is ``seance.net``'s own, whose sentences name what is wrong with a certificate.
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
from seance.doctor.findings import Trouble
from seance.errors import ConfigError, SeanceError
from seance.net import ClientTls, TlsEndpoint

__all__ = [
    "Certificate",
    "Reached",
    "addresses_of",
    "as_cancelled",
    "certificate_at",
    "connect_any",
    "endpoint_at",
    "words_of",
]

MOST_ADDRESSES = 8
"""More are not tried; a name that has more is a load balancer's, and they are alike."""

STRAGGLER_SECONDS = 1.0
"""After the first address has answered, the others have so long."""


PROXY_VARIABLES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")

REFUSED = "nothing listens there"
NO_ROUTE = "no route from here"


@dataclass(frozen=True, slots=True)
class Reached:
    """Which addresses take connections.

    Attributes:
        address: The one to go on with: the first that took one.
        seconds: What that took: one round trip, and little else.
        silent: What is wrong with each of the others.
    """

    address: str
    seconds: float
    silent: dict[str, str]


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a server has shown, and what it was taken for.

    Attributes:
        expires_at: Unix seconds.
        issuer: Who vouches for it, in one line.
    """

    expires_at: float
    issuer: str


async def addresses_of(reactor: Any, relay: RelayAddress, timeout_seconds: float) -> list[str]:  # noqa: ANN401  # no common type
    """Look a name up, with the system's resolver; an address is its own.

    Raises:
        Trouble: It has none, or the resolver does not answer.
    """
    host = relay.host
    asked = "a name server of this machine (see /etc/resolv.conf)"
    try:
        return [str(ip_address(host))]
    except ValueError:
        pass
    looking = _looked_up(reactor, host, relay.port).addTimeout(timeout_seconds, reactor)
    try:
        found = await looking
    except DeferredTimeout as error:
        raise Trouble(
            f"The name {host} was not resolved within {timeout_seconds:g} s: no name server answers.",
            f"See whether this machine is on the network at all, and whether {asked} can be reached.",
        ) from error
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise Trouble(
                f"The name {host} cannot be resolved for the moment: {error.strerror}.",
                f"See whether this machine is on the network at all, and whether {asked} answers.",
            ) from error
        raise Trouble(
            f"The name {host} has no address: {error.strerror}.",
            f"See whether it is spelled right. If so, its record is missing: dig {host} shows what name "
            "servers say; a new record takes some minutes to get around.",
        ) from error
    except (OSError, UnicodeError) as error:
        raise Trouble(
            f"The name {host} cannot be resolved: {error}.", "See whether it is spelled right."
        ) from error
    return found[:MOST_ADDRESSES]


def _looked_up(reactor: Any, host: str, port: int) -> Deferred[list[str]]:  # noqa: ANN401  # as above
    # A thread of our own, not the reactor's: that one is waited for at the end, and a resolver without a
    # name server keeps it for half a minute.
    found: Deferred[list[str]] = Deferred(lambda _: None)

    def tell(result: object) -> None:
        if not found.called:
            found.callback(cast("list[str]", result))

    def look() -> None:
        result: object
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            result = list(dict.fromkeys(str(answer[4][0]) for answer in answers))
        except (OSError, UnicodeError):
            result = Failure()
        reactor.callFromThread(tell, result)

    threading.Thread(target=look, name="seance doctor: DNS", daemon=True).start()
    return found


async def connect_any(
    reactor: Any,  # noqa: ANN401  # as above
    addresses: list[str],
    relay: RelayAddress,
    timeout_seconds: float,
) -> Reached:
    """Connect to every address, and hang up.

    Raises:
        Trouble: None of them takes a connection.
    """
    times: dict[str, float] = {}
    silent: dict[str, str] = {}
    firsts: Deferred[None] = Deferred()
    tries: list[Deferred[None]] = []

    def try_one(address: str) -> Deferred[None]:
        began = time.perf_counter()
        connecting = endpoint_at(reactor, address, relay.port, timeout_seconds).connect(_factory())

        def took(protocol: IProtocol) -> None:
            times[address] = time.perf_counter() - began
            cast(Any, protocol).transport.abortConnection()
            if not firsts.called:
                firsts.callback(None)

        def failed(failure: Failure) -> None:
            silent[address] = words_of(failure.value, timeout_seconds)
            if len(silent) == len(addresses) and not firsts.called:
                firsts.callback(None)

        connecting.addCallbacks(took, failed)
        return cast("Deferred[None]", connecting)

    tries = [try_one(address) for address in addresses]
    try:
        await firsts
        if times and len(times) + len(silent) < len(addresses):
            # Each of the others is given up by itself: then it has said nothing in that time.
            waiting = DeferredList(tries)
            waiting.addTimeout(STRAGGLER_SECONDS, reactor, lambda result, _: result)
            await waiting
    finally:
        for one in tries:
            one.cancel()
    if not times:
        raise _nobody(relay, silent)
    first = min(times, key=lambda address: times[address])
    return Reached(first, times[first], silent)


def _nobody(relay: RelayAddress, silent: dict[str, str]) -> Trouble:
    where = ", ".join(f"{address} port {relay.port}: {why}" for address, why in silent.items())
    kinds = set(silent.values())
    if kinds == {REFUSED}:
        return Trouble(
            f"The machine is there, and nothing listens on port {relay.port} ({', '.join(silent)}).",
            "Start the relay there (seance relay), or correct the port. A relay that listens on the loopback "
            "addresses alone, which is the default, is seen from its own machine only: see its --listen.",
        )
    if NO_ROUTE in kinds:
        return Trouble(
            f"There is no way to the relay from here ({where}).",
            "See whether this machine is on the network: a cable, Wi-Fi, a VPN that is down.",
        )
    return Trouble(
        f"Nobody answers at the relay's address ({where}).",
        "The machine is down, the address is an old one, or a firewall drops what comes: see the firewall "
        f"and security group of the relay for TCP port {relay.port}, and whether this network lets you out "
        f"to it.{_about_proxies()}",
    )


def _about_proxies() -> str:
    """Return a word for whoever is in a network that everybody leaves by a proxy."""
    told = next((name for name in PROXY_VARIABLES if os.environ.get(name)), None)
    return (
        "" if told is None else f" {told} is set on this machine: Seance dials by itself, and uses no proxy."
    )


def words_of(error: BaseException | None, timeout_seconds: float) -> str:
    """Return why connecting has failed, in a few words."""
    if isinstance(error, net_errors.ConnectionRefusedError):
        return REFUSED
    if isinstance(error, net_errors.TimeoutError | net_errors.TCPTimedOutError | DeferredTimeout):
        return f"no answer within {timeout_seconds:g} s"
    if isinstance(error, CancelledError | net_errors.UserError | net_errors.ConnectingCancelledError):
        return f"no answer within {STRAGGLER_SECONDS:g} s"
    if isinstance(error, net_errors.NoRouteError):
        return NO_ROUTE
    text = str(getattr(error, "osError", None) or error or "")
    return " ".join(text.split()).rstrip(".") or type(error).__name__


def as_cancelled(failure: Failure) -> Failure:
    """Say of a connection that was cancelled what is said of everything else."""
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
    """Shake hands, see who it is, and hang up.

    Raises:
        Trouble: It is not who it should be, or TLS fails otherwise.
    """
    where = f"the relay at {relay.host_header}"
    endpoint = TlsEndpoint(reactor, endpoint_at(reactor, address, relay.port, timeout_seconds), tls, where)
    shaking = endpoint.connect(_factory())
    shaking.addErrback(as_cancelled).addTimeout(timeout_seconds, reactor)
    try:
        protocol: Any = await shaking
    except ConfigError as error:
        raise Trouble(error.sentence, "Give --tls-ca a file with certificates in PEM form.") from error
    except DeferredTimeout as error:
        raise Trouble(
            f"The port takes connections, and the TLS handshake was not over within {timeout_seconds:g} s.",
            "What listens there may speak no TLS and wait for us to say something: see whether the URL "
            "should begin with ws://. Or something on the way swallows TLS: try from another network.",
        ) from error
    except SeanceError as error:
        raise Trouble(error.sentence, _advice(error, relay)) from error
    except CancelledError:
        raise
    except Exception as error:
        why = words_of(error, timeout_seconds)
        raise Trouble(
            f"The connection went before the TLS handshake was over: {why}.", "Try again."
        ) from error
    try:
        shown = protocol.transport.getHandle().get_peer_certificate(as_cryptography=True)
        return Certificate(shown.not_valid_after_utc.timestamp(), _issuer(shown))
    finally:
        protocol.transport.abortConnection()


ADVICE = {
    "certificate_expired": (
        "Put a new one in its place; the relay reads it by itself. See why it was not renewed: the renewal's "
        "own log, and whether the file that --tls-cert names is the one that is renewed."
    ),
    "certificate_early": "Set the clock of this machine by NTP; or wait, if the certificate was just made.",
    "certificate_name": (
        "Write the name that it is for in --relay, here and for the agent; or give the relay a certificate "
        "for this name. Behind a web server, see whether that shows the right one for the name."
    ),
    "certificate_authority": (
        "If it is your own authority's, name that with --tls-ca FILE, here and for the agent. If it is a "
        "public one's, the relay's --tls-cert has to hold the whole chain (fullchain.pem of certbot). If "
        "neither, somebody reads along: a company's proxy, or worse."
    ),
}
"""What to do about a certificate, by the code of ``seance.net``."""

TIMELY = ("certificate_expired", "certificate_early")


def _advice(error: SeanceError, relay: RelayAddress) -> str:
    if error.code.startswith("certificate"):
        clock = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        advice = ADVICE.get(error.code, "Give the relay another one; agents and browsers refuse it as well.")
        return f"{advice} (This machine's clock says {clock}.)" if error.code in TIMELY else advice
    return (
        f"See whether {relay.host_header} speaks TLS itself (--tls-cert) or a web server before it does; if "
        "neither, the URL begins with ws://."
    )


def _issuer(certificate: x509.Certificate) -> str:
    names = certificate.issuer.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)
    names = names or certificate.issuer.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    name = str(names[0].value)[:80] if names else ""
    return name if name.isprintable() and name else "an authority without a name"


def endpoint_at(reactor: Any, address: str, port: int, timeout_seconds: float) -> IStreamClientEndpoint:  # noqa: ANN401  # as above
    """Return what connects to an address, without looking anything up."""
    kind = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
    endpoint: IStreamClientEndpoint = kind(reactor, address, port, timeout=timeout_seconds)
    return endpoint


def _factory() -> Factory[Protocol]:
    factory: Factory[Protocol] = Factory.forProtocol(Protocol)
    factory.noisy = False
    return factory
