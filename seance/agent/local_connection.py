"""One stream on the agent: from the client's request head to a splice with the local server.

The relay opens a stream for each client and writes the client's upgrade request on it first. The
agent reads that head, dials the local server, hands the head over with the ``Host`` it expects, and
from there on splices. The answer, 101 or not, is the local server's own and is checked by the relay.
What can go wrong on this side becomes an HTTP answer on the stream, so that the client learns it
before any 101: 502 when the local server does not take the connection, 503 when this process has no
descriptor or port left, 400 when the head is none.
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
from seance.core.interfaces import ClientReport, Observer
from seance.core.local_address import LocalAddress
from seance.core.observers import NullObserver
from seance.core.per_turn_limiter import PerTurnLimiter
from seance.core.settings import AgentSettings
from seance.core.splice import Side, Splice, SpliceReport
from seance.errors import Refusal
from seance.heads import (
    FIELD_LIMIT,
    FORWARDED_FIELDS,
    Request,
    RequestReader,
    is_of_public_origin,
    refusal_response,
    request_with_host,
)
from seance.heads.boundary import DEFAULT_HEAD_BYTES
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
        settings: The agent's.
        on_local: Called after each dial of the local server, with the trouble or None.
        observer: Who is told what becomes of each client.
    """

    noisy = False
    _log = Logger()

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401  # what endpoints want: no common type
        settings: AgentSettings,
        on_local: Callable[[LocalTrouble | None], None],
        observer: Observer | None = None,
    ) -> None:
        self.reactor = reactor
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
        """How the local server is reached; made when the first client comes."""
        return self.local.endpoint(self.reactor, self.settings.local_dial_seconds, self.tls)

    def note_dialled(self, trouble: LocalTrouble | None = None) -> None:
        """Report how a dial of the local server went; None for one that has succeeded."""
        self._on_local(trouble)

    def note_refused(self, status: int, sentence: str) -> None:
        """Log that a client was refused: once, and then once a minute for each status, with a count."""
        further = self._refusals.admit(status)
        if further is not None:
            count = further + 1
            self._log.warn(
                "[Agent] {sentence}{again}",
                sentence=sentence,
                again="" if count == 1 else f" ({count} answers with {status} since the last such line)",
                status=status,
                count=count,
                event="local.refused",
            )

    def buildProtocol(self, addr: IAddress | None) -> LocalConnection:
        """Make the protocol of one stream."""
        return LocalConnection(self)


class LocalConnection(ProtocolSwitch):
    """Reads the head on a stream and brings it to the local server."""

    _log = Logger()

    def __init__(self, factory: LocalConnectionFactory) -> None:
        self._factory = factory
        self._settings = factory.settings
        self._reader = RequestReader(self._settings.head_bytes, FIELD_LIMIT + FORWARDED_FIELDS)
        self._timer: IDelayedCall | None = None
        self._dialling: Deferred[None] | None = None
        self._is_gone = False
        self._is_refused = False
        self._client = LocalClient(factory)

    def connectionMade(self) -> None:
        """Start the time that the head may take."""
        self._client.begin()
        seconds = self._settings.head_seconds
        self._timer = self._factory.reactor.callLater(seconds, self._too_late)

    def dataReceived(self, data: bytes) -> None:
        """Take bytes until the head is whole; what follows waits in the stream's window."""
        try:
            request = self._reader.receive(data)
        except Refusal as refusal:
            self._factory.note_refused(refusal.status, f"A client was refused: {refusal.sentence}")
            self._refuse(refusal)
            return
        if request is not None:
            self._stop_waiting()
            factory = self._factory
            if factory.client_count > self._settings.streams:
                trouble = too_many_clients(self._settings.streams)
                factory.note_dialled(trouble)
                self._refuse(trouble.refusal)
                return
            cast(IPushProducer, self.transport).pauseProducing()
            self._dialling = Deferred.fromCoroutine(self._dial(request))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The client went, perhaps before the local server was reached."""
        self._is_gone = True
        self._stop_waiting()
        if self._dialling is not None:
            self._dialling.cancel()
        if not self._is_refused:
            self._client.tell_end("left_early")
        super().connectionLost(reason)

    async def _dial(self, request: Request) -> None:
        factory = self._factory
        settings = self._settings
        splice = Splice(
            factory.reactor,
            self._client,
            half_close_seconds=settings.half_close_seconds,
        )
        try:
            await factory.turns.acquire()
            connecting = factory.endpoint.connect(_OneProtocol(splice.far))
            connecting.addTimeout(settings.local_dial_seconds, factory.reactor)
            await connecting
        except Exception as error:  # noqa: BLE001  # whatever the network says; the client is told
            self._dialling = None
            if not self._is_gone:
                trouble = trouble_of(Failure(error), factory.local, settings.local_dial_seconds)
                factory.note_dialled(trouble)
                self._refuse(trouble.refusal)
            return
        self._dialling = None
        factory.note_dialled()
        try:
            self._join(splice, request)
        except Exception:  # noqa: BLE001  # a mistake of ours, which costs this client alone
            self._log.failure("A client could not be joined with the local server", event="local.failed")
            splice.far.is_lost = True
            splice.far.leg.loseConnection()  # in order: the local server has done nothing wrong
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

        def note(status: int, sentence: str) -> None:
            is_public = status == FORBIDDEN and is_of_public_origin(request)
            if is_public and not (settings.keep_host or settings.rewrite_origin):
                sentence += " If it compares Origin with Host, --rewrite-origin or --keep-host helps."
            factory.note_refused(status, sentence)

        key = b"".join(request.values(b"sec-websocket-key")[:1])
        return AnswerWatch(splice.far, key, DEFAULT_HEAD_BYTES, note, self._client.note_switched)

    def _refuse(self, refusal: Refusal) -> None:
        self._stop_waiting()
        self._is_refused = True
        self._factory.observer.refused(refusal.code)
        self._client.tell_end("refused")
        stream = cast(Leg, self.transport)
        stream.write(refusal_response(refusal))
        stream.loseConnection()

    def _too_late(self) -> None:
        self._timer = None
        seconds = self._settings.head_seconds
        self._refuse(Refusal(400, f"No request head came within {seconds:g} s.", code="head_timeout"))

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class LocalClient:
    """A client as a witness sees it, and all that stays of its leg once it is spliced.

    Args:
        factory: The leg's.
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
        """What the client has sent behind its head."""
        return 0 if self._splice is None else self._splice.near.received_bytes

    @property
    def sent_bytes(self) -> int:
        """What the local server has said, its answer included."""
        return 0 if self._splice is None else self._splice.far.received_bytes

    def begin(self) -> None:
        """Its stream has come."""
        self._factory.client_count += 1
        self._began_seconds = self._factory.reactor.seconds()
        self._factory.observer.client_began(self)

    def join(self, splice: Splice) -> None:
        """The local server has taken the connection."""
        self._splice = splice
        self._factory.observer.client_joined(self, self._factory.reactor.seconds() - self._began_seconds)

    def tell_end(self, reason: str) -> None:
        """It is over, or never came to be."""
        self._factory.client_count -= 1
        seconds = self._factory.reactor.seconds() - self._began_seconds
        report = ClientReport(reason, seconds, self.received_bytes, self.sent_bytes)
        self._factory.observer.client_ended(self, report)

    # -- Spliced ---------------------------------------------------------------------------

    def closes_far_in_order(self) -> bool:
        """Return whether the local server has not answered 101: then a lost stream is no reason for a reset.

        In Node, a reset ends the whole process if an upgrade socket has no ``error`` listener.
        """
        return not self._is_switched

    def note_switched(self) -> None:
        """The local server has answered 101."""
        self._is_switched = True

    def near_lost(self) -> None:
        """Nobody waits for the stream alone."""

    def far_cut(self) -> bool:
        """The local server has cut the connection, and gone is gone."""
        return False

    def splice_ended(self, report: SpliceReport) -> None:
        """Both are gone."""
        watch = None if self._splice is None else self._splice.far.watch
        if isinstance(watch, AnswerWatch):
            watch.note_end(report.reason, self._factory.reactor.seconds() - self._began_seconds)
        self.tell_end(report.reason)


class _OneProtocol(Factory):
    noisy = False

    def __init__(self, side: Side) -> None:
        self._side = side

    def buildProtocol(self, addr: IAddress | None) -> Side:  # type: ignore[override]  # an IProtocol, too
        return self._side
