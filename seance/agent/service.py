"""The agent: keeps one link to one relay, and brings its clients to the local server.

``Agent(reactor, settings)`` is a Twisted service. ``startService`` begins to dial and never gives
up; ``when_connected`` and ``on_status`` tell how it goes; ``stopService`` takes leave. The loop in
``_run`` is the only thing that dials. It cannot die: each attempt has a deadline, each failure leads
to a wait, and whatever nobody foresaw is logged and leads to a wait as well (a loop that stopped
is the most reported fault of desktop agents, yjs.md, row 20). Time and again it looks up: a
``WakeDetector`` notices that the machine has slept or the network has changed, and ``check_now`` lets an app
say so; both lead to a look at the link now instead of later.

A relay that is going to stop says ``drain``: the agent then dials the one that takes its place first,
and leaves the old one when the new link is up.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, TimeoutError  # Twisted's own
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IAddress, IProtocol, IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from seance.agent.backoff import Backoff, RedialWaits
from seance.agent.dial_result import DialResult, is_told_to_give_way, retry_after_seconds
from seance.agent.doctor_hint import DoctorHint
from seance.agent.identity import IdentityHandshake
from seance.agent.local_connection import LocalConnectionFactory
from seance.agent.local_trouble import DialLog, LocalTrouble
from seance.agent.relay_link import RelayLink
from seance.agent.relay_search import find_relay, no_relay_answers
from seance.agent.relay_tls import relay_tls
from seance.agent.status import AgentState, AgentStatus
from seance.agent.subprotocol_offer import SubprotocolOffer
from seance.agent.token_source import TokenSource
from seance.agent.wake_detector import WakeDetector, address_towards
from seance.carrier import CloseCode, RelayAddress, dial
from seance.core.interfaces import AgentIdentity, LinkChange, Observer
from seance.core.observers import NullObserver
from seance.core.settings import AgentSettings
from seance.errors import CarrierLost, NegotiationFailed, Refusal
from seance.heads import redact
from seance.net import OneShotEvent, TlsEndpoint, retrying_endpoint
from seance.resume import Drain
from seance.yamux import WindowBudget

__all__ = ["Agent", "AgentState", "AgentStatus"]

TOKEN_LOOK_SECONDS = 2.0
"""From one look at the token file to the next, while a link is up."""

RESUME_DIAL_SECONDS = 5.0
"""One attempt to come back to a session that is kept: its time is short."""

MOVE_OUT_SECONDS = 60.0
"""How long the clients that a relay is about to see off are served, after the agent has moved to another."""

PROBE_SECONDS = 2.0
"""An attempt that has lasted so long is given up for a new one when something has happened."""

SURELY_LOST_SECONDS = 10.0
"""After so long without us the relay has cut the carrier: it is no use to ask whether it still lives."""


class Agent(Service):
    """The process, or the part of an app, that dials out to the relay.

    Args:
        reactor: Twisted's reactor.
        settings: What it was told.
        identity: Who it is, from ``seance.auth.agent_key.agent_identity``; None for a plain agent,
            whose room anybody may take once its link is gone.
        observer: Who is told what happens; None for nobody.

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
        observer: Observer | None = None,
    ) -> None:
        self._reactor = reactor
        self._observer = observer or NullObserver()
        self.settings = settings
        self._relay = RelayAddress.from_url(settings.relay)
        self._identity_handshake = IdentityHandshake.of(identity, settings, self._relay.host_header)
        self._tls = relay_tls(self._relay, settings)
        self._offers = SubprotocolOffer(reactor.seconds, is_always_plain=settings.plain)
        self._hint = DoctorHint(settings)
        self._token = TokenSource(settings.token or "", settings.token_file or "")
        self._dial_log = DialLog(reactor)
        self._streams = LocalConnectionFactory(reactor, settings, self._note_local, self._observer)
        base, cap = settings.backoff_base_seconds, settings.backoff_cap_seconds
        quick = Backoff(base, settings.resume_backoff_cap_seconds, random.random)
        self._waits = RedialWaits(Backoff(base, cap, random.random), quick, settings.healthy_seconds)
        self._listeners: list[Callable[[AgentStatus], None]] = []
        self._connected: OneShotEvent[None] = OneShotEvent()
        self._relay_link: RelayLink | None = None
        self._next: RelayLink | None = None
        self._departing: RelayLink | None = None
        self._dialling: Deferred[IProtocol] | None = None
        self._dialling_since = self._no_cancel_until = 0.0
        self._woken: OneShotEvent[None] = OneShotEvent()
        self._is_hurried = False
        self._retry_after_seconds = 0.0
        self._renewing: Deferred[None] | None = None
        self._moving: Deferred[None] | None = None
        self._moving_out: Deferred[None] | None = None
        self._loop: Deferred[None] | None = None
        self._windows = WindowBudget()
        self._wake_detector = WakeDetector(reactor, self._note_event, own_address=self._own_address)
        self._status = AgentStatus(AgentState.STOPPED, "The agent is not running.")

    # -- figures ---------------------------------------------------------------------------

    @property
    def status(self) -> AgentStatus:
        """The latest change of the link."""
        return self._status

    @property
    def relay_link(self) -> RelayLink | None:
        """The session with the relay, for its figures; None before there was one."""
        return self._relay_link

    @property
    def client_count(self) -> int:
        """Clients that are connected now."""
        both = (self._relay_link, self._departing)
        return sum(relay_link.stream_count for relay_link in both if relay_link is not None)

    def when_connected(self) -> Deferred[None]:
        """Wait until the link is up; fires at once if it is. Cancelling only stops the waiting."""
        return self._connected.when()

    def check_now(self, slept_seconds: float = 0.0) -> None:
        """Look after the link now: the network has changed, or the machine has slept.

        For an app that knows such things, though most are noticed anyway. If a link is up the relay is asked
        for a sign of life within two seconds; if not, the next attempt begins at once.

        Args:
            slept_seconds: How long this process did not run, if that is what happened.
        """
        relay_link = self._relay_link
        if not self.running:
            return
        if relay_link is not None and relay_link.is_up:
            if slept_seconds >= SURELY_LOST_SECONDS and relay_link.resume_request() is not None:
                self._is_hurried = True
                relay_link.drop_carrier()
            else:
                relay_link.probe()
        elif self._dialling is None:
            self._woken.fire(None)
        elif self._reactor.seconds() - self._dialling_since >= PROBE_SECONDS and self._may_cancel():
            self._is_hurried = True
            self._dialling.cancel()

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
        self._waits.usual.reset()
        self._wake_detector.start()
        self._loop = Deferred.fromCoroutine(self._run())

    def stopService(self) -> Deferred[None]:
        """Let what is queued leave and take leave of the relay, in ``drain_seconds``; dial no more."""
        super().stopService()
        return Deferred.fromCoroutine(self._leave())

    async def _leave(self) -> None:
        self._wake_detector.stop()
        self._stop_moving()
        loop, self._loop = self._loop, None
        for relay_link in (self._relay_link, self._next):
            if relay_link is not None and relay_link.is_up:
                await relay_link.finish(
                    self.settings.drain_seconds, CloseCode.GOING_AWAY, "the agent is stopping"
                )
        for running in (loop, self._moving_out):
            if running is not None:
                running.cancel()
        for relay_link in (self._relay_link, self._next):
            if relay_link is not None:
                relay_link.end("The agent is stopping.")
        self._relay_link = self._next = None
        self._tell(AgentState.STOPPED, "The agent has stopped.")

    # -- the loop --------------------------------------------------------------------------

    async def _run(self) -> None:
        while self.running:
            code = ""
            try:
                sentence, code = await self._attempt()
            except CancelledError:
                if not self.running:
                    return
                sentence = "An attempt to connect was cancelled."
            except Exception:  # noqa: BLE001  # the loop must not die of what nobody foresaw
                sentence = "An attempt to connect failed in an unforeseen way; the log has the details."
                self._log.failure("[Agent] An attempt to connect failed", event="link.failed")
            if self.running and self._next is None:
                await self._wait(sentence, code)

    async def _attempt(self) -> tuple[str, str]:
        """Dial and live as long as the carrier does; returns how it ended, and a code if it was refused."""
        self._retry_after_seconds = 0.0
        fresh, self._next = self._next, None
        try:
            return await self._live(fresh or await self._connect(self._relay_link)), ""
        except (Refusal, CarrierLost) as error:
            self._give_way_if(is_told_to_give_way(error))
            self._retry_after_seconds = retry_after_seconds(error)
            if isinstance(error, Refusal) and not no_relay_answers(error):
                self._waits.note_rejected()
            self._observer.refused(error.code)
            self._log.warn("[Agent] {sentence}", sentence=error.sentence, event="link.refused")
            if (command := self._hint.command(error)) is not None:
                self._log.info("[Agent] To see why: {command}", command=command, event="link.hint")
            return error.sentence, error.code

    async def _connect(self, kept: RelayLink | None) -> RelayLink:
        """Dial once, and a second time at once if the relay has but asked who we are.

        Args:
            kept: A session to go on with, if it still can.

        Returns:
            A session whose carrier is open: that one, or a new one.
        """
        if kept is not None and kept.is_over:
            kept = None
        url = self._relay.agent_url(self.settings.room)
        self._log.info("[Agent] Connecting to relay: {url}", url=url, event="link.dialling")
        if self._relay_link is kept:
            state = AgentState.CONNECTING if kept is None else AgentState.RESUMING
            self._tell(state, f"Connecting to {self._relay.host_header}.")
        try:
            return await self._dial(kept)
        except Refusal as refusal:
            if not self._identity_handshake.is_asked(refusal):
                raise
            return await self._dial(kept)

    async def _dial(self, kept: RelayLink | None) -> RelayLink:
        settings = self.settings
        arrival = DialResult(self._attach, kept)
        headers = self._identity_handshake.headers() | await self._authorization() | arrival.headers()
        self._dialling_since = self._reactor.seconds()
        self._dialling = dial(
            self._reactor,
            self._relay,
            settings.room,
            arrival.make_protocol,
            deadline_seconds=RESUME_DIAL_SECONDS if arrival.resumes else settings.dial_seconds,
            endpoint=self._endpoint(kept if arrival.resumes else None),
            headers=headers,
            may_resume=settings.resume,
            is_plain=self._offers.choose_plain(resumes=arrival.resumes),
        )
        try:
            await self._dialling
            return self._offers.check(arrival.result())
        except NegotiationFailed as error:
            if self._offers.note_failed(error):
                self._waits.usual.reset()
            raise
        finally:
            self._dialling = None

    def _attach(self, subprotocol: str | None) -> RelayLink:
        return RelayLink(
            self._reactor, self.settings, self._streams, subprotocol, self._note_control, self._windows
        )

    async def _live(self, relay_link: RelayLink) -> str:
        """Live as long as the carrier does; returns how it ended."""
        is_resumed = relay_link is self._relay_link
        self._relay_link = relay_link
        carrier = relay_link.carrier
        assert carrier is not None, "it is open"
        self._identity_handshake.note_attached(carrier.headers)
        self._waits.note_attached()
        self._is_hurried = False
        began_seconds = self._reactor.seconds()
        self._say_connected(is_resumed)
        self._wake_detector.begin_anew()
        self._connected.fire(None)
        self._hint.reset()
        if self.settings.token_file:
            pass_on = partial(self._pass_on, relay_link)
            self._renewing = self._token.watch(self._reactor, TOKEN_LOOK_SECONDS, pass_on)
        try:
            sentence = await relay_link.when_down()
        finally:
            is_gone = relay_link.is_over or relay_link is self._departing
            change = LinkChange.LOST if is_gone else LinkChange.DETACHED
            self._observer.link_changed(self.settings.room, change, "left" if is_gone else "")
            self._stop_moving()
            if self._renewing is not None:
                self._renewing.cancel()
                self._renewing = None
            self._connected = OneShotEvent()
        now = self._reactor.seconds()
        self._waits.note_lost(now, now - began_seconds)
        if self._give_way_if(carrier.peer_close_code == CloseCode.REPLACED):
            sentence = "Another process with this agent's key has taken the room; waiting until it leaves."
        if self._next is None:
            self._log.info("[Agent] Disconnected: {sentence}", sentence=sentence, event="link.lost")
        return sentence

    def _say_connected(self, is_resumed: bool) -> None:
        self._observer.link_changed(
            self.settings.room, LinkChange.RESUMED if is_resumed else LinkChange.ATTACHED
        )
        if is_resumed:
            self._log.info(
                "[Agent] Resumed; {clients} clients have noticed nothing",
                clients=self.client_count,
                event="link.resumed",
            )
        else:
            self._log.info(
                "[Agent] Connected to relay for room: {room}", room=self.settings.room, event="link.attached"
            )
            self._log.info(
                "[Agent] Tunneling: {local} -> relay", local=self._streams.local, event="link.attached"
            )
        self._tell(AgentState.CONNECTED, f"Connected to {self._relay.host_header}.")

    async def _wait(self, sentence: str, code: str) -> None:
        relay_link = self._relay_link
        is_kept = relay_link is not None and not relay_link.is_over
        seconds = self._waits.next_seconds(self._reactor.seconds(), is_kept=is_kept)
        if self._is_hurried:
            seconds = 0.0
        seconds = max(seconds, self._retry_after_seconds)
        self._log.info("[Agent] Next attempt in {seconds:.1f} s", seconds=seconds, event="link.waiting")
        self._tell(AgentState.RESUMING if is_kept else AgentState.WAITING, sentence, seconds, code)
        self._is_hurried = False
        self._woken = OneShotEvent()
        waiting = self._woken.when().addTimeout(seconds, self._reactor)
        try:
            await waiting
        except TimeoutError:
            pass
        except CancelledError:
            self.running = False

    # -- moving to another relay -----------------------------------------------------------

    def _note_control(self, relay_link: RelayLink, message: dict[str, object]) -> None:
        is_ours = self.running and relay_link is self._relay_link and self._moving is None
        if message["t"] != "drain" or not is_ours:
            return
        drain = Drain.read(message)
        if drain is not None:
            self._log.info("[Agent] The relay is going to stop", event="link.draining")
            self._moving = Deferred.fromCoroutine(self._move(relay_link, drain))
            self._moving.addErrback(self._note_move_failed)

    async def _move(self, old: RelayLink, drain: Drain) -> None:
        """Dial the relay that takes the old one's place, and live there; ``_move_out`` of the old one.

        Without one, GoAway tells the old relay that it need not wait: it closes the clients and then us.
        """
        try:
            new = await find_relay(self._reactor, drain, partial(self._connect, None), random.random)
        except CancelledError:
            raise
        except Exception:
            old.go_away()
            raise
        if new is None:
            self._log.info("[Agent] No other relay answers at this address", event="link.draining")
            old.go_away()
            return
        if self._departing is not None:
            self._departing.end("The agent has moved once more.")
        self._departing, self._next, self._moving = old, new, None
        old.let_go("The agent has moved to another relay.")
        self._moving_out = Deferred.fromCoroutine(self._move_out(old))
        self._moving_out.addErrback(self._note_move_failed)

    async def _move_out(self, old: RelayLink) -> None:
        """Serve those whom the old relay has not seen off yet, beside those of the new one."""
        reason = "the agent has moved to another relay"
        try:
            await old.move_out(MOVE_OUT_SECONDS, reason)
        finally:
            old.end(reason)
            if self._departing is old:
                self._departing = None

    def _note_move_failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._log.failure("[Agent] Moving to another relay failed", failure, event="link.failed")

    def _stop_moving(self) -> None:
        moving, self._moving = self._moving, None
        if moving is not None:
            moving.cancel()

    # -- for one attempt -------------------------------------------------------------------

    async def _authorization(self) -> dict[str, str]:
        token = await self._token.fetch(self._reactor)
        return {"Authorization": f"Bearer {token}"} if token else {}

    def _pass_on(self, relay_link: RelayLink, token: str) -> None:
        relay_link.send_control(json.dumps({"t": "token", "token": token}).encode())
        self._log.info("[Agent] A new token was passed on to the relay", event="link.token_renewed")

    def _endpoint(self, kept: RelayLink | None) -> IStreamClientEndpoint | None:
        relay, carrier = self._relay, None if kept is None else kept.carrier
        if self._tls is None and carrier is None:
            return None
        endpoint: IStreamClientEndpoint = HostnameEndpoint(self._reactor, relay.host, relay.port)
        if carrier is not None:
            endpoint = retrying_endpoint(self._reactor, endpoint, carrier.getPeer(), RESUME_DIAL_SECONDS)
        if self._tls is None:
            return endpoint
        return TlsEndpoint(self._reactor, endpoint, self._tls, f"the relay at {relay.host_header}")

    # -- inside ----------------------------------------------------------------------------

    def _give_way_if(self, is_replaced: bool) -> bool:
        """Wait for another process with our key to leave, if it has taken the room."""
        if is_replaced:
            self._identity_handshake.note_replaced()
            self._waits.slow_down()
            if self._relay_link is not None:
                self._relay_link.end("Another process with this agent's key has taken the room.")
        return is_replaced

    def _may_cancel(self) -> bool:
        """Whether the attempt may be given up for another: not again before one had its whole time."""
        now = self._reactor.seconds()
        if now < self._no_cancel_until:
            return False
        self._no_cancel_until = now + self.settings.dial_seconds
        return True

    def _note_event(self, what: str, slept_seconds: float) -> None:
        self._log.info("[Agent] Looking after the link: {what}", what=what, event="link.nudged")
        self.check_now(slept_seconds)

    def _own_address(self) -> str | None:
        carrier = None if self._relay_link is None else self._relay_link.carrier
        peer: IAddress | None = None if carrier is None else carrier.getPeer()
        return address_towards(getattr(peer, "host", None))

    def _note_local(self, trouble: LocalTrouble | None) -> None:
        if not self._dial_log.note(trouble):
            return
        if trouble is None:
            self._tell_listeners(self._status)
        else:
            self._tell(AgentState.LOCAL_TROUBLE, trouble.sentence, code=trouble.refusal.code)

    def _tell(
        self, state: AgentState, sentence: str, retry_seconds: float | None = None, code: str = ""
    ) -> None:
        status = AgentStatus(state, redact(sentence), retry_seconds, code)
        if state is not AgentState.LOCAL_TROUBLE:
            self._status = status
        self._tell_listeners(status)

    def _tell_listeners(self, status: AgentStatus) -> None:
        for listener in list(self._listeners):
            try:
                listener(status)
            except Exception:  # noqa: BLE001  # a listener's fault is not the link's
                self._log.failure("A status listener failed", event="status.listener_failed")
