"""The public ports of a relay: listening on them, the safety check, and the log lines with the addresses.

``Relay.startService`` calls ``claim_ports``. A listener without TLS and PROXY protocol gets a ``FastReject``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.logger import Logger

from seance.core.settings import RelaySettings, has_tls
from seance.errors import ConfigError
from seance.net import (
    LOOPBACK_HOSTS,
    ServerTls,
    accept_immediately,
    has_no_such_address,
    host_of,
    server_endpoint,
    why_not_listening,
)
from seance.relay.edge.admission import LOOPBACK, holder_of
from seance.relay.edge.fast_reject import FastReject

if TYPE_CHECKING:
    from seance.relay.service import Relay

__all__ = ["claim_ports", "log_addresses"]

_log = Logger()


async def claim_ports(
    reactor: Any,  # noqa: ANN401  # no common type
    relay: Relay,
    tls: ServerTls | None,
    ports: list[IListeningPort],
) -> None:
    """Listen wherever the settings of a relay say.

    Args:
        reactor: Twisted's reactor.
        relay: Serves the connections.
        tls: Speak TLS with this on endpoints that do not bring their own.
        ports: Gets each port as soon as it listens. They are the caller's to close, after an error too.

    Raises:
        ConfigError: An address cannot be read or listened on, or strangers could enter every room.
    """
    for text in relay.settings.listen:
        port = await _claim_port(reactor, relay, tls, text)
        ports.append(port)  # before the next one: what listens has to be known when that fails
    if not relay.settings.listen:
        await _claim_loopback(reactor, relay, tls, ports)
    _check_safety(relay, ports)


def log_addresses(ports: list[IListeningPort], settings: RelaySettings) -> None:
    """Log where a relay listens, and the URLs of the first port that has a number."""
    numbers = [_number(port) for port in ports]
    first = next((at for at, number in enumerate(numbers) if number), None)
    if first is None:
        name = getattr(ports[0].getHost(), "name", b"")  # of a UNIXAddress
        where = f"unix:{os.fsdecode(name)}"
        _log.info("🔌 Tunnel Relay Server starting on {where}", where=where, event="relay.listening")
        return
    text = settings.listen[first] if settings.listen else ""
    is_secure = settings.tls_cert is not None or has_tls(text)
    base = f"{'wss' if is_secure else 'ws'}://localhost:{numbers[first]}"
    _log.info("🔌 Tunnel Relay Server starting on port {port}", port=numbers[first], event="relay.listening")
    _log.info("Agent endpoint: {url}", url=f"{base}/agent?room=<room-id>", event="relay.listening")
    _log.info("Client endpoint: {url}", url=f"{base}/client?room=<room-id>", event="relay.listening")


async def _claim_loopback(
    reactor: Any,  # noqa: ANN401  # no common type
    relay: Relay,
    tls: ServerTls | None,
    ports: list[IListeningPort],
) -> None:
    """Listen on the loopback addresses that this machine has, with the same port number."""
    port = relay.settings.port
    for host in LOOPBACK_HOSTS:
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        text = f"tcp:{port}:interface={host}".replace("::", r"\:\:")
        try:
            ports.append(await _claim_port(reactor, relay, tls, text, where))
        except ConfigError as error:
            if not has_no_such_address(error.__cause__):
                raise
        else:
            port = _number(ports[0])
    if not ports:
        sentence = (
            f"The relay cannot listen: this machine has neither {' nor '.join(LOOPBACK_HOSTS)}. Bring its "
            "loopback interface up (ip link set lo up), or name an address with --listen."
        )
        raise ConfigError(sentence, code="listen")


async def _claim_port(
    reactor: Any,  # noqa: ANN401  # no common type
    relay: Relay,
    tls: ServerTls | None,
    text: str,
    where: str | None = None,
) -> IListeningPort:
    try:
        endpoint = server_endpoint(reactor, text, trusts=relay.proxies.trusts)
    except Exception as error:  # each kind of endpoint fails in its own way
        sentence = f"The listen address {text!r} cannot be read: {error}."
        raise ConfigError(sentence, code="listen") from error
    factory: IProtocolFactory = relay.front
    if tls is not None and not has_tls(text):
        factory = tls.wrap(relay.front, reactor)
    try:
        port = await endpoint.listen(factory)
    except CannotListenError as error:
        sentence = f"The relay cannot listen on {where or text}: {why_not_listening(error, '--listen')}"
        raise ConfigError(sentence, code="listen") from error
    accept_immediately(port)
    FastReject.install(port, reactor, relay)
    return port


def _check_safety(relay: Relay, ports: list[IListeningPort]) -> None:
    """Refuse to let the whole network in by mistake."""
    if relay.verifier is not None or relay.settings.open:
        return
    for port in ports:
        host = host_of(port.getHost())
        if holder_of(host) != LOOPBACK:
            sentence = (
                f"Without a key anybody who reaches {host} could enter every room: give --auth-key FILE "
                "(seance keygen makes one), or say --open if that is what you want."
            )
            raise ConfigError(sentence, code="unsafe")


def _number(port: IListeningPort) -> int:
    return int(getattr(port.getHost(), "port", 0))
