"""The checks behind the relay: token, agent, local server, tunnel and Yjs sync.

As in ``seance.doctor.network_checks``, each function checks one hop. A response through the tunnel that
concerns the agent or the local server is reported for that hop.
"""

from __future__ import annotations

import json
import time
from urllib.parse import quote

from seance.core.interfaces import TokenRole
from seance.doctor.context import Context, ok
from seance.doctor.findings import Finding, Hop, HopFailed, HopStatus
from seance.doctor.http_client import HttpServer, ServerResponse, open_websocket, request
from seance.doctor.probe import ProbeResult, ServerProtocol, probe_server
from seance.doctor.tokens import ParsedToken, format_duration, read_tokens
from seance.errors import Gone
from seance.net import ClientTls, is_loopback_host

__all__ = ["agent", "local", "sync", "token", "tunnel"]

ROLE_ADVICE = (
    "Only a client's token may request the status of a room: add one with a second --token-file (seance "
    "token --key FILE --room {room} --role client)."
)

SAFE = "/~!$&'()*+,;=:@%"
"""Characters of a name that are not percent-encoded (RFC 3986, 3.3); a "%" means an encoded name."""

NOT_ABOUT_ORIGIN = (429, 502, 503, 504)
"""Statuses for limits and temporary failures, which say nothing about an ``Origin``."""

RELAY_ORIGIN_REFUSAL = b"its Origin is not on the list"
"""Part of the relay's refusal if its own list, or the token's, lacks an ``Origin``."""

START_AGENT = "seance agent --room {room} --relay {relay}"


async def token(context: Context) -> Finding:
    """Read the tokens, and let the relay verify one with a status request."""
    room = str(context.options.room)
    now = time.time() - (context.report.clock_ahead_seconds or 0.0)
    context.tokens = read_tokens(list(context.options.token_files), room, now)
    token = context.tokens.get(TokenRole.CLIENT) or next(iter(context.tokens.values()), None)
    target = f"{context.require_relay.base_path}/c/{room}/status"
    try:
        status = await request(
            context.reactor, context.require_server, target, _authorization(token), context.timeout_seconds
        )
    except Gone as error:
        raise HopFailed(
            f"The relay does not answer a request with the token: {error}.",
            "If it gets its keys from a URL (--auth-jwks), check in its log that it can reach this URL.",
        ) from error
    description = "" if token is None else f"the token is {token}"
    if status.status == 403 and token is not None and token.role is not TokenRole.CLIENT:
        # The relay checks the role after the signature, so the signature is valid.
        return ok(Hop.TOKEN, f"the relay accepts its signature; {description}", status.seconds)
    if status.status in (401, 403):
        raise _token_rejected(status, token, room)
    if status.status in (429, 503):
        raise HopFailed(
            f"The relay does not return the status of the room {room} now: {status.summary}.",
            "Try again in a minute. If it stays so: 429 is a limit of the relay (docs/security.md, "
            "Limits); 503 is a relay that is stopping, or cannot get its keys (--auth-jwks): see its log.",
        )
    context.status = status
    if token is None:
        return Finding(Hop.TOKEN, HopStatus.NOT_NEEDED, "this relay requires none", seconds=status.seconds)
    return ok(Hop.TOKEN, f"the relay accepts it; {description}", status.seconds)


def _token_rejected(status: ServerResponse, token: ParsedToken | None, room: str) -> HopFailed:
    if status.status == 403:
        return HopFailed(
            f"The relay accepts the token but denies access to the room {room}: {status.summary}.",
            "The room is on the relay's deny list (--deny), or the token is valid only for web pages of some "
            "origins.",
        )
    if token is None:
        return HopFailed(
            "This relay requires a token, and none was given.",
            "Give a file with a token with --token-file: the agent's, or preferably a client's "
            f"(seance token --key FILE --room {room} --role client).",
        )
    key = "no key ID" if token.key_id is None else f"key ID {token.key_id}"
    return HopFailed(
        f"The relay rejects the token in {token.path}, although its time and room are right: it is {token}.",
        f"Either the relay does not have the key that signed it ({key}): compare it with the relay's "
        "--auth-key or --auth-jwks. Or the token is revoked (--deny). The relay does not say which in its "
        "response; seance_refusals_total at its admin address has separate counts.",
    )


async def agent(context: Context) -> Finding:
    """Check the state of the room's agent that the relay reports."""
    status, room = context.status, str(context.options.room)
    if status is None:
        return _not_tried(Hop.AGENT, context)
    state, since = _room_state(status)
    start = START_AGENT.format(room=room, relay=context.options.relay)
    if state == "online":
        return ok(Hop.AGENT, f"an agent has served the room {room} for {since}")
    if state == "resuming":
        raise HopFailed(
            f"The relay lost the connection to the room's agent {since} ago and waits for it to reconnect.",
            "The agent has crashed, or its machine has lost its network or sleeps: run seance doctor there. "
            "Its clients stay connected for 45 s by default.",
        )
    if state == "away":
        raise HopFailed(
            f"The agent of the room {room} disconnected {since} ago.",
            f"Check on its machine whether it runs, and its log; to start it: {start}. If it runs, it does "
            "not reach the relay: run seance doctor there.",
        )
    if state == "unknown":
        raise HopFailed(
            f"No agent serves the room {room}, and none has recently.",
            f"Check the spelling against the agent's --room (case matters), and start the agent: {start}. "
            "If it runs, its log has the reason: 401 or 403 is its token, 409 another agent with this room.",
        )
    message = f"the relay does not report the state: {status.summary}"
    return Finding(Hop.AGENT, HopStatus.WARNING, message, "The relay may be an older version.")


def _room_state(status: ServerResponse) -> tuple[str, str]:
    """Return the state of a room and its duration; empty strings if the response has none."""
    try:
        fields = json.loads(status.body) if status.status == 200 else {}
        return str(fields.get("state", "")), format_duration(float(fields.get("since") or 0))
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return "", ""


async def local(context: Context) -> Finding:
    """Check the local server: directly if its address is given, otherwise through the tunnel."""
    if context.local is not None:
        return await _direct(context)
    if context.status is None:
        return _not_tried(Hop.LOCAL, context)
    await _open_tunnel(context)
    return ok(Hop.LOCAL, "it answers through the tunnel")


async def _direct(context: Context) -> Finding:
    address = context.local
    assert address is not None, "checked by the caller"
    trust = None
    if address.kind == "tls" and is_loopback_host(address.host):
        # On this machine any certificate will do; the authority of --local-ca is an option of the agent.
        trust = ClientTls(address.host, insecure=True)
    endpoint = address.endpoint(context.reactor, context.timeout_seconds, trust)
    server = HttpServer(endpoint, address.host_header.decode(), f"The local server {address}")
    target = _document_target(context)
    began = time.perf_counter()
    try:
        opened = await open_websocket(context.reactor, server, target, {}, context.timeout_seconds)
    except Gone as error:
        raise _local_unreachable(error, str(address)) from error
    seconds = time.perf_counter() - began
    if isinstance(opened, ServerResponse):
        raise _no_websocket(opened, f"The local server {address}", target)
    try:
        result = await probe_server(context.reactor, opened, context.timeout_seconds)
    except Gone as error:
        raise HopFailed(
            f"The local server {address} opens a WebSocket, but {error}.", _check_document(target)
        ) from error
    if result.round_trip_seconds is not None:
        context.report.round_trips["local"] = result.round_trip_seconds
    return ok(Hop.LOCAL, f"{address} {_describe_probe(result)}", seconds)


def _local_unreachable(error: Gone, server: str) -> HopFailed:
    if error.code == "unreachable":
        return HopFailed(
            f"{error}.",
            "Start the document server, or correct --local, here and for the agent. A server in a "
            "container must publish its port.",
        )
    if error.code.startswith(("certificate", "tls")):
        return HopFailed(
            str(error), "Check --local-ca of the agent; or remove tls:// if the server does not speak TLS."
        )
    advice = f"The server at {server} does not speak WebSocket, or it hangs: see its log."
    if server.startswith("tls://"):
        advice += " Or it does not speak TLS: then remove tls://."
    return HopFailed(f"{str(error).rstrip('.')}.", advice)


async def tunnel(context: Context) -> Finding:
    """Open a WebSocket through relay and agent to the local server, then one with a browser's ``Origin``."""
    if context.status is None:
        return _not_tried(Hop.TUNNEL, context)
    if context.connection is None:
        await _open_tunnel(context)
    message = "a WebSocket opens through relay and agent to the local server"
    refused = await _refused_with_origin(context)
    if refused is None:
        return ok(Hop.TUNNEL, message, context.opened_seconds)
    return Finding(
        Hop.TUNNEL,
        HopStatus.WARNING,
        f"{message}; but with the Origin {_public_origin(context)} the local server answers "
        f"{refused.summary}",
        "It compares Origin with Host, as gorilla/websocket, coder/websocket and tornado do: start the agent "
        "with --rewrite-origin or --keep-host. Programs that send no Origin are not affected.",
        context.opened_seconds,
    )


async def _refused_with_origin(context: Context) -> ServerResponse | None:
    """Open a WebSocket with a browser's ``Origin``; return the response if the local server refuses it."""
    headers = {**_authorization(context.tokens.get(TokenRole.CLIENT)), "Origin": _public_origin(context)}
    try:
        opened = await open_websocket(
            context.reactor, context.require_server, _client_target(context), headers, context.timeout_seconds
        )
    except Gone:
        return None  # A WebSocket without an Origin has just opened; a failure here is not about the Origin.
    if not isinstance(opened, ServerResponse):
        opened.close()
        return None
    if opened.status in NOT_ABOUT_ORIGIN or RELAY_ORIGIN_REFUSAL in opened.body:
        # The relay's list of origins need not contain the relay's own address.
        return None
    return opened


def _public_origin(context: Context) -> str:
    relay = context.require_relay
    return f"{'https' if relay.is_secure else 'http'}://{relay.host_header}"


def _client_target(context: Context) -> str:
    return f"{context.require_relay.base_path}/c/{context.options.room}{_document_target(context)}"


async def _open_tunnel(context: Context) -> None:
    headers = _authorization(context.tokens.get(TokenRole.CLIENT))
    began = time.perf_counter()
    try:
        opened = await open_websocket(
            context.reactor, context.require_server, _client_target(context), headers, context.timeout_seconds
        )
    except Gone as error:
        raise HopFailed(
            f"A WebSocket through the tunnel does not open, although the agent is connected: {error}.",
            "The agent hangs, or its machine has just lost its network or sleeps: check there. If the local "
            "server is slow, use a longer --timeout.",
            Hop.TUNNEL,
        ) from error
    if isinstance(opened, ServerResponse):
        raise _tunnel_refused(opened, context)
    context.connection, context.opened_seconds = opened, time.perf_counter() - began


def _tunnel_refused(response: ServerResponse, context: Context) -> HopFailed:
    if response.is_plain_text and (response.status == 503 or b"Room not found" in response.body):
        return HopFailed(
            f"The agent of the room {context.options.room} has just disconnected: {response.summary}.",
            "Try again. If this happens repeatedly, its network is unstable: see its log.",
            Hop.AGENT,
        )
    if response.status == 429:
        return HopFailed(
            f"The relay accepts no further client: {response.summary}.",
            "A limit of the relay, the room or the token is reached: see docs/security.md, Limits.",
            Hop.TUNNEL,
        )
    if response.status == 502 and response.is_plain_text:
        message = f"The agent does not reach its local server: {response.summary}."
        if context.local is not None:
            return HopFailed(
                f"{message} {context.local} answers here, so the agent uses another address.",
                "Compare the agent's --local with this address; and check whether the agent of this room "
                "runs on this machine or elsewhere.",
                Hop.LOCAL,
            )
        return HopFailed(
            message,
            "On the agent's machine, check that the document server runs and that the agent's --local is its "
            "address (seance doctor --local HOST:PORT). The agent's log has the reason.",
            Hop.LOCAL,
        )
    if response.status in (502, 504):
        return HopFailed(
            f"A proxy in front of the relay answers in its place: {response.summary}.",
            "It timed out waiting for the relay: see its timeouts and its log.",
            Hop.TUNNEL,
        )
    return _no_websocket(response, "The local server", _document_target(context))


def _no_websocket(response: ServerResponse, name: str, target: str) -> HopFailed:
    return HopFailed(
        f"{name} answers a WebSocket upgrade for {target} with {response.summary}.",
        "If it requires a login, or has only existing documents, name one with --document NAME (with its "
        "query, if it needs one). Otherwise it is not a document server: correct the agent's --local.",
        Hop.LOCAL,
    )


async def sync(context: Context) -> Finding:
    """Send a Yjs sync message and pings through the tunnel."""
    connection, context.connection = context.connection, None
    if connection is None:
        return _not_tried(Hop.SYNC, context)
    try:
        result = await probe_server(context.reactor, connection, context.timeout_seconds)
    except Gone as error:
        raise HopFailed(
            f"The WebSocket through the tunnel opens, but {error}.",
            _check_document(_document_target(context)),
        ) from error
    if result.round_trip_seconds is not None:
        context.report.round_trips["tunnel"] = result.round_trip_seconds
    return ok(Hop.SYNC, f"the local server {_describe_probe(result)}", result.seconds)


def _check_document(target: str) -> str:
    return (
        f"See the log of the document server for {target}. If it requires a login or an existing document, "
        "name one with --document NAME."
    )


def _describe_probe(result: ProbeResult) -> str:
    if result.protocol is ServerProtocol.YJS:
        return f"answers a Yjs sync ({result.update_bytes} bytes)"
    if result.protocol is ServerProtocol.ECHO:
        return "echoes"
    return "answers pings but not a Yjs sync, as is usual before a login (Hocuspocus)"


def _not_tried(hop: Hop, context: Context) -> Finding:
    advice = ROLE_ADVICE.format(room=context.options.room)
    return Finding(hop, HopStatus.NOT_TRIED, "not tried", advice)


def _authorization(token: ParsedToken | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token.text}"}


def _document_target(context: Context) -> str:
    name, question_mark, query = context.options.document.partition("?")
    return f"/{quote(name.lstrip('/'), safe=SAFE)}{question_mark}{quote(query, safe=SAFE + '?')}"
