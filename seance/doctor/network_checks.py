"""The checks up to the relay: URL, DNS, TCP, TLS, a proxy in front of the relay, and the relay.

Each function checks one hop and returns the finding, or raises ``HopFailed``. ``seance.doctor.runner`` calls
them in this order.
"""

from __future__ import annotations

import time

from seance.doctor.connect import addresses_of, certificate_at, connect_all, endpoint_at
from seance.doctor.context import Context, ok
from seance.doctor.findings import Finding, Hop, HopFailed, HopStatus
from seance.doctor.http_client import HttpServer, ServerResponse, open_websocket, request
from seance.doctor.tokens import format_duration, format_time
from seance.errors import Gone
from seance.net import ClientTls, TlsEndpoint, is_loopback_host
from seance.wsclient import WsConnection

__all__ = ["dns", "proxy", "relay", "tcp", "tls", "url"]

CLOCK_SECONDS = 30.0
"""The largest clock difference without a warning; a relay accepts tokens from a clock that is 30 s ahead."""

RENEWAL_SECONDS = 7 * 86_400.0
"""A certificate with less time left gets a warning: its automatic renewal has failed for weeks."""

BAD_KEY = "seance-doctor"
"""An invalid Sec-WebSocket-Key (RFC 6455, 4.1): a relay that receives the upgrade answers 400."""

UPGRADE_ADVICE = (
    "Configure it to forward WebSocket upgrades. In nginx: proxy_http_version 1.1; proxy_set_header Upgrade "
    '$http_upgrade; proxy_set_header Connection "upgrade";'
)

OLD_HTTP = b"HTTP/1.1 is needed"
"""The beginning of the relay's response to a request in HTTP/1.0."""


async def url(context: Context) -> Finding:
    """Describe the URL, and warn about a connection to another machine without TLS."""
    address = context.require_relay
    message = f"{address.host}, port {address.port}, {'TLS' if address.is_secure else 'no TLS'}"
    if address.base_path:
        message += f", base path {address.base_path}"
    if address.is_secure or is_loopback_host(address.host):
        return ok(Hop.URL, message)
    advice = "Use wss:// on networks that you do not control: without TLS, documents and tokens can be read."
    return Finding(Hop.URL, HopStatus.WARNING, message, advice)


async def dns(context: Context) -> Finding:
    """Look up the relay's name."""
    began = time.perf_counter()
    context.addresses = await addresses_of(context.reactor, context.require_relay, context.timeout_seconds)
    if context.addresses == [context.require_relay.host]:
        return Finding(Hop.DNS, HopStatus.NOT_NEEDED, "the URL contains an IP address")
    return ok(Hop.DNS, ", ".join(context.addresses), time.perf_counter() - began)


async def tcp(context: Context) -> Finding:
    """Connect to every address of the relay."""
    relay = context.require_relay
    result = await connect_all(context.reactor, context.addresses, relay, context.timeout_seconds)
    context.address = result.address
    context.report.round_trips["tcp"] = result.seconds
    message = f"{result.address} accepts connections on port {relay.port}"
    if not result.errors or is_loopback_host(relay.host):
        return ok(Hop.TCP, message, result.seconds)
    errors = ", ".join(f"{address}: {error}" for address, error in result.errors.items())
    return Finding(
        Hop.TCP,
        HopStatus.WARNING,
        f"{message}, but another address does not ({errors})",
        "Clients that try that address first are delayed: make it reachable, or remove its DNS record.",
        result.seconds,
    )


async def tls(context: Context) -> Finding:
    """Complete the TLS handshake and check the certificate."""
    relay, timeout_seconds = context.require_relay, context.timeout_seconds
    endpoint = endpoint_at(context.reactor, context.address, relay.port, timeout_seconds)
    name = f"The server at {relay.host_header}"
    if not relay.is_secure:
        context.server = HttpServer(endpoint, relay.host_header, name)
        return Finding(Hop.TLS, HopStatus.NOT_NEEDED, "the URL begins with ws://")
    trust = ClientTls(relay.host, ca_file=context.options.ca_file)
    began = time.perf_counter()
    certificate = await certificate_at(context.reactor, context.address, relay, trust, timeout_seconds)
    seconds = time.perf_counter() - began
    secure = TlsEndpoint(context.reactor, endpoint, trust, f"the relay at {relay.host_header}")
    context.server = HttpServer(secure, relay.host_header, name)
    left = certificate.expires_at - time.time()
    message = (
        f"the certificate is for {relay.host}, issued by {certificate.issuer}, "
        f"valid for another {format_duration(left)}"
    )
    if left < RENEWAL_SECONDS and not is_loopback_host(relay.host):
        advice = f"Renew it before {format_time(certificate.expires_at)}; the relay reloads the file."
        return Finding(Hop.TLS, HopStatus.WARNING, message, advice, seconds)
    return ok(Hop.TLS, message, seconds)


async def proxy(context: Context) -> Finding:
    """Check that a relay answers, and that WebSocket upgrades reach it.

    The first request is for ``/health``, which identifies a relay. The second is an upgrade with an
    invalid key, which the relay rejects.
    """
    base = context.require_relay.base_path
    server = context.require_server
    try:
        health = await request(context.reactor, server, f"{base}/health", {}, context.timeout_seconds)
    except Gone as error:
        raise _no_response(error) from error
    if not _is_relay(health):
        raise _not_a_relay(health, context.require_relay.host_header)
    context.health = health
    try:
        rejected = await open_websocket(
            context.reactor, server, f"{base}/c/seance-doctor/", {}, context.timeout_seconds, key=BAD_KEY
        )
    except Gone as error:
        raise HopFailed(
            f"Plain requests reach the relay, but WebSocket upgrades do not: {error}.", UPGRADE_ADVICE
        ) from error
    if isinstance(rejected, WsConnection):
        rejected.abort()
        raise HopFailed(
            "A server in front of the relay accepts WebSockets without forwarding them.", UPGRADE_ADVICE
        )
    # A proxy that speaks HTTP/1.0 with the relay, as nginx does by default, has dropped the upgrade as well.
    if rejected.status not in (400, 429, 503) or OLD_HTTP in rejected.body:
        name = f" ({rejected.proxy})" if rejected.proxy else ""
        raise HopFailed(
            f"Plain requests reach the relay, but a proxy in front of it{name} removes the upgrade from "
            f"WebSocket requests; the response is {rejected.summary}.",
            UPGRADE_ADVICE,
        )
    found = (
        f"{health.proxy} is in front of the relay and forwards WebSockets"
        if health.proxy
        else "none detected"
    )
    return ok(Hop.PROXY, found, rejected.seconds)


async def relay(context: Context) -> Finding:
    """Check that the relay is not stopping, and compare its clock with this machine's."""
    health = context.health
    assert health is not None, "the proxy check sets this"
    if health.status != 200:
        raise HopFailed(
            "The relay is stopping and accepts no new connections.",
            "Wait until it has restarted or another relay has replaced it.",
        )
    message = "it runs and accepts connections"
    if health.date is not None:
        # ``Date`` has whole seconds, rounded down, and was written half a round trip ago.
        ahead = time.time() - health.seconds / 2 - health.date - 0.5
        context.report.clock_ahead_seconds = round(ahead, 1)
        if abs(ahead) > CLOCK_SECONDS:
            direction = "ahead of" if ahead > 0 else "behind"
            message += f"; this machine's clock is {format_duration(abs(ahead))} {direction} the relay's"
            advice = "Set both clocks with NTP: tokens and certificates are valid for limited times."
            return Finding(Hop.RELAY, HopStatus.WARNING, message, advice, health.seconds)
    return ok(Hop.RELAY, message, health.seconds)


def _is_relay(response: ServerResponse) -> bool:
    expected = {200: b"OK", 503: b"draining"}
    return response.is_plain_text and expected.get(response.status) == response.body.strip()


def _no_response(error: Gone) -> HopFailed:
    if error.code == "not_http":
        advice = "Another kind of server listens on this port, or it speaks TLS: then use wss:// in the URL."
    elif error.code == "hung_up":
        advice = (
            "It may speak TLS: then use wss:// in the URL. Or a firewall inspects and closes the connection. "
            "Or the relay has reached a limit: see its log."
        )
    else:
        advice = (
            "The process hangs or the machine is overloaded: check its log and CPU use. Or another kind of "
            "server listens there."
        )
    return HopFailed(f"{str(error).rstrip('.')}.", advice)


def _not_a_relay(response: ServerResponse, address: str) -> HopFailed:
    name = f" ({response.proxy})" if response.proxy else ""
    message = f"The server at {address}{name} is not a relay; its response is {response.summary}."
    if response.status == 400 and b"TLS" in response.body:
        return HopFailed(message, "The relay expects TLS: use wss:// in the URL.")
    if response.status == 400 and b"HTTP/1.1" in response.body:
        return HopFailed(message, f"A proxy sends HTTP/1.0 to the relay. {UPGRADE_ADVICE}")
    if response.status in (502, 503, 504):
        return HopFailed(
            message,
            "A proxy answers but does not reach the relay behind it: check that the relay runs, and that the "
            "proxy has the right address and port for it.",
        )
    if response.status < 400 or response.status == 511:
        return HopFailed(
            message,
            "If this is the login page of a network, log in with a browser first. Otherwise the URL leads to "
            "another web server: correct its host, port or base path.",
        )
    return HopFailed(
        message,
        "Correct the URL's host, port or base path; or check where the web server in front sends requests: "
        "/health, /agent, /client and /c/ must go to the relay.",
    )
