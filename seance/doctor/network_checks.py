"""The hops up to the relay: URL, DNS, TCP, TLS, whatever stands in front, and the relay itself.

Each function looks at one and returns what it found, or raises ``Trouble``. ``seance.doctor.runner`` calls
them in this order.
"""

from __future__ import annotations

import time

from seance.doctor.asking import Answer, Way, ask, open_websocket
from seance.doctor.connect import addresses_of, certificate_at, connect_any, endpoint_at
from seance.doctor.context import Context, well
from seance.doctor.findings import Finding, Hop, Mark, Trouble
from seance.doctor.tokens import age, moment
from seance.errors import Gone
from seance.net import ClientTls, TlsEndpoint, is_loopback_host
from seance.wsclient import WsConnection

__all__ = ["dns", "proxy", "relay", "tcp", "tls", "url"]

CLOCK_SECONDS = 30.0
"""A relay takes tokens of a clock that is so much ahead; beyond that, times do not fit."""

RENEWAL_SECONDS = 7 * 86_400.0
"""A certificate that ends so soon is worth a warning: whoever renews it has failed to for weeks."""

BAD_KEY = "seance-doctor"
"""No Sec-WebSocket-Key that RFC 6455 allows: a relay that sees the upgrade answers 400, and opens nothing."""

LET_THROUGH = (
    "Have it pass WebSockets on. In nginx: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; "
    'proxy_set_header Connection "upgrade";'
)


async def url(ground: Context) -> Finding:
    """Say what the URL means."""
    there = ground.its_relay
    sentence = f"{there.host}, port {there.port}, {'TLS' if there.is_secure else 'no TLS'}"
    if there.base_path:
        sentence += f", below {there.base_path}"
    if there.is_secure or is_loopback_host(there.host):
        return well(Hop.URL, sentence)
    advice = "Over other people's networks use wss://: what is written, and tokens, can be read on the way."
    return Finding(Hop.URL, Mark.WARNING, sentence, advice)


async def dns(ground: Context) -> Finding:
    """Look the name up."""
    began = time.perf_counter()
    ground.addresses = await addresses_of(ground.reactor, ground.its_relay, ground.timeout_seconds)
    if ground.addresses == [ground.its_relay.host]:
        return Finding(Hop.DNS, Mark.NOT_NEEDED, "the URL holds an address")
    return well(Hop.DNS, ", ".join(ground.addresses), time.perf_counter() - began)


async def tcp(ground: Context) -> Finding:
    """Connect to every address."""
    there = ground.its_relay
    reached = await connect_any(ground.reactor, ground.addresses, there, ground.timeout_seconds)
    ground.address = reached.address
    ground.report.round_trips["tcp"] = reached.seconds
    sentence = f"{reached.address} takes connections on port {there.port}"
    if not reached.silent or is_loopback_host(there.host):
        return well(Hop.TCP, sentence, reached.seconds)
    silent = ", ".join(f"{address}: {why}" for address, why in reached.silent.items())
    advice = "Whoever is given that address first waits in vain: mend it, or take its record out of the DNS."
    return Finding(
        Hop.TCP, Mark.WARNING, f"{sentence}, but not everywhere ({silent})", advice, reached.seconds
    )


async def tls(ground: Context) -> Finding:
    """Shake hands, and see whose certificate it is."""
    there, seconds = ground.its_relay, ground.timeout_seconds
    endpoint = endpoint_at(ground.reactor, ground.address, there.port, seconds)
    name = f"What listens at {there.host_header}"
    if not there.is_secure:
        ground.way = Way(endpoint, there.host_header, name)
        return Finding(Hop.TLS, Mark.NOT_NEEDED, "the URL begins with ws://")
    trust = ClientTls(there.host, ca_file=ground.orders.ca_file)
    began = time.perf_counter()
    shown = await certificate_at(ground.reactor, ground.address, there, trust, seconds)
    took = time.perf_counter() - began
    secure = TlsEndpoint(ground.reactor, endpoint, trust, f"the relay at {there.host_header}")
    ground.way = Way(secure, there.host_header, name)
    left = shown.expires_at - time.time()
    sentence = f"the certificate is for {there.host}, from {shown.issuer}, good for another {age(left)}"
    if left < RENEWAL_SECONDS and not is_loopback_host(there.host):
        advice = f"Renew it before {moment(shown.expires_at)}; the relay reads a new file by itself."
        return Finding(Hop.TLS, Mark.WARNING, sentence, advice, took)
    return well(Hop.TLS, sentence, took)


OLD_HTTP = b"HTTP/1.1 is needed"
"""The beginning of the relay's answer to a client in HTTP/1.0."""


async def proxy(ground: Context) -> Finding:
    """See whether a relay answers, and whether upgrades reach it.

    Two questions: for the health, which nobody answers as a relay does, and for a WebSocket with a key that
    the relay refuses.
    """
    base = ground.its_relay.base_path
    try:
        health = await ask(ground.reactor, ground.its_way, f"{base}/health", {}, ground.timeout_seconds)
    except Gone as gone:
        raise _no_answer(gone) from gone
    if not _is_relay(health):
        raise _stranger(health, ground.its_relay.host_header)
    ground.health = health
    found = f"{health.proxy} is in front, and lets WebSockets through" if health.proxy else "none to be seen"
    try:
        refused = await open_websocket(
            ground.reactor,
            ground.its_way,
            f"{base}/c/seance-doctor/",
            {},
            ground.timeout_seconds,
            key=BAD_KEY,
        )
    except Gone as gone:
        raise Trouble(
            f"Plain requests reach the relay, and WebSocket upgrades do not: {gone}.", LET_THROUGH
        ) from gone
    if isinstance(refused, WsConnection):
        refused.abort()
        raise Trouble("Something in front of the relay opens WebSockets by itself.", LET_THROUGH)
    # A proxy that speaks HTTP/1.0 with the relay, as nginx does by default, has dropped the upgrade as well.
    if refused.status not in (400, 429, 503) or OLD_HTTP in refused.body:
        who = f" ({refused.proxy})" if refused.proxy else ""
        raise Trouble(
            f"Plain requests reach the relay, and something in front of it{who} takes the upgrade out of "
            f"WebSocket requests: they are answered {refused.words}.",
            LET_THROUGH,
        )
    return well(Hop.PROXY, found, refused.seconds)


async def relay(ground: Context) -> Finding:
    """See how the relay is, and what its clock says."""
    health = ground.health
    assert health is not None, "the hop before has asked"
    if health.status != 200:
        raise Trouble(
            "The relay is stopping: it takes nobody any more.",
            "Wait until it has started again, or until another takes its place.",
        )
    sentence = "it runs and takes connections"
    if health.date is not None:
        # The field has whole seconds, the rest cut off, and was written half a question ago.
        ahead = time.time() - health.seconds / 2 - health.date - 0.5
        ground.report.clock_ahead_seconds = round(ahead, 1)
        if abs(ahead) > CLOCK_SECONDS:
            way = "ahead of" if ahead > 0 else "behind"
            sentence += f"; this machine's clock is {age(abs(ahead))} {way} the relay's"
            advice = "Set both clocks by NTP: tokens and certificates are good from one time to another."
            return Finding(Hop.RELAY, Mark.WARNING, sentence, advice, health.seconds)
    return well(Hop.RELAY, sentence, health.seconds)


def _is_relay(answer: Answer) -> bool:
    wanted = {200: b"OK", 503: b"draining"}
    return answer.is_plain_text and wanted.get(answer.status) == answer.body.strip()


def _no_answer(gone: Gone) -> Trouble:
    if gone.code == "not_http":
        advice = "Something else listens on that port, or it speaks TLS: then the URL begins with wss://."
    elif gone.code == "hung_up":
        advice = (
            "It may speak TLS: then the URL begins with wss://. Or a firewall reads what passes and cuts "
            "it; or the relay is full, which its log says."
        )
    else:
        advice = (
            "The process hangs or the machine is overloaded: see its log and its CPU. Or something else "
            "listens there."
        )
    return Trouble(f"{gone.sentence.rstrip('.')}.", advice)


def _stranger(answer: Answer, where: str) -> Trouble:
    who = f" ({answer.proxy})" if answer.proxy else ""
    said = f"What answers at {where}{who} is no relay: {answer.words}."
    if answer.status == 400 and b"TLS" in answer.body:
        return Trouble(said, "The relay speaks TLS there: the URL begins with wss://.")
    if answer.status == 400 and b"HTTP/1.1" in answer.body:
        return Trouble(said, f"A proxy speaks an old HTTP to the relay. {LET_THROUGH}")
    if answer.status in (502, 503, 504):
        return Trouble(
            said,
            "A proxy answers and does not reach the relay behind it: see whether the relay runs, and "
            "whether the proxy has its address and port right.",
        )
    if answer.status < 400 or answer.status == 511:
        return Trouble(
            said,
            "If it is the login page of a network, log in with a browser first. Otherwise the URL leads to "
            "another web server: correct its host, port or base path.",
        )
    return Trouble(
        said,
        "Correct the URL's host, port or base path; or see where the web server in front sends requests: "
        "/health, /agent, /client and /c/ are the relay's.",
    )
