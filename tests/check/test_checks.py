"""The four checks against a server in this process, through a proxy that may be faulty."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted

from seance.bench.comparison import FIGURES, Comparison, Effort
from seance.bench.loads import LOADS
from seance.bench.local_server import MAX_NOTE_BYTES, MAX_NOTES, EchoConnection, LocalServerFactory
from seance.check import check_case, fidelity, speed, yjs
from seance.check import clients as clients_module
from seance.check.check_case import CaseFailed, run_case
from seance.check.clients import check_clients
from seance.check.environment import Environment
from seance.check.fidelity import CASES, check_fidelity, is_idle_kept
from seance.check.report import CheckResult
from seance.check.speed import check_speed
from seance.check.yjs import check_yjs
from seance.errors import Gone, Refusal
from seance.wsclient import Target
from seance.wsclient.frames import TEXT, Frame
from tests.bench.rig import listening
from tests.check.faulty_proxy import Fault
from tests.check.rig import checked_server, reactor


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten timeouts and sizes: everything is on this machine."""
    monkeypatch.setattr(fidelity, "FIRST_FRAME_SECONDS", 1.0)
    monkeypatch.setattr(fidelity, "BIG_BYTES", 1 << 20)
    monkeypatch.setattr(fidelity, "VISITS", 4)
    monkeypatch.setattr(yjs, "CONVERGE_SECONDS", 5.0)


def failed(check: CheckResult) -> set[str]:
    return {part.name for part in check.parts if not part.passed}


@pytest_twisted.ensureDeferred
async def test_a_proxy_without_fault_passes() -> None:
    async with checked_server() as there:
        check = await check_fidelity(there)
    assert [part.name for part in check.parts] == list(CASES)
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
async def test_a_fault_fails_exactly_the_matching_parts(
    fault: Fault, names: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault is Fault.DELAYS_FIN:
        monkeypatch.setattr(fidelity, "EOF_SECONDS", 0.2)
    async with checked_server(fault) as there:
        check = await check_fidelity(there)
    assert failed(check) == names, [part.sentence for part in check.parts if not part.passed]
    assert not check.passed


@pytest_twisted.ensureDeferred
async def test_every_client_receives_its_own_messages() -> None:
    async with checked_server() as there:
        check = await check_clients(there, 30)
    assert check.passed
    assert check.parts[1].sentence.startswith("600 messages")


@pytest_twisted.ensureDeferred
async def test_a_client_that_receives_another_clients_message_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mixing(EchoConnection):
        last: Frame = Frame(TEXT)

        def reply(self, frame: Frame) -> tuple[Frame, ...]:
            answer, Mixing.last = Mixing.last, frame
            return (answer,)

    monkeypatch.setattr("seance.bench.local_server.EchoConnection.reply", Mixing.reply)
    monkeypatch.setattr("seance.bench.local_server.EchoConnection.last", Frame(TEXT, b"?"), raising=False)
    async with checked_server() as there:
        check = await check_clients(there, 3)
    assert failed(check) == {"echo"}
    assert "did not receive its message" in check.parts[1].sentence


@pytest_twisted.ensureDeferred
async def test_refused_clients_fail_with_the_message_of_the_relay(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: Any, **__: Any) -> None:
        raise Refusal(429, "Too many clients.", code="limit")

    monkeypatch.setattr(clients_module.WsConnection, "open", refuse)
    async with checked_server() as there:
        check = await check_clients(there, 3)
    assert [part.sentence for part in check.parts] == [
        "The response was HTTP 429: Too many clients.",
        "Not tried, because not all clients are connected.",
    ]


@pytest_twisted.ensureDeferred
async def test_documents_converge() -> None:
    async with checked_server() as there:
        check = await check_yjs(there)
    assert check.passed, [part.sentence for part in check.parts]


@pytest_twisted.ensureDeferred
async def test_documents_do_not_converge_through_an_echo_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yjs, "CONVERGE_SECONDS", 0.3)
    async with checked_server() as there:
        echo = there.tunnel.at("echo")
        check = await check_yjs(Environment(reactor, there.tunnel, echo, there.direct))
    assert failed(check) == {"together", "apart", "late"}


@pytest_twisted.ensureDeferred
async def test_without_pycrdt_the_check_fails_and_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(yjs, "find_spec", lambda _: None)
    async with checked_server() as there:
        check = await check_yjs(there)
    assert not check.passed
    assert "pip install 'seance-tunnel[demo]'" in check.parts[0].sentence


@pytest_twisted.ensureDeferred
async def test_a_local_server_without_pycrdt_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seance.bench.local_server.find_spec", lambda _: None)
    async with checked_server() as there:
        check = await check_yjs(there)
    assert not check.passed
    assert "beside the local server" in check.parts[0].sentence


@pytest_twisted.ensureDeferred
async def test_an_idle_connection_passes_if_it_is_kept_and_fails_if_it_is_closed() -> None:
    async with checked_server() as there:
        assert "0.05 s stays open" in await is_idle_kept(there, 0.05)

    class Impatient(LocalServerFactory):
        def buildProtocol(self, addr: object) -> Any:
            door = super().buildProtocol(None)
            reactor.callLater(0.05, lambda: door.transport.abortConnection())
            return door

    async with listening(Impatient(reactor)) as target:
        with pytest.raises(CaseFailed, match="was closed within"):
            await is_idle_kept(Environment(reactor, target, target), 1.0)


@pytest_twisted.ensureDeferred
async def test_the_speed_is_measured_on_both_targets() -> None:
    async with checked_server() as there:
        check = await check_speed(there, Effort(0.05, 1, 0), lambda _: None)
    assert check.passed, [part.sentence for part in check.parts]
    assert check.figures is not None
    assert {side for _, side in check.figures.figures} == {"direct", "tunnel"}


@pytest.mark.parametrize(
    ("constant", "name", "words"),
    [
        ("ECHO_SECONDS", "echo", "too slow for typing together"),
        ("DOCUMENT_SECONDS", "document", "Yjs clients give up"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_speed_below_the_limit_fails(
    constant: str, name: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def compare(*_: Any) -> Comparison:
        figures: dict[str, float | None] = dict.fromkeys(FIGURES, 0.5) | {"bytes_per_second": 1e6}
        return Comparison(Effort(), (), LOADS, {(load.name, "tunnel"): figures for load in LOADS})

    monkeypatch.setattr(speed, "compare", compare)
    target = Target(False, "h", 1)
    there = Environment(reactor, target, target)
    assert not failed(await check_speed(there, Effort(), lambda _: None))
    monkeypatch.setattr(speed, constant, 0.0)
    check = await check_speed(there, Effort(), lambda _: None)
    assert failed(check) == {name}
    assert any(words in part.sentence for part in check.parts)


@pytest_twisted.ensureDeferred
async def test_a_load_that_fails_ends_the_check_of_the_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: Any) -> None:
        raise Gone("During the load a connection was lost.", code="load")

    monkeypatch.setattr(speed, "compare", fail)
    async with checked_server() as there:
        check = await check_speed(there, Effort(), lambda _: None)
    assert failed(check) == {"loads"}
    assert len(check.parts) == 1


@pytest_twisted.ensureDeferred
async def test_a_case_that_times_out_or_raises_has_failed(capsys: pytest.CaptureFixture[str]) -> None:
    async def wait() -> str:
        from twisted.internet.defer import Deferred

        await Deferred()
        return "never"

    async def divide_by_zero() -> str:
        raise ZeroDivisionError

    slow = await run_case(reactor, "slow", "slow", wait, timeout_seconds=0.01)
    assert (slow.passed, slow.sentence) == (False, "It did not finish within 0.01 s.")
    broken = await run_case(reactor, "broken", "broken", divide_by_zero)
    assert (broken.passed, broken.sentence) == (False, check_case.INTERNAL_ERROR)
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_the_notes_of_the_local_server_are_limited() -> None:
    server = LocalServerFactory(reactor)
    for number in range(MAX_NOTES + 1):
        server.note(str(number), bytes(MAX_NOTE_BYTES + 1))
    assert len(server.notes) == MAX_NOTES
    assert "0" not in server.notes
    assert len(server.notes["1"]) == MAX_NOTE_BYTES
