"""An agent always has a timer armed while it runs, and reconnects when the network works again.

A story is a sequence of random faults: dials that are refused, hang or fail unexpectedly, carriers that are
aborted or silently dead, sleep, ``check_now``, drains. After each step the agent must have its own
timer, and at the end it has one minute to reconnect.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock

from seance.agent import service as agent_module
from seance.agent.service import Agent, AgentState
from seance.agent.states import AgentEvent
from seance.carrier import CarrierAnswerer, CarrierHeartbeat, negotiated
from seance.carrier import dial as carrier_dial
from seance.core.settings import AgentSettings, RelaySettings
from seance.errors import Refusal
from seance.heads import Request, RequestReader, refusal_response
from seance.net import OneShotEvent, ProtocolSwitch
from seance.relay.rooms.agent_link import AgentLink
from seance.resume import RESUME_FIELD, ResumeRequest
from tests.conftest import Watch
from tests.rigs import OneByOne
from tests.wire import Wire, WireEndpoint, run

real_dial = carrier_dial

STEPS = 25
RECOVERY_SECONDS = 60.0

DIAL_FAULTS = ("refused", "hangs", "silent", "busy", "unexpected", "aborted")
"""Faults of a dial: closed port; no TCP answer; no HTTP response; 503; a bug; aborted after the connect."""


class AgentClock:
    """The common clock, which records the timers that the agent sets.

    Attributes:
        calls: The agent's pending timers.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._calls: list[IDelayedCall] = []
        self.seconds = clock.seconds

    def callLater(
        self, delay: float, function: Callable[..., object], *args: object, **kwargs: object
    ) -> Any:
        call = self._clock.callLater(delay, function, *args, **kwargs)
        self._calls.append(call)
        return call

    @property
    def calls(self) -> list[IDelayedCall]:
        self._calls = [call for call in self._calls if call.active()]
        return self._calls


class Relay:
    """The parts of a relay that an agent sees, and the network in front of it.

    Attributes:
        mood: The result of the next dials: one of ``DIAL_FAULTS``, or "well".
    """

    def __init__(self, clock: Clock, dice: random.Random, *, may_resume: bool) -> None:
        self.clock = clock
        self.mood = "well"
        self.links: list[AgentLink] = []
        self.wires: list[Wire] = []
        self.answerer = CarrierAnswerer(clock)
        self.settings = RelaySettings()
        self.may_resume = may_resume
        self._dice = dice

    def dial(self, reactor: Any, *args: Any, endpoint: object, **kwargs: Any) -> Deferred[Any]:
        if self.mood == "unexpected":
            return fail(ZeroDivisionError("unexpected"))
        return real_dial(reactor, *args, endpoint=cast(Any, self), **kwargs)

    def connect(self, factory: Any) -> Deferred[Any]:
        if self.mood == "refused":
            return fail(ConnectionRefusedError())
        if self.mood == "hangs":
            return Deferred()
        relay_factory = OneByOne()
        relay_factory.coming.append(Protocol() if self.mood == "silent" else StubRelayConnection(self))
        endpoint = WireEndpoint(self.clock, relay_factory)
        connecting = endpoint.connect(factory)
        self.wires += endpoint.wires
        if self.mood == "aborted":
            self.clock.callLater(0, endpoint.wires[0].far.abortConnection)
        return connecting

    def serve(self, request: Request, connection: StubRelayConnection) -> None:
        if self.mood == "busy":
            retry_after = (b"Retry-After", b"%d" % self._dice.randint(0, 9))
            raise Refusal(503, "Busy; later.", code="busy", headers=(retry_after,))
        subprotocol = negotiated(request, may_resume=self.may_resume)
        resume_requests = [
            ResumeRequest.read(value.decode()) for value in request.values(RESUME_FIELD.lower().encode())
        ]
        headers = None
        for resume_request in resume_requests:
            for link in self.links:
                if headers is None and resume_request is not None and link.is_asked_for(resume_request, None):
                    headers = link.resume(resume_request, None, None)
                    found = link
        if headers is None:
            found = AgentLink(self.clock, self.settings, "r", lambda lost, _: self.links.remove(lost))
            self.links.append(found)
            headers = found.expect(subprotocol)
        make = found.make_protocol
        self.answerer.answer(
            request, b"", connection.hand_over, make, may_resume=self.may_resume, headers=headers
        )
        found.watch_carrier()

    def cut(self) -> None:
        """Abort a carrier at one of its ends."""
        wire = self.wires[-1]
        (wire.near if self._dice.random() < 0.5 else wire.far).abortConnection()

    def swallow(self) -> None:
        """Drop all data on all carriers from now on, without an error."""
        for wire in self.wires:
            for end in wire.ends:
                end._take_turn = lambda: None  # type: ignore[method-assign]

    def close(self) -> None:
        for link in list(self.links):
            link.leave("the relay is stopping")

    def drain(self) -> None:
        for link in self.links:
            link.notice_drain(self._dice.random(), self._dice.choice([0.0, 5.0, 20.0]), lambda: None)

    def forget(self) -> None:
        """Forget all links and sessions, as after a restart."""
        for link in list(self.links):
            link.cut()
            link.give_up()
            session: Any = link._session
            if session is not None:
                session.end("restarted")


class StubRelayConnection(ProtocolSwitch):
    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._reader = RequestReader()

    def dataReceived(self, data: bytes) -> None:
        try:
            request = self._reader.receive(data)
            if request is not None:
                self._relay.serve(request, self)
        except Refusal as refusal:
            cast(Any, self.transport).write(refusal_response(refusal))
            cast(Any, self.transport).loseConnection()


class Story:
    def __init__(self, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.dice = random.Random(seed)
        self.clock = Clock()
        self.timers = AgentClock(self.clock)
        self.relay = Relay(self.clock, self.dice, may_resume=self.dice.random() < 0.8)
        monkeypatch.setattr(agent_module, "dial", self.relay.dial)
        monkeypatch.setattr(Agent, "_endpoint", lambda *_: None)  # the replaced dial needs no endpoint
        monkeypatch.setattr(random, "random", self.dice.random)
        self.agent = Agent(self.timers, AgentSettings(room="r"))
        self.had_unexpected = False
        self.seen: set[AgentState] = set()
        self.agent.on_status(lambda status: self.seen.add(status.state))

    def check_timers(self) -> None:
        detector_timer = self.agent._wake_detector._timer
        assert detector_timer is not None, "the WakeDetector has stopped"
        timers = [call for call in self.timers.calls if call is not detector_timer]
        assert timers, f"no timer is armed while {self.agent.status}"

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds * 4)):
            self.clock.advance(0.25)
            self.check_timers()

    def step(self) -> None:
        dice, relay = self.dice, self.relay
        what = dice.choice(
            ["mood"] * 3 + ["well"] * 4 + ["time"] * 8 + ["wires", "check", "sleep", "drain", "forget"]
        )
        if what == "mood":
            relay.mood = dice.choice(DIAL_FAULTS)
        elif what == "well":
            relay.mood = "well"
        elif what == "wires" and relay.wires:
            dice.choice([relay.cut, relay.cut, relay.swallow, relay.close])()
        elif what == "check":
            self.agent.check_now(dice.choice([0.0, 0.0, 5.0, 3600.0]))
        elif what == "sleep":
            self.clock.advance(dice.choice([3.0, 12.0, 90.0]))
        elif what == "drain":
            relay.drain()
        elif what == "forget":
            relay.forget()
        self.had_unexpected |= relay.mood == "unexpected"
        if dice.random() < 0.7:
            run(self.clock, dice.randint(1, 3))
            self.check_timers()
        self.pass_time(dice.choice([0, 0.25, 1, 3, 12]) if what == "time" else 0)

    def recover(self) -> float:
        """End all faults; return the seconds until the link was up."""
        self.relay.mood = "well"
        began = self.clock.seconds()
        while not self.is_well():
            assert self.clock.seconds() - began <= RECOVERY_SECONDS, f"still {self.agent.status}"
            self.pass_time(0.25)
        took = self.clock.seconds() - began
        self.pass_time(15)
        assert self.is_well(), "the link was up, and is lost again"
        return took

    def is_well(self) -> bool:
        """Whether both ends of one carrier have the same link, and its data is not dropped."""
        relay_link = self.agent._relay_link
        if (
            self.agent.status.state is not AgentState.CONNECTED
            or relay_link is None
            or not relay_link.is_attached
        ):
            return False
        end = cast(Any, relay_link.carrier).transport
        return (
            "_take_turn" not in vars(end)
            and end.is_connected
            and any(link.is_attached for link in self.relay.links)
        )

    def end(self) -> None:
        self.agent.stopService()
        for _ in range(60):
            self.clock.advance(0.25)
        assert self.timers.calls == [], "a stopped agent has no timer"
        assert self.agent.status.state is AgentState.STOPPED
        self.relay.forget()
        self.relay.close()
        for _ in range(160):
            self.clock.advance(0.25)
        assert self.clock.getDelayedCalls() == []


def play(seeds: range, monkeypatch: pytest.MonkeyPatch, watch: Watch) -> tuple[set[AgentState], float]:
    seen: set[AgentState] = set()
    longest = 0.0
    for seed in seeds:
        with monkeypatch.context() as patch:
            story = Story(seed, patch)
            story.agent.startService()
            try:
                for _ in range(story.dice.randint(1, STEPS)):
                    story.step()
                longest = max(longest, story.recover())
                story.end()
            except BaseException as error:
                error.add_note(f"seed {seed}")
                raise
            seen |= story.seen
            if story.had_unexpected:
                watch._failures = [one for one in watch._failures if one.get("event") != "link.failed"]
    return seen, longest


def test_agent_reconnects_after_random_faults(monkeypatch: pytest.MonkeyPatch, watch: Watch) -> None:
    seen, longest = play(range(80), monkeypatch, watch)
    assert seen >= {AgentState.CONNECTED, AgentState.RESUMING, AgentState.WAITING, AgentState.CONNECTING}
    print(f"the longest recovery took {longest:g} s")


async def wait_without_timeout(agent: Agent, message: str, code: str) -> None:
    agent._advance(AgentEvent.LOST if agent._kept_link() is None else AgentEvent.DETACHED)
    agent._woken = OneShotEvent()
    await agent._woken.when()


def dial_without_timeout(*args: Any, deadline_seconds: float, **kwargs: Any) -> Deferred[Any]:
    return carrier_dial(*args, deadline_seconds=1e9, **kwargs)


def never_abort(pulse: Any) -> None:
    pulse._timer = pulse._reactor.callLater(1.0, pulse._check)


@pytest.mark.parametrize(
    ("where", "name", "mutant"),
    [
        (Agent, "_wait", wait_without_timeout),
        (sys.modules[__name__], "real_dial", dial_without_timeout),
        (CarrierHeartbeat, "_check", never_abort),
    ],
    ids=["waits without a timeout", "dials without a timeout", "never aborts"],
)
def test_agent_that_can_get_stuck_is_caught(
    monkeypatch: pytest.MonkeyPatch, watch: Watch, where: Any, name: str, mutant: Callable[..., Any]
) -> None:
    monkeypatch.setattr(where, name, mutant)
    with pytest.raises(AssertionError, match=r"still|no timer is armed"):
        play(range(80), monkeypatch, watch)
    watch._failures.clear()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_agent_reconnects_after_random_faults_in_a_thousand_runs(
    monkeypatch: pytest.MonkeyPatch, watch: Watch
) -> None:
    play(range(1000, 2000), monkeypatch, watch)
