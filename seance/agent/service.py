"""The agent: keeps one link to one relay, and connects the relay's clients to the local server.

``Agent(reactor, settings)`` is a Twisted service. ``startService`` starts to dial and never gives up;
``when_connected`` and ``on_status`` report the progress; ``stopService`` closes the link gracefully.

Only the loop in ``_run`` dials, and the search for another relay. The loop cannot end by itself: each
attempt has a deadline, each failure leads to a wait, and an unexpected exception is logged and leads to a
wait as well. (A reconnect loop that has ended is the most reported fault of desktop agents.) ``AgentPhase``
has the states. A ``WakeDetector`` notices that the machine has slept or that the network has changed; it
and ``check_now`` make the agent check its link, or dial, immediately.

A relay that is about to stop sends ``drain``. The agent then first dials the relay that replaces it, and
leaves the old one when the new link is up.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, TimeoutError  # Twisted's own
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IAddress, IProtocol, IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from seance.agent.backoff import Backoff, RedialWaits
from seance.agent.dial_result import DialResult, is_replaced, retry_after_seconds
from seance.agent.doctor_hint import DoctorHint
from seance.agent.identity import IdentityHandshake
from seance.agent.local_connection import LocalConnectionFactory
from seance.agent.local_trouble import DialLog, LocalTrouble
from seance.agent.relay_link import RelayLink
from seance.agent.relay_search import find_relay, no_relay_answers
from seance.agent.relay_tls import relay_tls
from seance.agent.states import AGENT, PUBLIC_STATES, AgentEvent, AgentPhase, next_state
from seance.agent.status import AgentState, AgentStatus
from seance.agent.subprotocol_offer import SubprotocolOffer
from seance.agent.token_source import TokenSource
from seance.agent.wake_detector import WakeDetector, address_towards
from seance.carrier import CloseCode, RelayAddress, dial
from seance.core.events import LinkChange, LinkChanged, Refused
from seance.core.interfaces import AgentIdentity, Observer
from seance.core.observers import NullObserver
from seance.core.settings import AgentSettings
from seance.errors import CarrierLost, NegotiationFailed, Refusal
from seance.heads import redact
from seance.net import OneShotEvent, TlsEndpoint, retrying_endpoint
from seance.resume import DrainNotice
from seance.yamux import WindowBudget

__all__ = ["Agent", "AgentState", "AgentStatus"]

TOKEN_CHECK_SECONDS = 2.0
"""Interval of the check whether the token file has changed, while a link is up."""

RESUME_DIAL_SECONDS = 5.0
"""Timeout of one attempt to resume a session. Short, because the relay keeps it for a limited time."""

MOVE_SECONDS = 60.0
"""After the agent has moved, the time in which the old relay may disconnect the clients that it still has."""

MIN_DIAL_SECONDS = 2.0
"""After an event, an attempt that has already lasted this long is cancelled and a new one starts."""

LOST_AFTER_SECONDS = 10.0
"""After a sleep of this length the relay has aborted the carrier, so a probe would only waste time."""


class Agent(Service):
    """The service that dials out to the relay; part of an app, or a separate process.

    Args:
        reactor: Twisted's reactor.
        settings: The agent's settings.
        identity: The agent's key, from ``seance.auth.agent_key.agent_identity``. None for an agent without a
            key: any other agent may take its room once its link is lost.
        observer: Receives the agent's events; None for no observer.

    Raises:
        ConfigError: The relay URL or the local server in ``settings`` cannot be parsed, or the certificate
            check is turned off for a server on another machine.
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
        self._identity_handshake = IdentityHandshake.from_settings(
            identity, settings, self._relay.host_header
        )
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
        self._renewing: Deferred[None] | None = None
        self._search: Deferred[None] | None = None
        self._departure: Deferred[None] | None = None
        self._loop: Deferred[None] | None = None
        self._windows = WindowBudget()
        self._wake_detector = WakeDetector(reactor, self._note_event, own_address=self._own_address)
        self._phase = AgentPhase.STOPPED
        self._status = AgentStatus(AgentState.STOPPED, "The agent is not running.")

    # -- facts -----------------------------------------------------------------------------

    @property
    def status(self) -> AgentStatus:
        """The latest status of the link."""
        return self._status

    @property
    def relay_link(self) -> RelayLink | None:
        """The latest link to a relay; None before the first."""
        return self._relay_link

    @property
    def client_count(self) -> int:
        """Clients that are connected now."""
        both = (self._relay_link, self._departing)
        return sum(relay_link.stream_count for relay_link in both if relay_link is not None)

    def when_connected(self) -> Deferred[None]:
        """Wait until the link is up; fires immediately if it is. The returned Deferred may be cancelled."""
        return self._connected.when()

    def check_now(self, slept_seconds: float = 0.0) -> None:
        """Check the link now, because the network has changed or the machine has slept.

        For apps that receive such events; the agent also detects most of them itself. If a link is up, the
        relay has to respond within two seconds. If not, the next attempt starts immediately.

        Args:
            slept_seconds: Time for which this process did not run; 0.0 if it ran.
        """
        relay_link = self._relay_link
        if not self._is_running:
            return
        if relay_link is not None and relay_link.is_attached:
            if slept_seconds >= LOST_AFTER_SECONDS and relay_link.resume_request() is not None:
                self._waits.skip_next()
                relay_link.drop_carrier()
            else:
                relay_link.probe()
        elif self._dialling is None:
            self._woken.fire(None)
        elif self._reactor.seconds() - self._dialling_since >= MIN_DIAL_SECONDS and self._may_cancel():
            self._waits.skip_next()
            self._dialling.cancel()

    def on_status(self, listener: Callable[[AgentStatus], None]) -> Callable[[], None]:
        """Call ``listener`` with each change of the status.

        Returns:
            A function that removes the listener.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    # -- IService --------------------------------------------------------------------------

    def startService(self) -> None:
        """Start to dial.

        Raises:
            ConfigError: A file with certificates cannot be used.
            LocalProtocolError: The agent is still stopping.
        """
        for tls in (self._tls, self._streams.tls):
            if tls is not None:
                tls.load()
        self._advance(AgentEvent.START)
        super().startService()
        self._streams.timers.start()
        self._waits.usual.reset()
        self._wake_detector.start()
        self._loop = Deferred.fromCoroutine(self._run())

    def stopService(self) -> Deferred[None]:
        """Stop dialling, send what is queued, and close the link, all within ``drain_seconds``."""
        super().stopService()
        self._advance(AgentEvent.STOP)
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        self._wake_detector.stop()
        self._stop_search()
        loop, self._loop = self._loop, None
        for relay_link in (self._relay_link, self._next):
            if relay_link is not None and relay_link.is_attached:
                await relay_link.close_gracefully(
                    self.settings.drain_seconds, CloseCode.GOING_AWAY, "the agent is stopping"
                )
        for running in (loop, self._departure):
            if running is not None:
                running.cancel()
        for relay_link in (self._relay_link, self._next):
            if relay_link is not None:
                relay_link.end("The agent is stopping.")
        self._relay_link = self._next = None
        self._streams.timers.stop()
        self._advance(AgentEvent.CLOSED)
        self._set_status("The agent has stopped.")

    # -- the loop --------------------------------------------------------------------------

    async def _run(self) -> None:
        while self._is_running:
            code = ""
            try:
                message, code = await self._attempt()
            except CancelledError:
                message = "An attempt to connect was cancelled."
            except Exception:  # noqa: BLE001  # an unexpected error must not end the loop
                message = "An attempt to connect failed with an unexpected error; see the log."
                self._log.failure("[Agent] An attempt to connect failed", event="link.failed")
            if self._is_running and self._next is None:
                await self._wait(message, code)

    async def _attempt(self) -> tuple[str, str]:
        """Dial, then wait until the carrier is lost.

        Returns:
            A message how it ended, and the code of the refusal or error if there was one.
        """
        self._waits.set_retry_after(0.0)
        found, self._next = self._next, None
        try:
            return await self._serve(found or await self._reconnect()), ""
        except (Refusal, CarrierLost) as error:
            self._give_way_if(is_replaced(error))
            self._waits.set_retry_after(retry_after_seconds(error))
            if isinstance(error, Refusal) and not no_relay_answers(error):
                self._waits.note_rejected()
            self._observer.notify(Refused(error.code))
            self._log.warn("[Agent] {sentence}", sentence=error.message, event="link.refused")
            if (command := self._hint.command(error)) is not None:
                self._log.info("[Agent] To see why: {command}", command=command, event="link.hint")
            return error.message, error.code

    async def _reconnect(self) -> RelayLink:
        """Dial the relay: resume the session if it is kept, otherwise open a new one."""
        kept = self._kept_link()
        self._advance(AgentEvent.DIAL if kept is None else AgentEvent.DIAL_TO_RESUME)
        self._set_status(f"Connecting to {self._relay.host_header}.")
        return await self._connect(kept)

    async def _connect(self, kept: RelayLink | None) -> RelayLink:
        """Dial once, and immediately once more if the relay asks for a proof of identity.

        Args:
            kept: The link to resume, if possible.

        Returns:
            A link with an open carrier: ``kept`` or a new one.
        """
        url = self._relay.agent_url(self.settings.room)
        self._log.info("[Agent] Connecting to relay: {url}", url=url, event="link.dialling")
        try:
            return await self._dial(kept)
        except Refusal as refusal:
            if not self._identity_handshake.is_asked(refusal):
                raise
            return await self._dial(kept)

    async def _dial(self, kept: RelayLink | None) -> RelayLink:
        settings = self.settings
        result = DialResult(self._make_link, kept)
        headers = self._identity_handshake.headers() | await self._authorization() | result.headers()
        self._dialling_since = self._reactor.seconds()
        self._dialling = dial(
            self._reactor,
            self._relay,
            settings.room,
            result.make_protocol,
            deadline_seconds=RESUME_DIAL_SECONDS if result.resumes else settings.dial_seconds,
            endpoint=self._endpoint(kept if result.resumes else None),
            headers=headers,
            may_resume=settings.resume,
            is_plain=self._offers.choose_plain(resumes=result.resumes),
        )
        try:
            await self._dialling
            return self._offers.check(result.result())
        except NegotiationFailed as error:
            if self._offers.note_failed(error):
                self._waits.usual.reset()
            raise
        finally:
            self._dialling = None

    def _make_link(self, subprotocol: str | None) -> RelayLink:
        return RelayLink(
            self._reactor, self.settings, self._streams, subprotocol, self._note_control, self._windows
        )

    async def _serve(self, relay_link: RelayLink) -> str:
        """Serve clients over ``relay_link`` until its carrier is lost; return the reason as a message."""
        if not self._is_running:  # a status listener has stopped the agent while it dialled
            relay_link.end("The agent is stopping.")
            raise CancelledError
        is_resumed = relay_link is self._relay_link
        self._advance(AgentEvent.ATTACHED)
        self._relay_link = relay_link
        carrier = relay_link.carrier
        assert carrier is not None, "it is open"
        self._identity_handshake.note_attached(carrier.headers)
        self._waits.note_attached()
        began_seconds = self._reactor.seconds()
        self._report_connected(is_resumed)
        self._wake_detector.take_address()
        self._connected.fire(None)
        self._hint.reset()
        if self.settings.token_file:
            send_token = partial(self._send_token, relay_link)
            self._renewing = self._token.watch(self._reactor, TOKEN_CHECK_SECONDS, send_token)
        try:
            message = await relay_link.when_detached()
        finally:
            is_lost = relay_link.is_lost or relay_link.has_moved
            change = LinkChange.LOST if is_lost else LinkChange.DETACHED
            self._observer.notify(LinkChanged(self.settings.room, change, "left" if is_lost else ""))
            self._stop_search()
            if self._renewing is not None:
                self._renewing.cancel()
                self._renewing = None
            self._connected = OneShotEvent()
        now = self._reactor.seconds()
        self._waits.note_lost(now, now - began_seconds)
        if self._give_way_if(carrier.peer_close_code == CloseCode.REPLACED):
            message = "Another process with this agent's key has taken the room; waiting until it leaves."
        if self._phase is not AgentPhase.SWITCHING:
            self._log.info("[Agent] Disconnected: {sentence}", sentence=message, event="link.lost")
        return message

    def _report_connected(self, is_resumed: bool) -> None:
        change = LinkChange.RESUMED if is_resumed else LinkChange.ATTACHED
        self._observer.notify(LinkChanged(self.settings.room, change))
        if is_resumed:
            self._log.info(
                "[Agent] Resumed; {clients} clients stayed connected",
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
        self._set_status(f"Connected to {self._relay.host_header}.")

    async def _wait(self, message: str, code: str) -> None:
        is_kept = self._kept_link() is not None
        self._advance(AgentEvent.DETACHED if is_kept else AgentEvent.LOST)
        seconds = self._waits.next_seconds(self._reactor.seconds(), is_kept=is_kept)
        self._log.info("[Agent] Next attempt in {seconds:.1f} s", seconds=seconds, event="link.waiting")
        self._set_status(message, seconds, code)
        self._woken = OneShotEvent()
        waiting = self._woken.when().addTimeout(seconds, self._reactor)
        with suppress(TimeoutError, CancelledError):
            await waiting

    # -- moving to another relay -----------------------------------------------------------

    def _note_control(self, relay_link: RelayLink, message: dict[str, object]) -> None:
        is_expected = self._phase is AgentPhase.CONNECTED and relay_link is self._relay_link
        if message["t"] != "drain" or not is_expected:
            return
        drain = DrainNotice.read(message)
        if drain is not None:
            self._log.info("[Agent] The relay is going to stop", event="link.draining")
            self._advance(AgentEvent.DRAIN)
            self._search = Deferred.fromCoroutine(self._find_other_relay(relay_link, drain))
            self._search.addErrback(self._log_failed_move)

    async def _find_other_relay(self, old: RelayLink, drain: DrainNotice) -> None:
        """Dial the relay that replaces the old one, and move there.

        Without one, GoAway tells the old relay not to wait: it closes the clients, then this link.
        """
        try:
            new = await find_relay(self._reactor, drain, partial(self._connect, None), random.random)
        except CancelledError:
            raise
        except Exception:
            self._note_no_other_relay(old)
            raise
        if new is None:
            self._log.info("[Agent] No other relay answers at this address", event="link.draining")
            self._note_no_other_relay(old)
            return
        if self._departing is not None:
            self._departing.end("The agent has moved to yet another relay.")
        self._advance(AgentEvent.FOUND)
        self._departing, self._next, self._search = old, new, None
        old.move("The agent has moved to another relay.")
        self._departure = Deferred.fromCoroutine(self._leave_relay(old))
        self._departure.addErrback(self._log_failed_move)

    def _note_no_other_relay(self, old: RelayLink) -> None:
        self._advance(AgentEvent.NOT_FOUND)
        old.go_away()

    async def _leave_relay(self, old: RelayLink) -> None:
        """Serve the clients that the old relay still has, beside those of the new one, then leave."""
        reason = "the agent has moved to another relay"
        try:
            await old.drain(MOVE_SECONDS, reason)
        finally:
            old.end(reason)
            if self._departing is old:
                self._departing = None

    def _log_failed_move(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._log.failure("[Agent] Moving to another relay failed", failure, event="link.failed")

    def _stop_search(self) -> None:
        search, self._search = self._search, None
        if search is not None:
            search.cancel()

    # -- for one attempt -------------------------------------------------------------------

    async def _authorization(self) -> dict[str, str]:
        token = await self._token.fetch(self._reactor)
        return {"Authorization": f"Bearer {token}"} if token else {}

    def _send_token(self, relay_link: RelayLink, token: str) -> None:
        relay_link.send_control(json.dumps({"t": "token", "token": token}).encode())
        self._log.info("[Agent] A new token was sent to the relay", event="link.token_renewed")

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

    def _advance(self, event: AgentEvent) -> None:
        self._phase = next_state(AGENT, self._phase, event)

    @property
    def _is_running(self) -> bool:
        return self._phase not in (AgentPhase.STOPPED, AgentPhase.STOPPING)

    def _kept_link(self) -> RelayLink | None:
        """Return the latest link if its session has not ended."""
        relay_link = self._relay_link
        return None if relay_link is None or relay_link.is_lost else relay_link

    def _give_way_if(self, was_replaced: bool) -> bool:
        """End the session and dial less often if another process with this key has taken the room."""
        if was_replaced:
            self._identity_handshake.note_replaced()
            self._waits.slow_down()
            if self._relay_link is not None:
                self._relay_link.end("Another process with this agent's key has taken the room.")
        return was_replaced

    def _may_cancel(self) -> bool:
        """Return whether the attempt may be cancelled for another one: at most once per ``dial_seconds``."""
        now = self._reactor.seconds()
        if now < self._no_cancel_until:
            return False
        self._no_cancel_until = now + self.settings.dial_seconds
        return True

    def _note_event(self, what: str, slept_seconds: float) -> None:
        self._log.info("[Agent] Checking the link: {what}", what=what, event="link.nudged")
        self.check_now(slept_seconds)

    def _own_address(self) -> str | None:
        carrier = None if self._relay_link is None else self._relay_link.carrier
        peer: IAddress | None = None if carrier is None else carrier.getPeer()
        return address_towards(getattr(peer, "host", None))

    def _note_local(self, trouble: LocalTrouble | None) -> None:
        if not self._dial_log.note(trouble):
            return
        if trouble is None:
            self._call_listeners(self._status)
        else:
            code = trouble.refusal.code
            self._call_listeners(AgentStatus(AgentState.LOCAL_TROUBLE, redact(trouble.message), None, code))

    def _set_status(self, message: str, retry_seconds: float | None = None, code: str = "") -> None:
        self._status = AgentStatus(PUBLIC_STATES[self._phase], redact(message), retry_seconds, code)
        self._call_listeners(self._status)

    def _call_listeners(self, status: AgentStatus) -> None:
        for listener in list(self._listeners):
            try:
                listener(status)
            except Exception:  # noqa: BLE001  # an error of a listener must not affect the link
                self._log.failure("A status listener failed", event="status.listener_failed")
