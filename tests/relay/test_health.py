"""The public health check with the requests of load balancers and container platforms."""

from __future__ import annotations

import pytest
from pytest_twisted import ensureDeferred

from seance.heads import Request
from seance.relay.edge.health import health_response
from tests.relay.rig import Player, Rig, request

CHECKERS = {
    "HAProxy, option httpchk GET /health": b"GET /health HTTP/1.0\r\n\r\n",
    "HAProxy with HEAD": b"HEAD /health HTTP/1.0\r\n\r\n",
    "HAProxy, only option httpchk": b"OPTIONS / HTTP/1.0\r\n\r\n",
    "HAProxy, option httpchk OPTIONS /health": b"OPTIONS /health HTTP/1.0\r\n\r\n",
    "HTTP/1.1 OPTIONS": b"OPTIONS / HTTP/1.1\r\nHost: relay.example\r\n\r\n",
    "monitoring plugin": b"GET /health HTTP/1.0\r\nUser-Agent: check_http/v2.3\r\nConnection: close\r\n\r\n",
    "HTTP/1.0 with Host and keep-alive": b"GET /health HTTP/1.0\r\nHost: 10.0.0.7:8080\r\n"
    b"Connection: Keep-Alive\r\n\r\n",
    "AWS": b"GET /health HTTP/1.1\r\nHost: 10.0.0.7:8080\r\nConnection: close\r\n"
    b"User-Agent: ELB-HealthChecker/2.0\r\nAccept-Encoding: gzip, compressed\r\n\r\n",
    "Google": b"GET /health HTTP/1.1\r\nHost: 10.0.0.7\r\nConnection: Keep-alive\r\n"
    b"User-Agent: GoogleHC/1.0\r\n\r\n",
    "Kubernetes": b"GET /health HTTP/1.1\r\nHost: 10.0.0.7:8080\r\nUser-Agent: kube-probe/1.31\r\n"
    b"Accept: */*\r\nConnection: close\r\n\r\n",
    "wget of BusyBox": b"GET /health HTTP/1.0\r\nHost: localhost:8080\r\nUser-Agent: Wget\r\n\r\n",
    "a query": b"GET /health?from=lb HTTP/1.0\r\n\r\n",
    "no body announced": b"GET /health HTTP/1.0\r\nContent-Length: 0\r\n\r\n",
}


def status(player: Player) -> int:
    return int(player.received.split(b" ", 2)[1])


@ensureDeferred
@pytest.mark.parametrize("sent", CHECKERS.values(), ids=CHECKERS.keys())
async def test_every_form_of_health_check_gets_200(sent: bytes) -> None:
    async with Rig(with_agent=False) as rig:
        for pieces in ([sent], [sent[:7], sent[7:]]):
            client = await rig.connect()
            for piece in pieces:
                client.send(piece)
            await client.ends()
            assert status(client) == 200
            assert b"Connection: close\r\n" in client.received
            body = b"" if sent.startswith(b"HEAD") else b"OK"
            assert client.received.partition(b"\r\n\r\n")[2] == body
            assert (b"Allow: GET, HEAD, OPTIONS\r\n" in client.received) == sent.startswith(b"OPTIONS")


@ensureDeferred
@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE", b"TRACE", b"FOO"])
@pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/1.1"])
async def test_another_method_at_the_health_check_is_405_with_allow(method: bytes, version: bytes) -> None:
    async with Rig(with_agent=False) as rig:
        client = await rig.connect(method + b" /health " + version + b"\r\nHost: h\r\n\r\n")
        await client.ends()
        assert status(client) == 405
        assert b"Allow: GET, HEAD, OPTIONS\r\n" in client.received


@ensureDeferred
@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"GET / HTTP/1.0\r\n\r\n", 404),
        (b"OPTIONS /nowhere HTTP/1.0\r\n\r\n", 404),
        (b"GET /health HTTP/1.1\r\n\r\n", 400),
        (b"GET /health HTTP/1.0\r\nHost: a b\r\n\r\n", 400),
        (b"GET /health HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        (b"GET /health HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc", 400),
        (b"GET /health HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET /health HTTP/0.9\r\n\r\n", 400),
        (b"GET /health HTTP/1.2\r\nHost: h\r\n\r\n", 400),
        (b"GET /health\r\n\r\n", 400),
    ],
)
async def test_other_requests_without_upgrade_are_refused(sent: bytes, expected: int) -> None:
    async with Rig(with_agent=False) as rig:
        client = await rig.connect(sent)
        await client.ends()
        assert status(client) == expected


@ensureDeferred
@pytest.mark.parametrize("target", ["/client?room=r", "/c/r/", "/agent?room=new"])
async def test_an_upgrade_in_http_10_is_refused_with_the_required_version(target: str) -> None:
    """A server ignores Upgrade in HTTP/1.0 (RFC 9110, 7.8)."""
    async with Rig() as rig:
        client = await rig.connect(request(target).replace(b"HTTP/1.1", b"HTTP/1.0"))
        await client.ends()
        assert status(client) == 400
        assert b"HTTP/1.1 is needed" in client.received
        assert rig.locals == []


@ensureDeferred
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_the_status_of_a_room_needs_no_host_in_http_10(method: str) -> None:
    async with Rig() as rig:
        client = await rig.connect(f"{method} /c/r/status HTTP/1.0\r\n\r\n".encode())
        await client.ends()
        assert status(client) == 200
        assert (b'"online"' in client.received) == (method == "GET")


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS"])
def test_a_stopping_relay_answers_503_to_every_method(method: bytes) -> None:
    response = health_response(Request(method, b"/health", (), b"1.0"), is_draining=True)
    assert response.startswith(b"HTTP/1.1 503 ")
    assert response.endswith(b"\r\n\r\n" if method == b"HEAD" else b"draining")
