"""The Twisted service that listens on the admin port.

It refuses an endpoint that would give other machines access without a token. It keeps listening while the
relay stops, so that ``/readyz`` can report "draining".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolFactory
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from seance.admin.access_control import AccessControl
from seance.admin.site import AdminRoute, AdminSite
from seance.core.interfaces import Grant, Verifier
from seance.core.settings import has_tls
from seance.errors import ConfigError
from seance.net import (
    LOOPBACK_HOSTS,
    FileWatcher,
    OneShotEvent,
    ServerTls,
    has_no_such_address,
    server_endpoint,
    why_not_listening,
)
from seance.relay.edge.admission import LOOPBACK, holder_of

__all__ = ["DEFAULT_ENDPOINT", "AdminService"]

DEFAULT_ENDPOINT = "tcp:9090:interface=127.0.0.1"


class AdminService(Service):
    """Listens between ``startService`` and ``stopService``.

    Args:
        reactor: Twisted's reactor.
        endpoint: A Twisted server endpoint string. None for ``DEFAULT_ENDPOINT``; if that is in use, the
            service logs a warning and does not listen.
        routes: The routes.
        verifier: Verifies tokens; None without tokens.
        requires_token: Whether loopback addresses need a token too.
        tls: TLS for an endpoint without its own, if it is not a loopback address or
            ``requests_certificate`` is set.
        requests_certificate: Whether ``tls`` requests client certificates, which replace a token.
        risk: Access that any client would have without a token, for the error message.
        remedy: The option that prevents it, for the error message.
        before_close: Called on stop; the port closes when its Deferred fires.
        on_close: Called when the port closes.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401  # no common type
        endpoint: str | None,
        routes: Iterable[AdminRoute],
        *,
        verifier: Verifier | None = None,
        requires_token: bool = False,
        tls: ServerTls | None = None,
        requests_certificate: bool = False,
        risk: str = "close every room",
        remedy: str = "keep it on 127.0.0.1",
        before_close: Callable[[], Deferred[None]] | None = None,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        self._reactor = reactor
        self._is_default = endpoint is None
        self._endpoint = endpoint or DEFAULT_ENDPOINT
        self._verifier = verifier
        self._requires_token = requires_token
        self._tls = tls
        self._requests_certificate = requests_certificate
        self._risk = risk
        self._remedy = remedy
        self._before_close = before_close
        self._on_close = on_close
        self._site = AdminSite(reactor, tuple(routes))
        self._port: IListeningPort | None = None
        self._starting: Deferred[None] | None = None
        self._listening: OneShotEvent[IListeningPort | None] = OneShotEvent()
        self._file_watcher: FileWatcher | None = None

    def when_listening(self) -> Deferred[IListeningPort | None]:
        """Wait for the port; None if the default port is in use. Fails with ``ConfigError``."""
        return self._listening.when()

    def is_still_good(self, grant: Grant) -> bool:
        """Whether a grant is still valid."""
        access_control = self._site.access_control
        return access_control is not None and access_control.is_still_good(grant)

    def reread(self) -> None:
        """Reload the certificate, for SIGHUP."""
        if self._file_watcher is not None:
            self._file_watcher.reread()

    # -- IService --------------------------------------------------------------------------

    def startService(self) -> None:
        """Listen.

        Raises:
            ConfigError: It cannot listen on the endpoint, or would give access without a token.
        """
        super().startService()
        self._listening.reset()
        failure: list[Failure] = []
        self._starting = Deferred.fromCoroutine(self._listen())
        self._starting.addErrback(failure.append)
        self._starting.addBoth(lambda _: self._listening.fail(failure[0]) if failure else None)
        if failure:
            self.running = False
            failure[0].raiseException()

    def stopService(self) -> Deferred[None]:
        """Close the port when the Deferred of ``before_close`` has fired."""
        super().stopService()
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        if self._before_close is not None:
            await self._before_close()
        if self._file_watcher is not None:
            self._file_watcher.stopService()
            self._file_watcher = None
        if self._starting is not None:
            self._starting.cancel()
        self._on_close()
        port, self._port = self._port, None
        if port is not None:
            await maybeDeferred(port.stopListening)
        self._site.cut_all()

    async def _listen(self) -> None:
        factory = AdminFactory(self._site)
        try:
            port = self._port = await self._open_port(factory)
        except CannotListenError as error:
            reason = why_not_listening(error, "--admin")
            if self._is_default:
                self._log.warn(
                    "No admin port: cannot listen on {endpoint}: {why} Or disable it with --admin none.",
                    endpoint=self._endpoint,
                    why=reason,
                    event="admin.no_port",
                )
                self._listening.fire(None)
                return
            message = f"The admin port cannot listen on {self._endpoint}: {reason}"
            raise ConfigError(message, code="admin") from error
        try:
            self._site.access_control, has_own_tls = self._make_access_control(port)
            if has_own_tls:
                factory.inner = self._tls_factory()
        except ConfigError:
            # Not awaited: startService must raise synchronously.
            maybeDeferred(port.stopListening).addErrback(self._note_stop_failure)
            self._port = None
            raise
        self._log_address(port, is_secure=has_own_tls or has_tls(self._endpoint))
        self._listening.fire(port)

    async def _open_port(self, factory: AdminFactory) -> IListeningPort:
        """Listen; on a machine without 127.0.0.1, ``tcp:PORT:interface=127.0.0.1`` means ::1."""
        try:
            endpoint = server_endpoint(self._reactor, self._endpoint)
        except Exception as error:  # each type of endpoint raises different errors
            message = f"The endpoint of --admin, {self._endpoint!r}, is invalid: {error}."
            raise ConfigError(message, code="admin") from error
        try:
            return await endpoint.listen(factory)
        except CannotListenError as error:
            ipv4, ipv6 = (f"interface={host}" for host in LOOPBACK_HOSTS)
            if not has_no_such_address(error) or not self._endpoint.endswith(ipv4):
                raise
            other = self._endpoint.replace(ipv4, ipv6.replace(":", r"\:"))
            try:
                return await server_endpoint(self._reactor, other).listen(factory)
            except CannotListenError:
                raise error from None

    def _tls_factory(self) -> IProtocolFactory:
        tls = cast(ServerTls, self._tls)
        tls.load()
        self._file_watcher = FileWatcher(self._reactor, [tls], self._note_new_certificate)
        self._file_watcher.startService()
        return tls.wrap(self._site, self._reactor)

    def _make_access_control(self, port: IListeningPort) -> tuple[AccessControl, bool]:
        """Return the access control, and whether to use ``tls``."""
        host = str(getattr(port.getHost(), "host", "127.0.0.1"))
        is_unix = not hasattr(port.getHost(), "host")
        is_local = holder_of(host) == LOOPBACK
        requires_token = self._requires_token or not is_local
        if requires_token and self._verifier is None and not self._requests_certificate:
            message = f"Any client of the admin port on {host} could {self._risk}: {self._remedy}."
            raise ConfigError(message, code="admin_unsafe")
        is_secure = has_tls(self._endpoint)
        is_ours = self._tls is not None and not is_secure and (self._requests_certificate or not is_local)
        if not is_local and not is_secure and not is_ours:
            self._log.warn(
                "The admin port on {host} does not use TLS: its tokens can be read on the network",
                host=host,
                event="admin.plain",
            )
        access_control = AccessControl(
            self._reactor, self._verifier, is_local=is_local and not is_unix, requires_token=requires_token
        )
        return access_control, is_ours

    def _log_address(self, port: IListeningPort, *, is_secure: bool) -> None:
        number = getattr(port.getHost(), "port", None)
        url = (
            self._endpoint if number is None else f"{'https' if is_secure else 'http'}://localhost:{number}/"
        )
        self._log.info("Admin pages: {url}", url=url, event="admin.listening")

    def _note_stop_failure(self, failure: Failure) -> None:
        self._log.failure("The admin port could not be closed", failure, event="admin.stop_failed")

    def _note_new_certificate(self) -> None:
        self._log.info("The admin port uses a new certificate", event="tls.reloaded")


class AdminFactory(Factory):
    """The listening factory; ``inner`` is set once the bound address, and so the use of TLS, is known."""

    noisy = False

    def __init__(self, site: AdminSite) -> None:
        self._site = site
        self.inner: IProtocolFactory = site

    def startFactory(self) -> None:
        self._site.doStart()

    def stopFactory(self) -> None:
        self._site.doStop()

    def buildProtocol(self, addr: IAddress | None) -> Any:  # noqa: ANN401  # of Twisted's private types
        return self.inner.buildProtocol(cast(IAddress, addr))
