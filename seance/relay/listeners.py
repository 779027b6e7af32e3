"""The public ports of a relay: listening on them, the safety check, and the log lines with the addresses.

A listener without TLS and PROXY protocol gets a ``FastReject``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from twisted.internet.defer import maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

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
    from seance.relay.context import RelayContext
    from seance.relay.edge.frontend import FrontendFactory

__all__ = ["Listeners", "log_addresses"]

_log = Logger()


class Listeners:
    """The listening ports of one relay.

    Args:
        context: The context of the relay.
        tls: Used on endpoints that have no TLS of their own; None for no TLS.
    """

    def __init__(self, context: RelayContext, tls: ServerTls | None) -> None:
        self._context = context
        self._tls = tls
        self._ports: list[IListeningPort] = []

    @property
    def is_listening(self) -> bool:
        """Whether there is a port."""
        return bool(self._ports)

    async def listen(self, front: FrontendFactory) -> list[IListeningPort]:
        """Listen on all addresses of the settings, and log them.

        Args:
            front: Serves the connections.

        Raises:
            ConfigError: An address cannot be read or listened on, or everyone could enter every room.
        """
        settings = self._context.settings
        try:
            for text in settings.listen:
                port = await self._listen_on(front, text)
                self._ports.append(port)  # before the next one: if that fails, this one has to be closed
            if not settings.listen:
                await self._listen_on_loopback(front)
            self._check_safety()
        except ConfigError:
            for port in self._ports:
                maybeDeferred(port.stopListening).addErrback(_note_stop_failure)
            self._ports.clear()
            raise
        log_addresses(self._ports, settings)
        return list(self._ports)

    async def stop(self) -> None:
        """Close all ports."""
        ports, self._ports = self._ports, []
        for port in ports:
            await maybeDeferred(port.stopListening).addErrback(_note_stop_failure)

    def pause(self) -> None:
        """Accept no connection until ``resume``; the kernel holds some."""
        for port in self._ports:
            port.stopReading()  # type: ignore[attr-defined]  # of every reactor's ports

    def resume(self) -> None:
        """Accept connections again."""
        for port in self._ports:
            port.startReading()  # type: ignore[attr-defined]  # as above

    async def _listen_on_loopback(self, front: FrontendFactory) -> None:
        """Listen on the loopback addresses that this machine has, with the same port number."""
        port = self._context.settings.port
        for host in LOOPBACK_HOSTS:
            where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            text = f"tcp:{port}:interface={host}".replace("::", r"\:\:")
            try:
                self._ports.append(await self._listen_on(front, text, where))
            except ConfigError as error:
                if not has_no_such_address(error.__cause__):
                    raise
            else:
                port = _number(self._ports[0])
        if not self._ports:
            message = (
                f"The relay cannot listen: this machine has neither {' nor '.join(LOOPBACK_HOSTS)}. "
                "Bring its loopback interface up (ip link set lo up), or name an address with --listen."
            )
            raise ConfigError(message, code="listen")

    async def _listen_on(self, front: FrontendFactory, text: str, where: str | None = None) -> IListeningPort:
        reactor = self._context.reactor
        try:
            endpoint = server_endpoint(reactor, text, trusts=front.proxies.trusts)
        except Exception as error:  # each kind of endpoint fails in its own way
            message = f"The listen address {text!r} cannot be read: {error}."
            raise ConfigError(message, code="listen") from error
        factory: IProtocolFactory = front
        if self._tls is not None and not has_tls(text):
            factory = self._tls.wrap(front, reactor)
        try:
            port = await endpoint.listen(factory)
        except CannotListenError as error:
            message = f"The relay cannot listen on {where or text}: {why_not_listening(error, '--listen')}"
            raise ConfigError(message, code="listen") from error
        accept_immediately(port)
        FastReject.install(port, front)
        return port

    def _check_safety(self) -> None:
        """Refuse to admit everyone from other machines unless the operator asks for it."""
        if self._context.verifier is not None or self._context.settings.open:
            return
        for port in self._ports:
            host = host_of(port.getHost())
            if holder_of(host) != LOOPBACK:
                message = (
                    f"Without a key, everyone who reaches {host} could enter every room. Set --auth-key FILE "
                    "(seance keygen makes one), or --open if that is intended."
                )
                raise ConfigError(message, code="unsafe")


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


def _note_stop_failure(failure: Failure) -> None:
    _log.failure("A port could not be closed", failure, event="relay.stop_failed")


def _number(port: IListeningPort) -> int:
    return int(getattr(port.getHost(), "port", 0))
