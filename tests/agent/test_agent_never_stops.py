"""While the agent runs some timer of its own is armed, and once the network is well, so is the link.

A story is a row of random misfortunes: dials that are refused, hang or fail in ways that nobody foresaw,
carriers that are cut or die without a word, sleep, nudges, drains. After each step the agent has to wait for
something that comes for sure, and in the end it has a minute.
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
HEALING_SECONDS = 60.0

MISFORTUNES = ("refused", "hangs", "silent", "busy", "unforeseen", "stillborn")
"""What may come of a dial: nobody listens; no answer at all; none to the request; 503; a bug; cut at once."""


HAPPENINGS = (
    *("mood", "mood", "mood", "well", "well", "well", "well", "wires", "wires"),
    *("time", "time", "time", "time", "time", "time", "time", "time"),
    *("nudge", "sleep", "drain", "forget"),
)


class AgentClock:
    """The clock of all, with an eye on who has set which timer.

    Attributes:
        calls: What the agent has asked for and still waits for.
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
    """As much of a relay as agents notice, and the network before it.

    Attributes:
        mood: What comes of the next dials: one of ``MISFORTUNES``, or "well".
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
        if self.mood == "unforeseen":
            return fail(ZeroDivisionError("unforeseen"))
        return real_dial(reactor, *args, endpoint=cast(Any, self), **kwargs)

    def connect(self, factory: Any) -> Deferred[Any]:
        if self.mood == "refused":
            return fail(ConnectionRefusedError())
        if self.mood == "hangs":
            return Deferred()
        doors = OneByOne()
        doors.coming.append(Protocol() if self.mood == "silent" else Door(self))
        endpoint = WireEndpoint(self.clock, doors)
        connecting = endpoint.connect(factory)
        self.wires += endpoint.wires
        if self.mood == "stillborn":
            self.clock.callLater(0, endpoint.wires[0].far.abortConnection)
        return connecting

    def serve(self, request: Request, door: Door) -> None:
        if self.mood == "busy":
            retry_after = (b"Retry-After", b"%d" % self._dice.randint(0, 9))
            raise Refusal(503, "Busy; later.", code="busy", headers=(retry_after,))
        subprotocol = negotiated(request, may_resume=self.may_resume)
        wishes = [
            ResumeRequest.read(value.decode()) for value in request.values(RESUME_FIELD.lower().encode())
        ]
        headers = None
        for resume_request in wishes:
            for link in self.links:
                if headers is None and resume_request is not None and link.is_asked_for(resume_request, None):
                    headers = link.resume(resume_request, None, None)
                    found = link
        if headers is None:
            found = AgentLink(self.clock, self.settings, "r", lambda lost, _: self.links.remove(lost))
            self.links.append(found)
            headers = found.expect(subprotocol)
        make = found.make_protocol
        self.answerer.answer(request, b"", door.hand_over, make, may_resume=self.may_resume, headers=headers)
        found.watch_carrier()

    def cut(self) -> None:
        """Cuts a carrier at either end."""
        wire = self.wires[-1]
        (wire.near if self._dice.random() < 0.5 else wire.far).abortConnection()

    def swallow(self) -> None:
        """From now on nothing passes over any carrier, and nobody is told."""
        for wire in self.wires:
            for end in wire.ends:
                end._take_turn = lambda: None  # type: ignore[method-assign]

    def close(self) -> None:
        for link in list(self.links):
            link.leave("the relay is going")

    def drain(self) -> None:
        for link in self.links:
            link.notice_drain(self._dice.random(), self._dice.choice([0.0, 5.0, 20.0]), lambda: None)

    def forget(self) -> None:
        """A relay that was restarted knows nobody any more."""
        for link in list(self.links):
            link.cut()
            link.give_up()
            session: Any = link._session
            if session is not None:
                session.end("restarted")


class Door(ProtocolSwitch):
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
        monkeypatch.setattr(Agent, "_endpoint", lambda *_: None)  # the dial below takes the place of both
        monkeypatch.setattr(random, "random", self.dice.random)
        self.agent = Agent(self.timers, AgentSettings(room="r"))
        self.had_unforeseen = False
        self.seen: set[AgentState] = set()
        self.agent.on_status(lambda status: self.seen.add(status.state))

    def look(self) -> None:
        vigil = self.agent._wake_detector._timer
        assert vigil is not None, "the vigil is over"
        timers = [call for call in self.timers.calls if call is not vigil]
        assert timers, f"nothing is waited for while {self.agent.status}"

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds * 4)):
            self.clock.advance(0.25)
            self.look()

    def step(self) -> None:
        dice, relay = self.dice, self.relay
        what = dice.choice(
            ["mood"] * 3 + ["well"] * 4 + ["time"] * 8 + ["wires", "nudge", "sleep", "drain", "forget"]
        )
        if what == "mood":
            relay.mood = dice.choice(MISFORTUNES)
        elif what == "well":
            relay.mood = "well"
        elif what == "wires" and relay.wires:
            dice.choice([relay.cut, relay.cut, relay.swallow, relay.close])()
        elif what == "nudge":
            self.agent.check_now(dice.choice([0.0, 0.0, 5.0, 3600.0]))
        elif what == "sleep":
            self.clock.advance(dice.choice([3.0, 12.0, 90.0]))
        elif what == "drain":
            relay.drain()
        elif what == "forget":
            relay.forget()
        self.had_unforeseen |= relay.mood == "unforeseen"
        if dice.random() < 0.7:
            run(self.clock, dice.randint(1, 3))
            self.look()
        self.pass_time(dice.choice([0, 0.25, 1, 3, 12]) if what == "time" else 0)

    def heal(self) -> float:
        """Lets everything be well again; returns how long it took until the link was."""
        self.relay.mood = "well"
        began = self.clock.seconds()
        while not self.is_well():
            assert self.clock.seconds() - began <= HEALING_SECONDS, f"still {self.agent.status}"
            self.pass_time(0.25)
        took = self.clock.seconds() - began
        self.pass_time(15)
        assert self.is_well(), "it was well, and is no more"
        return took

    def is_well(self) -> bool:
        """Whether both ends of one carrier believe in the same link, and nothing swallows what they say."""
        relay_link = self.agent._relay_link
        if self.agent.status.state is not AgentState.CONNECTED or relay_link is None or not relay_link.is_up:
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
        assert self.timers.calls == [], "a stopped agent waits for nothing"
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
                longest = max(longest, story.heal())
                story.end()
            except BaseException as error:
                error.add_note(f"seed {seed}")
                raise
            seen |= story.seen
            if story.had_unforeseen:
                watch._failures = [one for one in watch._failures if one.get("event") != "link.failed"]
    return seen, longest


def test_whatever_happens_the_agent_finds_back(monkeypatch: pytest.MonkeyPatch, watch: Watch) -> None:
    seen, longest = play(range(80), monkeypatch, watch)
    assert seen >= {AgentState.CONNECTED, AgentState.RESUMING, AgentState.WAITING, AgentState.CONNECTING}
    print(f"the longest way back took {longest:g} s")


async def wait_for_a_nudge(agent: Agent, sentence: str) -> None:
    agent._woken = OneShotEvent()
    await agent._woken.when()


def dial_without_end(*args: Any, deadline_seconds: float, **kwargs: Any) -> Deferred[Any]:
    return carrier_dial(*args, deadline_seconds=1e9, **kwargs)


def never_cut(pulse: Any) -> None:
    pulse._timer = pulse._reactor.callLater(1.0, pulse._check)


@pytest.mark.parametrize(
    ("where", "name", "mutant"),
    [
        (Agent, "_wait", wait_for_a_nudge),
        (sys.modules[__name__], "real_dial", dial_without_end),
        (CarrierHeartbeat, "_check", never_cut),
    ],
    ids=["waits for a nudge", "dials without end", "never cuts"],
)
def test_agent_that_can_get_stuck_is_caught(
    monkeypatch: pytest.MonkeyPatch, watch: Watch, where: Any, name: str, mutant: Callable[..., Any]
) -> None:
    monkeypatch.setattr(where, name, mutant)
    with pytest.raises(AssertionError, match=r"still|nothing is waited for"):
        play(range(80), monkeypatch, watch)
    watch._failures.clear()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_whatever_happens_the_agent_finds_back_in_a_thousand_stories(
    monkeypatch: pytest.MonkeyPatch, watch: Watch
) -> None:
    play(range(1000, 2000), monkeypatch, watch)
