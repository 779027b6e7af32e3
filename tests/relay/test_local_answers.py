"""The local server's answer through relay and agent: URLs, cookies, times."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from seance.core.interfaces import Page
from tests.relay.rig import Player, Rig, answer_101, request, turn, until
from tests.relay.test_active_grants import AGENT, CLIENT, JWT, TokenRig, Verifier, bearer

FORMS = {
    "/c/r/doc?x=1": "/c/r/doc/?x=1",
    "/client/doc?room=r&x=1": "/client/doc/?room=r&x=1",
    "/client?room=r/doc?x=1": "/client?room=r/doc/?x=1",
}


def lines_of(player: Player) -> list[str]:
    return player.received.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")


async def answered(rig: Rig, target: str, *lines: str, host: str = "relay.example") -> list[str]:
    """Return the head that a client gets when the local server answers 307 with these lines."""
    number = len(rig.locals)
    client = await rig.connect(request(target, host=host))
    local = await rig.local(number)
    seen = next(line for line in lines_of(local) if line.startswith("Host: ")).removeprefix("Host: ")
    head = "\r\n".join(("HTTP/1.1 307 Temporary Redirect", *lines, "Content-Length: 0", "", ""))
    local.send(head.replace("{host}", seen).encode())
    await client.ends()
    return lines_of(client)


@pytest.mark.parametrize(
    "location", ["/doc/?x=1", "doc/?x=1", "ws://{host}/doc/?x=1", "https://{host}/doc/?x=1"]
)
@pytest.mark.parametrize(("target", "mapped"), FORMS.items())
@ensureDeferred
async def test_a_redirect_within_the_local_server_stays_in_the_tunnel(
    target: str, mapped: str, location: str
) -> None:
    async with Rig() as rig:
        head = await answered(rig, target, f"Location: {location}")
    assert head[0] == "HTTP/1.1 307 Temporary Redirect"
    assert f"Location: {mapped}" in head


@pytest.mark.parametrize(
    "location", ["ws://other.example/doc", "//other.example/doc", "http://127.0.0.1:1/doc"]
)
@ensureDeferred
async def test_a_redirect_to_another_server_is_unchanged(location: str) -> None:
    async with Rig() as rig:
        assert f"Location: {location}" in await answered(rig, "/c/r/doc", f"Location: {location}")


TOKEN = JWT + "c"


@pytest.mark.parametrize(
    ("target", "fields", "mapped"),
    [
        (f"/c/r/doc?access_token={TOKEN}", (), f"/c/r/doc/?access_token={TOKEN}"),
        (f"/c/r?access_token={TOKEN}/doc", (), f"/c/r/doc/?access_token={TOKEN}"),
        (f"/client/doc?room=r&access_token={TOKEN}", (), f"/client/doc/?room=r&access_token={TOKEN}"),
        (f"/client?access_token={TOKEN}&room=r/doc", (), f"/client?room=r/doc/?access_token={TOKEN}"),
        ("/c/r/doc", (bearer(TOKEN),), "/c/r/doc/"),
        ("/c/r/doc", (f"Sec-WebSocket-Protocol: seance.v1, seance.token.{TOKEN}",), "/c/r/doc/"),
        (f"/c/r/doc?access_token={JWT}x", (bearer(TOKEN),), "/c/r/doc/"),
    ],
)
@ensureDeferred
async def test_a_redirect_keeps_the_token_of_the_url_where_it_is_valid(
    target: str, fields: tuple[str, ...], mapped: str
) -> None:
    async with TokenRig(Verifier({JWT + "a": AGENT, TOKEN: CLIENT})) as rig:
        await rig.attach(token=JWT + "a")
        client = await rig.connect(request(target, *fields))
        local = await rig.local()
        assert JWT.encode() not in local.received
        local.send(
            b"HTTP/1.1 307 x\r\nLocation: /doc/\r\nContent-Location: /doc/\r\nContent-Length: 0\r\n"
            b"Link: </a>\r\nRefresh: 0; url=/a\r\nX-Location: /doc/\r\n\r\n"
        )
        await client.ends()
        head = lines_of(client)
        assert f"Location: {mapped}" in head
        assert TOKEN not in "".join(line for line in head if not line.startswith("Location"))
        await rig.connect(request(mapped, *fields))
        assert lines_of(await rig.local(1))[0] == "GET /doc/ HTTP/1.1"


@ensureDeferred
async def test_a_redirect_to_another_server_has_no_token() -> None:
    async with TokenRig(Verifier({JWT + "a": AGENT, TOKEN: CLIENT})) as rig:
        await rig.attach(token=JWT + "a")
        for location in (
            "//evil.example/",
            "https://evil.example/c/r/",
            "https://relay.example@evil.example/",
        ):
            head = await answered(rig, f"/c/r/doc?access_token={TOKEN}", f"Location: {location}")
            assert f"Location: {location}" in head
            assert TOKEN not in "".join(head)


@ensureDeferred
async def test_a_local_server_with_the_public_host_may_redirect_to_it() -> None:
    async with Rig(agent={"keep_host": True}) as rig:
        head = await answered(rig, "/c/r/doc", "Location: http://{host}/doc/", host="relay.example:8443")
        assert "Location: /c/r/doc/" in head
        head = await answered(rig, "/c/r/doc", "Location: http://relay.example/", host="relay.example:8443")
        assert "Location: http://relay.example/" in head


@pytest.mark.parametrize(
    ("target", "cookies"),
    [("/c/r/a/doc", ["Set-Cookie: sid=1; Path=/c/r; HttpOnly"]), ("/client/a/doc?room=r", [])],
)
@pytest.mark.parametrize("start", ["101 Switching Protocols", "401 Unauthorized"])
@ensureDeferred
async def test_a_cookie_is_limited_to_its_room(target: str, cookies: list[str], start: str) -> None:
    lines = "Set-Cookie: sid=1; Path=/; HttpOnly\r\nSet-Cookie: __Host-a=b; Path=/\r\nClear-Site-Data: *\r\n"
    answer = (
        answer_101().decode().replace("101 Switching Protocols", start).replace("\r\n", "\r\n" + lines, 1)
    )
    async with Rig() as rig:
        client = await rig.connect(request(target))
        (await rig.local()).send(answer.encode())
        await client.receives(b"\r\n\r\n")
        head = lines_of(client)
    assert head[0] == f"HTTP/1.1 {start}"
    assert [line for line in head if "ookie" in line or "Clear" in line] == cookies


@pytest.mark.parametrize(
    "start", ["HTTP/1.0 101 Switching Protocols", "HTTP/1.0 101", "HTTP/1.1 101", "HTTP/1.1 101 x"]
)
@ensureDeferred
async def test_a_101_with_any_spelling_of_its_first_line_is_accepted(start: str) -> None:
    answer = answer_101().replace(b"HTTP/1.1 101 Switching Protocols", start.encode())
    async with Rig() as rig:
        client = await rig.connect(request())
        local = await rig.local()
        local.send(answer + b"glued")
        await client.receives(b"glued")
        assert client.received.startswith(b"HTTP/1.1 101 ")
        client.send(b"hello")
        await local.receives(b"hello")


@pytest.mark.parametrize("count", [97, 98, 99, 100])
@ensureDeferred
async def test_the_agent_accepts_as_many_fields_as_the_relay(count: int) -> None:
    """The relay adds three fields."""
    fields = [f"X-{number}: 1" for number in range(count - 5)]
    async with Rig() as rig:
        client = await rig.connect(request("/c/r/doc", *fields))
        local = await rig.local()
        assert len(lines_of(local)) - 1 == count + 3
        local.send(answer_101())
        await client.receives(b" 101 ")
        refused = await rig.connect(request("/c/r/doc", *fields, *["X-More: 1"] * (101 - count)))
        await refused.ends()
        assert refused.received.startswith(b"HTTP/1.1 431 ")
        assert b" 100 header fields" in refused.received


@ensureDeferred
async def test_the_agent_accepts_a_head_as_long_as_the_relay_does() -> None:
    async with Rig(relay={"head_bytes": 256 * 1024}) as rig:
        rest = 256 * 1024 - len(request("/c/r/doc", "X-Long: "))
        client = await rig.connect(request("/c/r/doc", "X-Long: " + "x" * rest))
        local = await rig.local()
        local.send(answer_101())
        await client.receives(b" 101 ")


async def _answer_after(
    seconds: float, *, relay: dict[str, Any] | None = None, agent: dict[str, Any] | None = None
) -> bytes:
    async with Rig(relay=relay, agent=agent) as rig:
        client = await rig.connect(request())
        local = await rig.local()
        await turn(seconds)
        if not local.lost:
            local.send(answer_101())
        await until(lambda: client.received)
        return bytes(client.received)


@ensureDeferred
async def test_an_agent_can_request_more_time_for_the_first_answer() -> None:
    relay = {"upgrade_seconds": 0.05, "max_upgrade_seconds": 5.0}
    assert (await _answer_after(0.2, relay=relay)).startswith(b"HTTP/1.1 502 ")
    assert (await _answer_after(0.2, relay=relay, agent={"upgrade_seconds": 4.0})).startswith(
        b"HTTP/1.1 101 "
    )


@ensureDeferred
async def test_the_relay_limits_the_requested_time() -> None:
    relay = {"upgrade_seconds": 0.05, "max_upgrade_seconds": 0.1}
    answer = await _answer_after(0.3, relay=relay, agent={"upgrade_seconds": 60.0})
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b"did not answer within 0.1 s" in answer


@ensureDeferred
async def test_an_agent_can_request_less_time() -> None:
    answer = await _answer_after(0.3, agent={"upgrade_seconds": 0.1})
    assert b"did not answer within 0.1 s" in answer


@pytest.mark.parametrize(
    ("origin", "seen"),
    [
        ("http://relay.example:8443", "http://{host}"),
        ("HTTP://Relay.Example:8443", "http://{host}"),
        ("https://relay.example:8443", "https://relay.example:8443"),
        ("http://relay.example", "http://relay.example"),
        ("https://app.example", "https://app.example"),
        ("http://relay.example:8443.evil.example", "http://relay.example:8443.evil.example"),
        ("null", "null"),
    ],
)
@ensureDeferred
async def test_the_public_origin_is_mapped_to_the_local_server_and_others_are_unchanged(
    origin: str, seen: str
) -> None:
    async with Rig(agent={"rewrite_origin": True}) as rig:
        await rig.connect(request("/c/r/doc", f"Origin: {origin}", host="relay.example:8443"))
        head = lines_of(await rig.local())
        host = f"127.0.0.1:{rig.local_port.getHost().port}"
    assert f"Host: {host}" in head
    assert [line for line in head if line.startswith("Origin")] == ["Origin: " + seen.replace("{host}", host)]


@ensureDeferred
async def test_the_origin_is_unchanged_without_the_option() -> None:
    async with Rig() as rig:
        await rig.connect(request("/c/r/doc", "Origin: http://relay.example"))
        assert "Origin: http://relay.example" in lines_of(await rig.local())


@pytest.mark.parametrize(
    "offer",
    [
        ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"),
        ("Connection: upgrade", "Upgrade: TLS/1.2"),
        ("Connection: Upgrade", "Upgrade: h2c", "Upgrade: TLS/1.3"),
        ("CONNECTION: keep-alive, UPGRADE", "UPGRADE: H2C"),
        ("Connection: Upgrade", "Upgrade: websocket, h2c"),
        ("Upgrade: websocket",),
    ],
)
@ensureDeferred
async def test_an_upgrade_to_another_protocol_is_ignored_if_the_relay_answers(
    offer: tuple[str, ...],
) -> None:
    def plain(target: str, accept: str = "text/html") -> bytes:
        lines = (f"GET {target} HTTP/1.1", "Host: a", f"Accept: {accept}", *offer, "", "")
        return "\r\n".join(lines).encode()

    async with Rig(relay={"pad": Page(b"<p>", ())}) as rig:
        for target in ("/health", "/c/r/status", "/client/status?room=r", "/c/r"):
            client = await rig.connect(plain(target))
            await client.ends()
            assert client.received.startswith(b"HTTP/1.1 200 "), (target, client.received)
        for target in ("/c/r/doc", "/client?room=r"):
            client = await rig.connect(plain(target, "*/*"))
            await client.ends()
            assert client.received.startswith(b"HTTP/1.1 426 "), (target, client.received)
            assert b"\r\nUpgrade: websocket\r\n" in client.received


@pytest.mark.parametrize("scheme", ["http", "https", "ws", "WSS"])
@ensureDeferred
async def test_the_host_of_an_absolute_target_reaches_the_local_server(scheme: str) -> None:
    async with Rig() as rig:
        client = await rig.connect(request(f"{scheme}://relay.example:80/c/r/doc?x=1", host="other.example"))
        local = await rig.local()
        head = lines_of(local)
        assert head[0] == "GET /doc?x=1 HTTP/1.1"
        assert "X-Forwarded-Host: relay.example:80" in head
        assert "other.example" not in "".join(head)
        local.send(answer_101())
        await client.receives(b" 101 ")
