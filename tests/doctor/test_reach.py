"""Names and addresses: what is said when a name leads nowhere, or where it leads nobody answers."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError, NoRouteError, TCPTimedOutError

from seance.doctor import connect
from seance.doctor.findings import Hop, Mark
from tests.doctor.rig import diagnose, finding, nothing_but
from tests.processes import free_port
from tests.relay.rig import Rig

NAME = "relay.example"


def resolve(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Has the name lead to these addresses, and nowhere if there are none."""

    def getaddrinfo(host: str, port: int, **options: Any) -> list[Any]:
        assert host == NAME
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def fail_to_resolve(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def getaddrinfo(host: str, port: int, **options: Any) -> list[Any]:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


class Endpoint:
    """Connects as it is told: with an error, or never."""

    def __init__(self, error: Exception | None) -> None:
        self._error = error

    def connect(self, factory: object) -> Deferred[Any]:
        connecting: Deferred[Any] = Deferred()
        if self._error is not None:
            connecting.errback(self._error)
        return connecting


def replace_endpoints(monkeypatch: pytest.MonkeyPatch, outcomes: dict[str, Exception | None]) -> None:
    """Has some addresses fail, or stay silent (None); the others are as they are."""
    real = connect.endpoint_at

    def endpoint_at(reactor: Any, address: str, port: int, timeout_seconds: float) -> Any:
        if address in outcomes:
            return Endpoint(outcomes[address])
        return real(reactor, address, port, timeout_seconds)

    monkeypatch.setattr(connect, "endpoint_at", endpoint_at)


# DNS


@ensureDeferred
async def test_a_name_that_does_not_exist_is_named_by_a_real_resolver() -> None:
    report = await diagnose("wss://no-such-relay.invalid", "r")
    assert "no-such-relay.invalid" in nothing_but(report, Hop.DNS).sentence


@ensureDeferred
async def test_a_name_without_an_address_is_told_from_a_resolver_that_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fail_to_resolve(monkeypatch, socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    missing = nothing_but(await diagnose(f"ws://{NAME}"), Hop.DNS)
    fail_to_resolve(monkeypatch, socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"))
    failing = nothing_but(await diagnose(f"ws://{NAME}"), Hop.DNS)
    assert "has no address" in missing.sentence
    assert "spelled right" in missing.advice
    assert "for the moment" in failing.sentence
    assert "on the network at all" in failing.advice


@ensureDeferred
async def test_a_resolver_that_never_answers_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()
    done = threading.Event()

    def getaddrinfo(*args: object, **options: object) -> list[Any]:
        answers.wait(30)
        done.set()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    try:
        report = await diagnose(f"ws://{NAME}", timeout_seconds=0.1)
        assert "was not resolved within 0.1 s" in nothing_but(report, Hop.DNS).sentence
    finally:
        answers.set()  # what it says now is too late, and does no harm
        done.wait(5)


@ensureDeferred
async def test_an_address_needs_no_look_up() -> None:
    async with Rig(with_agent=False) as rig:
        report = await diagnose(rig.relay_url)
        assert finding(report, Hop.DNS).mark is Mark.NOT_NEEDED


# TCP


@ensureDeferred
async def test_a_port_where_nothing_listens_is_named() -> None:
    failed = nothing_but(await diagnose(f"ws://127.0.0.1:{free_port()}", "r"), Hop.TCP)
    assert "nothing listens on port" in failed.sentence
    assert "--listen" in failed.advice


@ensureDeferred
async def test_an_address_that_never_answers_is_given_up_in_time_and_a_firewall_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolve(monkeypatch, "192.0.2.1")
    replace_endpoints(monkeypatch, {"192.0.2.1": TCPTimedOutError()})
    monkeypatch.delenv("HTTPS_PROXY", raising=False)
    failed = nothing_but(await diagnose(f"ws://{NAME}"), Hop.TCP)
    assert "192.0.2.1 port 80: no answer" in failed.sentence
    assert "firewall" in failed.advice
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@proxy.example:3128")
    failed = nothing_but(await diagnose(f"ws://{NAME}"), Hop.TCP)
    assert "HTTPS_PROXY is set" in failed.advice
    assert "secret" not in failed.advice


@ensureDeferred
async def test_a_machine_without_a_network_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(monkeypatch, "192.0.2.1", "192.0.2.2")
    replace_endpoints(monkeypatch, {"192.0.2.1": NoRouteError(), "192.0.2.2": NoRouteError()})
    failed = nothing_but(await diagnose(f"ws://{NAME}"), Hop.TCP)
    assert "no way to the relay from here" in failed.sentence


@ensureDeferred
async def test_one_address_of_several_that_leads_nowhere_is_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connect, "STRAGGLER_SECONDS", 0.05)
    async with Rig(with_agent=False) as rig:
        resolve(monkeypatch, "192.0.2.1", "192.0.2.2", "127.0.0.1")
        replace_endpoints(monkeypatch, {"192.0.2.1": ConnectionRefusedError(), "192.0.2.2": None})
        report = await diagnose(f"ws://{NAME}:{rig.port}")
        warned = finding(report, Hop.TCP)
        assert report.exit_code == 0
        assert warned.mark is Mark.WARNING
        assert warned.sentence.startswith("127.0.0.1 takes connections")
        assert "192.0.2.1: nothing listens there" in warned.sentence
        assert "192.0.2.2: no answer within 0.05 s" in warned.sentence


@ensureDeferred
async def test_no_more_than_eight_addresses_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [f"192.0.2.{number}" for number in range(1, 20)]
    resolve(monkeypatch, *many)
    replace_endpoints(monkeypatch, dict.fromkeys(many, ConnectionRefusedError()))
    failed = nothing_but(await diagnose(f"ws://{NAME}"), Hop.TCP)
    assert "192.0.2.8" in failed.sentence
    assert "192.0.2.9" not in failed.sentence


@ensureDeferred
async def test_an_address_of_ipv6_is_connected_to_as_one() -> None:
    if not socket.has_ipv6:
        pytest.fail("this Python was built without IPv6")
    failed = nothing_but(await diagnose(f"ws://[::1]:{free_port()}"), Hop.TCP)
    assert "::1" in failed.sentence


def test_what_went_wrong_is_said_without_the_noise_of_its_class() -> None:
    assert connect.words_of(TCPTimedOutError(), 3.0) == "no answer within 3 s"
    assert connect.words_of(OSError("disk on fire."), 3.0) == "disk on fire"
    assert connect.words_of(ValueError(), 3.0) == "ValueError"
