"""Yjs clients during faults: browsers while the host's network is cut, providers while the relay is
killed.
"""

from __future__ import annotations

import contextlib
import random
import sys
import time
from collections import Counter

import pytest

from tests.e2e.peers import LocalAddress, Peer, node_peer
from tests.faults.cutter import Cutter
from tests.faults.everything import Theatre
from tests.faults.figures import Stopwatch, report, share
from tests.faults.loops import Loop
from tests.faults.memory import Weather
from tests.pad.browser import Browser, running_browser
from tests.processes import AgentProcess, Process, RelayProcess, environment, running_relay, until

CARETS = "[...document.querySelectorAll('.caret-name')].map(label => label.textContent)"
CUT_SECONDS = 10

PROVIDERS, DOCUMENTS = 200, 10
DIALS_EACH_A_SECOND = 5
"""y-websocket's delays begin at 0.1 s and double: four dials in its first second. A relay that accepts and
then closes causes nine or more per second, for ever.
"""


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_two_browsers_stay_connected_while_the_hosts_network_is_cut() -> None:
    argv = [sys.executable, "-m", "tests.yserver.program"]
    with (
        running_relay("--pad") as relay,
        Process(argv, name="document server", env=environment()) as server,
        Loop() as loop,
        Cutter(loop, ("127.0.0.1", relay.port)) as cutter,
        running_browser() as browser,
    ):
        port = int(server.when_line(r"serving documents on port (\d+)")[1])
        told = ("--relay", f"ws://127.0.0.1:{cutter.port}", "--local", f"127.0.0.1:{port}")
        with AgentProcess("pad", *told) as agent:
            agent.when_connected()
            for who in ("Ada", "Ben"):
                browser.open_live(who, f"http://localhost:{relay.port}/c/pad")
            say(browser, "Ada", "Before. ")
            browser.ask("when_text", who="Ben", text="Before. ")
            say(browser, "Ben", "Also before. ")
            browser.ask("when_text", who="Ada", text="Before. Also before. ")
            browser.ask("when_caret", who="Ada", name="Ben")
            browser.ask("when_caret", who="Ben", name="Ada")
            before = sockets_of(browser)

            cutter.swallow()
            cut = Stopwatch()
            say(browser, "Ada", "Meanwhile. ")
            seen = []
            while cut.seconds < CUT_SECONDS:
                seen.append([browser.ask("evaluate", who=who, expression=CARETS) for who in ("Ada", "Ben")])
                time.sleep(0.5)
            cutter.heal()
            healed = Stopwatch()

            browser.ask("when_text", who="Ben", text="Before. Also before. Meanwhile. ", seconds=30)
            say(browser, "Ben", "After.")
            browser.ask("when_text", who="Ada", text="Before. Also before. Meanwhile. After.", seconds=30)
            report(
                "browsers, network cut for 10 s",
                restore_s=healed.seconds,
                dials=len(cutter.dials),
                sockets=sockets_of(browser),
                cursors_gone=sum(one != [["Ben"], ["Ada"]] for one in seen),
            )
            assert all(one == [["Ben"], ["Ada"]] for one in seen), "a cursor has gone"
            assert sockets_of(browser) == before, "a page has lost its connection"
            for who in ("Ada", "Ben"):
                browser.ask("leave", who=who)
        agent.check_quiet()
        server.check_quiet()


def say(browser: Browser, who: str, text: str) -> None:
    """Type at the end of the text."""
    browser.ask("focus", who=who)
    browser.ask("press", who=who, keys=["Control+End"])
    browser.ask("type", who=who, text=text)


def sockets_of(browser: Browser) -> list[tuple[int, int]]:
    """Return the number of WebSockets that each page has opened so far, and the number of closed ones."""
    every = [browser.ask("notes", who=who) for who in ("Ada", "Ben")]
    return [(sum(url.startswith("ws") for url in one["requests"]), one["closes"]) for one in every]


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_200_providers_reconnect_to_a_relay_that_was_killed() -> None:
    with contextlib.ExitStack() as stack:
        loop = stack.enter_context(Loop())
        server = stack.enter_context(LocalAddress("y-websocket"))
        node = stack.enter_context(node_peer())
        relay = stack.enter_context(RelayProcess())
        front = stack.enter_context(Cutter(loop, ("127.0.0.1", relay.port)))
        told = ("--relay", relay.url, "--local", f"127.0.0.1:{server.port}")
        agent = stack.enter_context(AgentProcess("crowd", *told))
        agent.when_connected()
        groups = open_everybody(node, f"ws://127.0.0.1:{front.port}/c/crowd")
        dials = len(front.dials)

        killed = Stopwatch()
        relay.kill()
        for group in groups:
            for name in group:
                node.ask("when_unconnected", name=name)
        for number, group in enumerate(groups):
            node.ask("insert", name=group[0], text=f"<written while {number} was away>")
        again = f"tcp:{relay.port}:interface=127.0.0.1"
        relay = stack.enter_context(RelayProcess(listen=again))
        started = Stopwatch()
        agent.when_connected()
        attach = started.seconds
        lengths = [node.ask("when_equal", names=group, seconds=40)["length"] for group in groups]
        restore, gap = started.seconds, killed.seconds
        for number, group in enumerate(groups):
            assert f"<written while {number} was away>" in node.ask("text", name=group[-1])
        later = front.dials[dials:]
        busiest = max(Counter(int(at - later[0]) for at in later).values())
        traces = [node.ask("trace", name=name) for group in groups for name in group]
        report(
            "relay killed, 200 providers",
            attach_s=attach,
            restore_s=restore,
            gap_s=gap,
            dials=len(later),
            dials_in_the_busiest_second=busiest,
            dials_of_one_max=max(trace["dials"] for trace in traces) - 1,
            refusals=dict(Counter(str(status) for trace in traces for status in trace["refusals"])),
            documents=len(lengths),
        )
        assert busiest <= DIALS_EACH_A_SECOND * PROVIDERS
        for group in groups:
            for name in group:
                node.ask("leave", name=name)
        until("the relay has closed them", lambda: front.pair_count == 0)
        relay.check_quiet()
        agent.check_quiet()


def open_everybody(node: Peer, url: str) -> list[list[str]]:
    """Open providers for every document; each has received an edit of another."""
    each = PROVIDERS // DOCUMENTS
    groups = [[f"{doc}-{number}" for number in range(each)] for doc in range(DOCUMENTS)]
    for doc, group in enumerate(groups):
        for name in group:
            node.open(name, "y-websocket-3", url, f"doc-{doc}")
        node.when_synced(*group)
        node.ask("insert", name=group[0], text=f"<document {doc}>")
        node.when_equal(*group)
    return groups


@pytest.mark.slow
@pytest.mark.parametrize("away_seconds", [0.5, 2.0])
def test_95_of_100_agents_return_to_a_killed_relay_within_2_s(away_seconds: float) -> None:
    """On a clock, so the result depends on the agent's delays only."""
    waits = []
    for seed in range(100):
        random.seed(seed)
        theatre = Theatre(Weather())
        theatre.reactor.pass_until(lambda theatre=theatre: theatre.agent.when_connected().called)
        theatre.reactor.pass_seconds(60)
        theatre.kill_relay()
        theatre.reactor.pass_seconds(away_seconds)
        theatre.start_relay()
        began = theatre.reactor.seconds()
        theatre.reactor.pass_until(lambda theatre=theatre: theatre.relay.rooms.room_count == 1)
        waits.append(theatre.reactor.seconds() - began)
        assert theatre.close() == ()
    p95 = share(waits, 94)
    report(f"agent back, relay away for {away_seconds} s", attach_p95_s=p95, attach_max_s=max(waits))
    assert p95 is not None
    assert p95 <= 2
