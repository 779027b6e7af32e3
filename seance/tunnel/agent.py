"""The agent: keeps one link to one relay, and brings its clients to the local server.

``Agent(reactor, settings)`` is a Twisted service. ``startService`` begins to dial and never gives
up; ``when_connected`` and ``on_status`` tell how it goes; ``stopService`` takes leave. The loop in
``_run`` is the only thing that dials. It cannot die: each attempt has a deadline, each failure leads
to a wait, and whatever nobody foresaw is logged and leads to a wait as well (a loop that stopped
is the most reported fault of desktop agents, yjs.md, row 20).
"""

from __future__ import annotations

import enum
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IDelayedCall, IProtocol, IStreamClientEndpoint
from twisted.internet.task import deferLater
from twisted.logger import Logger

from seance.carrier import SUBPROTOCOL, Carrier, RelayAddress, dial
from seance.errors import CarrierLost, Refusal
from seance.mux import Mux
from seance.net import ClientTls, Occasion, TlsEndpoint, tune
from seance.tunnel.backoff import Backoff
from seance.tunnel.introduction import REPLACED, Introduction
from seance.tunnel.local_leg import LocalLegFactory
from seance.tunnel.ports import AgentIdentity
from seance.tunnel.settings import AgentSettings
from seance.tunnel.token_source import TokenSource
from seance.yamux import Limits, Role

__all__ = ["Agent", "AgentState", "AgentStatus"]

GOING_AWAY = 1001

TOKEN_LOOK_SECONDS = 2.0
"""From one look at the token file to the next, while a link is up."""


class AgentState(enum.Enum):
    """What an agent is doing."""

    STOPPED = "stopped"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    WAITING = "waiting"
    LOCAL_TROUBLE = "local_trouble"


@dataclass(frozen=True, slots=True)
class AgentStatus:
    """One change, as ``Agent.on_status`` tells it.

    Attributes:
        state: What the agent is doing now. ``LOCAL_TROUBLE`` is news about the local server and
            changes nothing about the link.
        sentence: The same for a person.
        retry_seconds: How long it waits before it dials again, while ``WAITING``.
    """

    state: AgentState
    sentence: str
    retry_seconds: float | None = None


class Agent(Service):
    """The process, or the part of an app, that dials out to the relay.

    Args:
        reactor: Twisted's reactor.
        settings: What it was told.
        identity: Who it is, from ``seance.auth.agent_key.agent_identity``; None for a plain agent,
            whose room anybody may take once its link is gone.

    Raises:
        ConfigError: The relay URL or the local server in ``settings`` cannot be read, or one on another
            machine is not to be checked.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401  # no common type
        settings: AgentSettings,
        *,
        identity: AgentIdentity | None = None,
    ) -> None:
        self._reactor = reactor
        self.settings = settings
        self._relay = RelayAddress.from_url(settings.relay)
        self._introduction = Introduction(identity, settings.room, self._relay.host_header)
        self._tls = _tls_to(self._relay, settings)
        self._token = TokenSource(settings.token or "", settings.token_file or "")
        self._streams = LocalLegFactory(reactor, settings, self._note_local_trouble)
        self._backoff = Backoff(settings.backoff_base_seconds, settings.backoff_cap_seconds, random.random)
        self._listeners: list[Callable[[AgentStatus], None]] = []
        self._connected: Occasion[None] = Occasion()
        self._lost: Occasion[str] = Occasion()
        self._mux: Mux | None = None
        self._renewing: IDelayedCall | None = None
        self._loop: Deferred[None] | None = None
        self._status = AgentStatus(AgentState.STOPPED, "The agent is not running.")

    # -- figures ---------------------------------------------------------------------------

    @property
    def status(self) -> AgentStatus:
        """The latest change of the link."""
        return self._status

    @property
    def client_count(self) -> int:
        """Clients that are connected now."""
        return 0 if self._mux is None else self._mux.stream_count

    def when_connected(self) -> Deferred[None]:
        """Wait until the link is up; fires at once if it is. Cancelling only stops the waiting."""
        return self._connected.when()

    def on_status(self, listener: Callable[[AgentStatus], None]) -> Callable[[], None]:
        """Call ``listener`` with every further change.

        Returns:
            A function that takes the listener off again.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    # -- IService --------------------------------------------------------------------------

    def startService(self) -> None:
        """Begin to dial.

        Raises:
            ConfigError: A file with certificates cannot be used.
        """
        for tls in (self._tls, self._streams.tls):
            if tls is not None:
                tls.load()
        super().startService()
        self._backoff.reset()
        self._loop = Deferred.fromCoroutine(self._run())

    def stopService(self) -> Deferred[None]:
        """Take leave of the relay, waiting at most ``drain_seconds``, and dial no more."""
        super().stopService()
        return Deferred.fromCoroutine(self._leave())

    async def _leave(self) -> None:
        loop, self._loop = self._loop, None
        mux = self._mux
        if mux is not None and not self._lost.has_come:
            gone = self._lost.when()
            mux.leave()
            cast(Carrier, mux.transport).close(GOING_AWAY, "the agent is stopping")
            gone.addTimeout(self.settings.drain_seconds, self._reactor)
            await gone.addErrback(lambda _: None)
        if loop is not None:
            loop.cancel()
        self._tell(AgentState.STOPPED, "The agent has stopped.")

    # -- the loop --------------------------------------------------------------------------

    async def _run(self) -> None:
        while self.running:
            try:
                sentence = await self._attempt()
            except CancelledError:
                if not self.running:
                    return
                sentence = "An attempt to connect was cancelled."
            except (Refusal, CarrierLost) as error:
                sentence = error.sentence
                self._log.warn("[Agent] {sentence}", sentence=sentence, event="link.refused")
            except Exception:  # noqa: BLE001  # the loop must not die of what nobody foresaw
                sentence = "An attempt to connect failed in an unforeseen way; the log has the details."
                self._log.failure("[Agent] An attempt to connect failed", event="link.failed")
            if not self.running:
                return
            await self._wait(sentence)

    async def _attempt(self) -> str:
        """Dial once and live as long as the link does; returns how it ended."""
        settings = self.settings
        url = self._relay.agent_url(settings.room)
        self._log.info("[Agent] Connecting to relay: {url}", url=url, event="link.dialling")
        self._tell(AgentState.CONNECTING, f"Connecting to {self._relay.host_header}.")
        self._lost = Occasion()
        await self._dial()
        mux = cast(Mux, self._mux)
        carrier = cast(Carrier, mux.transport)
        self._introduction.note_attached(carrier.headers)
        tune(carrier)
        began_seconds = self._reactor.seconds()
        self._log.info(
            "[Agent] Connected to relay for room: {room}", room=settings.room, event="link.attached"
        )
        self._log.info(
            "[Agent] Tunneling: {local} -> relay", local=self._streams.local, event="link.attached"
        )
        self._tell(AgentState.CONNECTED, f"Connected to {self._relay.host_header}.")
        self._connected.fire(None)
        if settings.token_file:
            self._renew_token(carrier)
        try:
            sentence = await self._lost.when()
        finally:
            if self._renewing is not None:
                self._renewing.cancel()
                self._renewing = None
            self._connected = Occasion()
            self._mux = None
        if self._reactor.seconds() - began_seconds >= settings.healthy_seconds:
            self._backoff.reset()
        if carrier.peer_close_code == REPLACED:
            self._introduction.note_replaced()
            sentence = "Another process with this agent's key has taken the room; waiting until it leaves."
        self._log.info("[Agent] Disconnected: {sentence}", sentence=sentence, event="link.lost")
        return sentence

    async def _dial(self) -> None:
        """Dial once, and a second time at once if the relay has but asked who we are."""
        try:
            await self._dial_once()
        except Refusal as refusal:
            if not self._introduction.is_asked(refusal):
                raise
            await self._dial_once()

    def _dial_once(self) -> Deferred[IProtocol]:
        return dial(
            self._reactor,
            self._relay,
            self.settings.room,
            self._make_protocol,
            deadline_seconds=self.settings.dial_seconds,
            endpoint=self._endpoint(),
            headers=self._introduction.headers() | self._authorization(),
        )

    def _authorization(self) -> dict[str, str]:
        token = self._token.read()
        return {"Authorization": f"Bearer {token}"} if token else {}

    def _renew_token(self, carrier: Carrier) -> None:
        """Look whether the token file has a new token, and pass it on over the link that is up."""
        self._renewing = self._reactor.callLater(TOKEN_LOOK_SECONDS, self._renew_token, carrier)
        token = self._token.changed()
        if token is not None:
            carrier.send_control(json.dumps({"t": "token", "token": token}).encode())
            self._log.info("[Agent] A new token was passed on to the relay", event="link.token_renewed")

    def _endpoint(self) -> IStreamClientEndpoint | None:
        if self._tls is None:
            return None
        relay = self._relay
        endpoint = HostnameEndpoint(self._reactor, relay.host, relay.port)
        return TlsEndpoint(self._reactor, endpoint, self._tls, f"the relay at {relay.host_header}")

    def _make_protocol(self, subprotocol: str | None) -> Mux:
        # A plain relay opens what other implementations take; ours may open as many as it is told.
        streams = self.settings.streams if subprotocol == SUBPROTOCOL else min(self.settings.streams, 256)
        limits = Limits(streams=streams, unacknowledged=streams, accept_backlog=streams)
        self._mux = Mux(self._reactor, Role.CLIENT, limits=limits, on_lost=self._lost.fire)
        self._mux.listen(self._streams)
        return self._mux

    async def _wait(self, sentence: str) -> None:
        seconds = self._backoff.next_seconds()
        self._log.info("[Agent] Next attempt in {seconds:.1f} s", seconds=seconds, event="link.waiting")
        self._tell(AgentState.WAITING, sentence, seconds)
        try:
            await deferLater(self._reactor, seconds)
        except CancelledError:
            self.running = False

    # -- inside ----------------------------------------------------------------------------

    def _note_local_trouble(self, sentence: str) -> None:
        self._log.warn("[Agent] {sentence}", sentence=sentence, event="local.unreachable")
        self._tell(AgentState.LOCAL_TROUBLE, sentence)

    def _tell(self, state: AgentState, sentence: str, retry_seconds: float | None = None) -> None:
        status = AgentStatus(state, sentence, retry_seconds)
        if state is not AgentState.LOCAL_TROUBLE:
            self._status = status
        for listener in list(self._listeners):
            try:
                listener(status)
            except Exception:  # noqa: BLE001  # a listener's fault is not the link's
                self._log.failure("A status listener failed", event="status.listener_failed")


def _tls_to(relay: RelayAddress, settings: AgentSettings) -> ClientTls | None:
    if not relay.is_secure:
        return None
    return ClientTls(
        relay.host,
        ca_file=settings.tls_ca,
        cert_file=settings.tls_cert,
        key_file=settings.tls_key,
        insecure=settings.tls_insecure,
    )
