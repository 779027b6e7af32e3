"""The service that listens for operators, and what it refuses to listen on.

Made by ``seance.admin.port``, for our doors and for programs that embed a relay. It stays there while the
relay takes leave, so that ``/readyz`` can say so.
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

from seance.admin.access_control import Guard
from seance.admin.site import AdminSite, Place
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
    """Listens, between ``startService`` and ``stopService``.

    Args:
        reactor: Twisted's reactor.
        endpoint: Where: a Twisted server endpoint string; None for ``DEFAULT_ENDPOINT``, or nowhere
            if that is taken, which is told in the log: nobody has asked for it.
        places: What is there.
        verifier: Who judges tokens, if anybody does.
        asks_for_token: Whether this machine needs one too.
        tls: Speak TLS with this, on an endpoint that does not bring its own: beyond this machine, or where
            certificates are asked for.
        asks_for_certificate: Whether ``tls`` does: who shows one needs no token then.
        risk: What whoever reaches the port could do, for the sentence that refuses to let everybody in.
        remedy: The rest of that sentence.
        before_end: What has to be over before the port closes.
        on_end: Called when it is closing.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401  # no common type
        endpoint: str | None,
        places: Iterable[Place],
        *,
        verifier: Verifier | None = None,
        asks_for_token: bool = False,
        tls: ServerTls | None = None,
        asks_for_certificate: bool = False,
        risk: str = "close every room",
        remedy: str = "keep it on 127.0.0.1",
        before_end: Callable[[], Deferred[None]] | None = None,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._reactor = reactor
        self._is_default = endpoint is None
        self._endpoint = endpoint or DEFAULT_ENDPOINT
        self._verifier = verifier
        self._asks_for_token = asks_for_token
        self._tls = tls
        self._asks_for_certificate = asks_for_certificate
        self._risk = risk
        self._remedy = remedy
        self._before_end = before_end
        self._on_end = on_end
        self._site = AdminSite(reactor, tuple(places))
        self._port: IListeningPort | None = None
        self._claiming: Deferred[None] | None = None
        self._listening: OneShotEvent[IListeningPort | None] = OneShotEvent()
        self._file_watcher: FileWatcher | None = None

    def when_listening(self) -> Deferred[IListeningPort | None]:
        """Wait for the port; None if the default one was taken. Fails with ``ConfigError``."""
        return self._listening.when()

    def is_still_good(self, grant: Grant) -> bool:
        """Whether what somebody was let in with would be granted again."""
        guard = self._site.guard
        return guard is not None and guard.is_still_good(grant)

    def reread(self) -> None:
        """Read the certificate again, for SIGHUP."""
        if self._file_watcher is not None:
            self._file_watcher.reread()

    # -- IService --------------------------------------------------------------------------

    def startService(self) -> None:
        """Listen.

        Raises:
            ConfigError: It cannot listen there, or it would let everybody in.
        """
        super().startService()
        self._listening.reset()
        failure: list[Failure] = []
        self._claiming = Deferred.fromCoroutine(self._listen())
        self._claiming.addErrback(failure.append)
        self._claiming.addBoth(lambda _: self._listening.fail(failure[0]) if failure else None)
        if failure:
            self.running = False
            failure[0].raiseException()

    def stopService(self) -> Deferred[None]:
        """Close the port, when that which it tells of is over."""
        super().stopService()
        return Deferred.fromCoroutine(self._leave())

    async def _leave(self) -> None:
        if self._before_end is not None:
            await self._before_end()
        if self._file_watcher is not None:
            self._file_watcher.stopService()
            self._file_watcher = None
        if self._claiming is not None:
            self._claiming.cancel()
        self._on_end()
        port, self._port = self._port, None
        if port is not None:
            await maybeDeferred(port.stopListening)
        self._site.cut_all()

    async def _listen(self) -> None:
        door = AdminDoor(self._site)
        try:
            port = self._port = await self._claim_port(door)
        except CannotListenError as error:
            why = why_not_listening(error, "--admin")
            if self._is_default:
                self._log.warn(
                    "There is no admin port: it cannot listen on {endpoint}: {why} Or say --admin none.",
                    endpoint=self._endpoint,
                    why=why,
                    event="admin.no_port",
                )
                self._listening.fire(None)
                return
            sentence = f"The admin port cannot listen on {self._endpoint}: {why}"
            raise ConfigError(sentence, code="admin") from error
        try:
            self._site.guard, has_own_tls = self._make_guard(port)
            if has_own_tls:
                door.behind = self._speak_tls()
        except ConfigError:
            # Not waited for, since whoever starts us is to be told at once.
            maybeDeferred(port.stopListening).addErrback(self._note_stop_failure)
            self._port = None
            raise
        self._say_hello(port, is_secure=has_own_tls or has_tls(self._endpoint))
        self._listening.fire(port)

    async def _claim_port(self, door: AdminDoor) -> IListeningPort:
        """Listen. Where the machine has no 127.0.0.1, ``tcp:PORT:interface=127.0.0.1`` means ::1."""
        try:
            endpoint = server_endpoint(self._reactor, self._endpoint)
        except Exception as error:  # each kind of endpoint fails in its own way
            sentence = f"The admin address {self._endpoint!r} cannot be read: {error}."
            raise ConfigError(sentence, code="admin") from error
        try:
            return await endpoint.listen(door)
        except CannotListenError as error:
            ipv4, ipv6 = (f"interface={host}" for host in LOOPBACK_HOSTS)
            if not has_no_such_address(error) or not self._endpoint.endswith(ipv4):
                raise
            other = self._endpoint.replace(ipv4, ipv6.replace(":", r"\:"))
            try:
                return await server_endpoint(self._reactor, other).listen(door)
            except CannotListenError:
                raise error from None

    def _speak_tls(self) -> IProtocolFactory:
        tls = cast(ServerTls, self._tls)
        tls.load()
        self._file_watcher = FileWatcher(self._reactor, [tls], self._note_new_certificate)
        self._file_watcher.startService()
        return tls.wrap(self._site, self._reactor)

    def _make_guard(self, port: IListeningPort) -> tuple[Guard, bool]:
        """Return who looks at requests, and whether they come over TLS of ours."""
        host = str(getattr(port.getHost(), "host", "127.0.0.1"))
        is_unix = not hasattr(port.getHost(), "host")
        is_local = holder_of(host) == LOOPBACK
        asks = self._asks_for_token or not is_local
        can_tell = self._verifier is not None or self._asks_for_certificate
        if asks and not can_tell:
            sentence = f"Whoever reaches the admin port on {host} could {self._risk}: {self._remedy}."
            raise ConfigError(sentence, code="admin_unsafe")
        is_secure = has_tls(self._endpoint)
        is_ours = self._tls is not None and not is_secure and (self._asks_for_certificate or not is_local)
        if not is_local and not is_secure and not is_ours:
            self._log.warn(
                "The admin port on {host} does not speak TLS: tokens for it can be read on the way",
                host=host,
                event="admin.plain",
            )
        guard = Guard(self._reactor, self._verifier, is_local=is_local and not is_unix, asks_for_token=asks)
        return guard, is_ours

    def _say_hello(self, port: IListeningPort, *, is_secure: bool) -> None:
        number = getattr(port.getHost(), "port", None)
        url = (
            self._endpoint if number is None else f"{'https' if is_secure else 'http'}://localhost:{number}/"
        )
        self._log.info("Admin pages: {url}", url=url, event="admin.listening")

    def _note_stop_failure(self, failure: Failure) -> None:
        self._log.failure("The admin port could not be closed", failure, event="admin.stop_failed")

    def _note_new_certificate(self) -> None:
        self._log.info("The certificate was read again and holds from now on", event="tls.reloaded")


class AdminDoor(Factory):
    """What listens. Whether TLS is spoken behind it depends on the address, which is known only then."""

    noisy = False

    def __init__(self, site: AdminSite) -> None:
        self._site = site
        self.behind: IProtocolFactory = site

    def startFactory(self) -> None:
        self._site.doStart()

    def stopFactory(self) -> None:
        self._site.doStop()

    def buildProtocol(self, addr: IAddress | None) -> Any:  # noqa: ANN401  # of Twisted's private types
        return self.behind.buildProtocol(cast(IAddress, addr))
