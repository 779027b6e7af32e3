"""One stream on the agent: from the client's request head to a splice with the local server.

The relay opens a stream for each client and first writes the client's upgrade request on it. The agent reads
that head, connects to the local server, writes the head with the ``Host`` that the local server expects, and
splices stream and connection. The response is the local server's; the relay checks it. Failures on the agent
become an HTTP response on the stream: 502 if the local server does not accept the connection, 503 if this
process has no descriptor or port left, 400 if there is no valid head.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IPushProducer, IStreamClientEndpoint
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from seance.agent.answer_watch import AnswerWatch
from seance.agent.local_trouble import LocalTrouble, too_many_clients, trouble_of
from seance.core.events import ClientBegan, ClientEnded, ClientJoined, Refused
from seance.core.interfaces import Observer
from seance.core.local_address import LocalAddress
from seance.core.observers import NullObserver
from seance.core.per_turn_limiter import PerTurnLimiter
from seance.core.settings import AgentSettings
from seance.core.shared_timers import SharedTimers
from seance.core.splice import Splice, SpliceSide
from seance.errors import Refusal
from seance.heads import (
    FIELD_LIMIT,
    FORWARDED_FIELDS,
    Request,
    RequestReader,
    has_public_origin,
    refusal_response,
    request_with_host,
)
from seance.heads.boundary import DEFAULT_HEAD_BYTES
from seance.heads.refusals import refusal
from seance.net import ClientTls, Leg, ProtocolSwitch, switch_protocol, tune
from seance.net.log_limiter import LogLimiter

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

__all__ = ["LocalClient", "LocalConnectionFactory"]

FORBIDDEN = 403


class LocalConnectionFactory(Factory):
    """Makes a ``LocalConnection`` for each stream that the relay opens.

    Args:
        reactor: Twisted's reactor.
        settings: The agent's settings.
        on_local: Called after each dial of the local server, with the trouble or None.
        observer: Receives the events of each client; None for no observer.
    """

    noisy = False
    _log = Logger()

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401  # no common type for what endpoints need
        settings: AgentSettings,
        on_local: Callable[[LocalTrouble | None], None],
        observer: Observer | None = None,
    ) -> None:
        self.reactor = reactor
        self.timers = SharedTimers(reactor)
        self.settings = settings
        self._on_local = on_local
        self.observer = observer or NullObserver()
        self.client_count = 0
        self.turns = PerTurnLimiter(reactor)
        self._refusals = LogLimiter(reactor)
        self.local = LocalAddress.from_text(settings.local)
        self.tls: ClientTls | None = None
        if self.local.kind == "tls":
            self.tls = ClientTls(self.local.host, ca_file=settings.local_ca, insecure=settings.local_insecure)

    @cached_property
    def endpoint(self) -> IStreamClientEndpoint:
        """Connects to the local server. Made for the first client."""
        return self.local.endpoint(self.reactor, self.settings.local_dial_seconds, self.tls)

    def note_dialled(self, trouble: LocalTrouble | None = None) -> None:
        """Report the result of a dial of the local server; None for one that succeeded."""
        self._on_local(trouble)

    def note_refused(self, status: int, message: str) -> None:
        """Log a refused client: the first time, then at most once a minute per status, with a count."""
        further = self._refusals.admit(status)
        if further is not None:
            count = further + 1
            self._log.warn(
                "[Agent] {sentence}{again}",
                sentence=message,
                again="" if count == 1 else f" ({count} answers with {status} since the last such line)",
                status=status,
                count=count,
                event="local.refused",
            )

    def buildProtocol(self, addr: IAddress | None) -> LocalConnection:
        """Make the protocol of one stream."""
        return LocalConnection(self)


class LocalConnection(ProtocolSwitch):
    """Reads the request head on a stream and forwards it to the local server."""

    _log = Logger()

    def __init__(self, factory: LocalConnectionFactory) -> None:
        self._factory = factory
        self._settings = factory.settings
        self._reader = RequestReader(self._settings.head_bytes, FIELD_LIMIT + FORWARDED_FIELDS)
        self._timer: IDelayedCall | None = None
        self._dialling: Deferred[None] | None = None
        self._is_lost = False
        self._is_refused = False
        self._client = LocalClient(factory)

    def connectionMade(self) -> None:
        """Start the timeout for the request head."""
        self._client.begin()
        seconds = self._settings.head_seconds
        self._timer = self._factory.timers.callLater(seconds, self._head_timed_out)

    def dataReceived(self, data: bytes) -> None:
        """Collect bytes until the head is complete, then pause: further data waits in the stream's window."""
        try:
            request = self._reader.receive(data)
        except Refusal as refusal:
            self._factory.note_refused(refusal.status, f"A client was refused: {refusal.message}")
            self._refuse(refusal)
            return
        if request is not None:
            self._stop_timer()
            factory = self._factory
            if factory.client_count > self._settings.streams:
                trouble = too_many_clients(self._settings.streams)
                factory.note_dialled(trouble)
                self._refuse(trouble.refusal)
                return
            cast(IPushProducer, self.transport).pauseProducing()
            self._dialling = Deferred.fromCoroutine(self._dial(request))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The stream ended before it was spliced: cancel the dial."""
        self._is_lost = True
        self._stop_timer()
        if self._dialling is not None:
            self._dialling.cancel()
        if not self._is_refused:
            self._client.tell_end("left_early")
        super().connectionLost(reason)

    async def _dial(self, request: Request) -> None:
        factory = self._factory
        settings = self._settings
        splice = Splice(
            factory.timers,
            self._client,
            half_close_seconds=settings.half_close_seconds,
        )
        try:
            await factory.turns.acquire()
            connecting = factory.endpoint.connect(_SideFactory(splice.far))
            if not connecting.called:
                connecting.addTimeout(settings.local_dial_seconds, factory.reactor)
            await connecting
        except Exception as error:  # noqa: BLE001  # any failure of the network: the client gets a response
            self._dialling = None
            if not self._is_lost:
                trouble = trouble_of(Failure(error), factory.local, settings.local_dial_seconds)
                factory.note_dialled(trouble)
                self._refuse(trouble.refusal)
            return
        self._dialling = None
        factory.note_dialled()
        try:
            self._join(splice, request)
        except Exception:  # noqa: BLE001  # a bug must cost only this client
            self._log.failure("A client could not be joined with the local server", event="local.failed")
            splice.far.is_lost = True
            splice.far.leg.loseConnection()  # gracefully: the fault is not the local server's
            cast(Leg, self.transport).abortConnection()

    def _join(self, splice: Splice, request: Request) -> None:
        local = self._factory.local
        host = None if self._settings.keep_host else local.host_header
        origin = local.origin if self._settings.rewrite_origin else None
        tune(splice.far.leg)
        trailing = self._reader.trailing
        splice.far.leg.write(request_with_host(request, host, origin) + trailing)
        splice.near.received_bytes = len(trailing)
        self._client.join(splice)
        stream = cast(Leg, self.transport)
        switch_protocol(self.transport, splice.near)
        splice.start()
        splice.far.watch = self._watch(splice, request)
        stream.resumeProducing()

    def _watch(self, splice: Splice, request: Request) -> AnswerWatch:
        factory, settings = self._factory, self._settings

        def note(status: int, message: str) -> None:
            is_public = status == FORBIDDEN and has_public_origin(request)
            if is_public and not (settings.keep_host or settings.rewrite_origin):
                message += " If it compares Origin with Host, --rewrite-origin or --keep-host helps."
            factory.note_refused(status, message)

        key = b"".join(request.values(b"sec-websocket-key")[:1])
        return AnswerWatch(splice.far, key, DEFAULT_HEAD_BYTES, note, self._client.note_switched)

    def _refuse(self, refusal: Refusal) -> None:
        self._stop_timer()
        self._is_refused = True
        self._factory.observer.notify(Refused(refusal.code))
        self._client.tell_end("refused")
        stream = cast(Leg, self.transport)
        stream.write(refusal_response(refusal))
        stream.loseConnection()

    def _head_timed_out(self) -> None:
        self._timer = None
        seconds = self._settings.head_seconds
        self._refuse(refusal("head_timeout.stream", seconds=seconds))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class LocalClient:
    """A client as observers see it, and the owner of its splice. Outlives the ``LocalConnection``.

    Args:
        factory: The factory of the ``LocalConnection``.
    """

    __slots__ = ("_began_seconds", "_factory", "_is_switched", "_splice")

    def __init__(self, factory: LocalConnectionFactory) -> None:
        self._factory = factory
        self._began_seconds = 0.0
        self._is_switched = False
        self._splice: Splice | None = None

    @property
    def room(self) -> str:
        """The room that the agent serves."""
        return self._factory.settings.room

    @property
    def received_bytes(self) -> int:
        """Bytes that the client has sent after its request head."""
        return 0 if self._splice is None else self._splice.near.received_bytes

    @property
    def sent_bytes(self) -> int:
        """Bytes that the local server has sent, including its response head."""
        return 0 if self._splice is None else self._splice.far.received_bytes

    def begin(self) -> None:
        """Its stream was opened."""
        self._factory.client_count += 1
        self._began_seconds = self._factory.reactor.seconds()
        self._factory.observer.notify(ClientBegan(self))

    def join(self, splice: Splice) -> None:
        """The local server has accepted the connection."""
        self._splice = splice
        seconds = self._factory.reactor.seconds() - self._began_seconds
        self._factory.observer.notify(ClientJoined(self, seconds))

    def tell_end(self, reason: str) -> None:
        """Report the end of this client, or of a failed attempt, to the observer."""
        self._factory.client_count -= 1
        seconds = self._factory.reactor.seconds() - self._began_seconds
        self._factory.observer.notify(ClientEnded(self, reason, seconds))

    # -- SpliceOwner -----------------------------------------------------------------------

    def closes_far_in_order(self) -> bool:
        """Return whether the local server has not answered 101 yet; the connection is then closed gracefully.

        In Node, a reset ends the whole process if an upgrade socket has no ``error`` listener.
        """
        return not self._is_switched

    def note_switched(self) -> None:
        """The local server has answered 101."""
        self._is_switched = True

    def near_lost(self) -> None:
        """Not used: both legs end together."""

    def far_cut(self) -> bool:
        """The local server has reset the connection: reset the stream as well."""
        return False

    def splice_ended(self, reason: str) -> None:
        """Both legs are gone."""
        watch = None if self._splice is None else self._splice.far.watch
        if isinstance(watch, AnswerWatch):
            watch.note_end(reason, self._factory.reactor.seconds() - self._began_seconds)
        self.tell_end(reason)


class _SideFactory(Factory):
    noisy = False

    def __init__(self, side: SpliceSide) -> None:
        self._side = side

    def buildProtocol(self, addr: IAddress | None) -> SpliceSide:  # type: ignore[override]  # provides IProtocol
        return self._side
