"""The four checks against a server in this process, through a proxy that may have a fault."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted

from seance.bench.comparison import Comparison, Effort, Figures
from seance.bench.loads import LOADS
from seance.bench.local_server import Conversation
from seance.check import clients as clients_module
from seance.check import fidelity, speed, stage, trial, yjs
from seance.check.clients import check_clients
from seance.check.fidelity import TRIALS, check_fidelity, is_idle_kept
from seance.check.local_server import HEARD_BYTES, REMEMBERED, CheckServerFactory, Notes
from seance.check.report import Check
from seance.check.speed import check_speed
from seance.check.trial import Failed, attempt
from seance.check.yjs import check_yjs
from seance.errors import Gone, Refusal
from seance.wsclient.dial import Target
from seance.wsclient.frames import TEXT, Frame
from tests.check.faulty_proxy import Fault
from tests.check.rig import checked_server, reactor


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is near here, and what is missing will not come."""
    monkeypatch.setattr(fidelity, "GLUED_SECONDS", 1.0)
    monkeypatch.setattr(fidelity, "BIG_BYTES", 1 << 20)
    monkeypatch.setattr(fidelity, "VISITS", 4)
    monkeypatch.setattr(yjs, "SETTLE_SECONDS", 5.0)


def failed(check: Check) -> set[str]:
    return {part.name for part in check.parts if not part.passed}


@pytest_twisted.ensureDeferred
async def test_a_proxy_without_a_fault_passes_everything() -> None:
    async with checked_server() as there:
        check = await check_fidelity(there)
    assert [part.name for part in check.parts] == [name for name, _, _ in TRIALS]
    assert not failed(check), [part.sentence for part in check.parts]
    assert check.passed


@pytest.mark.parametrize(
    ("fault", "names"),
    [
        (Fault.DROPS_GLUED, {"glued_to_the_answer"}),
        (Fault.LOWERCASES_TEXT, {"text_and_binary"}),
        (Fault.DELAYS_FIN, {"client_ends", "server_ends"}),
    ],
    ids=lambda one: one.name if isinstance(one, Fault) else "",
)
@pytest_twisted.ensureDeferred
async def test_a_planted_fault_fails_exactly_what_it_is_about(
    fault: Fault, names: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault is Fault.DELAYS_FIN:
        monkeypatch.setattr(fidelity, "END_SECONDS", 0.2)
    async with checked_server(fault) as there:
        check = await check_fidelity(there)
    assert failed(check) == names, [part.sentence for part in check.parts if not part.passed]
    assert not check.passed


@pytest_twisted.ensureDeferred
async def test_every_client_hears_what_it_said() -> None:
    async with checked_server() as there:
        check = await check_clients(there, 30)
    assert check.passed
    assert check.parts[1].sentence.startswith("600 messages")


@pytest_twisted.ensureDeferred
async def test_a_client_that_hears_what_another_said_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mixing(Conversation):
        last: Frame = Frame(TEXT)

        def answers(self, frame: Frame) -> tuple[Frame, ...]:
            answer, Mixing.last = Mixing.last, frame
            return (answer,)

    monkeypatch.setattr("seance.bench.local_server.Conversation.answers", Mixing.answers)
    monkeypatch.setattr("seance.bench.local_server.Conversation.last", Frame(TEXT, b"?"), raising=False)
    async with checked_server() as there:
        check = await check_clients(there, 3)
    assert failed(check) == {"echo"}
    assert "did not get its message" in check.parts[1].sentence


@pytest_twisted.ensureDeferred
async def test_clients_that_are_refused_fail_the_check_with_the_relays_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refuse(*_: Any, **__: Any) -> None:
        raise Refusal(429, "Too many clients.", code="limit")

    monkeypatch.setattr(clients_module.WsConnection, "open", refuse)
    async with checked_server() as there:
        check = await check_clients(there, 3)
    assert [part.sentence for part in check.parts] == [
        "The answer was HTTP 429: Too many clients.",
        "Not all of them are connected, so this was not tried.",
    ]


@pytest_twisted.ensureDeferred
async def test_documents_converge() -> None:
    async with checked_server() as there:
        check = await check_yjs(there)
    assert check.passed, [part.sentence for part in check.parts]


@pytest_twisted.ensureDeferred
async def test_documents_of_a_server_that_keeps_them_to_itself_do_not_converge(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(yjs, "SETTLE_SECONDS", 0.3)
    async with checked_server() as there:
        only_repeats = there.tunnel.at("echo")
        check = await check_yjs(stage.Stage(reactor, there.tunnel, only_repeats, there.direct))
    assert failed(check) == {"together", "apart", "late"}


@pytest_twisted.ensureDeferred
async def test_without_pycrdt_nothing_is_passed_and_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(yjs, "find_spec", lambda _: None)
    async with checked_server() as there:
        check = await check_yjs(there)
    assert not check.passed
    assert "pip install 'seance-tunnel[demo]'" in check.parts[0].sentence


@pytest_twisted.ensureDeferred
async def test_a_local_server_without_pycrdt_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seance.check.local_server.find_spec", lambda _: None)
    async with checked_server() as there:
        check = await check_yjs(there)
    assert not check.passed
    assert "beside the local server" in check.parts[0].sentence


@pytest_twisted.ensureDeferred
async def test_silence_is_kept_and_a_connection_that_is_cut_meanwhile_is_noticed() -> None:
    async with checked_server() as there:
        assert "0.05 s is kept" in await is_idle_kept(there, 0.05)

    class Impatient(CheckServerFactory):
        def buildProtocol(self, addr: object) -> Any:
            door = super().buildProtocol(None)
            reactor.callLater(0.05, lambda: door.transport.abortConnection())
            return door

    from tests.bench.rig import listening

    async with listening(Impatient(reactor)) as target:
        with pytest.raises(Failed, match="was ended within"):
            await is_idle_kept(stage.Stage(reactor, target, target), 1.0)


@pytest_twisted.ensureDeferred
async def test_the_speed_is_that_of_both_ways() -> None:
    async with checked_server() as there:
        check = await check_speed(there, Effort(0.05, 1, 0), lambda _: None)
    assert check.passed, [part.sentence for part in check.parts]
    assert check.figures is not None
    assert {side for _, side in check.figures.figures} == {"direct", "tunnel"}


@pytest.mark.parametrize(
    ("constant", "name", "words"),
    [
        ("ECHO_SECONDS", "echo", "too long to write together"),
        ("DOCUMENT_SECONDS", "document", "Yjs clients give up"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_speed_at_which_nobody_can_work_fails(
    constant: str, name: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def compare(*_: Any) -> Comparison:
        figures = Figures(bytes_per_second=1e6, p99_seconds=0.5)
        return Comparison(Effort(), (), LOADS, {(load.name, "tunnel"): figures for load in LOADS})

    monkeypatch.setattr(speed, "compare", compare)
    target = Target(False, "h", 1)
    there = stage.Stage(reactor, target, target)
    assert not failed(await check_speed(there, Effort(), lambda _: None))
    monkeypatch.setattr(speed, constant, 0.0)
    check = await check_speed(there, Effort(), lambda _: None)
    assert failed(check) == {name}
    assert any(words in part.sentence for part in check.parts)


@pytest_twisted.ensureDeferred
async def test_a_load_that_cannot_be_run_fails_the_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def break_off(*_: Any) -> None:
        raise Gone("During the load a connection was lost.", code="load")

    monkeypatch.setattr(speed, "compare", break_off)
    async with checked_server() as there:
        check = await check_speed(there, Effort(), lambda _: None)
    assert failed(check) == {"loads"}
    assert len(check.parts) == 1


@pytest_twisted.ensureDeferred
async def test_a_trial_that_takes_too_long_or_breaks_has_failed_and_that_is_all(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def wait() -> str:
        from twisted.internet.defer import Deferred

        await Deferred()
        return "never"

    async def stumble() -> str:
        raise ZeroDivisionError

    slow = await attempt(reactor, "slow", "slow", wait, timeout_seconds=0.01)
    assert (slow.passed, slow.sentence) == (False, "It was not over after 0.01 s.")
    broken = await attempt(reactor, "broken", "broken", stumble)
    assert (broken.passed, broken.sentence) == (False, trial.BROKEN)
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_what_the_local_server_remembers_is_bounded() -> None:
    notes = Notes()
    for number in range(REMEMBERED + 1):
        notes.keep(str(number), bytes(HEARD_BYTES + 1))
    assert notes.of("0") == b""
    assert len(notes.of("1")) == HEARD_BYTES
