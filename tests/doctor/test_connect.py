"""DNS and TCP: names without an address, and addresses that do not answer."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError, NoRouteError, TCPTimedOutError

from seance.doctor import connect
from seance.doctor.findings import Hop, HopStatus
from tests.doctor.rig import diagnose, finding, only_failure
from tests.processes import free_port
from tests.relay.rig import Rig

NAME = "relay.example"


def resolve(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Let the name resolve to these addresses."""

    def getaddrinfo(host: str, port: int, **options: Any) -> list[Any]:
        assert host == NAME
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def fail_to_resolve(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def getaddrinfo(host: str, port: int, **options: Any) -> list[Any]:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


class Endpoint:
    """Fails with an error, or never connects."""

    def __init__(self, error: Exception | None) -> None:
        self._error = error

    def connect(self, factory: object) -> Deferred[Any]:
        connecting: Deferred[Any] = Deferred()
        if self._error is not None:
            connecting.errback(self._error)
        return connecting


def replace_endpoints(monkeypatch: pytest.MonkeyPatch, outcomes: dict[str, Exception | None]) -> None:
    """Let some addresses fail, or not answer (None); others are dialled."""
    real = connect.endpoint_at

    def endpoint_at(reactor: Any, address: str, port: int, timeout_seconds: float) -> Any:
        if address in outcomes:
            return Endpoint(outcomes[address])
        return real(reactor, address, port, timeout_seconds)

    monkeypatch.setattr(connect, "endpoint_at", endpoint_at)


# DNS


@ensureDeferred
async def test_real_resolver_reports_a_name_that_does_not_exist() -> None:
    report = await diagnose("wss://no-such-relay.invalid", "r")
    assert "no-such-relay.invalid" in only_failure(report, Hop.DNS).message


@ensureDeferred
async def test_name_without_an_address_is_distinguished_from_a_resolver_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fail_to_resolve(monkeypatch, socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    missing = only_failure(await diagnose(f"ws://{NAME}"), Hop.DNS)
    fail_to_resolve(monkeypatch, socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"))
    failing = only_failure(await diagnose(f"ws://{NAME}"), Hop.DNS)
    assert "has no address" in missing.message
    assert "spelling" in missing.advice
    assert "cannot be resolved now" in failing.message
    assert "name server (/etc/resolv.conf) answers" in failing.advice


@ensureDeferred
async def test_resolver_that_never_answers_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()
    done = threading.Event()

    def getaddrinfo(*args: object, **options: object) -> list[Any]:
        answers.wait(30)
        done.set()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    try:
        report = await diagnose(f"ws://{NAME}", timeout_seconds=0.1)
        assert "was not resolved within 0.1 s" in only_failure(report, Hop.DNS).message
    finally:
        answers.set()  # a late answer is ignored
        done.wait(5)


@ensureDeferred
async def test_ip_address_is_not_looked_up() -> None:
    async with Rig(with_agent=False) as rig:
        report = await diagnose(rig.relay_url)
        assert finding(report, Hop.DNS).status is HopStatus.NOT_NEEDED


# TCP


@ensureDeferred
async def test_closed_port_is_reported() -> None:
    failed = only_failure(await diagnose(f"ws://127.0.0.1:{free_port()}", "r"), Hop.TCP)
    assert "nothing listens on port" in failed.message
    assert "--listen" in failed.advice


@ensureDeferred
async def test_address_that_never_answers_times_out_with_advice_about_firewalls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolve(monkeypatch, "192.0.2.1")
    replace_endpoints(monkeypatch, {"192.0.2.1": TCPTimedOutError()})
    monkeypatch.delenv("HTTPS_PROXY", raising=False)
    failed = only_failure(await diagnose(f"ws://{NAME}"), Hop.TCP)
    assert "192.0.2.1 port 80: no answer" in failed.message
    assert "firewall" in failed.advice
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@proxy.example:3128")
    failed = only_failure(await diagnose(f"ws://{NAME}"), Hop.TCP)
    assert "HTTPS_PROXY is set" in failed.advice
    assert "secret" not in failed.advice


@ensureDeferred
async def test_machine_without_a_network_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(monkeypatch, "192.0.2.1", "192.0.2.2")
    replace_endpoints(monkeypatch, {"192.0.2.1": NoRouteError(), "192.0.2.2": NoRouteError()})
    failed = only_failure(await diagnose(f"ws://{NAME}"), Hop.TCP)
    assert "has no route to the relay" in failed.message


@ensureDeferred
async def test_one_unreachable_address_of_several_is_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connect, "OTHERS_SECONDS", 0.05)
    async with Rig(with_agent=False) as rig:
        resolve(monkeypatch, "192.0.2.1", "192.0.2.2", "127.0.0.1")
        replace_endpoints(monkeypatch, {"192.0.2.1": ConnectionRefusedError(), "192.0.2.2": None})
        report = await diagnose(f"ws://{NAME}:{rig.port}")
        warned = finding(report, Hop.TCP)
        assert report.exit_code == 0
        assert warned.status is HopStatus.WARNING
        assert warned.message.startswith("127.0.0.1 accepts connections")
        assert "192.0.2.1: connection refused" in warned.message
        assert "192.0.2.2: no answer within 0.05 s" in warned.message


@ensureDeferred
async def test_at_most_eight_addresses_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [f"192.0.2.{number}" for number in range(1, 20)]
    resolve(monkeypatch, *many)
    replace_endpoints(monkeypatch, dict.fromkeys(many, ConnectionRefusedError()))
    failed = only_failure(await diagnose(f"ws://{NAME}"), Hop.TCP)
    assert "192.0.2.8" in failed.message
    assert "192.0.2.9" not in failed.message


@ensureDeferred
async def test_ipv6_address_is_dialled() -> None:
    if not socket.has_ipv6:
        pytest.fail("this Python was built without IPv6")
    failed = only_failure(await diagnose(f"ws://[::1]:{free_port()}"), Hop.TCP)
    assert "::1" in failed.message


def test_error_description_omits_the_class_where_possible() -> None:
    assert connect.describe_error(TCPTimedOutError(), 3.0) == "no answer within 3 s"
    assert connect.describe_error(OSError("disk on fire."), 3.0) == "disk on fire"
    assert connect.describe_error(ValueError(), 3.0) == "ValueError"
